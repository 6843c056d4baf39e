import subprocess
from pathlib import Path

import pytest

from longreward.data.open_source import open_source
from longreward.data.source import Source
from longreward.errors import ConfigError, DataError

ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc": FIPS 180-2


def open_pinned(root: Path, name: str, pin: str | None = None) -> Source:
    return open_source(root, name, key="prepare.source", pin_key="prepare.checksum", pin=pin)


def sha256sum(folder: Path, command: str) -> str:
    out = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout
    return f"sha256:{out.split()[0]}"


def test_file_outside_data_raw_needs_checksum_that_error_contains(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    outside = tmp_path / "x.jsonl"
    outside.write_text("abc")
    with pytest.raises(ConfigError) as caught:
        open_pinned(tmp_path / "project", str(outside))
    assert str(caught.value).endswith(f"  prepare.checksum: {ABC}")
    assert open_pinned(tmp_path / "project", str(outside), ABC).name == str(outside)
    assert open_pinned(tmp_path / "project", "../x.jsonl", ABC)


def test_changed_file_is_error_with_both_checksums(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "x.jsonl").write_text("abcd")
    with pytest.raises(DataError) as caught:
        open_pinned(tmp_path, "data/raw/x.jsonl", ABC)
    message = str(caught.value)
    assert f"expected {ABC}" in message
    assert f"actual   {sha256sum(raw, 'sha256sum x.jsonl')}" in message
    assert f"{raw}/x.jsonl differs from prepare.checksum" in message


def test_links_below_data_raw_need_no_checksum(tmp_path: Path) -> None:
    raw, cache = tmp_path / "data" / "raw", tmp_path / "cache"
    raw.mkdir(parents=True)
    cache.mkdir()
    (cache / "a9993e").write_text("abc")
    (raw / "x.jsonl").symlink_to(cache / "a9993e")
    assert open_pinned(tmp_path, "data/raw/x.jsonl")


def test_checksum_of_shards_equals_sha256sum(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    (shards / "b").mkdir(parents=True)
    for name in ("2.jsonl", "1.jsonl", "b/0.jsonl"):
        (shards / name).write_text(name)
    folder = sha256sum(shards, "sha256sum 1.jsonl 2.jsonl | sha256sum")
    assert open_pinned(tmp_path, "shards", folder)
    assert open_pinned(tmp_path, "shards/*.jsonl", folder)
    assert open_pinned(
        tmp_path, "shards/**/*.jsonl", sha256sum(shards, "sha256sum 1.jsonl 2.jsonl b/0.jsonl | sha256sum")
    )
    (shards / "2.jsonl").rename(shards / "3.jsonl")  # names determine the order of the records
    with pytest.raises(DataError, match="shards differs from"):
        open_pinned(tmp_path, "shards", folder)
