"""DVC, on a real repository in a temporary folder."""

import asyncio
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from longreward.errors import ConfigError, DataError
from longreward.tasks import dvc_command
from longreward.tasks.dvc_command import add_raw, data_hashes, dvc, push, reproduce, stage_entries

GRAPH = """
stages:
  shout:
    cmd: python shout.py
    params: [shout.loud, policy]
    deps: [data/raw, shout.py]
    outs: [data/loud]
    metrics:
      - metrics/shout.json: {cache: false}
"""
SHOUT = """
import os
os.makedirs("data/loud"); os.makedirs("metrics", exist_ok=True)
open("data/loud/a.txt", "w").write(open("data/raw/a.txt").read().upper())
open("metrics/shout.json", "w").write("{}")
"""


@pytest.fixture
def repository(own_folders: Path) -> Path:
    """A project with one stage and raw data that DVC does not know yet."""
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    files = {
        "dvc.yaml": GRAPH,
        "shout.py": SHOUT,
        "params.yaml": "shout: {loud: 1}\npolicy: {window: 8}\n",
        "data/raw/a.txt": "heron\n",
    }
    for name, text in files.items():
        (own_folders / name).parent.mkdir(parents=True, exist_ok=True)
        (own_folders / name).write_text(text)
    return own_folders


def test_the_graph_says_what_a_stage_reads_and_writes(repository: Path) -> None:
    entry = stage_entries()["shout"]
    assert entry.inputs == (Path("data/raw"), Path("shout.py"))
    assert entry.sections == ("shout", "policy")
    assert entry.outputs == (Path("data/loud"), Path("metrics/shout.json"))


def test_a_folder_without_a_graph_is_named(own_folders: Path) -> None:
    with pytest.raises(ConfigError, match=r"dvc\.yaml is not here"):
        stage_entries()


async def test_raw_data_is_added_once_then_again_when_it_changed_and_brought_back_when_it_is_gone(
    repository: Path,
) -> None:
    assert await add_raw() is True
    first = data_hashes((Path("data/raw"), Path("data/raw/a.txt"), Path("shout.py")))
    assert await add_raw() is False

    Path("data/raw/a.txt").unlink()
    Path("data/raw/a.txt").write_text("egret\n")
    assert await add_raw() is True
    second = data_hashes((Path("data/raw"),))

    assert set(first) == {"data/raw", "data/raw/a.txt"}  # code has its commit, not a hash of DVC's
    assert first["data/raw"] == first["data/raw/a.txt"] != second["data/raw"]

    Path("data/raw/a.txt").unlink()
    Path("data/raw").rmdir()
    assert await add_raw() is True
    assert Path("data/raw/a.txt").read_text() == "egret\n"


async def test_raw_data_that_is_nowhere_says_what_to_do(repository: Path) -> None:
    Path("data/raw/a.txt").unlink()
    Path("data/raw").rmdir()
    with pytest.raises(DataError, match=r"data/raw is missing.*make setup"):
        await add_raw()


async def test_a_stage_that_was_reproduced_is_up_to_date_for_dvc_and_its_hash_is_known(repository: Path) -> None:
    await add_raw()
    assert (await reproduce("shout", force=False, environment={})).code == 0
    assert Path("data/loud/a.txt").read_text() == "HERON\n"
    assert data_hashes((Path("data/loud"),))["data/loud"].endswith(".dir")
    again = await reproduce("shout", force=False, environment={})
    assert "didn't change, skipping" in again.words
    forced = await reproduce("shout", force=True, environment={})
    assert "Running stage 'shout'" in forced.words


async def test_a_stage_waits_for_another_dvc_command_instead_of_failing(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await add_raw()
    monkeypatch.setattr(dvc_command, "LOOK_AGAIN_S", 0.0)
    with Path(".dvc/tmp/lock").open("a") as lock:  # noqa: ASYNC230  # as `dvc push` holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        reproducing = asyncio.create_task(reproduce("shout", force=False, environment={}))
        while "another DVC command is at work" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await reproducing).code == 0
    assert Path("data/loud/a.txt").read_text() == "HERON\n"


async def test_a_stage_that_fails_says_so_in_dvcs_words(repository: Path) -> None:
    Path("shout.py").write_text("import sys; sys.exit('no voice')")
    ended = await reproduce("shout", force=False, environment={})
    assert ended.code != 0
    assert "no voice" in ended.words
    assert "ERROR: failed to reproduce 'shout'" in ended.words


async def test_data_goes_to_the_default_remote_where_there_is_one(repository: Path, tmp_path: Path) -> None:
    await add_raw()
    assert await push() is False
    remote = tmp_path / "remote"
    await dvc("remote", "add", "-d", "here", str(remote))
    assert await push() is True
    assert len([file for file in remote.rglob("*") if file.is_file()]) == 2  # a.txt and the list of the folder
