"""Pairs by each of the methods, in shards where a model or the judge is asked, with the files that say why.

data/pairs/scores.jsonl        srm: {"idx": "11-0", "reward": -1.25, "model": "…", …}, a line a response
data/pairs/comparisons.jsonl   pairwise: {"idx": "11", "first": "11-0", "second": "11-3", "verdicts": ["A", "B"], …}
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from longreward.data.formats import published_id, read_examples, read_pairs, read_responses, read_scored
from longreward.judge import open_judge
from longreward.pairs.methods import SIMPLE_METHODS, PairConfig, require_decided
from longreward.pairs.pairwise import ComparisonResult, max_calls, pairwise_pair
from longreward.pairs.selection import NoPair, Outcome, make_pairs
from longreward.pairs.srm import RankedResponses, RewardModel, SrmConfig, load_reward_model, srm_pair
from longreward.pairs.tiny_reward_model import tiny_reward_model
from longreward.records import Example, Response
from longreward.reward.score_files import read_scoring_items
from longreward.tasks.shards import OnProgress, run_in_shards
from longreward.tasks.stage import StageRun
from longreward.tasks.stage_judge import report_judge, stage_budget
from longreward.tasks.state import ledger_file, state_folder
from longreward.utils.concurrency import gather
from longreward.utils.jsonl import Row, write_rows
from longreward.utils.progress import show_progress

GIVEN = Path("data/prepared/pairs.jsonl")
EXAMPLES = Path("data/prepared/preference.jsonl")
SAMPLED = Path("data/sampled/sampled_responses.jsonl")
SCORED = (Path("data/scored/scored_responses.jsonl"), Path("data/scored/unscored_responses.jsonl"))
SHARD_SIZE = 50  # prompts
WithResponses = tuple[Example, Sequence[Response]]


async def make_pairs_by_method(run: StageRun, out: Path) -> list[Outcome]:
    """One a prompt, in their order, by `pair.method`; what they rest on is written to the folder `out`."""
    config = run.params.pair
    if config.method == "given":
        return list(read_pairs(GIVEN))
    if config.method == "longreward":
        return _by_scores(config)
    if config.method == "srm":
        return await _by_reward_model(run, out)
    if config.method == "pairwise":
        return await _by_comparison(run, out)
    make_pair = SIMPLE_METHODS[config.method]
    sampled = _responses()
    return [make_pair(config, example, sampled.get(example.id, [])) for example in read_examples(EXAMPLES)]


def _by_scores(config: PairConfig) -> list[Outcome]:
    filled = [file for file in SCORED if file.stat().st_size]  # mostly nothing is unscored
    found = list(make_pairs(config, read_examples(EXAMPLES), (one for file in filled for one in read_scored(file))))
    require_decided(found)
    return found


async def _by_reward_model(run: StageRun, out: Path) -> list[Outcome]:
    config = run.params.pair
    items = read_scoring_items(EXAMPLES, SAMPLED)
    model = await asyncio.to_thread(_reward_model, config.srm)
    run.tracked.tag({"reward_model": model.name})

    async def rank(shard: Sequence[WithResponses], tell: OnProgress) -> Iterable[RankedResponses]:
        return await asyncio.to_thread(model.rank, shard)

    with show_progress("pair") as progress:
        ranked = list(
            await run_in_shards(
                "srm", items, rank, record=RankedResponses, folder=run.state, size=SHARD_SIZE, progress=progress
            )
        )
    rewards = [reward for one in ranked for reward in one.rewards]
    rows = ({"idx": one.response_id, **asdict(one), "model": model.name, "window": model.window} for one in rewards)
    write_rows(out / "scores.jsonl", ({k: v for k, v in row.items() if k != "response_id"} for row in rows))
    run.report(
        {
            "srm/responses": len(rewards),
            "srm/without_reward": sum(one.reward is None for one in rewards),
            "srm/cut": sum(one.cut for one in rewards),
        }
    )
    by_id, sampled = {one.example_id: one for one in ranked}, _responses()
    return [
        srm_pair(config, example, sampled.get(example.id, []), by_id.get(example.id), min_margin=config.srm.min_margin)
        for example in read_examples(EXAMPLES)
    ]


def _reward_model(config: SrmConfig) -> RewardModel:
    if config.model is not None:
        return load_reward_model(config)
    return load_reward_model(config, tiny_reward_model(config.tiny, state_folder() / "reward-models"))


async def _by_comparison(run: StageRun, out: Path) -> list[Outcome]:
    config = run.params.pair
    items = read_scoring_items(EXAMPLES, SAMPLED)
    context_tokens = config.pairwise.context_tokens
    calls, tokens = max_calls(config, items, context_tokens=context_tokens)
    run.log.info("the judge's calls: at most %s, with about %s tokens of prompts", f"{calls:,}", f"{tokens:,}")
    run.report({"forecast/calls_high": calls, "forecast/prompt_tokens_high": tokens})
    with stage_budget(run, config.budget) as budget, show_progress("pair") as progress:
        async with open_judge(run.params.judge, ledger=ledger_file(), budget=budget) as judge:
            run.tracked.tag({"judge": judge.name})

            async def compare(shard: Sequence[WithResponses], tell: OnProgress) -> Iterable[ComparisonResult]:
                return await gather(
                    pairwise_pair(judge, config, *item, context_tokens=context_tokens) for item in shard
                )

            found = list(
                await run_in_shards(
                    "pairwise",
                    items,
                    compare,
                    record=ComparisonResult,
                    folder=run.state,
                    size=SHARD_SIZE,
                    progress=progress,
                )
            )
            report_judge(run, judge.name, judge.metrics())
    write_rows(out / "comparisons.jsonl", _comparison_rows(found))
    compared = [one for each in found for one in each.comparisons]
    told = Counter("unreadable" if one.reason else "agreed" if one.better else "tied" for one in compared)
    run.report({"pairwise/comparisons": len(compared), **{f"pairwise/{name}": told[name] for name in OUTCOMES}})
    by_id = {each.example_id: each.outcome for each in found}
    return [by_id.get(e.id) or NoPair(e.id, "no responses", 0, 0, None) for e in read_examples(EXAMPLES)]


def _comparison_rows(found: Iterable[ComparisonResult]) -> Iterator[Row]:
    for each in found:
        for one in each.comparisons:
            yield {"idx": published_id(one.first.rpartition("-")[0]), **asdict(one)}


def _responses() -> dict[str, list[Response]]:
    found: dict[str, list[Response]] = {}
    for response in read_responses(SAMPLED):
        found.setdefault(response.example_id, []).append(response)
    return found


OUTCOMES = ("agreed", "tied", "unreadable")
