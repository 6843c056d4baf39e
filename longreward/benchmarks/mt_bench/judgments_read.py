"""FastChat's judgments read back as verdicts, ours and other people's, so that they can be summarised without a judge.

`exact` is what the row says (`score`, `g1_winner`), so that our figures are those of `show_result`; `strict` is read
from the judgment's text. A turn that was judged twice counts twice, as it does there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from longreward.benchmarks.mt_bench.answers import question_id_of, time_of
from longreward.benchmarks.mt_bench.cases import MtCase
from longreward.benchmarks.mt_bench.grading import pair_verdict, single_verdict
from longreward.benchmarks.mt_bench.parsers import Winner
from longreward.benchmarks.mt_bench.prompts import OURS, PREFIX
from longreward.benchmarks.types import Verdict
from longreward.utils.jsonl import Row, RowError, read_records


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
