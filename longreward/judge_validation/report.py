"""The report of a judge check: its record, its failures against the thresholds, and its Markdown."""

from collections.abc import Mapping

from longreward.judge.config import CheckConfig
from longreward.records import DIMENSIONS, Dimension, Record


class Repeatability(Record):
    """Repeated verdicts that did not come from the ledger; shares of verdicts, and points on the scale of 10."""

    verdicts: int
    repeats: int
    within_a_point: float
    """Share of verdicts that were scored every time, with scores that differ by at most 1 point."""
    equal: float
    """Share of verdicts with the same score every time."""
    spread: float
    """Mean difference of the highest and the lowest score, in points."""


class Rank(Record):
    """How often the right answer scores higher than one kind of damaged answer in one dimension; ties count half."""

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
    """Mean scores of the bad answer without and with one attack, by dimension (None: no score)."""

    name: str
    plain: dict[Dimension, float | None]
    attacked: dict[Dimension, float | None]

    @property
    def gains(self) -> Mapping[Dimension, float]:
        """Points gained in each dimension in which both have a score."""
        return {
            dimension: attacked - plain
            for dimension, plain in self.plain.items()
            if plain is not None and (attacked := self.attacked.get(dimension)) is not None
        }

    @property
    def gain(self) -> float:
        """The largest gain; 0 if there is none to measure."""
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
        """Return the share over all kinds of damage that this dimension must detect."""
        ranks = [rank for rank in self.ranks if rank.dimension == dimension and rank.share is not None]
        compared = sum(rank.compared for rank in ranks)
        return sum((rank.share or 0.0) * rank.compared for rank in ranks) / compared if compared else None

    def failures(self, config: CheckConfig) -> list[str]:
        """Return one sentence per threshold that is not reached; empty if the judge passes."""
        failures = []
        if self.repeats.within_a_point < config.min_repeat:
            failures.append(
                f"repeated, only {self.repeats.within_a_point:.2f} of its verdicts stay within a point "
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
        if len(attacks) > config.max_failed_probes:
            gains = ", ".join(f"{attack.name} ({attack.gain:+.1f})" for attack in attacks)
            failures.append(
                f"{len(attacks)} of {len(self.attacks)} attacks raise a bad answer by over {config.margin:g} points "
                f"(judge.check.max_failed_probes: {config.max_failed_probes}): {gains}"
            )
        return failures

    def successful_attacks(self, config: CheckConfig) -> list[Attack]:
        """Return the attacks that raise a bad answer by more than the margin in a dimension."""
        return [attack for attack in self.attacks if attack.gain > config.margin]

    def metrics(self, config: CheckConfig) -> dict[str, float]:
        """Return the report as metrics."""
        shares = {f"judge_check/rank/{d}": share for d in DIMENSIONS if (share := self.rank_share(d)) is not None}
        return {
            "judge_check/repeat": self.repeats.within_a_point,
            "judge_check/attacks_failed": float(len(self.successful_attacks(config))),
            "judge_check/worst_gain": max((attack.gain for attack in self.attacks), default=0.0),
            "judge_check/calls": float(self.calls),
            "judge_check/tokens": float(self.prompt_tokens + self.completion_tokens),
            **shares,
        }


def render_markdown(report: CheckReport, config: CheckConfig) -> str:
    """Render the report: the verdict first, then the three parts."""
    failures = report.failures(config)
    tokens = report.prompt_tokens + report.completion_tokens
    repeats = report.repeats
    lines = [
        f"# {report.judge}: {'did not pass' if failures else 'passed'} the {'quick ' if report.quick else ''}check",
        "",
        *([f"- {failure}" for failure in failures] or ["Everything reaches its threshold."]),
        "",
        f"{report.calls} calls, {tokens:,} tokens, prompts {report.prompts[:12]}.",
        "",
        "## Repeated requests",
        "",
        f"{repeats.verdicts} verdicts, {repeats.repeats} times each: {repeats.within_a_point:.2f} stay within 1 point, "
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
