"""Tokenize training data, check that every row fits, and store the rows on disk.

    Example         {"id": …, "input_ids": prompt + answer, "labels": -100 on the prompt, then the answer, "length": …}
    PreferencePair  {"id": …, "prompt_ids": …, "chosen_ids": …, "rejected_ids": …, "length": …}

    <rows_dir>/rows.arrow      the rows, token ids as int32
    <rows_dir>/complete.json   written last: the LengthStats and the size of rows.arrow; without it the rows are partial

TRL silently truncates rows longer than `max_length` at their end, where the answer is, and drops rows that become
empty. So all lengths are checked here: an answer is never truncated, and a prompt loses its middle only where
`over_window: keep_ends` allows it.

The rows belong to the state folder of their training and are deleted with it, so that nothing of a user's documents
stays in a cache folder.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from longreward.errors import DataError, PolicyError, StateError
from longreward.models.config import OverWindow
from longreward.models.policy import PolicyTokenizer, fit_window
from longreward.records import Example, PreferencePair
from longreward.training.distributed import is_main_process
from longreward.training.pair_encoding import AnswerCounts, PairEncoder, TokenMismatch
from longreward.utils.jsonl import open_atomic
from longreward.utils.progress import show_progress

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

Row = Mapping[str, Any]
"""Lists of token ids, a length, and an id."""
RowLengths = tuple[int, int, int]
"""Tokens of prompt, chosen and rejected response; of an example: prompt, answer, 0."""

IGNORE_INDEX = -100  # torch's label of a token without loss
MAX_LISTED = 5  # rows named in an error
# Rows that are Python lists at the same time. As lists, ten thousand pairs of 64k tokens would take more than 20 GB.
BATCH_ROWS = 16


@dataclass(frozen=True)
class LengthStats:
    """Row lengths in tokens; a pair counts its prompt with the longer response."""

    count: int
    longest: int
    mean: float
    limit: int
    cut_prompts: int
    answers: AnswerCounts = field(default_factory=AnswerCounts)

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the stage."""
        return self.answers.metrics() | {
            "examples": self.count,
            "longest": self.longest,
            "mean_length": self.mean,
            "cut_prompts": self.cut_prompts,
        }


@dataclass(frozen=True)
class TrainingData:
    """Rows for a trainer in the order of the data."""

    rows: "datasets.Dataset"
    stats: LengthStats

    @cached_property
    def row_lengths(self) -> list[RowLengths]:
        """Return the lengths of each row's parts."""
        if "prompt_ids" in self.rows.column_names:
            columns = (token_counts(self.rows, name) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
            return list(zip(*columns, strict=True))
        answers = [sum(label != IGNORE_INDEX for label in labels) for labels in self.rows["labels"]]
        counts = token_counts(self.rows, "input_ids")
        return [(count - answer, answer, 0) for count, answer in zip(counts, answers, strict=True)]


def token_counts(dataset: "datasets.Dataset", column: str) -> list[int]:
    """Return the length of each list of a column, without reading the lists into Python."""
    import pyarrow.compute as pc

    return [int(count) for count in pc.list_value_length(dataset.data.column(column)).to_pylist()]


def tokenize_examples(
    tokenizer: PolicyTokenizer,
    examples: Iterable[Example],
    *,
    max_length: int,
    over_window: OverWindow = "refuse",
    rows_dir: Path | None = None,
) -> TrainingData:
    """Tokenize prompts with their answers, into `rows_dir` or (None) into memory.

    Rows that `rows_dir` already holds are used instead of `examples`. DataError without data or without an answer,
    PolicyError where a row does not fit.
    """
    lengths = _LengthChecker("example", "answer", max_length, over_window)

    def rows() -> Iterator[Row]:
        for example in examples:
            if not (example.answer or "").strip():
                raise DataError(f"example {example.id} has no answer to train on; leave it out")
            answer = tokenizer.completion_ids(example.answer or "")
            prompt = lengths.fit_prompt(example.id, tokenizer.prompt_ids(example.context, example.query), len(answer))
            ids, labels = prompt + answer, [IGNORE_INDEX] * len(prompt) + answer
            yield {"id": example.id, "input_ids": ids, "labels": labels, "length": len(ids)}

    return collect_rows("examples", rows(), lambda: lengths.stats(AnswerCounts()), rows_dir)


def tokenize_pairs(
    tokenizer: PolicyTokenizer,
    pairs: Iterable[PreferencePair],
    *,
    max_length: int,
    over_window: OverWindow = "refuse",
    token_mismatch: TokenMismatch = "refuse",
    rows_dir: Path | None = None,
) -> TrainingData:
    """Tokenize pairs as `tokenize_examples` does examples.

    PolicyError also where a response would be trained on other tokens than were sampled and `token_mismatch` is
    `refuse`.
    """
    encoder = PairEncoder(tokenizer)
    lengths = _LengthChecker("pair", "longer answer", max_length, over_window)

    def rows() -> Iterator[Row]:
        for pair in pairs:
            ids = encoder.encode(pair)
            longer = max(len(ids.chosen), len(ids.rejected))
            prompt = lengths.fit_prompt(pair.id, ids.prompt, longer, was_cut=ids.cut)
            answers = {"chosen_ids": ids.chosen, "rejected_ids": ids.rejected}
            yield {"id": pair.id, "prompt_ids": prompt, **answers, "length": len(prompt) + longer}

    def stats() -> LengthStats:
        if token_mismatch == "refuse":
            encoder.refuse_mismatches()
        return lengths.stats(encoder.counts())

    return collect_rows("pairs", rows(), stats, rows_dir)


@dataclass
class _LengthChecker:
    """Fits prompts to the limit while rows are tokenized, and collects those that do not fit."""

    kind: str
    answer_name: str
    limit: int
    rule: OverWindow
    lengths: list[int] = field(default_factory=list)
    cut_prompts: int = 0
    too_long: list[str] = field(default_factory=list)
    answer_too_long: list[str] = field(default_factory=list)  # longer than the limit even without a prompt

    def fit_prompt(self, id_: str, prompt: list[int], answer: int, *, was_cut: bool = False) -> list[int]:
        """Return the prompt, without its middle where it is too long for its answer and the rule allows that.

        `was_cut`: whether it lost its middle before it was sampled from.
        """
        prompt_limit = self.limit - answer
        fitted = prompt
        if self.rule != "refuse" and prompt_limit >= 2:
            fitted = fit_window(prompt, limit=prompt_limit, rule=self.rule, name="")
        self.cut_prompts += was_cut or len(fitted) < len(prompt)
        if len(fitted) > prompt_limit:
            misfits = self.answer_too_long if prompt_limit < 2 else self.too_long
            misfits.append(
                f"  {self.kind} {id_}: {len(prompt):,} of the prompt and {answer:,} of the {self.answer_name}"
            )
        self.lengths.append(len(fitted) + answer)
        return fitted

    def stats(self, answers: AnswerCounts) -> LengthStats:
        """Return the statistics; DataError without rows, PolicyError where rows do not fit."""
        count = len(self.lengths)
        if not count:
            raise DataError(f"there are no {self.kind}s to train on")
        if self.answer_too_long:
            raise PolicyError(
                f"{len(self.answer_too_long)} of {count} {self.kind}s have an answer that leaves no room for any "
                f"prompt in max_length, {self.limit:,} tokens: cutting the prompt cannot help; leave them out, or "
                f"raise max_length (and policy.window) if the model can:\n{_first_lines(self.answer_too_long)}"
            )
        if self.too_long:
            raise PolicyError(
                f"{len(self.too_long)} of {count} {self.kind}s are longer than max_length, {self.limit:,} tokens: an "
                "answer would be cut; raise max_length if the model can, leave them out, or set over_window to "
                f"keep_ends:\n{_first_lines(self.too_long)}"
            )
        return LengthStats(count, max(self.lengths), sum(self.lengths) / count, self.limit, self.cut_prompts, answers)


def _first_lines(lines: list[str]) -> str:
    rest = f"\n  and {len(lines) - MAX_LISTED} more" if len(lines) > MAX_LISTED else ""
    return "\n".join(lines[:MAX_LISTED]) + rest


def collect_rows(
    kind: str, rows: Iterator[Row], stats: Callable[[], LengthStats], rows_dir: Path | None
) -> TrainingData:
    """Tokenize all rows, then check them with `stats`. Leaves no folder after a failure."""
    import datasets
    import pyarrow as pa

    def with_progress() -> Iterator[Row]:
        with show_progress(f"tokenizing, {kind}", enabled=is_main_process()) as update:
            for count, row in enumerate(rows, 1):
                yield row
                update(count, None)

    if rows_dir is None:
        batches = list(_record_batches(with_progress()))
        result = stats()  # raises where there are no rows
        return TrainingData(datasets.Dataset(pa.Table.from_batches(batches)), result)
    created = [parent for parent in (rows_dir.parent, rows_dir.parent.parent) if not parent.exists()]
    lock = rows_dir.with_suffix(".lock")
    try:
        rows_dir.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # the first process of a training tokenizes for all
            if (stored := open_rows(rows_dir)) is None:
                write_rows(rows_dir, with_progress(), lambda: asdict(stats()))
                stored = open_rows(rows_dir)
                assert stored is not None
    except BaseException as error:
        shutil.rmtree(rows_dir, ignore_errors=True)
        with suppress(OSError):  # a parent may hold other files
            lock.unlink()
            for parent in created:
                parent.rmdir()
        if isinstance(error, OSError):
            raise StateError(f"{rows_dir}: rows cannot be written ({error}); free or grant the space") from error
        raise
    dataset, saved = stored
    return TrainingData(dataset, LengthStats(**{**saved, "answers": AnswerCounts(**saved["answers"])}))


def open_rows(rows_dir: Path) -> "tuple[datasets.Dataset, dict[str, Any]] | None":
    """Open rows that were written completely, with the statistics saved beside them; None where there are none."""
    import datasets

    try:
        stats = json.loads((rows_dir / "complete.json").read_text(encoding="utf-8"))
        if (rows_dir / "rows.arrow").stat().st_size != stats.pop("bytes"):
            return None
    except (OSError, ValueError, KeyError):
        return None
    # tqdm bars in a log file would be one line per refresh.
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets.Dataset.from_file(str(rows_dir / "rows.arrow")), stats


def write_rows(rows_dir: Path, rows: Iterator[Row], stats: Callable[[], Mapping[str, Any]]) -> None:
    """Write rows as they come, then the result of `stats`, which marks them as complete."""
    import pyarrow as pa

    shutil.rmtree(rows_dir, ignore_errors=True)
    rows_dir.mkdir(parents=True)
    file = rows_dir / "rows.arrow"
    writer: Any = None
    try:
        for batch in _record_batches(rows):
            writer = writer or pa.ipc.new_stream(file, batch.schema)
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()
    mark = stats()  # raises where there are no rows, and so no file
    with open_atomic(rows_dir / "complete.json") as text:
        json.dump({**mark, "bytes": file.stat().st_size}, text)


def _record_batches(rows: Iterator[Row]) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    types = {"id": pa.string(), "length": pa.int32(), "margin": pa.float32()}
    while batch := list(islice(rows, BATCH_ROWS)):
        yield pa.RecordBatch.from_pydict(
            {name: pa.array([row[name] for row in batch], types.get(name, pa.list_(pa.int32()))) for name in batch[0]}
        )
