"""Score predictions that another tool generated with a benchmark's own metrics.

A prediction answers the case with its id, else the case at its position in its set (LongBench's prediction files,
lm-eval's logs), else the only case with its prompt. Cases without a prediction are left out of all metrics.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from longreward.benchmarks.types import Answer, Benchmark, Case, OnProgress, Summary, Verdict, ignore_progress
from longreward.chat_model import estimate_tokens
from longreward.data.predictions import Prediction
from longreward.errors import DataError
from longreward.evaluation.statistics import IntervalOptions
from longreward.judge import Judge


@dataclass
class MatchedPredictions:
    """The answers to the cases of a benchmark, in the order of its cases."""

    items: list[tuple[Any, Answer]] = field(default_factory=list)
    """Cases with their answers."""
    unmatched: list[Prediction] = field(default_factory=list)
    repeated: int = 0
    """Predictions for a case that has one already."""


@dataclass(frozen=True)
class PredictionScores:
    """The result of one model on one benchmark."""

    summary: Summary
    answers: tuple[Answer, ...]
    verdicts: tuple[Verdict, ...]


def match_predictions(benchmark: Benchmark[Any], predictions: Sequence[Prediction]) -> MatchedPredictions:
    """Return the answer to each case; the first response of a prediction counts.

    Raises DataError if no prediction matches, or if the document of one is not that of the case at its position.
    """
    cases: dict[str, Case] = {case.id: case for case in benchmark.cases}
    cases_by_text: dict[bytes, list[str]] = {}  # the texts themselves may exceed the memory
    for own_id, case in cases.items():
        cases_by_text.setdefault(_text_hash(benchmark.case_text(case)), []).append(own_id)
    sets = {case.category for case in cases.values()}

    def find_case(prediction: Prediction) -> str | None:
        if prediction.position is not None:
            dataset, number = prediction.position
            case_id = f"{_set_name(dataset, sets)}/{number + 1}"
            if case_id in cases:
                _check_context(prediction, case_id, benchmark.case_text(cases[case_id]))
                return case_id
        if prediction.id in cases:
            return prediction.id
        same_text = cases_by_text.get(_text_hash(prediction.prompt or ""), [])
        return same_text[0] if len(same_text) == 1 else None

    matched, answers = MatchedPredictions(), dict[str, Answer]()
    for prediction in predictions:
        if (case_id := find_case(prediction)) is None:
            matched.unmatched.append(prediction)
        elif case_id in answers:
            matched.repeated += 1
        else:
            answers[case_id] = text_answer(case_id, prediction.responses[0], benchmark.case_text(cases[case_id]))
    if not answers:
        first = matched.unmatched[0]
        raise DataError(
            f"none of {len(predictions)} predictions answers a case of {benchmark.name}, whose ids are "
            f"{', '.join(list(cases)[:3])}, …; the first has the id {first.id!r}, the position {first.position} and "
            f"the prompt {(first.prompt or '')[:60]!r}. Are these the benchmark's published files (--folder)?"
        )
    matched.items = [(case, answers[case_id]) for case_id, case in cases.items() if case_id in answers]
    return matched


async def score_predictions(
    benchmark: Benchmark[Any],
    judge: Judge | None,
    items: Sequence[tuple[Any, Answer]],
    options: IntervalOptions,
    *,
    progress: OnProgress = ignore_progress,
) -> PredictionScores:
    """Judge the answers, if the benchmark uses a judge, and compute its metrics. Raises the errors of the judge."""
    verdicts: list[Verdict] = []
    if judge is not None:
        verdicts = [verdict for each in await benchmark.judge(judge, items, on_progress=progress) for verdict in each]
    answers = [answer for _, answer in items]
    return PredictionScores(benchmark.summarize(answers, verdicts, options), tuple(answers), tuple(verdicts))


def text_answer(case_id: str, text: str, prompt: str) -> Answer:
    """Return an answer of one turn whose token counts are estimates."""
    tokens = (estimate_tokens(text),)
    return Answer(case_id, (text,), tokens, (None,), (estimate_tokens(prompt),), prompt_truncated=False, created=0.0)


def _text_hash(text: str) -> bytes:
    return hashlib.blake2b(text.strip().encode(errors="surrogatepass"), digest_size=16).digest()


def _set_name(dataset: str, sets: Collection[str]) -> str:
    """Return which of the benchmark's sets a task is named after: `qasper` for `longbench_qasper` and `qasper_e`."""
    name = dataset.removesuffix("_e")
    matching = [own for own in sets if name == own or name.endswith(f"_{own}")]
    return max(matching, key=len, default=dataset)


def _check_context(prediction: Prediction, case_id: str, case_text: str) -> None:
    if prediction.context is not None and prediction.context.strip() not in case_text:
        raise DataError(
            f"the document of the prediction at {prediction.position} is not that of the case {case_id}: the tool read "
            "another version of the set, or another part of it"
        )
