"""Mix short instructions into the long training data of SFT and DPO (paper, sections 4.1 and 4.3).

    mixture = mix_pairs(config.short, Path("data/pairs/preference_pairs.jsonl"), out=state / "pairs.jsonl")
    mixture.data          # `out`, with the long pairs first; the original file where nothing is mixed in

The trainer orders rows by its seed and their lengths, so that both kinds are spread over the training.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field, ValidationError

from longreward.builtin.short_instructions import ShortItem, short_items
from longreward.config import Config
from longreward.data.formats import read_examples, read_pairs, write_examples, write_pairs
from longreward.data.hub_source import SCHEME, HubConfig
from longreward.data.preferences import short_example, short_example_from_row, short_pair, short_pair_from_row
from longreward.data.short_ids import SHORT_PREFIX, has_short_prefix
from longreward.errors import ConfigError, DataError
from longreward.records import Example, PreferencePair
from longreward.utils.jsonl import Row, RowError, error_reason

BUILTIN = "builtin"
log = logging.getLogger(__name__)


class ShortSource(Config):
    """Where short instructions come from, and how many are taken."""

    source: str | None = None
    """`builtin` (short instructions in the words of the built-in corpus), a file, folder or glob (jsonl, json, csv,
    parquet), or `hub:<name>` of a data set on the hub; null: none."""
    ratio: float = Field(default=1.0, gt=0, le=100)
    """Short records for each long one, sampled by seed; all of them where the source has fewer."""
    prompt: str = "prompt"
    """The column of the question, a text or a chat; may be missing where the answer is a chat that holds it."""
    sha256: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """The checksum of a file, required because DVC does not track it: `sha256:` and the output of `sha256sum FILE`."""
    hub: HubConfig = HubConfig()
    """Where the source is on the hub."""
    seed: int = 0
    """Of the sampling."""


class ShortAnswers(ShortSource):
    """Answered instructions without a document, for supervised fine-tuning."""

    answer: str = "response"
    """The column of the answer, a text or a chat (as `messages`) of which the first question and answer are taken."""


class ShortPreferences(ShortSource):
    """Preferences without a document, as hub:HuggingFaceH4/ultrafeedback_binarized has them."""

    chosen: str = "chosen"
    """The column of the better answer, a text or a chat that ends with it."""
    rejected: str = "rejected"
    """The column of the worse answer, a text or a chat that ends with it."""
    alone: bool = False
    """Train on the short pairs only; the long ones then only determine how many are taken (a comparison of the
    paper)."""


@dataclass(frozen=True)
class DataMixture:
    """The file to train on, and how many records of each kind it has."""

    data: Path
    long: int = 0
    short: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Unusable records of the source, by reason."""

    def metrics(self) -> dict[str, float]:
        """Return the counts; empty where nothing is mixed in."""
        if not self.short:
            return {}
        return {"long/records": self.long, "short/records": self.short, "short/skipped": sum(self.skipped.values())}


R = TypeVar("R", Example, PreferencePair)


@dataclass(frozen=True)
class _RecordKind(Generic[R]):
    """How pairs or examples are read, written and made of short instructions."""

    section: str  # of params.yaml, for messages
    read: Callable[[Path], Iterator[R]]
    write: Callable[[Path, Iterable[R]], int]
    from_builtin: Callable[[int, ShortItem], R]
    from_row: Callable[[Row | RowError, int], R]


def mix_pairs(config: ShortPreferences, pairs: Path, *, out: Path, root: Path = Path()) -> DataMixture:
    """Write `pairs` with short preferences to `out`; paths of the source are relative to `root`.

    ConfigError where the source is not pinned, DataError where it cannot be read or holds no preference.
    """
    columns = {"prompt": config.prompt, "chosen": config.chosen, "rejected": config.rejected}
    kind = _RecordKind(
        "train.short",
        read_pairs,
        write_pairs,
        lambda number, item: short_pair(number, query=item.query, chosen=item.answer, rejected=item.wrong),
        lambda row, number: short_pair_from_row(row, columns, number=number),
    )
    return _mix(kind, config, pairs, out=out, root=root, alone=config.alone)


def mix_examples(config: ShortAnswers, examples: Path, *, out: Path, root: Path = Path()) -> DataMixture:
    """Write `examples` with short answered instructions to `out`, as `mix_pairs` does pairs."""
    columns = {"prompt": config.prompt, "answer": config.answer}
    kind = _RecordKind(
        "sft.short",
        read_examples,
        write_examples,
        lambda number, item: short_example(number, query=item.query, answer=item.answer),
        lambda row, number: short_example_from_row(row, columns, number=number),
    )
    return _mix(kind, config, examples, out=out, root=root)


def _mix(
    kind: _RecordKind[R], config: ShortSource, data: Path, *, out: Path, root: Path, alone: bool = False
) -> DataMixture:
    if config.source is None:
        return DataMixture(data)
    long = sum(1 for _ in _long_records(kind, data))
    skipped: dict[str, int] = {}
    count = max(1, round(config.ratio * long))
    if config.source == BUILTIN:
        short = [kind.from_builtin(number, item) for number, item in enumerate(short_items(count))]
    else:
        _check_pinned(config, config.source, kind.section, root)
        # Reservoir sampling: one pass over a source of any size.
        rng = random.Random(f"longreward short {config.seed}")
        short = []
        for number, record in enumerate(_source_records(kind, config, root, skipped)):
            if len(short) < count:
                short.append(record)
            elif (index := rng.randrange(number + 1)) < count:
                short[index] = record
        short.sort(key=lambda record: int(record.id.removeprefix(SHORT_PREFIX)))
    if not short:
        reason = next((f"{reason} ({number} times)" for reason, number in skipped.items()), "it is empty")
        raise DataError(f"{kind.section}.source, {config.source}, holds nothing that can be used: {reason}")
    if skipped:
        log.warning("%s: skipped %d records", kind.section, sum(skipped.values()))
    kind.write(out, short if alone else chain(_long_records(kind, data), short))
    return DataMixture(out, 0 if alone else long, len(short), skipped)


def _long_records(kind: _RecordKind[R], data: Path) -> Iterator[R]:
    for record in kind.read(data):
        if has_short_prefix(record.id):
            raise DataError(f"{data}: idx {record.id} begins as short instructions do; name it otherwise")
        yield record


def _source_records(kind: _RecordKind[R], config: ShortSource, root: Path, skipped: dict[str, int]) -> Iterator[R]:
    """Yield the usable records, and count the others in `skipped` by reason."""
    from longreward.data.open_source import open_source

    name, section = config.source or "", kind.section
    source = open_source(
        root, name, key=f"{section}.source", pin_key=f"{section}.sha256", pin=config.sha256, hub=config.hub
    )
    for number, (location, row) in enumerate(source.rows()):
        try:
            record = kind.from_row(row, number)
        except (RowError, ValidationError) as error:
            reason = error_reason(error)
            if not skipped:
                log.warning("%s: skipped %s, the first such record: %s", section, location, reason)
            skipped[reason] = skipped.get(reason, 0) + 1
            continue
        yield record


def _check_pinned(config: ShortSource, name: str, section: str, root: Path) -> None:
    """ConfigError unless a checksum, or a revision of the hub, fixes what the source holds."""
    if config.sha256 is not None:
        return
    if not name.startswith(SCHEME):
        from longreward.data.file_source import find_files
        from longreward.data.open_source import source_checksum

        current = source_checksum(find_files(root, name))
    elif (root / name.removeprefix(SCHEME)).is_dir():
        current = "sha256:<of its files>"
    elif config.hub.revision is None:
        raise ConfigError(
            f"{section}.source is {name}: set {section}.hub.revision, the commit of the data set (40 digits)"
        )
    else:
        return
    raise ConfigError(f"{section}.source is {name}: pin what it holds now, with\n  {section}.sha256: {current}")
