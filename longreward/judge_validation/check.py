"""Check a judge: repeat requests, rank responses with known quality, and try attacks.

report = await check_judge(config, load_prompts(), judge_factory=partial(open_judge, ledger=ledger))
report.failures(config.check)   # ["in faithfulness the right answer scores higher in only 0.58 of comparisons (…)"]

The replies are kept in a namespace of their own in the ledger (`judge.revision` with a suffix), one per repetition. So
repetitions are real calls, scoring never reuses replies of a check, and an interrupted check continues.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from longreward.evaluation.statistics import mean
from longreward.judge import Judge
from longreward.judge.config import JudgeConfig
from longreward.judge.prompts import PromptSet
from longreward.judge_validation.attacks import Probe, make_probes
from longreward.judge_validation.cases import DETECTING_DIMENSIONS, Case, make_case
from longreward.judge_validation.report import Attack, CheckReport, Rank, Repeatability
from longreward.records import DIMENSIONS, Dimension, Extraction, Verdict
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


@dataclass(frozen=True)
class RewardQuery:
    """One dimension of one response to a query about a document."""

    context: str
    query: str
    response: str
    dimension: Dimension


Scores = Mapping[RewardQuery, float | None]  # None: unscored


async def judge_query(judge: Judge, prompts: PromptSet, document: Document, query: RewardQuery) -> Verdict:
    """Judge one dimension as scoring does."""

    async def extraction() -> Extraction:
        requests = await extraction_requests(prompts, document, query=query.query)
        return await extract(judge, prompts, requests, example_id="check", query=query.query)

    item = DimensionInput(judge, prompts, CHECK_SCORING, document, extraction, query.query, query.response)
    return await DIMENSION_JUDGES[query.dimension](item)


def open_document(context: str) -> Document:
    """Return the document with the retrieval settings of the check."""
    return Document(context, CHECK_SCORING, open_tokenizer(CHECK_SCORING.tokenizer), Bm25Retriever())


async def score_queries(
    judge: Judge, prompts: PromptSet, queries: Collection[RewardQuery], *, on_verdict: Callable[[], None]
) -> Scores:
    """Return the score of each query; all are judged at once, and equal requests are sent once."""
    documents = {context: open_document(context) for context in {query.context for query in queries}}

    async def score(query: RewardQuery) -> float | None:
        verdict = await judge_query(judge, prompts, documents[query.context], query)
        on_verdict()
        return verdict.score

    distinct = list(dict.fromkeys(queries))
    return dict(zip(distinct, await gather(score(query) for query in distinct), strict=True))


@dataclass(frozen=True)
class CheckSize:
    """Number of questions for each part of the check, and how often a request is made in all."""

    ranked: int
    repeated: int
    attacked: int
    repeats: int


FULL = CheckSize(ranked=6, repeated=1, attacked=2, repeats=3)
QUICK = CheckSize(ranked=1, repeated=1, attacked=1, repeats=2)


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
    size = QUICK if quick else FULL
    cases = [make_case(number) for number in range(max(size.ranked, size.attacked))]
    comparisons = [pair for case in cases[: size.ranked] for pair in _comparisons(case)]
    attacks = [
        pair
        for case in cases[: size.attacked]
        for probe in make_probes(case)
        for pair in _attack_pairs(probe, quick=quick)
    ]
    # Comparisons and attacks share requests, for example for the plain bad answer; they are sent once.
    first_queries = [query for pair in (*comparisons, *attacks) for query in pair.queries]
    repeated = list(dict.fromkeys(_repeated_queries(cases[: size.repeated], quick=quick)))
    total = len({*first_queries, *repeated}) + (size.repeats - 1) * len(repeated)
    finished, name = 0, ""
    rounds: list[Scores] = []
    usage = dict.fromkeys(("calls", "prompt_tokens", "completion_tokens"), 0.0)

    def on_verdict() -> None:
        nonlocal finished
        finished += 1
        progress(finished, total)

    for number in range(1, size.repeats + 1):
        # Each repetition has its own namespace, or the ledger would answer it.
        async with judge_factory(isolated_config(config, f"{run_id}{number}")) as judge:
            queries = [*first_queries, *repeated] if number == 1 else repeated
            rounds.append(await score_queries(judge, prompts, queries, on_verdict=on_verdict))
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
    revision_suffix = f"+check{CHECK_VERSION}.{suffix}"
    dimensions = {
        dimension: {
            **overrides,
            "revision": config.judge_for(dimension).revision + revision_suffix,
            "mode": "live",
        }
        for dimension, overrides in config.dimensions.items()
    }
    settings = {"revision": config.revision + revision_suffix, "mode": "live", "dimensions": dimensions}
    return config.model_copy(update=settings)


@dataclass(frozen=True)
class _QueryPair:
    """Two texts in one dimension: right and damaged answer, or without and with an attack."""

    name: str
    case: str
    first: RewardQuery
    second: RewardQuery

    @property
    def queries(self) -> tuple[RewardQuery, RewardQuery]:
        return self.first, self.second


def _comparisons(case: Case) -> Iterator[_QueryPair]:
    for kind, dimensions in DETECTING_DIMENSIONS.items():
        for dimension in dimensions:
            gold, damaged = (
                RewardQuery(case.context, case.query, text, dimension) for text in (case.gold, case.damaged[kind])
            )
            yield _QueryPair(kind, case.id, gold, damaged)


def _attack_pairs(probe: Probe, *, quick: bool) -> Iterator[_QueryPair]:
    for dimension in (probe.quick_dimension,) if quick else DIMENSIONS:
        plain, attacked = (
            RewardQuery(text.context, probe.query, text.response, dimension) for text in (probe.plain, probe.attacked)
        )
        yield _QueryPair(probe.name, probe.query, plain, attacked)


def _repeated_queries(cases: Sequence[Case], *, quick: bool) -> Iterator[RewardQuery]:
    for case in cases:
        for pair in _comparisons(case):
            # Ratings take one call per verdict, faithfulness several.
            if not quick or pair.first.dimension in ("helpfulness", "logicality"):
                yield from pair.queries


def _repeatability(rounds: Sequence[Scores], queries: Sequence[RewardQuery]) -> Repeatability:
    spreads = []
    for query in queries:
        scores = [score for round_scores in rounds if (score := round_scores[query]) is not None]
        if len(scores) == len(rounds):
            spreads.append(max(scores) - min(scores))
    return Repeatability(
        verdicts=len(queries),
        repeats=len(rounds),
        within_a_point=sum(spread <= 1 for spread in spreads) / len(queries),
        equal=sum(spread == 0 for spread in spreads) / len(queries),
        spread=sum(spreads) / len(spreads) if spreads else 0.0,
    )


def _ranks(scores: Scores, pairs: Sequence[_QueryPair]) -> Iterator[Rank]:
    for (kind, dimension), group in _grouped(pairs):
        wins = []
        for pair in group:
            gold, damaged = scores[pair.first], scores[pair.second]
            if gold is not None and damaged is not None:
                wins.append((pair.case, 1.0 if gold > damaged else 0.5 if gold == damaged else 0.0))
        estimate = mean(wins, resamples=2000, confidence=0.95, seed=0, bounds=(0.0, 1.0))
        # One question says nothing about the spread between questions.
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


def _attacks(scores: Scores, pairs: Sequence[_QueryPair]) -> Iterator[Attack]:
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


def _grouped(pairs: Iterable[_QueryPair]) -> Iterable[tuple[tuple[str, Dimension], list[_QueryPair]]]:
    groups: dict[tuple[str, Dimension], list[_QueryPair]] = {}
    for pair in pairs:
        groups.setdefault((pair.name, pair.first.dimension), []).append(pair)
    return groups.items()


def _mean(scores: Iterable[float | None]) -> float | None:
    scored = [score for score in scores if score is not None]
    return sum(scored) / len(scored) if scored else None
