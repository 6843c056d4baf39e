"""Plans: calls, tokens, money and time of each stage that uses a judge, before the first call."""

import itertools
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from longreward.evaluation.comparison import decodings
from longreward.pairs.config import SelectionConfig
from longreward.params import Params
from longreward.planning.estimate import FIRST_TOKEN_S, TOKENS_PER_SECOND, ScoringItem, StagePlan, plan_scoring
from longreward.planning.workload import Workload, mean_length, workload_for_split, workload_from_files
from longreward.reward import Scorer, open_scorer

Stage = Literal["score", "evaluate"]
STAGES: tuple[Stage, ...] = ("score", "evaluate")
DATA_STAGES = ("prepare", "sft", "sample")
"""Stages whose settings decide which prompts and responses there are."""

EVALUATED_MODELS = 2  # `evaluate` compares the SFT model and the DPO model


@dataclass(frozen=True)
class ProjectPlan:
    """The plans of several stages, with notes on how to read them."""

    stages: tuple[StagePlan, ...]
    currency: str
    tokenizer: str
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "currency": self.currency,
            "tokenizer": self.tokenizer,
            "stages": {stage.stage: stage.as_json() for stage in self.stages},
            "notes": list(self.notes),
        }


async def plan_project(
    params: Params,
    *,
    ledger: Path | None,
    root: Path = Path(),
    stages: Sequence[Stage] = STAGES,
    outdated: Collection[str] = (),
    sample: int | None = None,
    response_tokens: int | None = None,
) -> ProjectPlan:
    """Plan the stages of a project.

    Args:
        params: the settings of the project.
        ledger: the replies so far.
        root: the project folder.
        stages: the stages to plan.
        outdated: stages of the pipeline whose outputs were made with other settings. Prompts and responses that
            `prepare` and `sample` will replace are estimated as if those stages had not run.
        sample: number of prompts per stage to count; the plan is scaled up. None: all.
        response_tokens: assumed length of responses that are not sampled yet; None: the mean of those sampled so far,
            else half of `sample.max_new_tokens`.

    Raises:
        ConfigError, DataError: the data cannot be read.
    """
    # Without pairs from scores, the stage `score` makes no requests.
    needs_scores = params.score.strategy != "none" and params.pair.method != "given"
    workloads = {
        stage: _stage_workload(params, stage, root, response_tokens, outdated)
        for stage in stages
        if stage != "score" or needs_scores
    }
    plan = await _plan_workloads(params, list(workloads.items()), ledger=ledger, sample=sample)
    notes = [*plan.notes]
    if "score" in workloads and params.pair.method == "pairwise":
        from longreward.pairs.pairwise import max_calls

        calls, tokens = max_calls(
            params.pair, workloads["score"].items(), context_tokens=params.pair.pairwise.context_tokens
        )
        notes.append(f"pair: pair.method pairwise makes at most {calls:,} requests with about {tokens:,} tokens")
    return replace(plan, notes=(*notes, "a stage that DVC finds unchanged does not run and costs nothing"))


async def plan_files(
    params: Params, *, data: Path, responses: Path, ledger: Path | None, sample: int | None = None
) -> ProjectPlan:
    """Plan one `longreward score` with these files."""
    workload = workload_from_files(data, responses)
    return await _plan_workloads(params, [("score", workload)], ledger=ledger, sample=sample)


async def plan_items(
    params: Params,
    items: Sequence[ScoringItem],
    *,
    source: str,
    make_scorer: Callable[..., Scorer],
    pairwise: bool,
    ledger: Path | None,
    sample: int | None = None,
) -> ProjectPlan:
    """Plan the full scoring of `items` with the caller's scorer, and with `pairwise` the comparison of all responses.

    `source` is the origin of the items, for people.
    """
    params = params.model_copy(update={"score": params.score.model_copy(update={"strategy": "full"})})
    workload = Workload(lambda: iter(items), source)
    plan = await _plan_workloads(params, [("score", workload)], ledger=ledger, sample=sample, make_scorer=make_scorer)
    if not pairwise:
        return plan
    from longreward.pairs.pairwise import max_calls

    config = SelectionConfig(min_scored=2)
    calls, tokens = max_calls(config, items, context_tokens=params.pair.pairwise.context_tokens)
    # That is for the best and the worst response; all others are compared too.
    all_calls = sum(len(texts) * (len(texts) - 1) for texts in ({r.text for r in responses} for _, responses in items))
    tokens = round(tokens * all_calls / calls) if calls else 0
    note = f"pairwise judging makes at most {all_calls:,} further requests with about {tokens:,} tokens"
    return replace(plan, notes=(*plan.notes, note))


def _stage_workload(
    params: Params, stage: Stage, root: Path, tokens: int | None, outdated: Collection[str]
) -> Workload:
    sampled = root / "data/sampled/sampled_responses.jsonl"
    if tokens is None:
        tokens = mean_length(sampled) or params.sample.max_new_tokens // 2
    prepared = None if "prepare" in outdated else root / "data/prepared"
    if stage == "score":
        responses = None if "sample" in outdated or not sampled.is_file() else sampled
        if responses is None and prepared is not None and params.prepare.responses:
            responses = prepared / "responses.jsonl"
        return workload_for_split(
            params.prepare,
            "preference",
            root=root,
            prepared=prepared,
            responses=responses,
            n=params.sample.n,
            tokens=tokens,
        )
    n = EVALUATED_MODELS * sum(decoding.samples for decoding in decodings(params.evaluate))
    return workload_for_split(
        params.prepare,
        "heldout",
        root=root,
        prepared=prepared,
        responses=None,
        n=n,
        tokens=tokens,
    )


async def _plan_workloads(
    params: Params,
    workloads: Sequence[tuple[Stage, Workload]],
    *,
    ledger: Path | None,
    sample: int | None,
    make_scorer: Callable[..., Scorer] = open_scorer,
) -> ProjectPlan:
    plans = []
    for stage, workload in workloads:
        # `evaluate` needs all scores of every response.
        config = params.score.model_copy(update={"strategy": "full"}) if stage == "evaluate" else params.score
        items, total_prompts = workload.items(), None
        if sample is not None:
            # A fixed seed, so that a repeated plan counts the same prompts.
            total_prompts = sum(1 for _ in workload.items())
            indices = set(random.Random(0).sample(range(total_prompts), min(sample, total_prompts)))
            items = itertools.compress(items, (index in indices for index in range(total_prompts)))
        plans.append(
            await plan_scoring(
                stage,
                params.judge,
                config,
                params.prices,
                items,
                ledger=ledger,
                total_prompts=total_prompts,
                make_scorer=make_scorer,
            )
        )
    sources = [
        f"{stage}: {workload.source}" if plan.prompts else f"{stage}: there is no prompt in {workload.source}"
        for (stage, workload), plan in zip(workloads, plans, strict=True)
    ]
    return ProjectPlan(tuple(plans), params.prices.currency, params.score.tokenizer, (*sources, *_notes(params, plans)))


def _notes(params: Params, plans: Sequence[StagePlan]) -> Iterator[str]:
    accuracy = "is within a quarter of most models' counts"
    if params.score.tokenizer != "simple":
        accuracy = "is exact if it is the judge's tokenizer"
    yield (
        f"prompt tokens are counted with score.tokenizer {params.score.tokenizer}, which {accuracy} (without the "
        "tokens of the server's chat template)"
    )
    observed = sorted({template for plan in plans for template in plan.observed_replies})
    if observed:
        yield f"replies and attempts are estimated from this judge's replies in the ledger for {', '.join(observed)}"
    if any(plan.total.calls.high and "statements" not in plan.observed_replies for plan in plans):
        yield "one statement per sentence is assumed (0.5 to 2): the ledger has too few lists of this judge"
    if params.score.strategy == "adaptive":
        yield "with score.strategy adaptive, the expected value is that of full, and low that of two responses a prompt"
    judges = [judge for judge, _ in params.judge.judges()]
    if live := [judge for judge in judges if judge.mode == "live" and judge.kind != "offline"]:
        requests = ", ".join(dict.fromkeys(str(judge.max_concurrency) for judge in live))
        yield (
            f"the time assumes {requests} requests at once (judge.max_concurrency), {FIRST_TOKEN_S:g} s to the first "
            f"token of each reply and {TOKENS_PER_SECOND:g} tokens/s after it; a server with fewer slots takes longer"
        )
    if any(judge.mode != "live" for judge in judges):
        yield "judge.mode is batch: money at batch prices, time as long as a provider may take for two rounds"
    unpriced = [judge.display_name for judge in judges if params.prices.price_for(judge) is None]
    if unpriced:
        yield f"the price of {', '.join(dict.fromkeys(unpriced))} is unknown: add it to prices.models"
    if params.score.retriever.embedding_kind == "http":
        yield (
            "embeddings are not counted, and neither is how many support requests are cached for statements that are "
            "listed already"
        )
