"""Prompts that give no pair: the file that `pair.exclude` names, as the evidence page exports it.

{"idx": 11, "comment": "the question has two answers"}
{"idx": "contract-3"}
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from longreward.data.formats import parse_id
from longreward.errors import DataError
from longreward.pairs.outcomes import NoPair, Outcome
from longreward.records import PreferencePair
from longreward.utils.jsonl import Row, RowError, read_records, shorten

KEYS = ("idx", "comment")


def read_exclusions(path: Path) -> dict[str, str]:
    """Return the comment (empty: none) of each excluded example, by its id; a blank file excludes nothing.

    Raises DataError, with file, line and value, for a missing file or a malformed line.
    """
    # A new project's file is one line break, since DVC warns of files without a byte.
    if path.is_file() and not path.read_bytes().strip():
        return {}
    return dict(read_records(path, _exclusion))


def exclude_prompts(outcomes: Iterable[Outcome], excluded: Collection[str]) -> Iterator[Outcome]:
    """Yield the outcomes; those of excluded examples become NoPair, whose margin is that of the pair."""
    for outcome in outcomes:
        example_id = outcome.id if isinstance(outcome, PreferencePair) else outcome.example_id
        if example_id not in excluded:
            yield outcome
        elif isinstance(outcome, NoPair):
            yield NoPair(example_id, "excluded", outcome.responses, outcome.scored, outcome.margin)
        else:
            yield NoPair(example_id, "excluded", 2, 2, outcome.margin)  # the two of the pair


def require_dependency(path: Path, inputs: Collection[Path]) -> None:
    """Raise DataError unless the file is among the stage's dependencies: DVC would not notice that it has changed."""
    if not any(dependency in (path, *path.parents) for dependency in inputs):
        raise DataError(
            f"pair.exclude is {path}, which is no dependency of the stage pair in dvc.yaml, so that `dvc repro` would "
            "not notice a change of it: use data/excluded.jsonl, or add the file to the stage's deps"
        )


def _exclusion(row: Row) -> tuple[str, str]:
    if unknown := [key for key in row if key not in KEYS]:
        raise RowError(f"unknown key {shorten(unknown[0])}; expected idx, and a comment if there is one")
    comment = row.get("comment")
    if comment is not None and not isinstance(comment, str):
        raise RowError(f"comment is {shorten(comment)}, expected text")
    return parse_id(row.get("idx")), comment or ""
