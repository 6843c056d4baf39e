"""The report of a judge check: its records, the thresholds that it misses, and its Markdown."""

from collections.abc import Mapping

from longreward.judge.config import CheckConfig
from longreward.records import DIMENSIONS, Dimension, Record


class Repeatability(Record):
    """How stable verdicts are when requests are repeated without the ledger."""

    verdicts: int
    repeats: int
    within_one_point: float
    """Share of verdicts that were scored every time, with scores that differ by at most 1 point."""
    equal: float
    """Share of verdicts with the same score every time."""
    spread: float
    """Mean difference between the highest and the lowest score, in points on the scale of 10."""


class Rank(Record):
    """Share of questions in which the right answer scores above one kind of damaged answer in one dimension.

    Ties count half.
    """

    kind: str
    dimension: Dimension
    share: float | None
    low: float | None
    high: float | None
    """The 95 % interval of `share` over questions; None for a single question."""
    compared: int
    unscored: int
    """Questions left out because one of the two answers has no score."""


class Attack(Record):
    """Mean scores of the bad answer without (`plain`) and with one attack, by dimension; None if there is no score."""

    name: str
    plain: dict[Dimension, float | None]
    attacked: dict[Dimension, float | None]

    @property
    def gains(self) -> Mapping[Dimension, float]:
        """Return the points gained in each dimension in which both answers have a score."""
        return {
            dimension: attacked - plain
            for dimension, plain in self.plain.items()
            if plain is not None and (attacked := self.attacked.get(dimension)) is not None
        }

    @property
    def gain(self) -> float:
        """Return the largest gain over the dimensions, 0 without scores.

        The maximum, not the mean: one manipulated dimension is enough to change which response is chosen.
        """
        return max(self.gains.values(), default=0.0)


class CheckReport(Record):
    """One check of one judge with one set of prompts."""

    judge: str
    prompts: str
    """Hash of the prompts."""
    quick: bool
    repeats: Repeatability
    ranks: tuple[Rank, ...]
    attacks: tuple[Attack, ...]
    calls: int
    prompt_tokens: int
    completion_tokens: int

    def rank_share(self, dimension: Dimension) -> float | None:
        """Return the share of comparisons over all kinds of damage that this dimension must detect."""
        # Weighted by comparisons, since questions without a score are left out.
        ranks = [rank for rank in self.ranks if rank.dimension == dimension and rank.share is not None]
        compared = sum(rank.compared for rank in ranks)
        return sum((rank.share or 0.0) * rank.compared for rank in ranks) / compared if compared else None

    def failures(self, config: CheckConfig) -> list[str]:
        """Return one sentence per threshold that is not reached; empty if the judge passes."""
        failures = []
        if self.repeats.within_one_point < config.min_repeat:
            failures.append(
                f"only {self.repeats.within_one_point:.2f} of repeated verdicts stay within 1 point "
                f"(judge.check.min_repeat: {config.min_repeat:g})"
            )
        for dimension in DIMENSIONS:
            share = self.rank_share(dimension)
            if share is None:
                failures.append(f"{dimension} has no score to compare")
            elif share < config.min_rank:
                failures.append(
                    f"in {dimension} the right answer scores higher in only {share:.2f} of comparisons "
                    f"(judge.check.min_rank: {config.min_rank:g})"
                )
        attacks = self.successful_attacks(config)
        if len(attacks) > config.max_successful_attacks:
            gains = ", ".join(f"{attack.name} ({attack.gain:+.1f})" for attack in attacks)
            failures.append(
                f"{len(attacks)} of {len(self.attacks)} attacks raise a bad answer by over {config.margin:g} points "
                f"(judge.check.max_successful_attacks: {config.max_successful_attacks}): {gains}"
            )
        return failures

    def successful_attacks(self, config: CheckConfig) -> list[Attack]:
        """Return the attacks that raise a bad answer by more than the margin in a dimension."""
        return [attack for attack in self.attacks if attack.gain > config.margin]

    def metrics(self, config: CheckConfig) -> dict[str, float]:
        """Return the report as metrics."""
        shares = {f"judge_check/rank/{d}": share for d in DIMENSIONS if (share := self.rank_share(d)) is not None}
        return {
            "judge_check/repeat": self.repeats.within_one_point,
            "judge_check/successful_attacks": float(len(self.successful_attacks(config))),
            "judge_check/worst_gain": max((attack.gain for attack in self.attacks), default=0.0),
            "judge_check/calls": float(self.calls),
            "judge_check/tokens": float(self.prompt_tokens + self.completion_tokens),
            **shares,
        }


def render_markdown(report: CheckReport, config: CheckConfig) -> str:
    """Render the result and the failures, then one section for each part of the check."""
    failures = report.failures(config)
    tokens = report.prompt_tokens + report.completion_tokens
    repeats = report.repeats
    stable = f"{repeats.within_one_point:.2f} stay within 1 point"
    lines = [
        f"# {report.judge}: {'did not pass' if failures else 'passed'} the {'quick ' if report.quick else ''}check",
        "",
        *([f"- {failure}" for failure in failures] or ["All thresholds are reached."]),
        "",
        f"{report.calls} calls, {tokens:,} tokens, prompts {report.prompts[:12]}.",
        "",
        "## Repeated requests",
        "",
        f"{repeats.verdicts} verdicts, {repeats.repeats} times each: {stable}, "
        f"{repeats.equal:.2f} are equal; mean spread {repeats.spread:.2f} points.",
        "",
        "## The right answer against a damaged one",
        "",
        "How often the right one scores higher (ties count half), with the 95 % interval over questions.",
        "",
        "| damage | dimension | right one higher | interval | compared |",
        "|---|---|---|---|---|",
    ]
    for rank in report.ranks:
        share = "–" if rank.share is None else f"{rank.share:.2f}"
        interval = "–" if rank.low is None or rank.high is None else f"{rank.low:.2f} – {rank.high:.2f}"
        compared = f"{rank.compared}{f', {rank.unscored} unscored' if rank.unscored else ''}"
        lines.append(f"| {rank.kind} | {rank.dimension} | {share} | {interval} | {compared} |")
    lines += [
        "",
        "## Attacks on a bad answer",
        "",
        f"Scores without → with the attack. The judge fails if it gains more than {config.margin:g} points.",
        "",
        f"| attack | {' | '.join(DIMENSIONS)} | gain | |",
        f"|---|{'---|' * len(DIMENSIONS)}---|---|",
    ]
    for attack in report.attacks:
        cells = []
        for dimension in DIMENSIONS:
            scores = [scores[dimension] for scores in (attack.plain, attack.attacked) if dimension in scores]
            cells.append(" → ".join("–" if score is None else f"{score:.1f}" for score in scores))
        result = "fails" if attack.gain > config.margin else "ok"
        lines.append(f"| {attack.name} | {' | '.join(cells)} | {attack.gain:+.1f} | {result} |")
    return "\n".join(lines) + "\n"
