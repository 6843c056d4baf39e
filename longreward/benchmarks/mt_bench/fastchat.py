"""Answers and judgments in FastChat's formats.

    model_answer/<model>.jsonl, reference_answer/<judge>.jsonl
        {"question_id": 81, "answer_id": "3f…", "model_id": "sft", "choices": [{"index": 0, "turns": ["…", "…"]}],
         "tstamp": 1700000000.0}
    model_judgment/<judge>_single.jsonl
        {"question_id": 81, "model": "sft", "judge": ["gpt-4", "single-v1"], "user_prompt": "…", "judgment": "… [[7]]",
         "score": 7, "turn": 1, "tstamp": 1700000000.0}
    model_judgment/<judge>_pair.jsonl
        {"question_id": 81, "model_1": "dpo", "model_2": "sft", "g1_winner": "model_1", "g2_winner": "tie",
         "judge": […], "g1_user_prompt": "…", "g1_judgment": "…", "g2_user_prompt": …, "g2_judgment": …, "turn": 1,
         "tstamp": …}

The first choice of an answer is judged; the last row of a question counts. A judgment file holds the judgments of all
models by one judge; a score of -1 and the winner "error" mean that there is none. When judgments are read, `published`
parsing takes the value of the row, so that our metrics are those of `show_result`, and `strict` parses the judgment. A
turn that was judged twice counts twice, as it does there.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from longreward.benchmarks.mt_bench.data import MtCase, parse_question_id, parse_timestamp, read_answer_rows
from longreward.benchmarks.mt_bench.judge import (
    BUILTIN_PREFIX,
    TEMPLATE_PREFIX,
    Winner,
    pair_verdict,
    single_verdict,
)
from longreward.benchmarks.published_formats import parse_text
from longreward.benchmarks.types import Answer, Verdict
from longreward.errors import DataError
from longreward.judge.prompts import Parsing
from longreward.utils.jsonl import Row, RowError, read_records, write_rows

Cases = Mapping[str, MtCase]
WINNERS: Mapping[float | None, str] = {1.0: "model_1", 0.0: "model_2", 0.5: "tie", None: "error"}


def read_answers(path: Path, cases: Sequence[MtCase]) -> list[Answer]:
    """Read the answers of any program, in the order of `cases`; answers to other questions are ignored.

    Token counts are 0 and finish reasons None. Raises DataError for a missing answer or too few turns.
    """
    rows = read_answer_rows(path)
    answers = []
    for case in cases:
        row = rows.get(case.id)
        if row is None or len(row.turns) < len(case.turns):
            content = f"an answer of {len(row.turns)} turn" if row is not None else "no answer"
            raise DataError(f"{path} has {content} to question {case.id}, which has {len(case.turns)} turns")
        answers.append(_text_answer(case, row.turns[: len(case.turns)], row.created))
    return answers


def reference_answers(cases: Iterable[MtCase]) -> list[Answer]:
    """Return the reference answers of the cases that have them."""
    return [_text_answer(case, case.references, 0.0) for case in cases if case.references]


def write_answers(path: Path, answers: Iterable[Answer], cases: Cases, *, model: str) -> None:
    """Write an answers file; equal answers get equal `answer_id`s."""
    rows = []
    for answer in answers:
        content = json.dumps([answer.case_id, model, answer.turns])
        rows.append(
            {
                "question_id": cases[answer.case_id].question_id,
                "answer_id": hashlib.sha256(content.encode()).hexdigest()[:22],
                "model_id": model,
                "choices": [{"index": 0, "turns": list(answer.turns)}],
                "tstamp": answer.created,
            }
        )
    write_rows(path, rows)


def _text_answer(case: MtCase, turns: tuple[str, ...], created: float) -> Answer:
    count = len(turns)
    return Answer(
        case_id=case.id,
        turns=turns,
        tokens=(0,) * count,
        finish_reasons=(None,) * count,
        prompt_tokens=(0,) * count,
        prompt_truncated=False,
        created=created,
    )


def single_rows(verdicts: Iterable[Verdict], cases: Cases, *, model: str) -> list[Row]:
    """Return a row per rating."""
    return [
        {
            "question_id": cases[verdict.case_id].question_id,
            "model": model,
            "judge": [verdict.judge, verdict.metadata["prompt"]],
            "user_prompt": verdict.prompt,
            "judgment": verdict.judgment,
            "score": -1 if verdict.value is None else _shortest_number(verdict.value),
            "turn": verdict.metadata["turn"],
            "tstamp": verdict.created,
        }
        for verdict in verdicts
        if "opponent" not in verdict.metadata
    ]


def pair_rows(verdicts: Iterable[Verdict], cases: Cases, *, model: str) -> list[Row]:
    """Return a row per turn that was compared in both orders, with the model as model_1."""
    orders: dict[tuple[str, int, str], dict[int, Verdict]] = {}
    for verdict in verdicts:
        if "opponent" in verdict.metadata:
            key = (verdict.case_id, verdict.metadata["turn"], verdict.metadata["opponent"])
            orders.setdefault(key, {})[verdict.metadata["order"]] = verdict
    return [
        {
            "question_id": cases[case_id].question_id,
            "model_1": model,
            "model_2": opponent,
            "g1_winner": WINNERS[both[1].value],
            "g2_winner": WINNERS[both[2].value],
            "judge": [both[1].judge, both[1].metadata["prompt"]],
            "g1_user_prompt": both[1].prompt,
            "g1_judgment": both[1].judgment,
            "g2_user_prompt": both[2].prompt,
            "g2_judgment": both[2].judgment,
            "turn": turn,
            "tstamp": max(both[1].created, both[2].created),
        }
        for (case_id, turn, opponent), both in orders.items()
        if len(both) == 2
    ]


def replace_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows in place of those of the same models; rows of other models stay."""
    if not rows:
        return
    # FastChat appends rows, so that its result of a model that was judged again would count both judgments.
    models = {_models(row) for row in rows}
    existing = read_records(path, lambda row: row) if path.is_file() else ()
    write_rows(path, [*(row for row in existing if _models(row) not in models), *rows])


def _models(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("model", "model_1", "model_2") if name in row)


def _shortest_number(rating: float) -> int | float:
    return int(rating) if rating == int(rating) else rating


def read_ratings(path: Path, cases: Cases, *, model: str, parsing: Parsing) -> list[Verdict]:
    """Read the ratings of `model`. Raises DataError for a malformed row or an unknown question."""
    rows = read_records(path, lambda row: _parse_rating(row, cases, model, parsing))
    return _number_repeats([verdict for verdict in rows if verdict is not None])


def read_pairs(path: Path, cases: Cases, *, model: str, opponent: str, parsing: Parsing) -> list[Verdict]:
    """Read the comparisons of `model` with `opponent`, in whichever order the rows name them."""
    rows = read_records(path, lambda row: _parse_pair(row, cases, model, opponent, parsing))
    return _number_repeats([verdict for verdicts in rows for verdict in verdicts])


def _parse_rating(row: Row, cases: Cases, model: str, parsing: Parsing) -> Verdict | None:
    if row.get("model") != model:
        return None
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise RowError(f"score is {score!r}, expected a number (-1: no rating in the judgment)")
    published = None if score == -1 else float(score)
    judgment = parse_text(row, "judgment", default="")
    verdict = single_verdict(_parse_case_id(row, cases), _parse_turn(row), judgment, published, parsing=parsing)
    return _with_row(verdict, row, parse_text(row, "user_prompt", default=""))


def _parse_pair(row: Row, cases: Cases, model: str, opponent: str, parsing: Parsing) -> list[Verdict]:
    if {row.get("model_1"), row.get("model_2")} != {model, opponent}:
        return []
    # model_1 is assistant A in the first comparison of the row and B in the second.
    first_order, second_order = (1, 2) if row["model_1"] == model else (2, 1)
    letters: tuple[tuple[str, dict[str, Winner], int], ...] = (
        ("g1", {"model_1": "A", "model_2": "B"}, first_order),
        ("g2", {"model_1": "B", "model_2": "A"}, second_order),
    )
    verdicts = []
    for prefix, winner_by_name, order in letters:
        winners: dict[str, Winner] = {**winner_by_name, "tie": "tie", "error": "error"}
        winner = winners.get(str(row.get(f"{prefix}_winner")))
        if winner is None:
            raise RowError(f"{prefix}_winner is {row.get(f'{prefix}_winner')!r}, expected {', '.join(winners)}")
        judgment = parse_text(row, f"{prefix}_judgment", default="")
        case_id, turn = _parse_case_id(row, cases), _parse_turn(row)
        verdict = pair_verdict(case_id, turn, judgment, winner, opponent=opponent, order=order, parsing=parsing)
        verdicts.append(_with_row(verdict, row, parse_text(row, f"{prefix}_user_prompt", default="")))
    return verdicts


def _with_row(verdict: Verdict, row: Row, prompt: str) -> Verdict:
    judge = row.get("judge")
    if not isinstance(judge, list) or len(judge) != 2:
        raise RowError(f'judge is {judge!r}, expected its name and that of the prompt: ["gpt-4", "single-v1"]')
    name = str(judge[1])
    return replace(
        verdict,
        template=f"{TEMPLATE_PREFIX}{name.removeprefix(BUILTIN_PREFIX)}",
        prompt=prompt,
        judge=str(judge[0]),
        created=parse_timestamp(row),
        metadata={**verdict.metadata, "prompt": name, "official": not name.startswith(BUILTIN_PREFIX)},
    )


def _parse_case_id(row: Row, cases: Cases) -> str:
    case_id = str(parse_question_id(row))
    if case_id not in cases:
        raise RowError(f"question_id {case_id} is not one of the questions; use the question.jsonl of these judgments")
    return case_id


def _parse_turn(row: Row) -> int:
    turn = row.get("turn", 1)
    if turn not in (1, 2):
        raise RowError(f"turn is {turn!r}, expected 1 or 2")
    return int(turn)


def _number_repeats(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Make the parts unique: a turn that was judged again stays a verdict of its own."""
    counts: Counter[tuple[str, str]] = Counter()
    numbered = []
    for verdict in verdicts:
        key = (verdict.case_id, verdict.part)
        if repeat := counts[key]:
            metadata = {**verdict.metadata, "repeat": repeat}
            verdict = replace(verdict, part=f"{verdict.part}, repeat {repeat}", metadata=metadata)
        counts[key] += 1
        numbered.append(verdict)
    return numbered
