"""The published files of the LongReward authors, in and out (their repository, `data/example`).

    sft.jsonl                {"idx": 11, "query": "…", "answer": "…", "context": "…"}
    sampled_responses.jsonl  {"idx": "11-3", "query": "…", "answer": "…"}
    chunk_info.jsonl         {"idx": 11, "query": "…", "info_list": {"0% - 30%": "…"}}
    scored_responses.jsonl   {"idx": "11-3", "query": "…", "answer": "…", "scores": {…, "total": 31.0}, "details": {…}}
    preference_pairs.jsonl   {"idx": 11, "context": "…", "query": "…", "win_response": "…", "lose_response": "…"}

Our files hold the same fields and more of them, so either side's scripts read the other's.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from longreward.records import (
    DIMENSIONS,
    Dimension,
    Evidence,
    Example,
    Extract,
    Extraction,
    Judged,
    PreferencePair,
    Response,
    ScoredResponse,
    Statement,
    Verdict,
    is_short,
)
from longreward.utils.jsonl import Row, RowError, missing_key, read_records, shorten, write_rows

NOTHING_RELEVANT = "No relevant information"
SAMPLING_FIELDS = ("tokens", "finish_reason", "token_ids", "prompt_tokens", "prompt_hash")
"""Of a Response; in pairs with `win_` or `lose_` before the name. The published files have none of them."""


# --- rows to records --------------------------------------------------------------------------------------------------


LONGBENCH_FIELDS = ("input", "answers", "context")


def example_from_row(row: Row) -> Example:
    """A row of `sft.jsonl`, of LongReward-10k (its `dpo_*` rows have two responses, no answer) or of LongBench."""
    if is_longbench(row):
        row = longbench_fields(row)
    name, context, query = _id(row), _text(row, "context"), _text(row, "query")
    if is_blank(context) and not is_short(name):
        raise RowError("context is empty")
    if is_blank(query):
        raise RowError("query is empty")
    return Example(
        id=name,
        document_id=_document_name(row) or document_id(context),
        context=context,
        query=query,
        answer=None if row.get("answer") is None else _text(row, "answer"),
    )


def is_longbench(row: Row) -> bool:
    """Whether the row is a record of LongBench, known by `input` and `answers`.

    Raises RowError where it has `query` or `answer` too, or two different names: it could be either form.
    """
    if row.get("input") is None or row.get("answers") is None:
        return False
    other = [key for key in ("query", "answer") if row.get(key) is not None]
    if row.get("_id") is not None and row.get("idx") is not None and str(row["_id"]) != str(row["idx"]):
        other.append("idx")
    if other:
        raise RowError(
            f"the row fits two forms: it has input and answers, as LongBench, and {', '.join(other)}, as sft.jsonl"
        )
    return True


def longbench_fields(row: Row) -> Row:
    """A record of LongBench under the published names; the first of its answers counts."""
    answers = row.get("answers")
    if not isinstance(answers, list):
        raise RowError(f"answers is {shorten(answers)}, expected a list of texts")
    if row.get("input") == "":
        raise RowError("input is empty: put this set's task there; LongBench has it in dataset2prompt.json")
    name = row.get("_id") if row.get("_id") is not None else row.get("idx")
    return {
        "idx": name,
        "query": _text(row, "input"),
        "answer": answers[0] if answers else None,
        "context": row.get("context"),
    }


def response_from_row(row: Row) -> Response:
    """A row of `sampled_responses.jsonl`; its idx is `<example>-<n>`."""
    name = _id(row)
    example, dash, number = name.rpartition("-")
    if not dash or not example or not _is_number(number):
        raise RowError(f'idx {shorten(name)} is not of the form "<example>-<n>"')
    return Response(
        id=name,
        example_id=example,
        query=_text(row, "query"),
        text=_text(row, "answer"),
        **{name: row[name] for name in SAMPLING_FIELDS if name in row},
    )


def scored_from_row(row: Row) -> ScoredResponse:
    """A row of `scored_responses.jsonl`; the published ones know nothing of prompts, judges and calls."""
    scores = row.get("scores")
    if not isinstance(scores, dict):
        raise RowError("scores is missing or no object")
    details, reasons = row.get("details") or {}, row.get("unscored") or {}
    missing = [d for d in DIMENSIONS if d not in scores]
    if missing:
        raise RowError(f"scores lacks {', '.join(missing)}")
    return ScoredResponse(
        response=response_from_row(row),
        verdicts={d: _verdict(scores[d], details.get(d) or {"reason": reasons.get(d)}) for d in DIMENSIONS},
    )


def _verdict(score: float | None, details: Row) -> Verdict:
    return Verdict(
        score=score,
        bounds=details.get("bounds"),
        reason=details.get("reason"),
        analysis=details.get("analysis"),
        statements=tuple(_statement(fact) for fact in details.get("details") or ()),
        truncated=bool(details.get("truncated")),
        **_account(details),
    )


def _account(row: Row) -> Row:
    return {name: row[name] for name in Judged.model_fields if name in row}


def _statement(fact: Row) -> Statement:
    evidence = [
        Evidence(start=e.get("start", 0), end=e.get("end", 0), text=e["content"]) for e in fact.get("evidences") or ()
    ]
    return Statement(
        text=_text(fact, "fact"),
        support=fact.get("score"),
        analysis=fact.get("analysis"),
        reason=fact.get("reason"),
        evidence=tuple(evidence),
    )


def extraction_from_row(row: Row) -> Extraction:
    """A row of our `chunk_info.jsonl`; a published one has no character spans (they read as 0)."""
    if "extracts" in row:
        extracts = tuple(Extract.model_validate(extract) for extract in row["extracts"])
    else:
        extracts = tuple(_published_extract(*item) for item in (row.get("info_list") or {}).items())
    return Extraction(example_id=_id(row), query=_text(row, "query"), extracts=extracts, **_account(row))


def _published_extract(span: str, text: str) -> Extract:
    first, _, last = span.partition("-")
    try:
        percents = int(first.strip(" %")), int(last.strip(" %"))
    except ValueError:
        raise RowError(f'info_list has the key {span!r}, expected "<a>% - <b>%"') from None
    said = None if NOTHING_RELEVANT in text else text
    return Extract(start=0, end=0, first_percent=percents[0], last_percent=percents[1], text=said)


def pair_from_row(row: Row) -> PreferencePair:
    """A row of `preference_pairs.jsonl`; the published ones have no rewards (read as 10 and 0) and no sample ids."""
    name, query = _id(row), _text(row, "query")

    def response(side: str, fallback: int) -> Response:
        return Response(
            id=str(row.get(f"{side}_idx", f"{name}-{fallback}")),
            example_id=name,
            query=query,
            text=_text(row, f"{side}_response"),
            **{field: row[f"{side}_{field}"] for field in SAMPLING_FIELDS if f"{side}_{field}" in row},
        )

    return PreferencePair(
        id=name,
        context=_text(row, "context"),
        query=query,
        chosen=response("win", 0),
        rejected=response("lose", 1),
        chosen_reward=row.get("win_reward", 10.0),
        rejected_reward=row.get("lose_reward", 0.0),
        method=row.get("method", "longreward"),
    )


def document_id(context: str) -> str:
    """A name for a document that has none: a hash of its words, blind to white space."""
    return hash_words(context).hexdigest()[:16]


def hash_words(text: str) -> "hashlib._Hash":
    """SHA-256 of " ".join(text.split()), a piece at a time: a list of all words takes ten times the text's memory."""
    digest = hashlib.sha256()
    start, separator = 0, ""
    while start < len(text):
        # A piece ends before white space, so that no word is cut.
        space = WHITE_SPACE.search(text, start + HASHED)
        end = space.start() if space else len(text)
        if words := " ".join(text[start:end].split()):
            digest.update(f"{separator}{words}".encode("utf-8", "surrogatepass"))
            separator = " "
        start = end
    return digest


def is_blank(text: str) -> bool:
    """Whether there is nothing but white space; makes no copy of a long text, as strip() may."""
    return not text or text.isspace()


def _document_name(row: Row) -> str | None:
    """The document's own name; a number is one too (pandas makes 3 of it 3.0 where others are missing)."""
    name = row.get("document")
    if name is None or name == "" or (isinstance(name, float) and math.isnan(name)):
        return None
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise RowError(f"document is {shorten(name)}, expected a name or a number")
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def _id(row: Row) -> str:
    return parse_id(row.get("idx"))


def parse_id(value: Any) -> str:
    """A record's name: a text, or a number as pandas and JSON have it. Raises RowError for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT:
        value = int(value)  # pandas turns a column of whole numbers with a gap into floats
    if isinstance(value, float):
        raise RowError(
            f"idx is {value}, expected a whole number or a name; write names as text where pandas made floats of them"
        )
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise RowError(f"idx is {shorten(value)}, expected a number or a name")
    return str(value)


def _text(row: Row, key: str) -> str:
    if key not in row:
        raise missing_key(key, row)
    if not isinstance(row[key], str):
        found = "null" if row[key] is None else type(row[key]).__name__
        raise RowError(f"{key} is {found}, expected text")
    return str(row[key])


def _is_number(digits: str) -> bool:
    """Whether the text is a whole number that Python can convert; int() refuses more than 4,300 digits."""
    return digits.isascii() and digits.isdecimal() and len(digits) <= MOST_DIGITS


HASHED = 2**20  # characters at a time
LARGEST_EXACT = 2**53  # the largest float up to which all whole numbers are told apart
MOST_DIGITS = 1000
WHITE_SPACE = re.compile(r"\s")


# --- records to rows --------------------------------------------------------------------------------------------------


def published_id(name: str) -> int | str:
    """The published files number their examples; other names stay names."""
    return int(name) if _is_number(name) and str(int(name)) == name else name


def example_to_row(example: Example, **more: Any) -> Row:
    """A row of `sft.jsonl`, with the document's name."""
    return {
        "idx": published_id(example.id),
        "query": example.query,
        "answer": example.answer,
        "context": example.context,
        "document": example.document_id,
        **more,
    }


def response_to_row(response: Response) -> Row:
    """A row of `sampled_responses.jsonl`, with what is known of how it was sampled."""
    return {"idx": response.id, "query": response.query, "answer": response.text, **_sampling(response)}


def _sampling(response: Response, prefix: str = "") -> Row:
    known = {name: getattr(response, name) for name in SAMPLING_FIELDS}
    return {f"{prefix}{name}": value for name, value in known.items() if value is not None}


def extraction_to_row(extraction: Extraction) -> Row:
    """A row of `chunk_info.jsonl`; `extracts` is our list with character spans, in document order."""
    return {
        "idx": published_id(extraction.example_id),
        "query": extraction.query,
        "info_list": _info_list(extraction),
        "extracts": [
            extract.model_dump(exclude=set() if extract.truncated else {"truncated"}) for extract in extraction.extracts
        ],
        **extraction.model_dump(include=set(Judged.model_fields)),
    }


def _info_list(extraction: Extraction) -> dict[str, str]:
    """Extracts keyed by rounded percents, as published; those whose percents collide share a key and lose nothing."""
    info: dict[str, str] = {}
    for extract in extraction.extracts:
        key = f"{extract.first_percent}% - {extract.last_percent}%"
        said = extract.text or NOTHING_RELEVANT
        info[key] = f"{info[key]}\n{said}" if key in info else said
    return info


def scored_to_row(
    scored: ScoredResponse, extraction: Extraction | None = None, settings: Mapping[str, Any] | None = None
) -> Row:
    """A row of `scored_responses.jsonl`: the published fields (`total` is the sum), the reward, and how it came about.

    A response without all four scores has no total: its scores are null where unknown, its reasons in `unscored`. Where
    the judge was not asked because the pair did not depend on it, `bounds` and `reward_bounds` say what is known.
    `settings` are those of the scorer: chunk sizes, tokenizer, prompts.
    """
    verdicts = scored.verdicts
    scores: Row = {d: verdicts[d].score if d in verdicts else None for d in DIMENSIONS}
    scores["total"] = sum(scores.values()) if scored.complete else None
    row = response_to_row(scored.response) | {"scores": scores, "reward": scored.reward}
    if not scored.complete:
        row["unscored"] = {d: _why_unscored(verdicts.get(d)) for d in DIMENSIONS if scores[d] is None}
        row |= _bounds(scored)
    row["details"] = {d: _details(d, verdict) for d, verdict in verdicts.items()}
    if extraction is not None and "completeness" in row["details"]:
        row["details"]["completeness"]["info_list"] = _info_list(extraction)
    return row | ({"settings": dict(settings)} if settings else {})


def _bounds(scored: ScoredResponse) -> Row:
    bounds = {d: verdict.bounds for d, verdict in scored.verdicts.items() if verdict.bounds is not None}
    return {"bounds": bounds, "reward_bounds": scored.bounds()} if bounds else {}


def _why_unscored(verdict: Verdict | None) -> str:
    return "not asked" if verdict is None else verdict.reason or "no reason was recorded"


def _details(dimension: Dimension, verdict: Verdict) -> Row:
    details: Row = {"analysis": verdict.analysis, "score": verdict.score, "reason": verdict.reason}
    if verdict.bounds is not None:
        details["bounds"] = verdict.bounds
    if verdict.truncated:
        details["truncated"] = True
    if dimension == "faithfulness":
        details["facts"] = {statement.text: statement.support for statement in verdict.statements}
        details["details"] = [_fact(statement) for statement in verdict.statements]
    return details | verdict.model_dump(include=set(Judged.model_fields))


def _fact(statement: Statement) -> Row:
    return {
        "fact": statement.text,
        "analysis": statement.analysis,
        "score": statement.support,
        "reason": statement.reason,
        "evidences": [{"content": e.text, "start": e.start, "end": e.end} for e in statement.evidence],
    }


def pair_to_row(pair: PreferencePair) -> Row:
    """A row of `preference_pairs.jsonl`, with the method, both rewards, which samples they were and how sampled."""
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
        **_sampling(pair.chosen, "win_"),
        **_sampling(pair.rejected, "lose_"),
    }


# --- whole files ------------------------------------------------------------------------------------------------------


def read_examples(path: Path) -> Iterator[Example]:
    """The examples of a file in the form of `sft.jsonl`."""
    return read_records(path, example_from_row)


def read_responses(path: Path) -> Iterator[Response]:
    """The responses of a file in the form of `sampled_responses.jsonl`."""
    return read_records(path, response_from_row)


def read_scored(path: Path) -> Iterator[ScoredResponse]:
    """The scored responses of a file in the form of `scored_responses.jsonl`, or of its unscored neighbour."""
    return read_records(path, scored_from_row)


def read_chunk_info(path: Path) -> Iterator[Extraction]:
    """The extracts of a file in the form of `chunk_info.jsonl`."""
    return read_records(path, extraction_from_row)


def read_pairs(path: Path) -> Iterator[PreferencePair]:
    """The pairs of a file in the form of `preference_pairs.jsonl`."""
    return read_records(path, pair_from_row)


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Writes `sft.jsonl`; returns the number of rows."""
    return write_rows(path, map(example_to_row, examples))


def write_responses(path: Path, responses: Iterable[Response]) -> int:
    """Writes `sampled_responses.jsonl`; returns the number of rows."""
    return write_rows(path, map(response_to_row, responses))


def write_scored(path: Path, scored: Iterable[ScoredResponse]) -> int:
    """Writes `scored_responses.jsonl`; returns the number of rows."""
    return write_rows(path, map(scored_to_row, scored))


def write_chunk_info(path: Path, extractions: Iterable[Extraction]) -> int:
    """Writes `chunk_info.jsonl`; returns the number of rows."""
    return write_rows(path, map(extraction_to_row, extractions))


def write_pairs(path: Path, pairs: Iterable[PreferencePair]) -> int:
    """Writes `preference_pairs.jsonl`; returns the number of rows."""
    return write_rows(path, map(pair_to_row, pairs))
