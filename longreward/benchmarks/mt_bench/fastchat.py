"""A model's answers in FastChat's form: `model_answer/<model>.jsonl`, and `reference_answer/<judge>.jsonl` alike.

    {"question_id": 81, "answer_id": "3f…", "model_id": "sft", "choices": [{"index": 0, "turns": ["…", "…"]}],
     "tstamp": 1700000000.0}

The first choice is judged. Of several rows about a question the last one counts.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.benchmarks.mt_bench.data import MtCase, _turns_of, question_id_of, time_of
from longreward.benchmarks.mt_bench.judge import OURS, PREFIX, Winner, pair_verdict, single_verdict
from longreward.benchmarks.types import Answer, Verdict
from longreward.errors import DataError
from longreward.utils.jsonl import Row, RowError, read_records, write_rows

if TYPE_CHECKING:
    from longreward.benchmarks.mt_bench.data import MtCase, _turns_of, question_id_of, time_of


def read_answers(path: Path, cases: Sequence["MtCase"]) -> list[Answer]:
    """Answers that were written by any program, in the order of `cases`; those to other questions are left out.

    Nothing is known of their tokens (0) and ends (None). Raises DataError where a question has no answer, or one of
    fewer turns.
    """
    rows = {name: (turns, created) for name, turns, created in read_records(path, _turns_of)}
    return [_answer(case, *rows.get(case.id, ((), 0.0)), path) for case in cases]


def reference_answer(case: "MtCase") -> Answer:
    """The case's reference answers as an answer."""
    return _made(case, case.references, 0.0)


def write_answers(path: Path, answers: Iterable[Answer], cases: Mapping[str, "MtCase"], *, model: str) -> None:
    """Writes the whole file anew. The same answers give the same `answer_id`s."""
    write_rows(path, (_row(answer, cases[answer.case_id], model) for answer in answers))


def _answer(case: "MtCase", turns: tuple[str, ...], created: float, path: Path) -> Answer:
    if len(turns) < len(case.turns):
        had = f"an answer of {len(turns)} turn" if turns else "no answer"
        raise DataError(f"{path} has {had} to question {case.id}, which has {len(case.turns)}; answer all questions")
    return _made(case, turns[: len(case.turns)], created)


def _made(case: "MtCase", turns: tuple[str, ...], created: float) -> Answer:
    count = len(turns)
    return Answer(
        case_id=case.id,
        turns=turns,
        tokens=(0,) * count,
        finish_reasons=(None,) * count,
        prompt_tokens=(0,) * count,
        cut=False,
        created=created,
    )


def _row(answer: Answer, case: "MtCase", model: str) -> Row:
    said = json.dumps([answer.case_id, model, answer.turns])
    return {
        "question_id": case.question_id,
        "answer_id": hashlib.sha256(said.encode()).hexdigest()[:22],
        "model_id": model,
        "choices": [{"index": 0, "turns": list(answer.turns)}],
        "tstamp": answer.created,
    }


# Verdicts in FastChat's form: `model_judgment/<judge>_single.jsonl` and `<judge>_pair.jsonl`.
#
#     {"question_id": 81, "model": "sft", "judge": ["gpt-4", "single-v1"], "user_prompt": "…", "judgment": "… [[7]]",
#      "score": 7, "turn": 1, "tstamp": 1700000000.0}
#     {"question_id": 81, "model_1": "dpo", "model_2": "sft", "g1_winner": "model_1", "g2_winner": "tie", "judge": […],
#      "g1_user_prompt": "…", "g1_judgment": "…", "g2_user_prompt": …, "g2_judgment": …, "turn": 1, "tstamp": …}
#
# One file holds the judgments of all models by one judge. A score of −1 and a winner "error" stand for none.


def single_rows(verdicts: Iterable[Verdict], cases: Mapping[str, MtCase], *, model: str) -> list[Row]:
    """A row for each verdict on a single answer."""
    return [
        {
            "question_id": cases[verdict.case_id].question_id,
            "model": model,
            "judge": [verdict.judge, verdict.more["prompt"]],
            "user_prompt": verdict.prompt,
            "judgment": verdict.judgment,
            "score": -1 if verdict.exact is None else _plain(verdict.exact),
            "turn": verdict.more["turn"],
            "tstamp": verdict.created,
        }
        for verdict in verdicts
        if "against" not in verdict.more
    ]


def pair_rows(verdicts: Iterable[Verdict], cases: Mapping[str, MtCase], *, model: str) -> list[Row]:
    """A row for each two games of a question's turn; the model is model_1."""
    games: dict[tuple[str, int, str], dict[int, Verdict]] = {}
    for verdict in verdicts:
        if "against" in verdict.more:
            key = (verdict.case_id, verdict.more["turn"], verdict.more["against"])
            games.setdefault(key, {})[verdict.more["game"]] = verdict
    return [_pair_row(cases[key[0]], both[1], both[2], model) for key, both in games.items() if len(both) == 2]


def replace_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows in place of those that the file has of the same models; without rows it stays as it is."""
    if not rows:
        return
    judged = {_contenders(row) for row in rows}
    kept = [row for row in _read_if_there(path) if _contenders(row) not in judged]
    write_rows(path, [*kept, *rows])


def _read_if_there(path: Path) -> Iterable[Row]:
    return read_records(path, lambda row: row) if path.is_file() else ()


def _contenders(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("model", "model_1", "model_2") if name in row)


def _pair_row(case: MtCase, first: Verdict, second: Verdict, model: str) -> Row:
    row: Row = {"question_id": case.question_id, "model_1": model, "model_2": first.more["against"]}
    row |= {"g1_winner": WINNERS[first.exact], "g2_winner": WINNERS[second.exact]}
    row |= {"judge": [first.judge, first.more["prompt"]]}
    row |= {"g1_user_prompt": first.prompt, "g1_judgment": first.judgment}
    row |= {"g2_user_prompt": second.prompt, "g2_judgment": second.judgment}
    return row | {"turn": first.more["turn"], "tstamp": max(first.created, second.created)}


def _plain(rating: float) -> int | float:
    return int(rating) if rating == int(rating) else rating


WINNERS: Mapping[float | None, str] = {1.0: "model_1", 0.0: "model_2", 0.5: "tie", None: "error"}


# FastChat's judgments read back as verdicts, ours and other people's, so that they can be summarised without a judge.
#
# `exact` is what the row says (`score`, `g1_winner`), so that our figures are those of `show_result`; `strict` is read
# from the judgment's text. A turn that was judged twice counts twice, as it does there.


def read_single(path: Path, cases: Mapping[str, MtCase], *, model: str) -> list[Verdict]:
    """The verdicts on `model`, every row of it as `show_result` counts it: a turn judged twice counts twice.

    `exact` is the row's score, `strict` is read from its judgment. Rows on other questions than `cases` are an error.
    """
    rows = read_records(path, lambda row: _single_of(row, cases, model))
    return _numbered([verdict for verdict in rows if verdict is not None])


def read_pairs(path: Path, cases: Mapping[str, MtCase], *, model: str, rival: str) -> list[Verdict]:
    """The verdicts on the games of `model` against `rival`, whichever of them is model_1."""
    rows = read_records(path, lambda row: _pair_of(row, cases, model, rival))
    return _numbered([verdict for verdicts in rows for verdict in verdicts])


def _single_of(row: Row, cases: Mapping[str, MtCase], model: str) -> Verdict | None:
    if row.get("model") != model:
        return None
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise RowError(f"score is {score!r}, expected a number (-1: the judgment holds none)")
    exact = None if score == -1 else float(score)
    verdict = single_verdict(_case_id(row, cases), _turn(row), _text(row, "judgment"), exact)
    return _as_asked(verdict, row, _text(row, "user_prompt"))


def _pair_of(row: Row, cases: Mapping[str, MtCase], model: str, rival: str) -> list[Verdict]:
    if {row.get("model_1"), row.get("model_2")} != {model, rival}:
        return []
    swapped = row["model_1"] != model  # the model is then B in the row's first game
    return [
        _game(row, "g1", {"model_1": "A", "model_2": "B"}, cases, rival, game=2 if swapped else 1),
        _game(row, "g2", {"model_1": "B", "model_2": "A"}, cases, rival, game=1 if swapped else 2),
    ]


def _game(
    row: Row, field: str, letters: Mapping[str, Winner], cases: Mapping[str, MtCase], rival: str, *, game: int
) -> Verdict:
    named: dict[str, Winner] = {**letters, "tie": "tie", "error": "error"}
    winner = named.get(str(row.get(f"{field}_winner")))
    if winner is None:
        raise RowError(f"{field}_winner is {row.get(f'{field}_winner')!r}, expected {', '.join(named)}")
    judgment = _text(row, f"{field}_judgment")
    verdict = pair_verdict(_case_id(row, cases), _turn(row), judgment, winner, rival=rival, game=game)
    return _as_asked(verdict, row, _text(row, f"{field}_user_prompt"))


def _as_asked(verdict: Verdict, row: Row, prompt: str) -> Verdict:
    judge = row.get("judge")
    if not isinstance(judge, list) or len(judge) != 2:
        raise RowError(f'judge is {judge!r}, expected its name and the prompt\'s, as ["gpt-4", "single-v1"]')
    name = str(judge[1])
    return replace(
        verdict,
        template=f"{PREFIX}{name.removeprefix(OURS)}",
        prompt=prompt,
        judge=str(judge[0]),
        created=time_of(row),
        more={**verdict.more, "prompt": name, "official": not name.startswith(OURS)},
    )


def _case_id(row: Row, cases: Mapping[str, MtCase]) -> str:
    name = str(question_id_of(row))
    if name not in cases:
        raise RowError(f"question_id {name} is none of the questions; take the question.jsonl that it belongs to")
    return name


def _turn(row: Row) -> int:
    turn = row.get("turn", 1)
    if turn not in (1, 2):
        raise RowError(f"turn is {turn!r}, expected 1 or 2")
    return int(turn)


def _text(row: Row, name: str) -> str:
    text = row.get(name, "")
    if not isinstance(text, str):
        raise RowError(f"{name} is {text!r}, expected a text")
    return text


def _numbered(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Parts made unique: what was judged again gets its number, and stays a verdict of its own."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for verdict in verdicts:
        before = seen.setdefault((verdict.case_id, verdict.part), 0)
        seen[verdict.case_id, verdict.part] += 1
        if before:
            again = {**verdict.more, "again": before}
            verdict = replace(verdict, part=f"{verdict.part}, again {before}", more=again)
        found.append(verdict)
    return found
