import subprocess
from pathlib import Path

import pytest

from longreward.data.open_source import open_source
from longreward.data.source import Source
from longreward.errors import ConfigError, DataError

ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc": FIPS 180-2


def opened(root: Path, name: str, pin: str | None = None) -> Source:
    return open_source(root, name, key="prepare.source", pin_key="prepare.checksum", pin=pin)


def sha256sum(folder: Path, command: str) -> str:
    out = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout
    return f"sha256:{out.split()[0]}"


def test_a_file_outside_data_raw_needs_its_checksum_which_the_error_gives(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    outside = tmp_path / "x.jsonl"
    outside.write_text("abc")
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path / "project", str(outside))
    assert str(caught.value).endswith(f"  prepare.checksum: {ABC}")
    assert opened(tmp_path / "project", str(outside), ABC).name == str(outside)
    assert opened(tmp_path / "project", "../x.jsonl", ABC)


def test_a_changed_file_is_refused_with_what_was_expected_and_found(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "x.jsonl").write_text("abcd")
    with pytest.raises(DataError) as caught:
        opened(tmp_path, "data/raw/x.jsonl", ABC)
    words = str(caught.value)
    assert f"expected {ABC}" in words
    assert f"found    {sha256sum(raw, 'sha256sum x.jsonl')}" in words
    assert f"{raw}/x.jsonl is not what prepare.checksum says" in words


def test_under_data_raw_no_checksum_is_needed_even_where_dvc_links_into_its_cache(tmp_path: Path) -> None:
    raw, cache = tmp_path / "data" / "raw", tmp_path / "cache"
    raw.mkdir(parents=True)
    cache.mkdir()
    (cache / "a9993e").write_text("abc")
    (raw / "x.jsonl").symlink_to(cache / "a9993e")
    assert opened(tmp_path, "data/raw/x.jsonl")


def test_one_checksum_pins_all_shards_and_is_what_sha256sum_says_of_them(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    (shards / "b").mkdir(parents=True)
    for name in ("2.jsonl", "1.jsonl", "b/0.jsonl"):
        (shards / name).write_text(name)
    folder = sha256sum(shards, "sha256sum 1.jsonl 2.jsonl | sha256sum")
    assert opened(tmp_path, "shards", folder)
    assert opened(tmp_path, "shards/*.jsonl", folder)
    assert opened(tmp_path, "shards/**/*.jsonl", sha256sum(shards, "sha256sum 1.jsonl 2.jsonl b/0.jsonl | sha256sum"))
    (shards / "2.jsonl").rename(shards / "3.jsonl")  # the order of the records hangs on the names
    with pytest.raises(DataError, match="shards is not what"):
        opened(tmp_path, "shards", folder)
