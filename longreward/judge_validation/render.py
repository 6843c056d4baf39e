"""A report as Markdown, which reads as well on a screen as in MLflow."""

from collections.abc import Iterable, Iterator

from longreward.judge.config import CheckConfig
from longreward.judge_validation.report import Attack, CheckReport, Rank
from longreward.records import DIMENSIONS, Dimension


def markdown(report: CheckReport, config: CheckConfig) -> str:
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
