"""How well a distilled reward model predicts the judge's scores on held-out documents, and gold facts if there are any.

    pairs      share of pairs of responses to one prompt in the order of the labels; a tie counts half
    within     Spearman correlation of the responses to one prompt (three or more), mean over prompts
    overall    Spearman correlation of all responses, whatever their prompt

Intervals resample documents. The labels are the judge's weighted scores, or what the gold facts say; for these, the
judge's scores are a row too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from longreward.evaluation.measures import GoldMeasures, gold_reward
from longreward.evaluation.statistics import Estimate, IntervalOptions
from longreward.reward_bench.agreement import Rewards, compute_agreements, spearman
from longreward.reward_bench.items import Item
from longreward.reward_bench.rewards import LENGTH, REWARD_MODEL, length_rewards
from longreward.training.score_pairs import ScoredPrompt

if TYPE_CHECKING:
    import numpy as np

    from longreward.reward.reward_model import RankedResponses

JUDGE = "judge"
HEADERS = {"pairs": "pairs in order", "within": "Spearman within a prompt", "overall": "Spearman overall"}


@dataclass(frozen=True)
class HeldoutAgreement:
    """The agreement of one reward with one kind of labels; None where no prompt allows a metric."""

    reward: str
    labels: str
    pairs: Estimate | None
    within: Estimate | None
    overall: Estimate | None
    unscored: int
    """Responses without a reward."""

    @property
    def estimates(self) -> dict[str, Estimate | None]:
        """The metrics by name."""
        return {name: getattr(self, name) for name in HEADERS}

    def metrics(self) -> dict[str, float]:
        """Return the metrics with their intervals, under names such as `judge/length_only/pairs_low`."""
        prefix = f"{self.labels}/{self.reward}/".replace(" ", "_")
        values: dict[str, float] = {f"{prefix}unscored": self.unscored}
        for name, estimate in self.estimates.items():
            if estimate is not None:
                limits = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
                values |= {f"{prefix}{name}{suffix}": value for suffix, value in limits.items()}
        return values


def measure_heldout(
    prompts: Sequence[ScoredPrompt],
    ranked: Sequence["RankedResponses"],
    *,
    gold: GoldMeasures | None,
    intervals: IntervalOptions,
) -> list[HeldoutAgreement]:
    """Return the agreement of the reward model, and of the length alone, with the judge and then with the gold facts.

    `ranked` are the rewards of the prompts' responses, in the same order. Scores that are not known exactly are no
    labels. Prompts whose labels are all equal are left out.
    """
    rewards: dict[str, list[Rewards]] = {
        REWARD_MODEL: [[reward.reward for reward in ranking.rewards] for ranking in ranked],
        JUDGE: [[low if low == high else None for low, high in prompt.bounds] for prompt in prompts],
    }
    agreements = _agreements(JUDGE, prompts, rewards[JUDGE], {REWARD_MODEL: rewards[REWARD_MODEL]}, intervals)
    if gold is not None:
        labels = [
            [
                None if (measures := gold(prompt.example.id, response.text)) is None else gold_reward(measures)
                for response in prompt.responses
            ]
            for prompt in prompts
        ]
        agreements += _agreements("gold facts", prompts, labels, rewards, intervals)
    return agreements


def _agreements(
    name: str,
    prompts: Sequence[ScoredPrompt],
    labels: Sequence[Rewards],
    rewards: Mapping[str, Sequence[Rewards]],
    intervals: IntervalOptions,
) -> list[HeldoutAgreement]:
    """Return the agreement of each reward, and of the length alone, with the labels; none without labels."""
    items: list[Item] = []
    by_name: dict[str, list[Rewards]] = {reward: [] for reward in rewards}
    for number, (prompt, prompt_labels) in enumerate(zip(prompts, labels, strict=True)):
        known = [index for index, label in enumerate(prompt_labels) if label is not None]
        values = tuple(label for label in prompt_labels if label is not None)
        if len(set(values)) < 2:
            continue
        example = prompt.example
        texts = tuple(prompt.responses[index].text for index in known)
        items.append(Item(example.id, example.context, example.query, texts, values, document=example.document_id))
        for reward, of_prompts in rewards.items():
            by_name[reward].append([of_prompts[number][index] for index in known])
    if not items:
        return []
    by_name[LENGTH] = length_rewards(items)
    return [
        HeldoutAgreement(
            agreement.reward,
            name,
            agreement.pairwise,
            agreement.spearman,
            pooled_spearman(items, by_name[agreement.reward], intervals),
            unscored=sum(reward is None for values in by_name[agreement.reward] for reward in values),
        )
        for agreement in compute_agreements(items, by_name, intervals)
    ]


def pooled_spearman(items: Sequence[Item], rewards: Sequence[Rewards], intervals: IntervalOptions) -> Estimate | None:
    """Return the rank correlation of all labels and rewards; None with fewer than two rewards.

    The interval is a percentile bootstrap over documents: a correlation of all responses is no mean over documents.
    """
    import numpy as np

    by_document: dict[str, list[tuple[float, float]]] = {}
    for item, values in zip(items, rewards, strict=True):
        pairs = by_document.setdefault(item.document, [])
        pairs += [(label, value) for label, value in zip(item.labels, values, strict=True) if value is not None]
    documents = [np.array(pairs) for pairs in by_document.values() if pairs]
    if sum(map(len, documents)) < 2:
        return None
    rng = np.random.default_rng(intervals.seed)
    draws = [
        _correlation([documents[number] for number in rng.integers(len(documents), size=len(documents))])
        for _ in range(intervals.resamples)
    ]
    tail = (1 - intervals.confidence) / 2
    value = _correlation(documents)
    low, high = np.quantile(draws, (tail, 1 - tail))
    return Estimate(value, min(float(low), value), max(float(high), value), len(documents))


def _correlation(documents: "Sequence[np.ndarray]") -> float:
    import numpy as np

    labels, rewards = np.concatenate(documents).T
    return 0.0 if len(set(labels)) == 1 else spearman(labels.tolist(), rewards.tolist())


def render_heldout(agreements: Sequence[HeldoutAgreement]) -> str:
    """Render one table for each kind of labels, as Markdown."""
    lines: list[str] = []
    for labels in dict.fromkeys(agreement.labels for agreement in agreements):
        rows = [agreement for agreement in agreements if agreement.labels == labels]
        lines += [
            "",
            f"## Agreement with the {labels}",
            "",
            f"| reward | {' | '.join(HEADERS.values())} | unscored |",
            f"|---|{'---|' * len(HEADERS)}---|",
        ]
        lines += [
            f"| {row.reward} | {' | '.join(map(_with_interval, row.estimates.values()))} | {row.unscored} |"
            for row in rows
        ]
    return "\n".join(lines) + "\n"


def _with_interval(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def to_json(agreements: Sequence[HeldoutAgreement]) -> list[dict[str, Any]]:
    """Return the agreements as plain data."""
    return [asdict(agreement) for agreement in agreements]
