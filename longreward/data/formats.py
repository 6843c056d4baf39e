"""The published file formats of the LongReward authors (their repository, `data/example`), read and written.

    sft.jsonl                {"idx": 11, "query": "…", "answer": "…", "context": "…"}
    sampled_responses.jsonl  {"idx": "11-3", "query": "…", "answer": "…"}
    chunk_info.jsonl         {"idx": 11, "query": "…", "info_list": {"0% - 30%": "…"}}
    scored_responses.jsonl   {"idx": "11-3", "query": "…", "answer": "…", "scores": {…, "total": 31.0}, "details": {…}}
    preference_pairs.jsonl   {"idx": 11, "context": "…", "query": "…", "win_response": "…", "lose_response": "…"}

Our files contain the same fields and further ones, so scripts of either side read the files of the other.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from longreward.data.short_ids import has_short_prefix
from longreward.records import (
    DIMENSIONS,
    OPTIONAL_DIMENSIONS,
    Dimension,
    Evidence,
    Example,
    Extract,
    Extraction,
    JudgeUsage,
    MemberScore,
    PreferencePair,
    Response,
    Rubric,
    RubricItem,
    ScoredResponse,
    Statement,
    Verdict,
)
from longreward.utils.jsonl import Row, RowError, error_reason, missing_key, read_records, shorten, write_rows

T = TypeVar("T")

LONGBENCH_FIELDS = ("input", "answers", "context")
NO_INFORMATION = "No relevant information"
SAMPLING_FIELDS = ("tokens", "finish_reason", "token_ids", "prompt_tokens", "prompt_hash")
"""Fields of a Response that the published files lack; in pairs with the prefix `win_` or `lose_`."""
PANEL_FIELDS = ("member_margins", "disputed")
"""Fields of a pair that the judges of a panel have rated."""
STATEMENT_KEYS: Mapping[Dimension, str] = {"faithfulness": "fact", "rubric": "item", "citations": "statement"}
"""The key of a statement's text in the details of each dimension that has statements."""

HASHED_CHARACTERS = 2**20  # at a time
MAX_EXACT_FLOAT = 2**53  # up to here floats represent all whole numbers
MAX_DIGITS = 1000
WHITE_SPACE = re.compile(r"\s")


# --- examples ---------------------------------------------------------------------------------------------------------


def example_from_row(row: Row) -> Example:
    """Parse a row of `sft.jsonl`, of LongReward-10k (`dpo_*` rows have two responses and no answer) or of LongBench."""
    if is_longbench(row):
        row = longbench_fields(row)
    example_id, context, query = parse_id(row.get("idx")), _text(row, "context"), _text(row, "query")
    if is_blank(context) and not has_short_prefix(example_id):
        raise RowError("context is empty")
    if is_blank(query):
        raise RowError("query is empty")
    return Example(
        id=example_id,
        document_id=_document_name(row) or document_id(context),
        context=context,
        query=query,
        answer=None if row.get("answer") is None else _text(row, "answer"),
        rubric=parse_rubric(row.get("rubric")),
    )


def parse_rubric(value: Any) -> tuple[RubricItem, ...]:
    """Parse the rubric of a row: a list of texts or of `{"text": …, "weight": …}`, or a text with an item a line.

    None, an empty list and an empty text are none.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        value = [line.strip() for line in value.splitlines() if line.strip()]
    if not isinstance(value, list):
        raise RowError(f"rubric is {shorten(value)}, expected a list of texts or of {{text, weight}}")
    items = [{"text": item} if isinstance(item, str) else item for item in value]
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("text"), str) or is_blank(item["text"]):
            raise RowError(f"rubric has the item {shorten(item)}, expected a text or {{text, weight}}")
    try:
        return tuple(RubricItem.model_validate(item) for item in items)
    except ValidationError as error:
        raise RowError(f"rubric: {error_reason(error)}") from None


def example_to_row(example: Example, **extra_fields: Any) -> Row:
    """Return a row of `sft.jsonl`, with the document's name."""
    return {
        "idx": published_id(example.id),
        "query": example.query,
        "answer": example.answer,
        "context": example.context,
        "document": example.document_id,
        **({"rubric": rubric_to_row(example.rubric)} if example.rubric else {}),
        **extra_fields,
    }


def rubric_to_row(items: Sequence[RubricItem]) -> list[Row | str]:
    """Return the rubric of a row; items with weight 1 are texts."""
    return [item.text if item.weight == 1 else item.model_dump() for item in items]


def is_longbench(row: Row) -> bool:
    """Return whether the row is a record of LongBench, recognized by `input` and `answers`.

    Raises RowError if it also has `query`, `answer` or a second id, so that both forms are possible.
    """
    if row.get("input") is None or row.get("answers") is None:
        return False
    conflicts = [key for key in ("query", "answer") if row.get(key) is not None]
    if row.get("_id") is not None and row.get("idx") is not None and str(row["_id"]) != str(row["idx"]):
        conflicts.append("idx")
    if conflicts:
        raise RowError(
            f"the row fits two forms: it has input and answers, as LongBench, and {', '.join(conflicts)}, as sft.jsonl"
        )
    return True


def longbench_fields(row: Row) -> Row:
    """Return a record of LongBench under the published names, with the first of its answers."""
    answers = row.get("answers")
    if not isinstance(answers, list):
        raise RowError(f"answers is {shorten(answers)}, expected a list of texts")
    if row.get("input") == "":
        raise RowError("input is empty: set it to the task of this data set, as in LongBench's dataset2prompt.json")
    return {
        "idx": row.get("_id") if row.get("_id") is not None else row.get("idx"),
        "query": _text(row, "input"),
        # The list has alternative wordings of one answer.
        "answer": answers[0] if answers else None,
        "context": row.get("context"),
    }


# --- responses --------------------------------------------------------------------------------------------------------


def response_from_row(row: Row) -> Response:
    """Parse a row of `sampled_responses.jsonl`, whose idx is `<example>-<n>`."""
    response_id = parse_id(row.get("idx"))
    # Example ids may contain dashes; the number follows the last one.
    example_id, _, number = response_id.rpartition("-")
    if not example_id or not _is_integer(number):
        raise RowError(f'idx {shorten(response_id)} is not of the form "<example>-<n>"')
    return Response(
        id=response_id,
        example_id=example_id,
        query=_text(row, "query"),
        text=_text(row, "answer"),
        **_select(row, SAMPLING_FIELDS),
    )


def response_to_row(response: Response) -> Row:
    """Return a row of `sampled_responses.jsonl`, with the known sampling fields."""
    return {"idx": response.id, "query": response.query, "answer": response.text, **_sampling_fields(response)}


def _sampling_fields(response: Response, prefix: str = "") -> Row:
    values = {name: getattr(response, name) for name in SAMPLING_FIELDS}
    return {f"{prefix}{name}": value for name, value in values.items() if value is not None}


# --- extracts of the completeness judge -------------------------------------------------------------------------------


def extraction_from_row(row: Row) -> Extraction:
    """Parse a row of `chunk_info.jsonl`; published rows have no character spans, which are read as 0."""
    if "extracts" in row:
        extracts = tuple(Extract.model_validate(extract) for extract in row["extracts"])
    else:
        extracts = tuple(_published_extract(*item) for item in (row.get("info_list") or {}).items())
    return Extraction(
        example_id=parse_id(row.get("idx")),
        query=_text(row, "query"),
        extracts=extracts,
        **_select(row, JudgeUsage.model_fields),
    )


def extraction_to_row(extraction: Extraction, rubric: Rubric | None = None) -> Row:
    """Return a row of `chunk_info.jsonl`; `extracts` lists the extracts with character spans in document order.

    `rubric`: that of the prompt, if it is in use.
    """
    return {
        "idx": published_id(extraction.example_id),
        "query": extraction.query,
        "info_list": _info_list(extraction),
        "extracts": [
            extract.model_dump(exclude=set() if extract.truncated else {"truncated"}) for extract in extraction.extracts
        ],
        **extraction.model_dump(include=set(JudgeUsage.model_fields)),
        **({"rubric": rubric.model_dump()} if rubric is not None else {}),
    }


def _published_extract(span: str, text: str) -> Extract:
    first, _, last = span.partition("-")
    try:
        first_percent, last_percent = int(first.strip(" %")), int(last.strip(" %"))
    except ValueError:
        raise RowError(f'info_list has the key {span!r}, expected "<a>% - <b>%"') from None
    # The judge writes this sentence, sometimes with further words, if a chunk contains nothing about the question.
    information = None if NO_INFORMATION in text else text
    return Extract(start=0, end=0, first_percent=first_percent, last_percent=last_percent, text=information)


def _info_list(extraction: Extraction) -> dict[str, str]:
    # Published keys are rounded percentages, so two short chunks can share a key. Their extracts are joined.
    info: dict[str, str] = {}
    for extract in extraction.extracts:
        key = f"{extract.first_percent}% - {extract.last_percent}%"
        text = extract.text or NO_INFORMATION
        info[key] = f"{info[key]}\n{text}" if key in info else text
    return info


# --- scored responses -------------------------------------------------------------------------------------------------


def scored_from_row(row: Row) -> ScoredResponse:
    """Parse a row of `scored_responses.jsonl`; published rows have no prompts, judges and calls."""
    scores = row.get("scores")
    if not isinstance(scores, dict):
        raise RowError("scores is missing or no object")
    if missing := [dimension for dimension in DIMENSIONS if dimension not in scores]:
        raise RowError(f"scores lacks {', '.join(missing)}")
    # Our unscored dimensions may have only a reason, in `unscored`.
    details, reasons = row.get("details") or {}, row.get("unscored") or {}
    return ScoredResponse(
        response=response_from_row(row),
        verdicts={
            d: _verdict_from_row(d, scores[d], details.get(d) or {"reason": reasons.get(d)})
            for d in (*DIMENSIONS, *OPTIONAL_DIMENSIONS)
            if d in scores
        },
    )


def scored_to_row(
    scored: ScoredResponse, extraction: Extraction | None = None, settings: Mapping[str, Any] | None = None
) -> Row:
    """Return a row of `scored_responses.jsonl`: the published fields (`total` is the sum), the reward and its origin.

    A response without all scores has no total and no reward: missing scores are null, with reasons in `unscored`.
    If the judge was not queried because the pair did not depend on the score, `bounds` and `reward_bounds` limit it.
    `settings` are those of the scorer: chunk sizes, tokenizer, prompts.
    """
    # The order of keys is that of the published files.
    verdicts = scored.verdicts
    scores: Row = {d: verdicts[d].score if d in verdicts else None for d in scored.dimensions}
    scores["total"] = sum(scores.values()) if scored.complete else None
    row = response_to_row(scored.response) | {"scores": scores, "reward": scored.reward}
    if not scored.complete:
        row["unscored"] = {
            d: (verdicts[d].reason or "no reason was recorded") if d in verdicts else "not asked"
            for d in scored.dimensions
            if scores[d] is None
        }
        if bounds := {d: verdict.bounds for d, verdict in verdicts.items() if verdict.bounds is not None}:
            row |= {"bounds": bounds, "reward_bounds": scored.reward_bounds()}
    row["details"] = {d: _verdict_to_row(d, verdict) for d, verdict in verdicts.items()}
    if extraction is not None and "completeness" in row["details"]:
        row["details"]["completeness"]["info_list"] = _info_list(extraction)
    return row | ({"settings": dict(settings)} if settings else {})


def _verdict_from_row(dimension: Dimension, score: float | None, row: Row) -> Verdict:
    return Verdict(
        score=score,
        statements=tuple(
            Statement(
                text=_text(fact, STATEMENT_KEYS.get(dimension, "fact")),
                support=fact.get("score"),
                votes=fact.get("votes") or {},
                analysis=fact.get("analysis"),
                reason=fact.get("reason"),
                weight=fact.get("weight", 1.0),
                evidence=tuple(
                    Evidence(
                        start=item.get("start", 0),
                        end=item.get("end", 0),
                        text=item["content"],
                        relevance=item.get("relevance"),
                    )
                    for item in fact.get("evidences") or ()
                ),
            )
            for fact in row.get("details") or ()
        ),
        truncated=bool(row.get("truncated")),
        members=tuple(MemberScore.model_validate(member) for member in row.get("members") or ()),
        **{name: row.get(name) for name in ("bounds", "reason", "analysis")},
        **_select(row, JudgeUsage.model_fields),
    )


def _verdict_to_row(dimension: Dimension, verdict: Verdict) -> Row:
    row: Row = {"analysis": verdict.analysis, "score": verdict.score, "reason": verdict.reason}
    if verdict.bounds is not None:
        row["bounds"] = verdict.bounds
    if verdict.truncated:
        row["truncated"] = True
    if verdict.members:
        row["members"] = [member.model_dump(exclude={"prompt_hashes"}) for member in verdict.members]
    if dimension == "faithfulness":
        row["facts"] = {statement.text: statement.support for statement in verdict.statements}
    if dimension in STATEMENT_KEYS:
        row["details"] = [
            {
                STATEMENT_KEYS[dimension]: statement.text,
                **({"weight": statement.weight} if dimension == "rubric" else {}),
                "analysis": statement.analysis,
                "score": statement.support,
                **({"votes": statement.votes} if statement.votes else {}),
                "reason": statement.reason,
                "evidences": [
                    {"content": item.text, "start": item.start, "end": item.end}
                    | ({"relevance": item.relevance} if dimension == "citations" else {})
                    for item in statement.evidence
                ],
            }
            for statement in verdict.statements
        ]
    return row | verdict.model_dump(include=set(JudgeUsage.model_fields))


# --- pairs ------------------------------------------------------------------------------------------------------------


def pair_from_row(row: Row) -> PreferencePair:
    """Parse a row of `preference_pairs.jsonl`; published rows have no rewards (read as 10 and 0) and no sample ids."""
    pair_id, query = parse_id(row.get("idx")), _text(row, "query")

    def response(side: str, number: int) -> Response:
        sampling_fields = {name: row[f"{side}_{name}"] for name in SAMPLING_FIELDS if f"{side}_{name}" in row}
        return Response(
            id=str(row.get(f"{side}_idx", f"{pair_id}-{number}")),
            example_id=pair_id,
            query=query,
            text=_text(row, f"{side}_response"),
            **sampling_fields,
        )

    return PreferencePair(
        id=pair_id,
        context=_text(row, "context"),
        query=query,
        # The published pairs have sample ids in no field; numbers 0 and 1 keep the ids unique.
        chosen=response("win", 0),
        rejected=response("lose", 1),
        # Any two values in the right order would do: DPO uses the order only.
        chosen_reward=row.get("win_reward", 10.0),
        rejected_reward=row.get("lose_reward", 0.0),
        method=row.get("method", "longreward"),
        **_select(row, PANEL_FIELDS),
    )


def pair_to_row(pair: PreferencePair) -> Row:
    """Return a row of `preference_pairs.jsonl`, with method, rewards, sample ids and sampling fields."""
    return {
        "idx": published_id(pair.id),
        "context": pair.context,
        "query": pair.query,
        "win_response": pair.chosen.text,
        "lose_response": pair.rejected.text,
        "win_idx": pair.chosen.id,
        "lose_idx": pair.rejected.id,
        "win_reward": pair.chosen_reward,
        "lose_reward": pair.rejected_reward,
        "method": pair.method,
        **_sampling_fields(pair.chosen, "win_"),
        **_sampling_fields(pair.rejected, "lose_"),
        **(pair.model_dump(include=set(PANEL_FIELDS)) if pair.member_margins else {}),
    }


# --- files ------------------------------------------------------------------------------------------------------------


def _writer(to_row: Callable[[T], Row]) -> Callable[[Path, Iterable[T]], int]:
    def write(path: Path, records: Iterable[T]) -> int:
        return write_rows(path, map(to_row, records))

    return write


# Readers yield the records of a file and raise DataError, with the line, for a bad one. Writers return the row count.
read_examples = partial(read_records, convert=example_from_row)
read_responses = partial(read_records, convert=response_from_row)
read_scored = partial(read_records, convert=scored_from_row)
read_chunk_info = partial(read_records, convert=extraction_from_row)
read_pairs = partial(read_records, convert=pair_from_row)
write_examples: Callable[[Path, Iterable[Example]], int] = _writer(example_to_row)
write_responses = _writer(response_to_row)
write_scored: Callable[[Path, Iterable[ScoredResponse]], int] = _writer(scored_to_row)
write_chunk_info = _writer(extraction_to_row)
write_pairs = _writer(pair_to_row)


# --- ids and texts ----------------------------------------------------------------------------------------------------


def parse_id(value: Any) -> str:
    """Return a record's id from a text or a whole number; raises RowError for anything else."""
    # pandas turns a column of whole numbers with missing values into floats.
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT_FLOAT:
        value = int(value)
    if isinstance(value, float):
        raise RowError(
            f"idx is {value}, expected a whole number or a name; write names as text if pandas converted them to floats"
        )
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise RowError(f"idx is {shorten(value)}, expected a number or a name")
    return str(value)


def published_id(record_id: str) -> int | str:
    """Return the id as the published files have it: a number if possible, otherwise text."""
    return int(record_id) if _is_integer(record_id) and str(int(record_id)) == record_id else record_id


def document_id(context: str) -> str:
    """Return the id of a document without a name: a hash of its words, independent of white space."""
    return hash_words(context).hexdigest()[:16]


def hash_words(text: str) -> "hashlib._Hash":
    """Return the SHA-256 of " ".join(text.split()), piece by piece: a list of all words takes ten times the memory."""
    digest = hashlib.sha256()
    start, separator = 0, ""
    while start < len(text):
        # A piece ends before white space, so that no word is split.
        space = WHITE_SPACE.search(text, start + HASHED_CHARACTERS)
        end = space.start() if space else len(text)
        if words := " ".join(text[start:end].split()):
            digest.update(f"{separator}{words}".encode("utf-8", "surrogatepass"))
            separator = " "
        start = end
    return digest


def is_blank(text: str) -> bool:
    """Return whether the text is empty or white space, without the copy that strip() may make."""
    return not text or text.isspace()


def _document_name(row: Row) -> str | None:
    name = row.get("document")
    # pandas writes NaN, or 3.0 for 3, into a column with missing values.
    if name is None or name == "" or (isinstance(name, float) and math.isnan(name)):
        return None
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise RowError(f"document is {shorten(name)}, expected a name or a number")
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def _text(row: Row, key: str) -> str:
    if key not in row:
        raise missing_key(key, row)
    if not isinstance(row[key], str):
        raise RowError(f"{key} is {'null' if row[key] is None else type(row[key]).__name__}, expected text")
    return str(row[key])


def _select(row: Row, names: Iterable[str]) -> Row:
    return {name: row[name] for name in names if name in row}


def _is_integer(digits: str) -> bool:
    # int() rejects more than 4,300 digits.
    return digits.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS
