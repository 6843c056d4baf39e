"""Members of a zip archive, unpacked beside it."""

import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from longreward.benchmarks.files.download import writing_to


class BadArchive(Exception):
    """The archive is none, is damaged, or lacks a member."""


def unpack(archive: Path, members: Mapping[str, str]) -> None:
    """Writes each member to its place beside the archive, save where it is there already, to the letter.

    Nothing where no members are wanted. Raises BadArchive, or StateError where the disk refuses.
    """
    if not members:
        return
    try:
        with zipfile.ZipFile(archive) as opened:
            for member, name in members.items():
                place = archive.parent / name
                if place.is_file() and _crc(place) == opened.getinfo(member).CRC:
                    continue
                part = place.with_name(f".{place.name}.part")
                with opened.open(member) as content, writing_to(part):
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with part.open("wb") as file:
                        shutil.copyfileobj(content, file)
                    os.replace(part, place)
    except KeyError as error:
        raise BadArchive(f"{archive} lacks a member: {error.args[0]}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadArchive(f"{archive} is no archive that can be unpacked ({error})") from None


def _crc(path: Path) -> int:
    """As archives have it of their members."""
    crc = 0
    with path.open("rb") as file:
        while data := file.read(2**20):
            crc = zlib.crc32(data, crc)
    return crc
