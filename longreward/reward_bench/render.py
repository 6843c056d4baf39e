"""Render a benchmark result as Markdown, which is also readable on a terminal, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from longreward.evaluation.statistics import Estimate
from longreward.reward_bench.agreement import ALL_GROUPS, METRICS, Agreement
from longreward.reward_bench.bench import BenchResult

HEADERS = {
    "accuracy": "pairs: accuracy",
    "best_of_n": "lists: best of n",
    "pairwise": "all pairs in order",
    "spearman": "Spearman",
}


def as_json(result: BenchResult) -> dict[str, Any]:
    """Return everything as plain data, with one object for each reward and group."""
    return asdict(result)


def render_markdown(result: BenchResult) -> str:
    """Render a table of all metrics over all items, then one of pairwise accuracy by group."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: BenchResult) -> Iterator[str]:
    model = f", reward model {result.srm}" if result.srm else ""
    yield f"# {result.items} labelled items: judge {result.judge}{model}"
    overall = [agreement for agreement in result.agreements if agreement.group == ALL_GROUPS]
    columns = [name for name in METRICS if any(agreement.estimates[name] for agreement in overall)]
    yield ""
    yield f"| reward | {' | '.join(HEADERS[name] for name in columns)} | unscored |"
    yield f"|---|{'---|' * len(columns)}---|"
    for agreement in overall:
        cells = " | ".join(_with_interval(agreement.estimates[name]) for name in columns)
        yield f"| {agreement.reward} | {cells} | {agreement.unscored} of {agreement.items} |"
    if len({agreement.unscored for agreement in overall}) > 1:
        yield ""
        yield "Each row leaves out the items that its reward leaves unscored: the rows are not over the same items."
    yield from _group_table(result.agreements, [agreement.reward for agreement in overall])
    yield ""
    if result.comparisons:
        yield (
            f"Pairwise judging: of {result.comparisons} comparisons {result.undecided} are undecided (the two orders "
            "disagree, or neither is better) and count half."
        )
    judge = result.judge_metrics
    tokens = judge["prompt_tokens"] + judge["completion_tokens"]
    yield f"Judge: {judge['calls']:,.0f} calls, {judge['ledger_hits']:,.0f} from the ledger, {tokens:,.0f} tokens."


def _group_table(agreements: Sequence[Agreement], rewards: list[str]) -> Iterator[str]:
    """Yield one row a group, one column a reward; nothing without groups."""
    groups = list(dict.fromkeys(agreement.group for agreement in agreements if agreement.group != ALL_GROUPS))
    if not groups:
        return
    by_key = {(agreement.reward, agreement.group): agreement for agreement in agreements}
    yield ""
    yield "Share of pairs in order (a tie counts half), by group:"
    yield ""
    yield f"| group | items | {' | '.join(rewards)} |"
    yield f"|---|---|{'---|' * len(rewards)}"
    for group in groups:
        cells = " | ".join(_pairwise_cell(by_key[reward, group]) for reward in rewards)
        # A group comes from a file and may hold a line break or a cell separator.
        name = " ".join(group.replace("|", "\\|").split())
        yield f"| {name} | {by_key[rewards[0], group].items} | {cells} |"


def _pairwise_cell(agreement: Agreement) -> str:
    value = "–" if agreement.pairwise is None else f"{agreement.pairwise.value:.2f}"
    return f"{value} ({agreement.unscored} unscored)" if agreement.unscored else value


def _with_interval(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.2f} ({estimate.low:.2f} – {estimate.high:.2f})"
