"""What was measured as Markdown, which reads as well on a screen, and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from longreward.evaluation.statistics import Estimate
from longreward.reward_bench.agreement import ALL, FIGURES, Agreement
from longreward.reward_bench.bench import BenchResult


def render_markdown(bench: BenchResult) -> str:
    """The table over all items, then by group the share of pairs that each reward puts in order."""
    return "\n".join(_lines(bench)) + "\n"


def as_json(bench: BenchResult) -> dict[str, Any]:
    """Everything, an object for each reward and group."""
    return asdict(bench)


def _lines(bench: BenchResult) -> Iterator[str]:
    model = f", reward model {bench.srm}" if bench.srm else ""
    yield f"# {bench.items} labelled items: judge {bench.judge}{model}"
    whole = [each for each in bench.agreements if each.group == ALL]
    shown = [name for name in FIGURES if any(each.figures[name] for each in whole)]
    yield ""
    yield f"| reward | {' | '.join(HEADS[name] for name in shown)} | unscored |"
    yield f"|---|{'---|' * len(shown)}---|"
    for each in whole:
        cells = " | ".join(_with_interval(each.figures[name]) for name in shown)
        yield f"| {each.reward} | {cells} | {each.unscored} of {each.items} |"
    if len({each.unscored for each in whole}) > 1:
        yield ""
        yield "A reward's figures leave out what it leaves unscored: the rows are not over the same items."
    yield from _by_group(bench.agreements, [each.reward for each in whole])
    yield ""
    if bench.comparisons:
        yield (
            f"Pairwise judging: of {bench.comparisons} comparisons {bench.undecided} are undecided (the two orders "
            "disagree, or neither is better) and count half."
        )
    asked = bench.asked
    tokens = asked["prompt_tokens"] + asked["completion_tokens"]
    yield f"Judge: {asked['calls']:,.0f} calls, {asked['ledger_hits']:,.0f} from the ledger, {tokens:,.0f} tokens."


def _by_group(agreements: tuple[Agreement, ...], rewards: list[str]) -> Iterator[str]:
    """A line a group, a column a reward."""
    groups = list(dict.fromkeys(each.group for each in agreements if each.group != ALL))
    if not groups:
        return
    of = {(each.reward, each.group): each for each in agreements}
    yield ""
    yield "Share of pairs in order (a tie counts half), by group:"
    yield ""
    yield f"| group | items | {' | '.join(rewards)} |"
    yield f"|---|---|{'---|' * len(rewards)}"
    for group in groups:
        cells = " | ".join(_in_order(of[reward, group]) for reward in rewards)
        shown = " ".join(group.replace("|", "\\|").split())
        yield f"| {shown} | {of[rewards[0], group].items} | {cells} |"


def _in_order(each: Agreement) -> str:
    unscored = f" ({each.unscored} unscored)" if each.unscored else ""
    return f"{'–' if each.pairwise is None else f'{each.pairwise.value:.2f}'}{unscored}"


def _with_interval(figure: Estimate | None) -> str:
    return "–" if figure is None else f"{figure.value:.2f} ({figure.low:.2f} – {figure.high:.2f})"


HEADS = {
    "accuracy": "pairs: accuracy",
    "best_of_n": "lists: best of n",
    "pairwise": "all pairs in order",
    "spearman": "Spearman",
}
