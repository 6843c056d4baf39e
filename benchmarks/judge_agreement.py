"""Agreement of each method with labels against the judge's tokens per response: a table, a JSON file and a figure.

    python benchmarks/judge_agreement.py --out agreement
    python benchmarks/judge_agreement.py --out agreement -S judge.kind=http -S judge.base_url=http://localhost:8000/v1 \
        -S judge.model=my-judge -S score.no_statements=zero

The items are built-in ones spread over all groups, half with damaged answers and half with faults that word overlap
does not reveal, or those of `--items`. Each method picks the response with the highest and the one with the lowest
reward, as pair selection does. An item counts 1 if the label of the first is higher, 0 if it is lower, and 0.5 if both
are equal or a response is unscored; a tie counts as the mean of all its picks. Intervals are 95 % and resample
documents.

Methods: the full reward; `score.strategy: adaptive` (at risk 0, the only one that it has); several statements per
request (with `--statements-per-call N`); each dimension alone; the tournament of pairwise comparisons; a panel (with
`-S judge.panel=[…]`; its first judge alone is used by all other methods); reward models (with `--reward-model`); and
length. Each is charged for all requests that it would send alone, for each item and with repeated ones. The ledger in
`--out` answers requests that several methods or items share; run the same command again to continue. Tokens are those
that the server reports, else estimated from the texts. A reward model takes none of the judge's tokens.
"""

import argparse
import asyncio
import json
import math
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, permutations
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from common import argument_parser

from longreward.chat_model import ChatRequest, TokenUsage, estimate_tokens
from longreward.evaluation.statistics import Estimate, IntervalOptions, mean
from longreward.flows.cli.options import add_settings_arguments, integer_between, load_settings
from longreward.judge import Judge, JudgeConfig, ParsedReply, open_judge
from longreward.judge.budget import Budget
from longreward.judge.cached_client import CachedJudgeClient
from longreward.judge.prompt_manifest import DIMENSION_TEMPLATES
from longreward.judge.truncation import TruncatedParser
from longreward.judge.usage import Usage
from longreward.pairs.config import SelectionConfig
from longreward.pairs.pairwise import PairwiseConfig, pairwise_pair
from longreward.params import Params
from longreward.records import DIMENSIONS, PreferencePair, ScoredResponse
from longreward.reward import Scorer, open_scorer
from longreward.reward_bench.agreement import SHARE_BOUNDS, Rewards
from longreward.reward_bench.bench import full_scoring
from longreward.reward_bench.builtin_items import CASES, damaged_lists, damaged_pairs, hard_lists, hard_pairs
from longreward.reward_bench.item_files import limit_items, read_item_files
from longreward.reward_bench.items import Item, to_records
from longreward.reward_bench.rewards import (
    MAX_ITEMS_IN_FLIGHT,
    LabelledItemScorer,
    length_rewards,
    open_reward_model,
    rewards_by_variant,
    score_with_reward_model,
)
from longreward.utils.concurrency import gather

T = TypeVar("T")

ITEMS = 100
UsageByTemplate = defaultdict[str, Usage]


@dataclass(frozen=True)
class Method:
    """A method's agreement with the labels, and what it costs alone."""

    name: str
    agreement: Estimate
    unscored: int
    """Items with a response that has no reward."""
    usage: Usage
    """Of all responses."""
    requests_per_response: float
    tokens_per_response: float
    """Prompt and completion tokens."""


class MeteredJudge(Judge):
    """An open judge that adds up the usage of one item's distinct requests, also of those that the ledger answers."""

    def __init__(self, judge: Judge) -> None:
        vars(self).update(vars(judge))  # the same clients and ledger, which the caller closes
        self.usages: dict[tuple[str, str, str], Usage] = {}
        """By judge, template and text of the request."""

    async def _query(
        self,
        client: CachedJudgeClient,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        parse_truncated: TruncatedParser[T] | None,
    ) -> ParsedReply[T]:
        reply = await super()._query(client, request, parse, parse_truncated)
        tokens = reply.usage
        if not tokens.prompt_tokens:
            prompt = reply.attempts * estimate_tokens(request.prompt_text())
            tokens = TokenUsage(prompt, reply.attempts * estimate_tokens(reply.text))
        usage = Usage(reply.attempts, tokens.prompt_tokens, tokens.completion_tokens)
        self.usages[client.name, request.template, request.text] = usage
        return reply


def main() -> None:
    """Measure all methods, print the table, and write all files."""
    parser = argument_parser(__doc__)
    parser.add_argument("--items", nargs="+", default=[], metavar="FILE", help="as for `longreward reward-bench`")
    parser.add_argument("--items-limit", type=integer_between(1), default=ITEMS, metavar="N", help="default: 100")
    parser.add_argument(
        "--statements-per-call", type=integer_between(2), action="append", default=[], metavar="N", help="repeatable"
    )
    parser.add_argument("--no-pairwise", action="store_true", help="skip the tournament of pairwise comparisons")
    parser.add_argument(
        "--reward-model",
        action="append",
        default=[],
        metavar="[NAME=]MODEL",
        help="as for `longreward reward-bench`, with the name of its row (default: the folder's); '' for pair.srm; "
        "repeatable",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results and of the ledger")
    add_settings_arguments(parser, default="the paper's settings")
    options = parser.parse_args()
    params = load_settings(options, default=None)
    if options.items:
        items = limit_items(read_item_files(options.items).items, options.items_limit)
    else:
        items = builtin_sample(options.items_limit)
    options.out.mkdir(parents=True, exist_ok=True)
    ledger = options.out / "ledger.sqlite"
    methods = asyncio.run(
        measure_judge(params, items, ledger, options.statements_per_call, pairwise=not options.no_pairwise)
    )
    for named_model in options.reward_model:
        name, _, path = named_model.rpartition("=")
        model = open_reward_model(params.pair.srm, path, state=options.out)
        scores = score_with_reward_model(model, items)
        row = name or f"reward model {Path(scores.model).name}"
        methods.append(make_method(row, items, scores.rewards, Usage()))
    methods.append(make_method("length only", items, length_rewards(items), Usage()))
    write_results(options, params.judge, items, methods)


def builtin_sample(count: int) -> list[Item]:
    """Return items of all groups, half of them with damaged answers, half with hard faults."""
    damaged = sample_groups([*damaged_pairs(CASES), *damaged_lists(CASES)], count // 2)
    return damaged + sample_groups([*hard_pairs(CASES), *hard_lists(CASES)], count - count // 2)


def sample_groups(items: Sequence[Item], count: int) -> list[Item]:
    """Return `count` items, equally many of each group, about as many different documents as possible."""
    groups: defaultdict[str, deque[Item]] = defaultdict(deque)
    for item in items:
        groups[item.group].append(item)
    # The groups are about the same documents, in the same order.
    for number, group in enumerate(groups.values()):
        group.rotate(-number * math.ceil(count / len(groups)))
    return [item for row in zip(*groups.values(), strict=False) for item in row][:count]


async def measure_judge(
    params: Params, items: Sequence[Item], ledger: Path, statements_per_call: Sequence[int], *, pairwise: bool
) -> list[Method]:
    """Measure the methods that query the judge."""
    methods: list[Method] = []
    config = full_scoring(params.score)
    with Budget(params.score.budget, params.prices) as budget:
        async with open_judge(without_panel(params.judge), ledger=ledger, budget=budget) as judge:
            async with LabelledItemScorer(config, ledger=ledger) as scorer:
                scored, usage = await score_metered(judge, scorer, items)
            rewards = rewards_by_variant(items, scored)
            methods.append(make_method("full", items, rewards["longreward"], total(usage)))
            for count in statements_per_call:
                grouped = config.model_copy(update={"statements_per_call": count})
                async with LabelledItemScorer(grouped, ledger=ledger) as scorer:
                    scored, grouped_usage = await score_metered(judge, scorer, items)
                grouped_rewards = rewards_by_variant(items, scored)
                own_usage = {template: grouped_usage[template] for template in DIMENSION_TEMPLATES["faithfulness"]}
                for name, variant, used in (
                    ("full", "longreward", grouped_usage),
                    ("faithfulness only", "faithfulness only", own_usage),
                ):
                    name += f", {count} statements per call"
                    methods.append(make_method(name, items, grouped_rewards[variant], total(used)))
            if all(item.context for item in items):
                adaptive = config.model_copy(update={"strategy": "adaptive"})
                async with open_scorer(adaptive, ledger=ledger) as scorer:
                    scored, adaptive_usage = await score_metered(judge, scorer, items)
                methods.append(make_method("adaptive", items, middle_of_bounds(scored), total(adaptive_usage)))
            for dimension in DIMENSIONS:
                if own_rewards := rewards.get(f"{dimension} only"):
                    own_usage = {template: usage[template] for template in DIMENSION_TEMPLATES[dimension]}
                    methods.append(make_method(f"{dimension} only", items, own_rewards, total(own_usage)))
            if pairwise:
                compared, usage = await compare_metered(judge, params.pair.pairwise, items)
                methods.append(make_method("pairwise", items, compared, total(usage)))
        if params.judge.has_panel:
            async with (
                open_judge(params.judge, ledger=ledger, budget=budget) as judge,
                LabelledItemScorer(config, ledger=ledger) as scorer,
            ):
                scored, usage = await score_metered(judge, scorer, items)
            rewards = rewards_by_variant(items, scored)
            name = f"panel of {' and '.join(judge_names(params.judge))}"
            methods.append(make_method(name, items, rewards["longreward"], total(usage)))
    return methods


def judge_names(config: JudgeConfig) -> list[str]:
    """Return the names of all judges, the first one first."""
    return list(dict.fromkeys(judge.display_name for judge, _ in config.judges()))


def without_panel(config: JudgeConfig) -> JudgeConfig:
    """Return the first judge, without the panels of all and of single dimensions."""
    dimensions = {name: own | {"panel": []} for name, own in config.dimensions.items()}
    return config.model_copy(update={"panel": [], "dimensions": dimensions})


async def evaluate_metered(
    judge: Judge, items: Sequence[Item], evaluate: Callable[[Judge, Item], Awaitable[T]]
) -> tuple[list[T], UsageByTemplate]:
    """Evaluate each item; return the results, and the usage as if no two items shared a request."""
    semaphore = asyncio.Semaphore(MAX_ITEMS_IN_FLIGHT)
    usage: UsageByTemplate = defaultdict(Usage)

    async def evaluate_item(item: Item) -> T:
        async with semaphore:
            metered = MeteredJudge(judge)
            result = await evaluate(metered, item)
        for (_, template, _), own in metered.usages.items():
            usage[template] += own
        return result

    return await gather(map(evaluate_item, items)), usage


async def score_metered(
    judge: Judge, scorer: Scorer, items: Sequence[Item]
) -> tuple[list[tuple[ScoredResponse, ...]], UsageByTemplate]:
    """Score the responses of each item."""

    async def score(metered: Judge, item: Item) -> tuple[ScoredResponse, ...]:
        return (await scorer.score(metered, *to_records(item))).responses

    return await evaluate_metered(judge, items, score)


async def compare_metered(
    judge: Judge, config: PairwiseConfig, items: Sequence[Item]
) -> tuple[list[Rewards], UsageByTemplate]:
    """Return 1 for the chosen response, -1 for the rejected one and 0 for others, by the pipeline's tournament."""

    async def compare(metered: Judge, item: Item) -> Rewards:
        example, responses = to_records(item)
        tokens = config.context_tokens if item.context else 0
        result = await pairwise_pair(metered, SelectionConfig(min_scored=2), example, responses, context_tokens=tokens)
        pair = result.outcome
        if not isinstance(pair, PreferencePair):
            return [0.0] * len(responses)
        return [float(r.id == pair.chosen.id) - float(r.id == pair.rejected.id) for r in responses]

    return await evaluate_metered(judge, items, compare)


def middle_of_bounds(scored: Sequence[Sequence[ScoredResponse]]) -> list[Rewards]:
    """Return the middle of the bounds of each reward; those of the best and the worst response are exact."""
    bounds = [[response.reward_bounds() for response in responses] for responses in scored]
    return [[None if pair is None else fmean(pair) for pair in responses] for responses in bounds]


def make_method(name: str, items: Sequence[Item], rewards: Sequence[Rewards], usage: Usage) -> Method:
    """Compare the rewards with the labels."""
    agreements = [(item.document, pair_agreement(item, values)) for item, values in zip(items, rewards, strict=True)]
    agreement = mean(agreements, IntervalOptions(), bounds=SHARE_BOUNDS)
    assert agreement is not None  # there are items
    responses = sum(len(item.responses) for item in items)
    unscored = sum(None in values for values in rewards)
    return Method(name, agreement, unscored, usage, usage.calls / responses, usage.tokens / responses)


def pair_agreement(item: Item, rewards: Rewards) -> float:
    """Return 1, 0.5 or 0 for the order of the labels of the best and the worst response, averaged over ties."""
    values = [value for value in rewards if value is not None]
    if len(values) < len(rewards):
        return 0.5
    return fmean(
        0.5 + 0.5 * ((label > other_label) - (label < other_label))
        for (label, value), (other_label, other) in permutations(zip(item.labels, values, strict=True), 2)
        if value == max(values) and other == min(values)
    )


def total(usage: Mapping[str, Usage]) -> Usage:
    """Add up the usage of all templates."""
    return sum(usage.values(), Usage())


def write_results(
    options: argparse.Namespace, config: JudgeConfig, items: Sequence[Item], methods: Sequence[Method]
) -> None:
    """Write agreement.md, which is also printed, agreement.json, agreement.svg and agreement.png."""
    judge = " + ".join(judge_names(without_panel(config)))
    responses = sum(len(item.responses) for item in items)
    lines = [
        f"{len(items)} items, {responses} responses, judge {judge}",
        "",
        "| method | agreement with labels | items unscored | requests per response | tokens per response |",
        "|---|---|---|---|---|",
    ]
    for method in methods:
        estimate = method.agreement
        cells = f"{estimate.value:.2f} ({estimate.low:.2f} – {estimate.high:.2f}) | {method.unscored}"
        cells += f" | {method.requests_per_response:.1f} | {method.tokens_per_response:,.0f}"
        lines.append(f"| {method.name} | {cells} |")
    table = "\n".join(lines) + "\n"
    print(table, end="")
    (options.out / "agreement.md").write_text(table, encoding="utf-8")
    summary = {"judge": judge, "items": len(items), "responses": responses, "methods": list(map(asdict, methods))}
    (options.out / "agreement.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    plot(options.out, f"{len(items)} items, judge {judge}", methods)


def plot(out: Path, title: str, methods: Sequence[Method]) -> None:
    """Plot agreement over tokens; methods without a judge stand side by side around 0."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "longreward"  # the same file for the same figures
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    without_judge = [method.name for method in methods if not method.tokens_per_response]
    for method, marker in zip(methods, chain("osD^v<>Ph*Xdp8", "." * len(methods)), strict=False):
        value, low, high = method.agreement.value, method.agreement.low, method.agreement.high
        errors = [[value - low], [high - value]]
        position = method.tokens_per_response
        if method.name in without_judge:
            position = 10 * (without_judge.index(method.name) - (len(without_judge) - 1) / 2)
        axes.errorbar(position, value, errors, fmt=marker, capsize=3, label=method.name)
    axes.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
    axes.set_xscale("symlog", linthresh=100)  # logarithmic above 100, with a place for 0
    axes.set(xlabel="judge tokens per response", ylabel="agreement with labels", title=title)
    axes.set(xlim=(-20, 1.5 * max(100.0, *(method.tokens_per_response for method in methods))), ylim=(0, 1.03))
    figure.legend(loc="outside right center")
    for suffix in ("svg", "png"):
        figure.savefig(out / f"agreement.{suffix}", metadata={"Date": None} if suffix == "svg" else None)


if __name__ == "__main__":
    main()
