"""Render a benchmark result as Markdown, which is also readable on a terminal."""

from collections.abc import Mapping

from longreward.evaluation.statistics import Estimate
from longreward.reward_bench.agreement import ALL_GROUPS, METRICS, Agreement
from longreward.reward_bench.bench import BenchResult
from longreward.reward_bench.published_measures import Measures

HEADERS = {
    "accuracy": "pairs: accuracy",
    "best_of_n": "lists: best of n",
    "pairwise": "all pairs in order",
    "spearman": "Spearman",
}


def render_markdown(result: BenchResult) -> str:
    """Render the metrics over all items, the measures of public benchmarks, and pairwise accuracy by group."""
    overall = [agreement for agreement in result.agreements if agreement.group == ALL_GROUPS]
    columns = [name for name in METRICS if any(agreement.estimates[name] for agreement in overall)]
    scored_by = {"judge": result.judge, "reward model": result.reward_model}
    names = ", ".join(f"{kind} {name}" for kind, name in scored_by.items() if name)
    lines = [
        f"# {result.items} labelled items: {names or 'no judge and no reward model'}",
        "",
        f"| reward | {' | '.join(HEADERS[name] for name in columns)} | unscored |",
        f"|---|{'---|' * len(columns)}---|",
    ]
    for agreement in overall:
        cells = " | ".join(_with_interval(agreement.estimates[name]) for name in columns)
        lines.append(f"| {agreement.reward} | {cells} | {agreement.unscored} of {agreement.items} |")
    if len({agreement.unscored for agreement in overall}) > 1:
        lines += [
            "",
            "Each row leaves out the items that its reward leaves unscored: the rows are not over the same items.",
        ]

    if result.without_context and result.judge:
        lines += [
            "",
            f"{result.without_context} of {result.items} items have no context: they are scored by helpfulness and "
            "logicality only, and longreward is the mean of these two.",
        ]
    for benchmark, measures_by_reward in result.published.items():
        lines += ["", f"Measures of {benchmark}:", "", *_published_table(measures_by_reward)]

    rewards = [agreement.reward for agreement in overall]
    by_key = {(agreement.group, agreement.reward): agreement for agreement in result.agreements}
    groups = [group for group in dict.fromkeys(group for group, _ in by_key) if group != ALL_GROUPS]
    if groups:
        lines += ["", "Share of pairs in order (a tie counts half), by group:", ""]
        lines += [f"| group | items | {' | '.join(rewards)} |", f"|---|---|{'---|' * len(rewards)}"]
    for group in groups:
        cells = " | ".join(_pairwise_cell(by_key[group, reward]) for reward in rewards)
        # A group comes from a file and may hold a line break or a cell separator.
        name = " ".join(group.replace("|", "\\|").split())
        lines.append(f"| {name} | {by_key[group, rewards[0]].items} | {cells} |")

    lines.append("")
    if result.comparisons:
        lines.append(
            f"Pairwise judging: of {result.comparisons} comparisons {result.undecided} are undecided (the two orders "
            "disagree, or neither is better) and count half."
        )
    if judge := result.judge_metrics:
        tokens = judge["prompt_tokens"] + judge["completion_tokens"]
        lines.append(
            f"Judge: {judge['calls']:,.0f} calls, {judge['ledger_hits']:,.0f} from the ledger, {tokens:,.0f} tokens."
        )
    return "\n".join(lines) + "\n"


def _published_table(measures_by_reward: Mapping[str, Measures]) -> list[str]:
    names = list(dict.fromkeys(name for measures in measures_by_reward.values() for name in measures))
    rows = [f"| reward | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for reward, measures in measures_by_reward.items():
        cells = (f"{measures[name]:.3f}" if name in measures else "–" for name in names)
        rows.append(f"| {reward} | {' | '.join(cells)} |")
    return rows


def _pairwise_cell(agreement: Agreement) -> str:
    value = "–" if agreement.pairwise is None else f"{agreement.pairwise.value:.2f}"
    return f"{value} ({agreement.unscored} unscored)" if agreement.unscored else value


def _with_interval(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.2f} ({estimate.low:.2f} – {estimate.high:.2f})"
