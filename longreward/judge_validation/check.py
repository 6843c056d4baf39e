"""Check a judge: repeat requests, rank responses with known quality, and try attacks.

report = await check_judge(config, load_prompts(), judge_factory=partial(open_judge, ledger=ledger))
report.failures(config.check)   # ["in faithfulness the right answer scores higher in only 0.58 of comparisons (…)"]

The replies are kept in a namespace of their own in the ledger (`judge.revision` with a suffix), one per repetition. So
repetitions are real calls, scoring never reuses replies of a check, and an interrupted check continues.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from longreward.evaluation.statistics import IntervalOptions, mean
from longreward.judge import Judge
from longreward.judge.config import JudgeConfig
from longreward.judge.prompts import PromptSet
from longreward.judge_validation.attacks import attack_pairs
from longreward.judge_validation.cases import QueryPair, RewardQuery, damage_pairs, make_case
from longreward.judge_validation.report import Attack, CheckReport, Rank, Repeatability
from longreward.records import Dimension, Extraction, Verdict
from longreward.retrieval import Bm25Retriever
from longreward.reward.completeness import extract, extraction_requests
from longreward.reward.config import ScoreConfig
from longreward.reward.document import Document
from longreward.reward.ratings import DimensionInput
from longreward.reward.scorer import DIMENSION_JUDGES
from longreward.utils.concurrency import gather
from longreward.utils.token_spans import open_tokenizer

CHECK_VERSION = 1  # of questions and attacks; increase it if they change, so that old reports are not reused
# The pipeline's default retrieval, scaled down with the documents: 5 chunks of about 12.
CHECK_SCORING = ScoreConfig(evidence_chunk_tokens=32)


Scores = Mapping[RewardQuery, float | None]  # None: unscored


async def judge_query(judge: Judge, prompts: PromptSet, document: Document, query: RewardQuery) -> Verdict:
    """Judge one dimension as scoring does."""
    return await DIMENSION_JUDGES[query.dimension](dimension_input(judge, prompts, document, query))


def dimension_input(judge: Judge, prompts: PromptSet, document: Document, query: RewardQuery) -> DimensionInput:
    """Return what a dimension needs to judge the query, with the scoring settings of the check."""

    async def extraction() -> Extraction:
        requests = await extraction_requests(prompts, document, query=query.query)
        return await extract(judge, prompts, requests, example_id="check", query=query.query)

    return DimensionInput(judge, prompts, CHECK_SCORING, document, extraction, query.query, query.response)


def open_document(context: str) -> Document:
    """Return the document with the retrieval settings of the check."""
    return Document(context, CHECK_SCORING, open_tokenizer(CHECK_SCORING.tokenizer), Bm25Retriever())


async def check_judge(
    config: JudgeConfig,
    prompts: PromptSet,
    *,
    judge_factory: Callable[[JudgeConfig], Judge],
    quick: bool = False,
    run_id: str = "",
    progress: Callable[[int, int], None] = lambda finished, total: None,
) -> CheckReport:
    """Return the report on the judge that `judge_factory` opens; another `run_id` ignores replies of earlier checks.

    `progress(finished, total)` counts verdicts. Raises the JudgeError family if the judge fails.
    """
    # The number of questions for comparisons and for attacks, and how often a request is repeated.
    compared, attacked, repeats = (1, 1, 2) if quick else (6, 2, 3)
    cases = [make_case(number) for number in range(compared)]
    comparisons = [pair for case in cases for pair in damage_pairs(case)]
    attacks = [pair for case in cases[:attacked] for pair in attack_pairs(case, quick=quick)]
    # Comparisons and attacks share requests, for example for the plain bad answer; they are sent once.
    queries = list(dict.fromkeys(query for pair in (*comparisons, *attacks) for query in (pair.first, pair.second)))
    # The first question is repeated; ratings take one call per verdict, faithfulness several.
    repeated = [
        query
        for query in dict.fromkeys(query for pair in damage_pairs(cases[0]) for query in (pair.first, pair.second))
        if not quick or query.dimension in ("helpfulness", "logicality")
    ]
    documents = {context: open_document(context) for context in {query.context for query in queries}}
    total = len(queries) + (repeats - 1) * len(repeated)
    finished, name = 0, ""
    rounds: list[Scores] = []
    usage = dict.fromkeys(("calls", "prompt_tokens", "completion_tokens"), 0.0)

    async def score(judge: Judge, query: RewardQuery) -> float | None:
        nonlocal finished
        verdict = await judge_query(judge, prompts, documents[query.context], query)
        finished += 1
        progress(finished, total)
        return verdict.score

    for number in range(1, repeats + 1):
        # Each repetition has its own namespace, or the ledger would answer it.
        async with judge_factory(isolated_config(config, f"{run_id}{number}")) as judge:
            round_queries = queries if number == 1 else repeated
            scores = await gather(score(judge, query) for query in round_queries)
            rounds.append(dict(zip(round_queries, scores, strict=True)))
            name = judge.name
            metrics = judge.metrics()
            usage = {metric: count + metrics[metric] for metric, count in usage.items()}
    return CheckReport(
        judge=name,
        prompts=prompts.hash,
        quick=quick,
        repeats=_repeatability(rounds, repeated),
        ranks=tuple(_ranks(rounds[0], comparisons)),
        attacks=tuple(_attacks(rounds[0], attacks)),
        calls=int(usage["calls"]),
        prompt_tokens=int(usage["prompt_tokens"]),
        completion_tokens=int(usage["completion_tokens"]),
    )


def isolated_config(config: JudgeConfig, suffix: str) -> JudgeConfig:
    """Return the configuration with its own namespace in the ledger and live calls."""
    return config.map_judges(
        lambda judge: {"revision": f"{judge.revision}+check{CHECK_VERSION}.{suffix}", "mode": "live"}
    )


def _repeatability(rounds: Sequence[Scores], queries: Sequence[RewardQuery]) -> Repeatability:
    spreads = []
    for query in queries:
        scores = [score for round_scores in rounds if (score := round_scores[query]) is not None]
        if len(scores) == len(rounds):
            spreads.append(max(scores) - min(scores))
    return Repeatability(
        verdicts=len(queries),
        repeats=len(rounds),
        within_one_point=sum(spread <= 1 for spread in spreads) / len(queries),
        equal=sum(spread == 0 for spread in spreads) / len(queries),
        spread=sum(spreads) / len(spreads) if spreads else 0.0,
    )


def _ranks(scores: Scores, pairs: Sequence[QueryPair]) -> Iterator[Rank]:
    for (kind, dimension), group in _grouped(pairs):
        wins = []
        for pair in group:
            gold, damaged = scores[pair.first], scores[pair.second]
            if gold is not None and damaged is not None:
                wins.append((pair.case, 1.0 if gold > damaged else 0.5 if gold == damaged else 0.0))
        estimate = mean(wins, IntervalOptions(), bounds=(0.0, 1.0))
        # One question gives no variance between questions.
        has_interval = estimate is not None and estimate.documents > 1
        yield Rank(
            kind=kind,
            dimension=dimension,
            share=estimate.value if estimate else None,
            low=estimate.low if estimate and has_interval else None,
            high=estimate.high if estimate and has_interval else None,
            compared=len(wins),
            unscored=len(group) - len(wins),
        )


def _attacks(scores: Scores, pairs: Sequence[QueryPair]) -> Iterator[Attack]:
    plain: dict[str, dict[Dimension, float | None]] = {}
    attacked: dict[str, dict[Dimension, float | None]] = {}
    for (name, dimension), group in _grouped(pairs):
        score_pairs = [(scores[pair.first], scores[pair.second]) for pair in group]
        # A gain needs both scores; without any such pair, show what there is.
        scored = [(a, b) for a, b in score_pairs if a is not None and b is not None] or score_pairs
        plain.setdefault(name, {})[dimension] = _mean(a for a, _ in scored)
        attacked.setdefault(name, {})[dimension] = _mean(b for _, b in scored)
    for name in plain:
        yield Attack(name=name, plain=plain[name], attacked=attacked[name])


def _grouped(pairs: Iterable[QueryPair]) -> Iterable[tuple[tuple[str, Dimension], list[QueryPair]]]:
    groups: dict[tuple[str, Dimension], list[QueryPair]] = {}
    for pair in pairs:
        groups.setdefault((pair.name, pair.first.dimension), []).append(pair)
    return groups.items()


def _mean(scores: Iterable[float | None]) -> float | None:
    scored = [score for score in scores if score is not None]
    return sum(scored) / len(scored) if scored else None
