"""Long-RewardBench (LCM-Lab) as items: a file a task (`LongQA.jsonl`, `Summ.jsonl`, …), pairs and lists in one.

    {"prompt_template": [{"role": "user", "content": "…"}], "question": "…", "tasktype": "PairWise",
     "chosen": "…", "rejected": "…", …}
    {"prompt_template": […], "tasktype": "BestOfN", "candidates": ["…", "…", "…"], "candidates_score": [0.9, 0.4, 0.1]}

Their prompt holds document and question in one text. Where the row names the question and the text holds it, the
context is the rest; else the query is what follows the last blank line, as LongReward cuts LongBench's prompts. Their
own evaluation takes candidates as given best first, which is what they count as where no scores are given.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from longreward.reward_bench.items import Item, item_of
from longreward.utils.jsonl import Row, RowError, read_records


def read_long_rewardbench(path: Path) -> Iterator[Item]:
    """The items of one task's file, in its group; DataError, naming file and line, at the first row that is none."""
    numbers = count()
    return read_records(path, lambda row: _item(row, f"{path.stem}-{next(numbers)}", path.stem))


def _item(row: Row, name: str, group: str) -> Item:
    context, query = _parted(_prompt(row), row.get("question"))
    known: Row = {"id": name, "context": context, "query": query, "group": group}
    if row.get("tasktype") == "BestOfN":
        candidates = row.get("candidates")
        if not isinstance(candidates, list):
            raise RowError("candidates is missing or no list, and tasktype is BestOfN")
        scores = row.get("candidates_score") or list(range(len(candidates), 0, -1))
        return item_of({**known, "responses": candidates, "labels": scores})
    return item_of({**known, "chosen": row.get("chosen"), "rejected": row.get("rejected")})


def _prompt(row: Row) -> str:
    messages: Any = row.get("prompt_template")
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("content"), str) for message in messages
    ):
        raise RowError("prompt_template is missing or no list of messages with a content each")
    return "\n\n".join(message["content"] for message in messages)


def _parted(prompt: str, question: Any) -> tuple[str, str]:
    if isinstance(question, str) and question.strip() and question in prompt:
        before, _, behind = prompt.rpartition(question)
        return f"{before.rstrip()}\n\n{behind.lstrip()}".strip(), question.strip()
    context, blank, query = prompt.rstrip().rpartition("\n\n")
    if not blank:
        raise RowError("its prompt has neither the question that it names nor a blank line before one")
    return context, query
