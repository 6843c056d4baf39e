"""Make preference pairs by the method that `pair.method` names, and write what they are based on.

data/pairs/scores.jsonl        srm: {"idx": "11-0", "reward": -1.25, "model": "…", …}, one line per response
data/pairs/comparisons.jsonl   pairwise: {"idx": "11", "first": "11-0", "second": "11-3", "verdicts": ["A", "B"], …}
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from longreward.data.formats import published_id, read_examples, read_pairs
from longreward.judge import open_judge
from longreward.pairs.exclusions import exclude_prompts, read_exclusions, require_dependency
from longreward.pairs.methods import SIMPLE_METHODS, require_decided
from longreward.pairs.outcomes import NoPair, Outcome
from longreward.pairs.pairwise import ComparisonResult, max_calls, pairwise_pair
from longreward.pairs.selection import pair_by_scores
from longreward.pairs.srm import srm_pair
from longreward.pairs.tiny_reward_model import tiny_reward_model
from longreward.records import Example, PreferencePair
from longreward.reward.reward_model import RankedResponses, load_reward_model
from longreward.reward.score_files import ScoredResponses, read_scoring_items
from longreward.tasks.score_shards import ScoringItem
from longreward.tasks.shards import OnProgress, run_in_shards
from longreward.tasks.stage import StageRun
from longreward.tasks.stage_judge import log_judge_metrics, stage_budget
from longreward.tasks.state import ledger_file, state_folder
from longreward.utils.concurrency import gather
from longreward.utils.jsonl import Row, write_rows

PREPARED_PAIRS = Path("data/prepared/pairs.jsonl")
EXAMPLES = Path("data/prepared/preference.jsonl")
SAMPLED = Path("data/sampled/sampled_responses.jsonl")
SCORED = (Path("data/scored/scored_responses.jsonl"), Path("data/scored/unscored_responses.jsonl"))
SHARD_SIZE = 50  # prompts


async def make_pairs_by_method(run: StageRun, out: Path) -> Iterator[Outcome]:
    """Return a pair, or the reason for none, for each prompt in order; files go to the folder `out`.

    Pairs are made when they are read, since their documents may exceed the memory. Prompts in the file `pair.exclude`
    have none. Raises DataError for a malformed or missing file.
    """
    path = run.params.pair.exclude
    if path is None:
        return _make_pairs(run, await _outcomes(run, out), {})
    require_dependency(Path(path), run.inputs)
    return _make_pairs(run, await _outcomes(run, out), read_exclusions(Path(path)))


def _make_pairs(run: StageRun, outcomes: Iterable[Outcome], excluded: Collection[str]) -> Iterator[Outcome]:
    """Yield the outcomes without the excluded pairs, and check them at the end."""
    unknown, without_pair = dict.fromkeys(excluded), []
    for outcome in exclude_prompts(outcomes, excluded):
        if isinstance(outcome, NoPair):
            without_pair.append(outcome)
            unknown.pop(outcome.example_id, None)
        yield outcome
    require_decided(without_pair)
    if unknown:
        # Not an error: another seed or share in `prepare` selects other prompts.
        run.log.warning(
            "%s: %d of %d ids are no prompts here, such as %r",
            run.params.pair.exclude,
            len(unknown),
            len(excluded),
            next(iter(unknown)),
        )


async def _outcomes(run: StageRun, out: Path) -> Iterable[Outcome]:
    config = run.params.pair
    if config.method == "longreward":
        scored = ScoredResponses(file for file in SCORED if file.stat().st_size)  # mostly nothing is unscored
        return (pair_by_scores(config, example, scored.to(example.id)) for example in read_examples(EXAMPLES))
    if config.method == "given":
        return read_pairs(PREPARED_PAIRS)
    if config.method == "srm":
        return await _by_reward_model(run, out)
    if config.method == "pairwise":
        return await _by_comparison(run, out)
    make_pair = SIMPLE_METHODS[config.method]
    items = read_scoring_items(EXAMPLES, SAMPLED)
    return (make_pair(config, example, items.responses_to(example.id)) for example in read_examples(EXAMPLES))


async def _by_reward_model(run: StageRun, out: Path) -> Iterator[Outcome]:
    config = run.params.pair
    items = read_scoring_items(EXAMPLES, SAMPLED)
    path = None
    if config.srm.model is None:
        path = await asyncio.to_thread(tiny_reward_model, config.srm.tiny, state_folder() / "reward-models")
    model = await asyncio.to_thread(load_reward_model, config.srm, path)
    run.mlflow.set_tags({"reward_model": model.name})

    async def rank(shard: Sequence[ScoringItem], on_progress: OnProgress) -> Iterable[RankedResponses]:
        return await asyncio.to_thread(model.rank, shard)

    ranked = list(await run_in_shards("srm", items, rank, record=RankedResponses, folder=run.state, size=SHARD_SIZE))
    rewards = [reward for prompt in ranked for reward in prompt.rewards]
    rows = []
    for reward in rewards:
        row = asdict(reward)
        rows.append({"idx": row.pop("response_id"), **row, "model": model.name, "window": model.window})
    write_rows(out / "scores.jsonl", rows)
    run.log_metrics(
        {
            "srm/responses": len(rewards),
            "srm/without_reward": sum(reward.reward is None for reward in rewards),
            "srm/cut": sum(reward.cut for reward in rewards),
        }
    )
    by_example = {prompt.example_id: prompt for prompt in ranked}
    min_margin = config.srm.min_margin
    return (
        srm_pair(config, example, items.responses_to(example.id), by_example.get(example.id), min_margin=min_margin)
        for example in read_examples(EXAMPLES)
    )


async def _by_comparison(run: StageRun, out: Path) -> Iterator[Outcome]:
    config = run.params.pair
    items = read_scoring_items(EXAMPLES, SAMPLED)
    context_tokens = config.pairwise.context_tokens
    calls, tokens = max_calls(config, items, context_tokens=context_tokens)
    run.log.info("the judge's calls: at most %s, with about %s tokens of prompts", f"{calls:,}", f"{tokens:,}")
    run.log_metrics({"forecast/calls_high": calls, "forecast/prompt_tokens_high": tokens})
    with stage_budget(run, config.budget) as budget:
        async with open_judge(run.params.judge, ledger=ledger_file(), budget=budget) as judge:
            run.mlflow.set_tags({"judge": judge.name})

            async def compare(shard: Sequence[ScoringItem], on_progress: OnProgress) -> Iterable[ComparisonResult]:
                return await gather(
                    pairwise_pair(judge, config, *item, context_tokens=context_tokens) for item in shard
                )

            results = await run_in_shards(
                "pairwise",
                items,
                compare,
                record=ComparisonResult,
                folder=run.state,
                size=SHARD_SIZE,
                detail=judge.count_replies,
            )
            log_judge_metrics(run, judge.name, judge.metrics())
    counts, outcomes = Counter[str](), dict[str, Outcome]()

    def comparison_rows() -> Iterator[Row]:
        for result in results:
            outcome = result.outcome
            if isinstance(outcome, PreferencePair):
                outcome = outcome.model_copy(update={"context": ""})  # documents stay on disk
            outcomes[result.example_id] = outcome
            for comparison in result.comparisons:
                counts["unreadable" if comparison.reason else "agreed" if comparison.better else "tied"] += 1
                yield {"idx": published_id(comparison.first.rpartition("-")[0]), **asdict(comparison)}

    total = write_rows(out / "comparisons.jsonl", comparison_rows())
    run.log_metrics({f"pairwise/{name}": counts[name] for name in ("agreed", "tied", "unreadable")})
    run.log_metrics({"pairwise/comparisons": total})

    def outcome_of(example: Example) -> Outcome:
        outcome = outcomes.get(example.id) or NoPair(example.id, "no responses", 0, 0, None)
        return outcome if isinstance(outcome, NoPair) else outcome.model_copy(update={"context": example.context})

    return map(outcome_of, read_examples(EXAMPLES))
