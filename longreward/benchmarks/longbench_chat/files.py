"""The files that LongBench-Chat's published code leaves: a line for each answer, and the scores with their sum.

longbench_chat/predictions/<model>.txt   one answer a line
longbench_chat/scores/<model>.json       [{"idx": 1, "query": …, "prediction": …, "gpt_analysis": …, "score": "8", …},
                                          …, {"total_score": 71.2, "total_tokens": 51234}]
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longreward.benchmarks.longbench_chat.cases import LongBenchChatCase
from longreward.benchmarks.types import Answer, Verdict
from longreward.utils.jsonl import open_atomic


def on_one_line(text: str) -> str:
    """An answer as it is judged: stripped, its newlines turned to spaces.

    >>> on_one_line(" In 1861.\\n\\nIt was built of stone.\\n")
    'In 1861.  It was built of stone.'
    """
    return _LINE_END.sub(" ", text.strip())


def write(
    folder: Path,
    cases: Mapping[str, LongBenchChatCase],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    *,
    model: str,
) -> None:
    """Both files below `folder`, in the order of `answers`; StateError where the disk refuses."""
    folder, file = folder / "longbench_chat", model.rstrip("/").split("/")[-1]
    by_case = {verdict.case_id: verdict for verdict in verdicts}
    with open_atomic(folder / "predictions" / f"{file}.txt") as lines:
        lines.writelines(on_one_line(answer.turns[0]) + "\n" for answer in answers)
    rows = [_row(cases[each.case_id], each, by_case[each.case_id]) for each in answers if each.case_id in by_case]
    scores = [row["score"] for row in rows]
    # The published sum is over 50 cases; for other numbers it is scaled to as many.
    total = "none" if "none" in scores or not rows else sum(map(float, scores)) / len(rows) * 10
    rows.append({"total_score": total, "total_tokens": sum(row["used_tokens"] for row in rows)})
    with open_atomic(folder / "scores" / f"{file}.json") as out:
        json.dump(rows, out, indent=2, ensure_ascii=False)


def _row(case: LongBenchChatCase, answer: Answer, verdict: Verdict) -> dict[str, Any]:
    return {
        "idx": case.idx,
        "query": case.query,
        "answer": case.reference,
        "prediction": on_one_line(answer.turns[0]),
        "gpt_analysis": verdict.judgment,
        "score": verdict.more["score"],
        "used_tokens": verdict.more["tokens"],
    }


_LINE_END = re.compile(r"\r\n|[\n\r]")  # the published file would take a lone \r for the end of an answer
