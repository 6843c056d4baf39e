"""Verdicts in FastChat's form: `model_judgment/<judge>_single.jsonl` and `<judge>_pair.jsonl`.

    {"question_id": 81, "model": "sft", "judge": ["gpt-4", "single-v1"], "user_prompt": "…", "judgment": "… [[7]]",
     "score": 7, "turn": 1, "tstamp": 1700000000.0}
    {"question_id": 81, "model_1": "dpo", "model_2": "sft", "g1_winner": "model_1", "g2_winner": "tie", "judge": […],
     "g1_user_prompt": "…", "g1_judgment": "…", "g2_user_prompt": …, "g2_judgment": …, "turn": 1, "tstamp": …}

One file holds the judgments of all models by one judge. A score of −1 and a winner "error" stand for none.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from longreward.benchmarks.mt_bench.cases import MtCase
from longreward.benchmarks.types import Verdict
from longreward.utils.jsonl import Row, read_records, write_rows


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
