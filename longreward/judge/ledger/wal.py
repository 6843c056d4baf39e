"""Whether the write-ahead log beside a ledger is whole: SQLite leaves out what it cannot read of one, without a word.

A log is a header of 32 bytes, then frames: 24 bytes of header and one page each. A frame counts where its salts are
the header's and the running checksum over all frames holds (https://sqlite.org/fileformat2.html#walformat). A log that
ends in the midst of a frame is what a killed process or a power cut leaves; a broken
frame before one that commits is damage (before others it may be one that was written over).
"""

import struct
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Wal:
    """What was seen, in sentences for people."""

    frames: int = 0  # committed
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_wal(path: Path) -> Wal:
    """The log that belongs to the ledger at `path`; looks again where a process may have written to it meanwhile."""
    log = path.with_name(f"{path.name}-wal")
    for wait_s in (0.05, 0.2, 0.0):
        found, header = _look(path, log)
        if header == _header(log) and not found.damage:
            break
        time.sleep(wait_s)
    return found


def _look(path: Path, log: Path) -> tuple[Wal, bytes]:
    found, header = Wal(), _header(log)
    if not path.exists() and log.exists():
        found.damage.append(
            f"{log} has lost its ledger: put {path.name} back beside it; its answers are lost otherwise"
        )
        return found, header
    if not header:
        return found, header
    if len(header) < _HEADER or not _is_header(header):
        found.damage.append(f"the header of {log} is broken: what was committed last is not read any more")
        return found, header
    _frames(log, header, found)
    return found, header


def _frames(log: Path, header: bytes, found: Wal) -> None:
    magic, _, size, _, salt_1, salt_2, *sums = struct.unpack(">8I", header)
    size = 65536 if size == 1 else size
    order = ">" if magic & 1 else "<"
    running, number, broken, lost = (sums[0], sums[1]), 0, 0, 0
    with log.open("rb") as content:
        content.seek(_HEADER)
        while len(frame := content.read(_FRAME + size)) == _FRAME + size:
            _, committed, one, two, first, second = struct.unpack(">6I", frame[:_FRAME])
            if (one, two) != (salt_1, salt_2):
                break  # from before the log was begun anew
            number += 1
            if not broken:
                running = _sum(frame[:8] + frame[_FRAME:], order, running)
                if running != (first, second):
                    broken = number
                elif committed:
                    found.frames = number
            elif committed:
                lost = number
    if lost:
        found.damage.append(
            f"frame {broken} of {log} is broken: it and the {lost - broken} behind it are not read any more"
        )
    if found.frames:
        found.notes.append(
            f"{found.frames} pages in {log.name}: a process is at work, or was killed; keep it beside the ledger"
        )


def _sum(data: bytes, order: str, start: tuple[int, int]) -> tuple[int, int]:
    """SQLite's running checksum over 32-bit words."""
    one, two = start
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word, other in zip(words, words, strict=True):
        one = (one + word + two) & _MASK
        two = (two + other + one) & _MASK
    return one, two


def _is_header(header: bytes) -> bool:
    magic, *_, first, second = struct.unpack(">8I", header)
    if magic not in (0x377F0682, 0x377F0683):
        return False
    return _sum(header[:24], ">" if magic & 1 else "<", (0, 0)) == (first, second)


def _header(log: Path) -> bytes:
    try:
        with log.open("rb") as content:
            return content.read(_HEADER)
    except FileNotFoundError:
        return b""


_HEADER = 32
_FRAME = 24
_MASK = 0xFFFFFFFF
