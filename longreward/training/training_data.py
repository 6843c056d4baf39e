"""Tokenised rows on the disk: written once, one after another, and read in place.

    <folder>/rows.arrow      lists of token ids as int32
    <folder>/complete.json   written last, what was found of their lengths; without it the rows are half-written

They lie in the state of their training and go with it: nothing of a user's documents reaches a cache folder. As lists
of Python's numbers, ten thousand pairs of 64k tokens would take more than 20 GB of memory.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from longreward.errors import DataError, PolicyError, StateError
from longreward.models.config import OverWindow
from longreward.models.policy import PolicyTokenizer, fit_window
from longreward.records import Example, PreferencePair
from longreward.training.pair_encoding import AnswerCounts, PairEncoder, TokenMismatch
from longreward.utils.progress import show_progress

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

Row = Mapping[str, Any]
"""Lists of token ids, counts, and an id."""

HELD_TOKENS = 1 << 18  # of rows that wait in memory to be written together


def open_rows(folder: Path) -> "tuple[datasets.Dataset, dict[str, Any]] | None":
    """The rows that were written to their end, and what was noted with them; None where there are none."""
    try:
        noted = json.loads((folder / "complete.json").read_text(encoding="utf-8"))
        whole = (folder / "rows.arrow").stat().st_size == noted.pop("bytes")
    except (OSError, ValueError, KeyError):
        return None
    if not whole:
        return None
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets.Dataset.from_file(str(folder / "rows.arrow")), noted


@contextmanager
def exclusive_writer(folder: Path) -> Iterator[None]:
    """While another process of this training writes the rows, waits. Where it fails, no folder is left behind."""
    made = [parent for parent in (folder.parent, folder.parent.parent) if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # the folder could not even be made, or somebody else's file lies in it
            folder.with_suffix(".lock").unlink()
            for parent in made:
                parent.rmdir()
        if isinstance(error, OSError):
            raise StateError(f"{folder}: rows cannot be written ({error}); free or grant the space") from error
        raise


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Writes rows as they come; `complete` makes them count."""
    import pyarrow as pa

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writer: Any = None
    try:
        for batch in _batches(rows):
            writer = writer or pa.ipc.new_stream(folder / "rows.arrow", batch.schema)
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()


def mark_rows_complete(folder: Path, noted: Mapping[str, Any]) -> None:
    """Marks the rows as whole."""
    note = {**noted, "bytes": (folder / "rows.arrow").stat().st_size}
    part = folder / "complete.part"
    part.write_text(json.dumps(note), encoding="utf-8")
    part.replace(folder / "complete.json")


def _batches(rows: Iterable[Row]) -> "Iterator[pa.RecordBatch]":
    import numpy as np

    held: list[dict[str, Any]] = []
    tokens = 0
    for row in rows:
        held.append({k: np.asarray(v, dtype=np.int32) if isinstance(v, list) else v for k, v in row.items()})
        tokens += sum(len(value) for value in row.values() if isinstance(value, list))
        if tokens >= HELD_TOKENS:
            yield _batch(held)
            held, tokens = [], 0
    if held:
        yield _batch(held)


def _batch(rows: list[dict[str, Any]]) -> "pa.RecordBatch":
    import numpy as np
    import pyarrow as pa

    def kind(value: Any) -> "pa.DataType":
        return pa.list_(pa.int32()) if isinstance(value, np.ndarray) else pa.int32() if isinstance(value, int) else None

    columns = {name: pa.array([row[name] for row in rows], type=kind(value)) for name, value in rows[0].items()}
    return pa.RecordBatch.from_pydict(columns)


# What training data becomes, and what is refused before the first step.
#
#     Example         {"id": …, "input_ids": prompt + answer, "labels": -100 for the prompt, then the answer, "length…
#     PreferencePair  {"id": …, "prompt_ids": …, "chosen_ids": …, "rejected_ids": …, "length": …}
#
# TRL cuts what is longer than `max_length` at its end, where the answer is, and drops what is left empty, both witho…
# word. So all lengths are looked at here: nothing that is trained on is ever cut, but for a prompt's middle where
# `over_window: keep_ends` allows it.


SHOWN = 5
IGNORED = -100  # torch's label of a token without loss


@dataclass(frozen=True)
class LengthStats:
    """What was found; lengths count the tokens of a prompt with its (longer) answer."""

    count: int
    longest: int
    mean: float
    limit: int
    cut_prompts: int
    answers: AnswerCounts = field(default_factory=AnswerCounts)

    def figures(self) -> dict[str, float]:
        """For metrics."""
        return self.answers.figures() | {
            "examples": self.count,
            "longest": self.longest,
            "mean_length": self.mean,
            "cut_prompts": self.cut_prompts,
        }


@dataclass(frozen=True)
class TrainingData:
    """Rows for a trainer, in the order of the data: in memory, or a `datasets.Dataset` on the disk."""

    rows: Any
    lengths: LengthStats


def tokenize_examples(
    text: PolicyTokenizer,
    examples: Iterable[Example],
    *,
    max_length: int,
    over_window: OverWindow = "refuse",
    keep: Path | None = None,
) -> TrainingData:
    """Rows of prompt and answer. DataError without data or answers, PolicyError where something does not fit.

    They are written to the folder `keep`; where it holds them already, `examples` is not looked at.
    """
    found = _Found("example", max_length, over_window)
    return _checked(_example_rows(text, examples, found), found, keep)


def tokenize_pairs(
    text: PolicyTokenizer,
    pairs: Iterable[PreferencePair],
    *,
    max_length: int,
    over_window: OverWindow = "refuse",
    token_mismatch: TokenMismatch = "refuse",
    keep: Path | None = None,
) -> TrainingData:
    """Rows of prompt, chosen and rejected. DataError without pairs, PolicyError where something does not fit.

    PolicyError also where a response would be trained on other tokens than were sampled, unless `token_mismatch` is
    `render`. They are written to the folder `keep`; where it holds them already, `pairs` is not looked at.
    """
    encoder = PairEncoder(text)
    found = _Found("pair", max_length, over_window, encoder, token_mismatch)
    return _checked(_pair_rows(encoder, pairs, found), found, keep)


@dataclass
class _Found:
    """What is seen of lengths while rows go by."""

    kind: str
    limit: int
    rule: OverWindow
    encoder: PairEncoder | None = None
    token_mismatch: TokenMismatch = "refuse"
    lengths: list[int] = field(default_factory=list)
    cut: int = 0
    refused: list[str] = field(default_factory=list)
    hopeless: list[str] = field(default_factory=list)  # whatever became of the prompt

    def fitted(self, id_: str, prompt: list[int], answer: int, said: str, *, cut: bool = False) -> list[int]:
        """The prompt, without its middle where it is too long for its answer and the rule allows it.

        `cut`: whether it has lost its middle before.
        """
        room = self.limit - answer
        fits = fit_window(prompt, room=room, rule=self.rule, name="") if self.rule != "refuse" and room >= 2 else prompt
        self.cut += cut or len(fits) < len(prompt)
        if room < 2:
            self.hopeless.append(f"  {self.kind} {id_}: {answer:,} of the {said}, {len(prompt):,} of the prompt")
        elif len(fits) > room:
            self.refused.append(f"  {self.kind} {id_}: {len(prompt):,} of the prompt and {answer:,} of the {said}")
        self.lengths.append(len(fits) + answer)
        return fits

    def checked(self) -> LengthStats:
        """DataError where there was nothing, PolicyError where something did not fit."""
        if not self.lengths:
            raise DataError(f"there are no {self.kind}s to train on")
        if self.encoder is not None and self.token_mismatch == "refuse":
            self.encoder.refuse_mismatches()
        if self.hopeless:
            raise PolicyError(
                f"{len(self.hopeless)} of {len(self.lengths)} {self.kind}s have an answer that leaves no room for any "
                f"prompt in max_length, {self.limit:,} tokens: cutting the prompt cannot help; leave them out, or "
                "raise max_length (and policy.window) if the model can:\n" + _listed(self.hopeless)
            )
        if self.refused:
            raise PolicyError(
                f"{len(self.refused)} of {len(self.lengths)} {self.kind}s are longer than max_length, {self.limit:,} "
                "tokens: an answer would be cut; raise max_length if the model can, leave them out, or set over_window "
                "to keep_ends:\n" + _listed(self.refused)
            )
        mean = sum(self.lengths) / len(self.lengths)
        answers = self.encoder.counts() if self.encoder is not None else AnswerCounts()
        return LengthStats(len(self.lengths), max(self.lengths), mean, self.limit, self.cut, answers)


def _listed(lines: list[str]) -> str:
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "\n".join(lines[:SHOWN]) + more


def _example_rows(text: PolicyTokenizer, examples: Iterable[Example], found: _Found) -> Iterator[Row]:
    for example in examples:
        if not (example.answer or "").strip():
            raise DataError(f"example {example.id} has no answer to train on; leave it out")
        answer = text.completion_ids(example.answer or "")
        prompt = found.fitted(example.id, text.prompt_ids(example.context, example.query), len(answer), "answer")
        ids, labels = prompt + answer, [IGNORED] * len(prompt) + answer
        yield {"id": example.id, "input_ids": ids, "labels": labels, "length": len(ids)}


def _pair_rows(encoder: PairEncoder, pairs: Iterable[PreferencePair], found: _Found) -> Iterator[Row]:
    for pair in pairs:
        ids = encoder.encode(pair)
        longer = max(len(ids.chosen), len(ids.rejected))
        prompt = found.fitted(pair.id, ids.prompt, longer, "longer answer", cut=ids.cut)
        answers = {"chosen_ids": ids.chosen, "rejected_ids": ids.rejected}
        yield {"id": pair.id, "prompt_ids": prompt, **answers, "length": len(prompt) + longer}


def _with_progress(tokenized: Iterable[Row], kind: str) -> Iterator[Row]:
    enabled = os.environ.get("RANK", "0") == "0"  # the other processes of a launched training wait for the first
    with show_progress(f"tokenizing, {kind}s", enabled=enabled) as update:
        for count, row in enumerate(tokenized, 1):
            yield row
            update(count, None)


def _checked(tokenised: Iterable[Row], found: _Found, keep: Path | None) -> TrainingData:
    tokenised = _with_progress(tokenised, found.kind)
    if keep is None:
        in_memory = list(tokenised)
        return TrainingData(in_memory, found.checked())
    with exclusive_writer(keep):
        if (kept := open_rows(keep)) is None:
            write_rows(keep, tokenised)
            mark_rows_complete(keep, asdict(found.checked()))
            kept = open_rows(keep)
            assert kept is not None
        noted = {**kept[1], "answers": AnswerCounts(**kept[1].get("answers", {}))}
        return TrainingData(kept[0], LengthStats(**noted))
