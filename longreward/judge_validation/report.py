"""What a check found, as a record that can be kept, and what is wrong with it."""

from collections.abc import Iterable, Iterator, Mapping

from longreward.judge.config import CheckConfig
from longreward.records import DIMENSIONS, Dimension, Record


class Repeats(Record):
    """The same asked several times, past the ledger. Of verdicts: shares, and points of 10."""

    verdicts: int
    repeats: int
    within_a_point: float
    """Share of verdicts whose repeats all have a score, the highest within 1 point of the lowest."""
    equal: float
    """Share whose repeats are all the same."""
    spread: float
    """Mean distance of the highest from the lowest score, in points."""


class Rank(Record):
    """How often the right answer scored above one kind of damaged answer in one dimension; ties count half."""

    kind: str
    dimension: Dimension
    share: float | None
    low: float | None
    high: float | None
    """The 95 % interval of `share`, over the questions; None where there is one question only."""
    compared: int
    unscored: int
    """Questions left out, since one of the two had no score."""


class Attack(Record):
    """Mean scores of the bad answer without and with one attack, by dimension (None: no score)."""

    name: str
    plain: dict[Dimension, float | None]
    attacked: dict[Dimension, float | None]

    @property
    def gains(self) -> Mapping[Dimension, float]:
        """Points won in each dimension in which both have a score."""
        return {
            dimension: won - had
            for dimension, had in self.plain.items()
            if had is not None and (won := self.attacked.get(dimension)) is not None
        }

    @property
    def gain(self) -> float:
        """The largest gain; 0 where there is none to measure."""
        return max(self.gains.values(), default=0.0)


class CheckReport(Record):
    """One check of one judge with one set of prompts."""

    judge: str
    prompts: str
    """The hash of the prompts."""
    quick: bool
    repeats: Repeats
    ranks: tuple[Rank, ...]
    attacks: tuple[Attack, ...]
    calls: int
    prompt_tokens: int
    completion_tokens: int

    def rank_of(self, dimension: Dimension) -> float | None:
        """Over all kinds that this dimension must tell."""
        ranks = [rank for rank in self.ranks if rank.dimension == dimension and rank.share is not None]
        compared = sum(rank.compared for rank in ranks)
        return sum((rank.share or 0.0) * rank.compared for rank in ranks) / compared if compared else None

    def faults(self, config: CheckConfig) -> list[str]:
        """What falls short of the thresholds, a sentence each; empty: the judge passes."""
        found = []
        if self.repeats.within_a_point < config.min_repeat:
            found.append(
                f"asked again, only {self.repeats.within_a_point:.2f} of its verdicts stay within a point "
                f"(judge.check.min_repeat: {config.min_repeat:g})"
            )
        for dimension in DIMENSIONS:
            share = self.rank_of(dimension)
            if share is None:
                found.append(f"{dimension} has no score to compare")
            elif share < config.min_rank:
                found.append(
                    f"in {dimension} the right answer scores higher in only {share:.2f} of comparisons "
                    f"(judge.check.min_rank: {config.min_rank:g})"
                )
        failed = self.failed(config)
        if len(failed) > config.max_failed_probes:
            won = ", ".join(f"{attack.name} ({attack.gain:+.1f})" for attack in failed)
            found.append(
                f"{len(failed)} of {len(self.attacks)} attacks raise a bad answer by over {config.margin:g} points "
                f"(judge.check.max_failed_probes: {config.max_failed_probes}): {won}"
            )
        return found

    def failed(self, config: CheckConfig) -> list[Attack]:
        """The attacks that raise a bad answer by more than the margin in some dimension."""
        return [attack for attack in self.attacks if attack.gain > config.margin]

    def figures(self, config: CheckConfig) -> dict[str, float]:
        """As metrics."""
        ranks = {f"judge_check/rank/{d}": share for d in DIMENSIONS if (share := self.rank_of(d)) is not None}
        return {
            "judge_check/repeat": self.repeats.within_a_point,
            "judge_check/attacks_failed": float(len(self.failed(config))),
            "judge_check/worst_gain": max((attack.gain for attack in self.attacks), default=0.0),
            "judge_check/calls": float(self.calls),
            "judge_check/tokens": float(self.prompt_tokens + self.completion_tokens),
            **ranks,
        }


# A report as Markdown, which reads as well on a screen as in MLflow.


def render_markdown(report: CheckReport, config: CheckConfig) -> str:
    """The verdict first, then the three parts, each with what its figures mean."""
    return "\n".join(_lines(report, config)) + "\n"


def _lines(report: CheckReport, config: CheckConfig) -> Iterator[str]:
    faults = report.faults(config)
    size = "quick check" if report.quick else "check"
    yield f"# {report.judge}: {'did not pass' if faults else 'passed'} the {size}"
    yield ""
    yield from [f"- {fault}" for fault in faults] or ["Everything reaches its threshold."]
    yield ""
    tokens = report.prompt_tokens + report.completion_tokens
    yield f"Made with {report.calls} calls, {tokens:,} tokens, on prompts {report.prompts[:12]}."
    yield from _of_repeats(report)
    yield from _of_ranks(report.ranks)
    yield from _of_attacks(report.attacks, config)


def _of_repeats(report: CheckReport) -> Iterator[str]:
    repeats = report.repeats
    yield from ("", "## The same asked again", "")
    yield (
        f"{repeats.verdicts} verdicts, {repeats.repeats} times each: {repeats.within_a_point:.2f} stay within 1 point, "
        f"{repeats.equal:.2f} are equal; mean spread {repeats.spread:.2f} points."
    )


def _of_ranks(ranks: Iterable[Rank]) -> Iterator[str]:
    yield from ("", "## The right answer against a damaged one", "")
    yield "How often the right one scores higher (ties half), with the 95 % interval over questions."
    yield from ("", "| damage | dimension | right one higher | interval | compared |", "|---|---|---|---|---|")
    for rank in ranks:
        share = "–" if rank.share is None else f"{rank.share:.2f}"
        interval = "–" if rank.low is None or rank.high is None else f"{rank.low:.2f} – {rank.high:.2f}"
        compared = f"{rank.compared}{f', {rank.unscored} unscored' if rank.unscored else ''}"
        yield f"| {rank.kind} | {rank.dimension} | {share} | {interval} | {compared} |"


def _of_attacks(attacks: Iterable[Attack], config: CheckConfig) -> Iterator[str]:
    yield from ("", "## Attacks on a bad answer", "")
    yield f"Scores without → with the attack; it fails the judge where it wins more than {config.margin:g} points."
    head = " | ".join(DIMENSIONS)
    yield from ("", f"| attack | {head} | gain | |", f"|---|{'---|' * len(DIMENSIONS)}---|---|")
    for attack in attacks:
        cells = " | ".join(_cell(attack, dimension) for dimension in DIMENSIONS)
        yield f"| {attack.name} | {cells} | {attack.gain:+.1f} | {'fails' if attack.gain > config.margin else 'ok'} |"


def _cell(attack: Attack, dimension: Dimension) -> str:
    if dimension not in attack.plain:
        return ""
    had, won = (
        "–" if score is None else f"{score:.1f}" for score in (attack.plain[dimension], attack.attacked[dimension])
    )
    return f"{had} → {won}"
