"""Short-context preferences among the long ones: neither side is hurt (paper, section 4.3).

    mixed = mix(config.short, Path("data/pairs/preference_pairs.jsonl"), out=state / "pairs.jsonl")
    mixed.pairs          # `out`, with the long pairs first; the file itself where nothing is mixed in

The trainer draws its order from the seed and the lengths, so that both sides are spread over the training.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from pydantic import Field, ValidationError

from longreward.config import Config
from longreward.errors import ConfigError, DataError
from longreward.formats import read_pairs, write_pairs
from longreward.jsonl import RowError, reason_of
from longreward.records import PreferencePair
from longreward.sources.hub import SCHEME, HubConfig
from longreward.sources.preferences import SHORT, preference_of, short_pair

BUILTIN = "builtin"
KEY = "train.short"


class ShortConfig(Config):
    """Preferences without a document that are trained on beside the pairs."""

    source: str | None = None
    """`builtin` (short instructions in the words of the built-in corpus), a file, folder or glob (jsonl, json,
    parquet), or `hub:<name>` of a data set on the hub, as hub:HuggingFaceH4/ultrafeedback_binarized; null: none."""
    ratio: float = Field(default=1.0, gt=0, le=100)
    """Short pairs for each long one, drawn by seed; where the source has fewer, all of them."""
    prompt: str = "prompt"
    """The column of the question, a text or a chat; may be missing where the answers are chats that hold it."""
    chosen: str = "chosen"
    """The column of the better answer, a text or a chat that ends with it."""
    rejected: str = "rejected"
    """The column of the worse answer, a text or a chat that ends with it."""
    sha256: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """The checksum of a file, demanded, since DVC does not watch it: `sha256:` and what `sha256sum FILE` says."""
    hub: HubConfig = HubConfig()
    """Where the source is on the hub."""
    seed: int = 0
    """Of the draw."""


@dataclass(frozen=True)
class Mixed:
    """The file to train on, and what is in it."""

    pairs: Path
    long: int = 0
    short: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """Records of the source that cannot be used, by reason."""

    def told(self) -> str | None:
        """What was left out, for the log; None: nothing."""
        return f"{sum(self.left_out.values())} records, first: {_first(self.left_out)}" if self.left_out else None

    def figures(self) -> dict[str, float]:
        """For metrics; none where nothing is mixed in."""
        if not self.short:
            return {}
        return {"long/pairs": self.long, "short/pairs": self.short, "short/left_out": sum(self.left_out.values())}


def mix(config: ShortConfig, pairs: Path, *, out: Path, root: Path = Path()) -> Mixed:
    """Writes `out`; files of the source are relative to `root`.

    ConfigError where the source is not pinned, DataError where it cannot be read or holds no preference.
    """
    if config.source is None:
        return Mixed(pairs)
    long = sum(1 for _ in _long(pairs))
    left_out: dict[str, int] = {}
    wanted = max(1, round(config.ratio * long))
    short = _builtin(wanted) if config.source == BUILTIN else _drawn(config, wanted, root, left_out)
    if not short:
        raise DataError(f"{KEY}.source, {config.source}, holds no preference that can be used: {_first(left_out)}")
    write_pairs(out, chain(_long(pairs), short))
    return Mixed(out, long, len(short), left_out)


def _long(pairs: Path) -> Iterator[PreferencePair]:
    for pair in read_pairs(pairs):
        if pair.id.startswith(SHORT):
            raise DataError(f"{pairs}: idx {pair.id} begins as those of short pairs do; name it otherwise")
        yield pair


def _builtin(count: int) -> list[PreferencePair]:
    from longreward.corpus.short import short_items

    return [
        short_pair(number, query=item.query, better=item.answer, worse=item.wrong)
        for number, item in enumerate(short_items(count))
    ]


def _drawn(config: ShortConfig, count: int, root: Path, left_out: dict[str, int]) -> list[PreferencePair]:
    """As many as there are up to `count`, each with the same chance, in the order of the source; one pass over it."""
    rng = random.Random(f"longreward short {config.seed}")
    held: list[PreferencePair] = []
    for before, pair in enumerate(_usable(config, root, left_out)):
        if len(held) < count:
            held.append(pair)
        elif (place := rng.randrange(before + 1)) < count:
            held[place] = pair
    return sorted(held, key=lambda pair: int(pair.id.removeprefix(SHORT)))


def _usable(config: ShortConfig, root: Path, left_out: dict[str, int]) -> Iterator[PreferencePair]:
    from longreward.sources.files import find_files
    from longreward.sources.opening import open_source
    from longreward.sources.pinning import checksum

    name = config.source or ""
    local = not name.startswith(SCHEME)
    if config.sha256 is None and (local or (root / name.removeprefix(SCHEME)).is_dir()):
        found = checksum(find_files(root, name)) if local else "sha256:<of its files>"
        raise ConfigError(f"{KEY}.source is {name}: pin what it holds now, with\n  {KEY}.sha256: {found}")
    if config.sha256 is None and config.hub.revision is None:
        raise ConfigError(f"{KEY}.source is {name}: set {KEY}.hub.revision, the commit of the data set (40 digits)")
    columns = {"prompt": config.prompt, "chosen": config.chosen, "rejected": config.rejected}
    try:
        pin_key = f"{KEY}.sha256"
        source = open_source(root, name, key=f"{KEY}.source", pin_key=pin_key, pin=config.sha256, hub=config.hub)
        for number, (_, row) in enumerate(source.rows()):
            try:
                pair = preference_of(row, columns, number=number)
            except (RowError, ValidationError) as error:
                reason = reason_of(error)
                left_out[reason] = left_out.get(reason, 0) + 1
                continue
            yield pair
    except DataError as error:  # the reader of the hub knows of one section alone
        raise DataError(
            str(error).replace("prepare.hub", f"{KEY}.hub").replace("prepare.source", f"{KEY}.source")
        ) from None


def _first(left_out: dict[str, int]) -> str:
    return next((f"{reason} ({count} times)" for reason, count in left_out.items()), "it is empty")
