"""Short instructions among the long ones, in both trainings: neither side is hurt (paper, sections 4.1 and 4.3).

    mixed = mix_pairs(config.short, Path("data/pairs/preference_pairs.jsonl"), out=state / "pairs.jsonl")
    mixed.data          # `out`, with the long pairs first; the file itself where nothing is mixed in

The trainer draws its order from the seed and the lengths, so that both sides are spread over the training.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field, ValidationError

from longreward.config import Config
from longreward.data.formats import read_examples, read_pairs, write_examples, write_pairs
from longreward.data.hub_source import SCHEME, HubConfig
from longreward.data.short_instructions import short_example, short_example_from_row, short_pair, short_pair_from_row
from longreward.errors import ConfigError, DataError
from longreward.records import SHORT, Example, PreferencePair, is_short
from longreward.utils.jsonl import Row, RowError, error_reason

BUILTIN = "builtin"
log = logging.getLogger(__name__)


class ShortSource(Config):
    """Where short instructions come from, and how many are taken."""

    source: str | None = None
    """`builtin` (short instructions in the words of the built-in corpus), a file, folder or glob (jsonl, json, csv,
    parquet), or `hub:<name>` of a data set on the hub; null: none."""
    ratio: float = Field(default=1.0, gt=0, le=100)
    """Short ones for each long one, drawn by seed; where the source has fewer, all of them."""
    prompt: str = "prompt"
    """The column of the question, a text or a chat; may be missing where the answer is a chat that holds it."""
    sha256: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """The checksum of a file, demanded, since DVC does not watch it: `sha256:` and what `sha256sum FILE` says."""
    hub: HubConfig = HubConfig()
    """Where the source is on the hub."""
    seed: int = 0
    """Of the draw."""


class ShortAnswers(ShortSource):
    """Answered instructions without a document, for supervised fine-tuning."""

    answer: str = "response"
    """The column of the answer, a text or a chat, whose first question and answer are taken: `messages`, say."""


class ShortPreferences(ShortSource):
    """Preferences without a document, as hub:HuggingFaceH4/ultrafeedback_binarized has them."""

    chosen: str = "chosen"
    """The column of the better answer, a text or a chat that ends with it."""
    rejected: str = "rejected"
    """The column of the worse answer, a text or a chat that ends with it."""
    alone: bool = False
    """Whether the long pairs are left out, and say only how many short ones are taken: the paper's comparison."""


@dataclass(frozen=True)
class DataMixture:
    """The file to train on, and what is in it."""

    data: Path
    long: int = 0
    short: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Records of the source that cannot be used, by reason."""

    def figures(self) -> dict[str, float]:
        """For metrics; none where nothing is mixed in."""
        if not self.short:
            return {}
        return {"long/records": self.long, "short/records": self.short, "short/left_out": sum(self.left_out.values())}


R = TypeVar("R", Example, PreferencePair)


@dataclass(frozen=True)
class _Kind(Generic[R]):
    """What a training learns from: pairs or examples."""

    key: str
    read: Callable[[Path], Iterator[R]]
    write: Callable[[Path, Iterable[R]], int]
    builtin: Callable[[int], list[R]]
    made: Callable[[Row | RowError, int], R]


def mix_pairs(config: ShortPreferences, pairs: Path, *, out: Path, root: Path = Path()) -> DataMixture:
    """Writes `out`, pairs with short ones; files of the source are relative to `root`.

    ConfigError where the source is not pinned, DataError where it cannot be read or holds no preference.
    """
    columns = {"prompt": config.prompt, "chosen": config.chosen, "rejected": config.rejected}
    kind = _Kind(
        "train.short",
        read_pairs,
        write_pairs,
        _builtin_pairs,
        lambda row, number: short_pair_from_row(row, columns, number=number),
    )
    return _mix(kind, config, pairs, out=out, root=root, alone=config.alone)


def mix_examples(config: ShortAnswers, examples: Path, *, out: Path, root: Path = Path()) -> DataMixture:
    """Writes `out`, examples with short ones, as `mix_pairs`."""
    columns = {"prompt": config.prompt, "answer": config.answer}
    kind = _Kind(
        "sft.short",
        read_examples,
        write_examples,
        _builtin_examples,
        lambda row, number: short_example_from_row(row, columns, number=number),
    )
    return _mix(kind, config, examples, out=out, root=root)


def _mix(kind: _Kind[R], config: ShortSource, data: Path, *, out: Path, root: Path, alone: bool = False) -> DataMixture:
    if config.source is None:
        return DataMixture(data)
    long = sum(1 for _ in _long(kind, data))
    left_out: dict[str, int] = {}
    wanted = max(1, round(config.ratio * long))
    if config.source == BUILTIN:
        short = kind.builtin(wanted)
    else:
        short = _drawn(_usable(kind, config, root, left_out), wanted, seed=config.seed)
    if not short:
        raise DataError(f"{kind.key}.source, {config.source}, holds nothing that can be used: {_first(left_out)}")
    if left_out:
        log.warning("%s leaves out %d records", kind.key, sum(left_out.values()))
    kind.write(out, short if alone else chain(_long(kind, data), short))
    return DataMixture(out, 0 if alone else long, len(short), left_out)


def _long(kind: _Kind[R], data: Path) -> Iterator[R]:
    for record in kind.read(data):
        if is_short(record.id):
            raise DataError(f"{data}: idx {record.id} begins as short instructions do; name it otherwise")
        yield record


def _builtin_pairs(count: int) -> list[PreferencePair]:
    from longreward.builtin.short_instructions import short_items

    return [
        short_pair(number, query=item.query, chosen=item.answer, rejected=item.wrong)
        for number, item in enumerate(short_items(count))
    ]


def _builtin_examples(count: int) -> list[Example]:
    from longreward.builtin.short_instructions import short_items

    return [
        short_example(number, query=item.query, answer=item.answer) for number, item in enumerate(short_items(count))
    ]


def _drawn(usable: Iterable[R], count: int, *, seed: int) -> list[R]:
    """As many as there are up to `count`, each with the same chance, in the order of the source; one pass over it."""
    rng = random.Random(f"longreward short {seed}")
    held: list[R] = []
    for before, record in enumerate(usable):
        if len(held) < count:
            held.append(record)
        elif (place := rng.randrange(before + 1)) < count:
            held[place] = record
    return sorted(held, key=lambda record: int(record.id.removeprefix(SHORT)))


def _usable(kind: _Kind[R], config: ShortSource, root: Path, left_out: dict[str, int]) -> Iterator[R]:
    from longreward.data.file_source import find_files
    from longreward.data.open_source import open_source, source_checksum

    name, key = config.source or "", kind.key
    local = not name.startswith(SCHEME)
    if config.sha256 is None and (local or (root / name.removeprefix(SCHEME)).is_dir()):
        found = source_checksum(find_files(root, name)) if local else "sha256:<of its files>"
        raise ConfigError(f"{key}.source is {name}: pin what it holds now, with\n  {key}.sha256: {found}")
    if config.sha256 is None and config.hub.revision is None:
        raise ConfigError(f"{key}.source is {name}: set {key}.hub.revision, the commit of the data set (40 digits)")
    try:
        pin_key = f"{key}.sha256"
        source = open_source(root, name, key=f"{key}.source", pin_key=pin_key, pin=config.sha256, hub=config.hub)
        for number, (place, row) in enumerate(source.rows()):
            try:
                record = kind.made(row, number)
            except (RowError, ValidationError) as error:
                reason = error_reason(error)
                if not left_out:
                    log.warning("%s: %s is left out, the first one: %s", key, place, reason)
                left_out[reason] = left_out.get(reason, 0) + 1
                continue
            yield record
    except DataError as error:  # the reader of the hub knows of one section alone
        raise DataError(
            str(error).replace("prepare.hub", f"{key}.hub").replace("prepare.source", f"{key}.source")
        ) from None


def _first(left_out: dict[str, int]) -> str:
    return next((f"{reason} ({count} times)" for reason, count in left_out.items()), "it is empty")
