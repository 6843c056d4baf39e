"""Sample responses of a real policy, label them by gold facts, and measure the offline judge's agreement.

    python benchmarks/policy_responses.py --model HuggingFaceTB/SmolLM2-135M-Instruct --items items.jsonl
    python benchmarks/policy_responses.py --items items.jsonl     # the offline judge on items that exist
    longreward reward-bench --items items.jsonl --preset laptop   # any judge, with ablations and baselines

Samples 8 responses to each question at the temperatures 0.7 and 1.0 (13 questions: 208 responses) with the prompt
template of the preset smollm2-135m. `--corpus` is a folder with `corpus.jsonl` and `gold.jsonl`: of the built-in
corpus, or of the natural one (`python -m longreward.builtin.natural_corpus --out FOLDER`). The label of a response is
the recall of the asked facts minus the share of its claims that the document does not support; one without any claim
has -1. Questions whose responses all have the same label are not written: there is nothing to compare.

Prints how many pairs of responses with different labels the offline judge orders correctly, how often the response with
the highest reward is better and how often it is worse by the facts than that with the lowest one, the mean scores of
responses with and without a correct fact, and how often the response with the highest reward has no correct fact
although another one has.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from common import argument_parser

from longreward import LongReward
from longreward.builtin.corpus import read_gold
from longreward.builtin.gold import GoldMeasures, measure_against_gold
from longreward.builtin.natural_corpus import is_natural_gold, read_natural_gold
from longreward.builtin.natural_gold import measure_natural
from longreward.data.formats import read_examples
from longreward.evaluation.measures import gold_reward
from longreward.models.policy import Policy, load_policy
from longreward.models.sampling import SampleConfig, sample
from longreward.params import preset_path, read_params
from longreward.records import DIMENSIONS, Example, ScoredResponse
from longreward.reward_bench.item_files import read_item_files
from longreward.reward_bench.items import Item, to_records, write_items

SAMPLES, TEMPERATURES = 8, (0.7, 1.0)
Measure = Callable[[int, str], GoldMeasures]
"""The gold measures of a response to the question with this idx."""


class JudgedResponse(NamedTuple):
    """A response with its gold measures and its scores."""

    text: str
    label: float
    gold: GoldMeasures
    reward: float | None
    scored: ScoredResponse


def main() -> None:
    """Write the items and print the agreement of the offline judge."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", help="a folder, GGUF file or hub id; without it, the items must exist")
    parser.add_argument("--items", type=Path, required=True, help="file of labelled items to write, or to read")
    parser.add_argument("--corpus", type=Path, default=Path("data/raw/builtin"))
    parser.add_argument("--questions", type=int, default=13)
    options = parser.parse_args()
    params = read_params(preset_path("smollm2-135m"))
    measure, reward = open_measure(options.corpus / "gold.jsonl"), LongReward(config=params.score)
    if options.model:
        policy = load_policy(params.policy.model_copy(update={"base_model": options.model}), options.model)
        examples = list(read_examples(options.corpus / "corpus.jsonl"))
        examples = examples[:: len(examples) // options.questions][: options.questions]
        items = [item for t in TEMPERATURES for item in sample_items(policy, examples, t, measure)]
        comparable = [item for item in items if len(set(item.labels)) > 1]
        print(f"{write_items(options.items, comparable)} of {len(items)} items have different labels: {options.items}")
    else:
        items = read_item_files([str(options.items)]).items
    print_agreement([judge_item(item, reward, measure) for item in items])


def open_measure(gold: Path) -> Measure:
    """Return the measure that suits a file of gold facts."""
    if is_natural_gold(gold):
        natural = read_natural_gold(gold)
        return lambda idx, text: measure_natural(text, natural[idx])
    rows = read_gold(gold)
    return lambda idx, text: measure_against_gold(text, rows[idx])


def sample_items(policy: Policy, examples: Sequence[Example], temperature: float, measure: Measure) -> Iterator[Item]:
    """Yield the responses to each example with their labels."""
    config = SampleConfig(n=SAMPLES, temperature=temperature, max_new_tokens=64, prompts_per_batch=4)
    for example, responses in zip(examples, sample(policy, examples, config), strict=True):
        measures = [measure(int(example.id), response.text) for response in responses]
        yield Item(
            id=f"{example.id}-{temperature:g}",
            context=example.context,
            query=example.query,
            responses=tuple(response.text for response in responses),
            labels=tuple(m.recall - m.unsupported for m in measures),
            group=f"temperature {temperature:g}",
            document=example.document_id,
        )


def judge_item(item: Item, reward: LongReward, measure: Measure) -> list[JudgedResponse]:
    """Score the responses of an item with the offline judge."""
    idx = int(item.id.partition("-")[0])
    scored = reward.score_responses(*to_records(item)).responses
    return [
        JudgedResponse(text, label, measure(idx, text), response.reward, response)
        for text, label, response in zip(item.responses, item.labels, scored, strict=True)
    ]


def print_agreement(judged: Sequence[Sequence[JudgedResponse]]) -> None:
    """Print pairwise accuracy, mean scores, and the winners without a correct fact."""
    outcomes = [
        0.5 if a.reward == b.reward else float((a.reward > b.reward) == (a.label > b.label))
        for item in judged
        for a, b in itertools.combinations(item, 2)
        if a.label != b.label and a.reward is not None and b.reward is not None
    ]
    if outcomes:
        print(f"pairwise accuracy: {fmean(outcomes):.2f} of {len(outcomes)} pairs; ties count half")
    differences = [extremes_difference(item) for item in judged]
    right, wrong = (sum(sign * difference > 0 for difference in differences) for sign in (1, -1))
    print(f"best against worst by the reward: {right} right and {wrong} wrong by the facts, of {len(judged)} items")
    responses = [response for item in judged for response in item]
    for name, with_fact in (("with a correct fact", True), ("without", False)):
        group = [response for response in responses if (response.gold.recall > 0) == with_fact]
        if group:
            unscored = sum(response.reward is None for response in group)
            print(f"{len(group)} responses {name}, {unscored} unscored: {mean_scores(group)}")
    useful = [item for item in judged if any(response.gold.recall > 0 for response in item)]
    winners = [max(item, key=lambda response: response.reward or 0.0) for item in useful]
    empty = [winner for winner in winners if winner.gold.recall == 0]
    print(f"{len(empty)} of {len(useful)} questions with a correct fact in some response are won by one without:")
    for winner in empty[:5]:
        print(f"  {winner.reward} ({mean_scores([winner])}): {winner.text[:160]!r}")


def extremes_difference(item: Sequence[JudgedResponse]) -> float:
    """Return how much better the response with the highest reward is than that with the lowest, by the facts."""
    scored = [response for response in item if response.reward is not None]
    if not scored:
        return 0.0
    best = max(scored, key=lambda response: response.reward or 0.0)
    worst = min(reversed(scored), key=lambda response: response.reward or 0.0)
    if best.reward == worst.reward:
        return 0.0
    better, worse = (
        gold_reward({"recall": response.gold.recall, "unsupported": response.gold.unsupported})
        for response in (best, worst)
    )
    return better - worse


def mean_scores(group: Sequence[JudgedResponse]) -> str:
    """Return the mean of each dimension over the responses that are scored in it."""
    scores = {d: [r.scored.verdicts[d].score for r in group if d in r.scored.verdicts] for d in DIMENSIONS}
    known = {d: [score for score in values if score is not None] for d, values in scores.items()}
    return ", ".join(f"{d} {fmean(values):.1f}" for d, values in known.items() if values)


if __name__ == "__main__":
    main()
