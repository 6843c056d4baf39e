"""The evidence page of a project: reads the files of score, pair, evaluate and benchmark, and logs the page to MLflow.

Runs get a page of at most LOGGED_PROMPTS prompts per collection: training prompts evenly spaced, and of evaluation and
benchmarks those with the largest differences. 200 prompts with documents of 40,000 characters take about 5 MB.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

from longreward.benchmarks.suite import open_benchmark
from longreward.benchmarks.types import Answer, Benchmark, Verdict
from longreward.data.formats import (
    example_from_row,
    extraction_from_row,
    pair_from_row,
    parse_id,
    response_from_row,
    scored_from_row,
)
from longreward.errors import LongRewardError
from longreward.inspection.comparison_entries import (
    JudgedAnswer,
    benchmark_entries,
    evaluation_entries,
    rank_by_reward_difference,
    sorted_by_difference,
)
from longreward.inspection.entries import CostOf, PromptEntry, group_by_example, judge_costs
from longreward.inspection.html_page import Collection as PageCollection
from longreward.inspection.html_page import EvidencePage
from longreward.inspection.reward_entries import PromptRecords, reward_entry
from longreward.params import Params
from longreward.records import Example, PreferencePair, Response, Role
from longreward.tasks.stage import StageRun
from longreward.tasks.state import state_folder
from longreward.tasks.tracking.run import Run
from longreward.utils.jsonl import RecordsOnDisk, Row, read_records

T = TypeVar("T")
LOGGED_PROMPTS = 200
ARTIFACT = "evidence.html"
PREPARED, SAMPLED, SCORED, PAIRS = (Path("data") / name for name in ("prepared", "sampled", "scored", "pairs"))
EVALUATION, BENCHMARKED = Path("data/evaluation"), Path("data/benchmarked")
STAGES = ("score", "pair", "evaluate", "benchmark")
"""The stages whose outputs the page shows."""

log = logging.getLogger(__name__)


def project_page(
    params: Params,
    *,
    title: str,
    stages: Collection[str] = STAGES,
    limit: int | None = None,
    benchmarks: Sequence[Benchmark[Any]] = (),
) -> EvidencePage:
    """Return the page of the files in this folder. Stages without files are left out.

    Args:
        limit: the number of prompts per collection.
        benchmarks: those that are open; others are opened where there are answers to them.

    Raises:
        DataError: a file is malformed.
    """
    page = EvidencePage(title, storage_key=_storage_key(), currency=params.prices.currency)
    cost_of = judge_costs(params.prices)
    if {"score", "pair"} & set(stages):
        _add_rewards(page, params, cost_of, with_pairs="pair" in stages, limit=limit)
    if "evaluate" in stages:
        _add_evaluation(page, cost_of, limit=limit)
    if "benchmark" in stages:
        _add_benchmarks(page, params, {benchmark.name: benchmark for benchmark in benchmarks}, limit=limit)
    return page


def log_stage_page(run: StageRun, stages: Collection[str], *, benchmarks: Sequence[Benchmark[Any]] = ()) -> None:
    """Log the page of these stages to the MLflow run of a stage that has just written its files."""
    log_evidence_page(run.mlflow, run.params, title=run.name, stages=stages, benchmarks=benchmarks)


def log_evidence_page(
    run: Run, params: Params, *, title: str, stages: Collection[str], benchmarks: Sequence[Benchmark[Any]] = ()
) -> bool:
    """Log the page of these stages as the artifact evidence.html; a failure is a warning, since no stage depends on it.

    Returns whether there is a page: stages with nothing to show log nothing.
    """
    title = f"{state_folder().parent.name} · {title}"
    try:
        page = project_page(params, title=title, stages=stages, limit=LOGGED_PROMPTS, benchmarks=benchmarks)
    except LongRewardError as error:
        log.warning("the run has no evidence page: %s", error)
        return False
    if page.collections:
        run.log_text(ARTIFACT, page.render())
    return bool(page.collections)


def _storage_key() -> str:
    """Return the name of this project's flags in a browser, in which all local files share one storage."""
    folder = state_folder()
    return f"{folder.parent.name}-{hashlib.blake2b(str(folder).encode(), digest_size=4).hexdigest()}"


# --- training prompts -------------------------------------------------------------------------------------------------


def _add_rewards(page: EvidencePage, params: Params, cost_of: CostOf, *, with_pairs: bool, limit: int | None) -> None:
    pairs_file = PAIRS / "preference_pairs.jsonl"
    scored_files = (SCORED / "scored_responses.jsonl", SCORED / "unscored_responses.jsonl")
    sampled_file = SAMPLED / "sampled_responses.jsonl"
    answered = {parse_id(row.get("idx")).rpartition("-")[0] for row in _read(sampled_file, dict)}
    ids = [id for row in _read(PREPARED / "preference.jsonl", dict) if (id := parse_id(row.get("idx"))) in answered]
    if not ids and with_pairs:  # `pair.method: given`: the prompts are those of the pairs
        _add_given_pairs(page, pairs_file, cost_of, limit)
        return
    selected = _evenly_spaced(ids, limit)
    scored = group_by_example(
        (response for file in scored_files for response in _read_of(file, scored_from_row, selected)), selected
    )
    sampled: dict[str, list[Response]] = {}
    if not scored:
        for response in _read_of(sampled_file, response_from_row, selected):
            sampled.setdefault(response.example_id, []).append(response)
    chunk_info = _read_of(SCORED / "chunk_info.jsonl", extraction_from_row, selected, by_response=False)
    extractions = {extraction.example_id: extraction for extraction in chunk_info}
    pairs: dict[str, PreferencePair] = {}
    reasons: dict[str, str] = {}
    measures: dict[str, dict[str, float]] = {}
    if with_pairs:
        pairs = {pair.id: pair for pair in _read_of(pairs_file, pair_from_row, selected, by_response=False)}
        reasons = {str(row["example_id"]): str(row["reason"]) for row in _read(PAIRS / "without_pair.jsonl", dict)}
        # Of `pair.method: srm`. A response may have none, and then a reason.
        rewards = _read_of(PAIRS / "scores.jsonl", lambda row: (parse_id(row.get("idx")), row.get("reward")), selected)
        measures = {id: {"reward of srm": float(reward)} for id, reward in rewards if reward is not None}
    examples = _read_of(PREPARED / "preference.jsonl", example_from_row, selected, by_response=False)
    entries = (
        reward_entry(
            PromptRecords(
                example,
                scored.get(example.id, ()),
                sampled.get(example.id, ()),
                extractions.get(example.id),
                pairs.get(example.id),
                reasons.get(example.id),
                measures,
            ),
            cost_of,
            weights=params.pair.weights,
        )
        for example in examples
    )
    page.add(PageCollection("pairs", "Training prompts", "rewards", total=len(ids)), entries)


def _add_given_pairs(page: EvidencePage, file: Path, cost_of: CostOf, limit: int | None) -> None:
    ids = [parse_id(row.get("idx")) for row in _read(file, dict)]
    pairs = _read_of(file, pair_from_row, _evenly_spaced(ids, limit), by_response=False)
    entries = (
        reward_entry(
            PromptRecords(Example(id=pair.id, document_id="", context=pair.context, query=pair.query), pair=pair),
            cost_of,
        )
        for pair in pairs
    )
    page.add(PageCollection("pairs", "Training prompts", "rewards", total=len(ids)), entries)


# --- evaluation and benchmarks ----------------------------------------------------------------------------------------


def _add_evaluation(page: EvidencePage, cost_of: CostOf, *, limit: int | None) -> None:
    answers_file, verdicts_file = EVALUATION / "answers.jsonl", EVALUATION / "verdicts.jsonl"

    def reward(row: Row) -> tuple[Role, str, str, float | None]:
        example_id = parse_id(row.get("idx")).rpartition("-")[0]
        return cast(Role, row["model"]), str(row["decoding"]), example_id, row.get("reward")

    # Rewards first, so that documents and verdicts of the other prompts are not in memory.
    keys = rank_by_reward_difference(_read(verdicts_file, reward))
    selected = set(keys[:limit])
    selected_ids = {example_id for _, example_id in selected}

    def measure(row: Row) -> tuple[tuple[str, str, str], Mapping[str, float]]:
        return (str(row["model"]), str(row["decoding"]), str(row["idx"])), row.get("measures") or {}

    def judged_answer(row: Row) -> JudgedAnswer | None:
        role, decoding, example_id, _ = reward(row)
        return (role, decoding, scored_from_row(row)) if (decoding, example_id) in selected else None

    examples = _read_of(PREPARED / "heldout.jsonl", example_from_row, selected_ids, by_response=False)
    extractions = _read_of(EVALUATION / "chunk_info.jsonl", extraction_from_row, selected_ids, by_response=False)
    entries = evaluation_entries(
        {example.id: example for example in examples},
        (answer for answer in _read(verdicts_file, judged_answer) if answer is not None),
        {extraction.example_id: extraction for extraction in extractions},
        dict(_read_of(answers_file, measure, selected_ids)),
        cost_of,
    )
    page.add(PageCollection("evaluation", "Evaluation", "comparison", total=len(keys)), entries)


def _add_benchmarks(
    page: EvidencePage, params: Params, benchmarks: Mapping[str, Benchmark[Any]], *, limit: int | None
) -> None:
    config, total = params.benchmark, 0

    def make_entries() -> Iterator[PromptEntry]:
        nonlocal total
        for name in config.run:
            folders: dict[Role, Path] = {role: BENCHMARKED / name / role for role in config.models}
            answers = {role: _on_disk(folder / "answers.jsonl", _ANSWER) for role, folder in folders.items()}
            verdicts = {role: _on_disk(folder / "verdicts.jsonl", _VERDICT) for role, folder in folders.items()}
            if any(answers.values()):
                benchmark = benchmarks.get(name) or open_benchmark(name, config)
                for entry in benchmark_entries(benchmark, answers, verdicts):
                    total += 1
                    yield entry

    entries = sorted_by_difference(make_entries(), limit)
    page.add(PageCollection("benchmarks", "Benchmarks", "comparison", total=total), entries)


# --- files ------------------------------------------------------------------------------------------------------------

_ANSWER = TypeAdapter(Answer).validate_python
_VERDICT = TypeAdapter(Verdict).validate_python


def _read(path: Path, convert: Callable[[Row], T]) -> Iterator[T]:
    """Yield the records of a file; none if it is missing or empty. Raises DataError for a malformed line."""
    if path.is_file() and path.stat().st_size:
        yield from read_records(path, convert)


def _on_disk(path: Path, convert: Callable[[Row], T]) -> Sequence[T]:
    """Return the records of a file, which are read on access; none if it is missing or empty."""
    return RecordsOnDisk(path, convert) if path.is_file() and path.stat().st_size else ()


def _read_of(
    path: Path, convert: Callable[[Row], T], selected: Collection[str], *, by_response: bool = True
) -> Iterator[T]:
    """Yield the records of the selected prompts; other rows are parsed as JSON alone, which is a tenth of the work."""

    def convert_selected(row: Row) -> T | None:
        record_id = parse_id(row.get("idx"))
        return convert(row) if (record_id.rpartition("-")[0] if by_response else record_id) in selected else None

    return (record for record in _read(path, convert_selected) if record is not None)


def _evenly_spaced(ids: Sequence[str], limit: int | None) -> dict[str, None]:
    """Return at most `limit` of the ids, in order, as the keys of a dictionary for fast lookups."""
    count = len(ids) if limit is None else min(limit, len(ids))
    return dict.fromkeys(ids[index * len(ids) // count] for index in range(count))
