"""Asks a judge what the reward asks it, one dimension at a time."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from longreward.evaluation.statistics import mean
from longreward.judge import Judge
from longreward.judge.config import JudgeConfig
from longreward.judge.prompts import PromptSet
from longreward.judge_validation.attacks import Probe, make_probes
from longreward.judge_validation.cases import TELLS, Case, make_case
from longreward.judge_validation.report import Attack, CheckReport, Rank, Repeats
from longreward.records import DIMENSIONS, Dimension, Verdict
from longreward.retrieval import Bm25Retriever
from longreward.reward.completeness import extract, extraction_requests, judge_completeness
from longreward.reward.config import ScoreConfig
from longreward.reward.document import Document, DocumentCache
from longreward.reward.faithfulness import judge_faithfulness
from longreward.reward.ratings import judge_helpfulness, judge_logicality
from longreward.utils.concurrency import gather
from longreward.utils.token_spans import open_tokenizer


@dataclass(frozen=True)
class RewardQuery:
    """One dimension of one response to a query about a document."""

    context: str
    query: str
    response: str
    dimension: Dimension


Scores = Mapping[RewardQuery, float | None]  # None: unscored


async def score_queries(
    judge: Judge, prompts: PromptSet, asks: Collection[RewardQuery], *, done: Callable[[], None] = lambda: None
) -> Scores:
    """The score of each, all asked at once; what several have in common is asked once."""
    library = DocumentCache(CONFIG, open_tokenizer(CONFIG.tokenizer), Bm25Retriever(), keep=len(asks) + 1)

    async def score(ask: RewardQuery) -> float | None:
        verdict = await judge_query(judge, prompts, library.open(ask.context), ask)
        done()
        return verdict.score

    distinct = list(dict.fromkeys(asks))
    return dict(zip(distinct, await gather(score(ask) for ask in distinct), strict=True))


async def judge_query(judge: Judge, prompts: PromptSet, document: Document, ask: RewardQuery) -> Verdict:
    """The verdict on one dimension of one response."""
    query, response = ask.query, ask.response
    match ask.dimension:
        case "helpfulness":
            return await judge_helpfulness(judge, prompts, query=query, response=response)
        case "logicality":
            return await judge_logicality(judge, prompts, query=query, response=response)
        case "faithfulness":
            return await judge_faithfulness(judge, prompts, CONFIG, document, query=query, response=response)
        case "completeness":
            requests = await extraction_requests(prompts, document, query=query)
            extracted = await extract(judge, prompts, requests, example_id="check", query=query)
            return await judge_completeness(judge, prompts, extracted, query=query, response=response)


# Evidence as the pipeline finds it by default, scaled down with the documents: 5 chunks of about 12.
CONFIG = ScoreConfig(evidence_chunk_tokens=32)


# The check of a judge: built-in questions asked again and again, known answers ranked, attacks tried.
#
# report = await check_judge(config, load_prompts(), opened=partial(open_judge, ledger=ledger))
# report.faults(config.check)   # ["in faithfulness the right answer scores higher in only 0.58 of comparisons (…)"]
#
# Its answers have a namespace of their own in the ledger (`judge.revision` with a suffix), one for each repeat, so
# that a
# repeat is no copy, no scoring is served an answer of a check, and a check that was stopped goes on where it was.


@dataclass(frozen=True)
class CheckSize:
    """How many questions are ranked, asked again and attacked, and how often one is asked in all."""

    ranked: int
    repeated: int
    attacked: int
    repeats: int


FULL, QUICK = (
    CheckSize(ranked=6, repeated=1, attacked=2, repeats=3),
    CheckSize(ranked=1, repeated=1, attacked=1, repeats=2),
)


async def check_judge(
    config: JudgeConfig,
    prompts: PromptSet,
    *,
    opened: Callable[[JudgeConfig], Judge],
    quick: bool = False,
    again: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CheckReport:
    """The report on the judge that `opened` makes of a configuration; `again` (any word) asks past earlier checks.

    `progress(done, all)` counts verdicts. Raises the JudgeError family where the judge fails.
    """
    size = QUICK if quick else FULL
    cases = [make_case(number) for number in range(max(size.ranked, size.attacked))]
    probes = [probe for case in cases[: size.attacked] for probe in make_probes(case)]
    ranked = cases[: size.ranked]
    first = [
        *(ask for case in ranked for rank in _comparisons(case) for ask in rank.asks),
        *(ask for probe in probes for pair in _pairs(probe, quick=quick) for ask in pair.asks),
    ]
    repeated = list(dict.fromkeys(_repeated(cases[: size.repeated], quick=quick)))
    total = len({*first, *repeated}) + (size.repeats - 1) * len(repeated)
    done, name = 0, ""
    rounds: list[Scores] = []
    spent = dict.fromkeys(("calls", "prompt_tokens", "completion_tokens"), 0.0)

    def tell() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    for number in range(1, size.repeats + 1):
        async with opened(isolated_config(config, f"{again}{number}")) as judge:
            rounds.append(
                await score_queries(judge, prompts, [*first, *repeated] if number == 1 else repeated, done=tell)
            )
            name = judge.name
            spent = {figure: count + judge.metrics()[figure] for figure, count in spent.items()}
    return CheckReport(
        judge=name,
        prompts=prompts.hash,
        quick=quick,
        repeats=_repeats(rounds, repeated),
        ranks=tuple(_ranks(rounds[0], [one for case in ranked for one in _comparisons(case)])),
        attacks=tuple(_attacks(rounds[0], [pair for probe in probes for pair in _pairs(probe, quick=quick)])),
        calls=int(spent["calls"]),
        prompt_tokens=int(spent["prompt_tokens"]),
        completion_tokens=int(spent["completion_tokens"]),
    )


def isolated_config(config: JudgeConfig, word: str) -> JudgeConfig:
    """The judge with answers of its own in the ledger, asked live."""
    suffix = f"+check{VERSION}.{word}"
    dimensions = {
        dimension: {**differs, "revision": config.judge_for(dimension).revision + suffix, "mode": "live"}
        for dimension, differs in config.dimensions.items()
    }
    settings = {"revision": config.revision + suffix, "mode": "live", "dimensions": dimensions}
    return config.model_copy(update=settings)


@dataclass(frozen=True)
class _Pair:
    """Two texts to be scored in one dimension: of a comparison with the right answer, or of an attack."""

    name: str
    case: str
    first: RewardQuery
    second: RewardQuery

    @property
    def asks(self) -> tuple[RewardQuery, RewardQuery]:
        return self.first, self.second


def _comparisons(case: Case) -> Iterator[_Pair]:
    for kind, dimensions in TELLS.items():
        for dimension in dimensions:
            gold, damaged = (
                RewardQuery(case.context, case.query, text, dimension) for text in (case.gold, case.damaged[kind])
            )
            yield _Pair(kind, case.id, gold, damaged)


def _pairs(probe: Probe, *, quick: bool) -> Iterator[_Pair]:
    for dimension in (probe.quick,) if quick else DIMENSIONS:
        plain, attacked = (
            RewardQuery(text.context, probe.query, text.response, dimension) for text in (probe.plain, probe.attacked)
        )
        yield _Pair(probe.name, probe.query, plain, attacked)


def _repeated(cases: Sequence[Case], *, quick: bool) -> Iterator[RewardQuery]:
    for case in cases:
        for one in _comparisons(case):
            if not quick or one.first.dimension in ("helpfulness", "logicality"):
                yield from one.asks


def _repeats(rounds: Sequence[Scores], asks: Sequence[RewardQuery]) -> Repeats:
    verdicts = [[scores[ask] for scores in rounds] for ask in asks]
    known = [[score for score in scores if score is not None] for scores in verdicts]
    spreads = [max(scores) - min(scores) if len(scores) == len(rounds) else None for scores in known]
    measured = [spread for spread in spreads if spread is not None]
    return Repeats(
        verdicts=len(asks),
        repeats=len(rounds),
        within_a_point=sum(spread <= 1 for spread in measured) / len(asks),
        equal=sum(spread == 0 for spread in measured) / len(asks),
        spread=sum(measured) / len(measured) if measured else 0.0,
    )


def _ranks(scores: Scores, pairs: Sequence[_Pair]) -> Iterator[Rank]:
    for (kind, dimension), group in _grouped(pairs):
        won = []
        for pair in group:
            gold, damaged = scores[pair.first], scores[pair.second]
            if gold is not None and damaged is not None:
                won.append((pair.case, 1.0 if gold > damaged else 0.5 if gold == damaged else 0.0))
        found = mean(won, resamples=2000, confidence=0.95, seed=0, bounds=(0.0, 1.0))
        enough = found is not None and found.documents > 1
        yield Rank(
            kind=kind,
            dimension=dimension,
            share=found.value if found else None,
            low=found.low if found and enough else None,
            high=found.high if found and enough else None,
            compared=len(won),
            unscored=len(group) - len(won),
        )


def _attacks(scores: Scores, pairs: Sequence[_Pair]) -> Iterator[Attack]:
    plain: dict[str, dict[Dimension, float | None]] = {}
    attacked: dict[str, dict[Dimension, float | None]] = {}
    for (name, dimension), group in _grouped(pairs):
        both = [(scores[pair.first], scores[pair.second]) for pair in group]
        known = [(a, b) for a, b in both if a is not None and b is not None] or both
        plain.setdefault(name, {})[dimension] = _mean(a for a, _ in known)
        attacked.setdefault(name, {})[dimension] = _mean(b for _, b in known)
    for name in plain:
        yield Attack(name=name, plain=plain[name], attacked=attacked[name])


def _grouped(pairs: Iterable[_Pair]) -> Iterable[tuple[tuple[str, Dimension], list[_Pair]]]:
    groups: dict[tuple[str, Dimension], list[_Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.name, pair.first.dimension), []).append(pair)
    return groups.items()


def _mean(scores: Iterable[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


VERSION = 1  # of the questions and attacks: another one is another check
