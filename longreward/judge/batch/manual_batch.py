"""What to tell the person who is to have files of questions answered by another program."""

import shlex
from collections.abc import Sequence

from longreward.judge.batch.record import Record


def files_to_answer(records: Sequence[Record], *, model: str) -> str:
    """How many questions wait, in which files, and a command that answers them."""
    questions = sum(record.facts.requests for record in records)
    said = [
        f"{questions:,} questions to the judge {model!r} wait in {len(records)} file(s) of OpenAI's batch format. Have "
        "each answered into the folder where it lies, as results.jsonl, and run the same again. With vLLM:"
    ]
    said += [f"  {_command(record, model)}" for record in records[:_SHOWN]]
    if len(records) > _SHOWN:
        said.append(f"  … and {len(records) - _SHOWN} more in {records[0].folder.parent}")
    return "\n".join(said)


def _command(record: Record, model: str) -> str:
    """Results get their name when all are there: vLLM writes them as they come."""
    folder = shlex.quote(str(record.folder))
    return (
        f"cd {folder} && vllm run-batch -i requests.jsonl -o results.part --model {shlex.quote(model)} "
        "&& mv results.part results.jsonl"
    )


_SHOWN = 10
