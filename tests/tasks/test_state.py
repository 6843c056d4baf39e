"""Where a stage's progress lies."""

import logging
from pathlib import Path
from typing import Any

import pytest

from longreward.errors import StateError
from longreward.params import Params
from longreward.tasks.stage import StageRun
from longreward.tasks.state import (
    delete_committed,
    file_digests,
    mark_complete,
    mark_incomplete,
    stage_folder,
    state_folder,
    state_lock,
)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("LONGREWARD_STATE", str(tmp_path / "state"))


def test_state_folder_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_folder() == tmp_path / "state"
    monkeypatch.delenv("LONGREWARD_STATE")
    assert state_folder() == tmp_path / ".longreward"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "original"))
    assert state_folder() == tmp_path / "original" / ".longreward"


def test_stage_folder_depends_on_inputs() -> None:
    Path("data").mkdir()
    Path("data/a.jsonl").write_text("1\n")

    def folder(stage: str = "score", settings: str = "{}", *, turned: bool = False) -> Path:
        inputs = [Path("data"), Path("not-there")]
        return stage_folder(stage, settings=settings, inputs=file_digests(reversed(inputs) if turned else inputs))

    first = folder()
    assert folder(turned=True) == first
    assert folder(settings='{"n": 2}') != first
    assert folder("sample") != first
    Path("data/a.jsonl").write_text("2\n")
    assert folder() != first
    Path("data/a.jsonl").rename("data/b.jsonl")
    Path("data/b.jsonl").write_text("1\n")
    assert folder() != first
    Path("data/b.jsonl").rename("data/a.jsonl")
    assert folder() == first


def test_shared_state_ignores_other_inputs(tmp_path: Path) -> None:
    def shared(seed: int, **inputs: bytes) -> Path:
        tracked: Any = None
        params = Params.model_validate({"evaluate": {"seed": seed}})
        run = StageRun(
            "evaluate", params, tmp_path, tracked, logging.getLogger(), {Path(k): v for k, v in inputs.items()}
        )
        return run.shared_state("answers", sections=("policy", "evaluate"), without=(Path("dpo"),))

    first = shared(0, sft=b"1", dpo=b"2")
    assert shared(0, sft=b"1", dpo=b"3") == first
    assert shared(0, sft=b"2", dpo=b"2") != first
    assert shared(1, sft=b"1", dpo=b"2") != first


def test_delete_committed() -> None:
    folders = [stage_folder(name, settings="{}", inputs={}) for name in ("sample", "score", "train")]
    for folder in folders:
        (folder / "shard").write_text("x")
    mark_complete(folders[0], "aa")
    mark_complete(folders[1], "bb")
    delete_committed({"bb", "cc"})
    assert [folder.exists() for folder in folders] == [True, False, True]
    mark_incomplete(folders[0])  # at work again, after DVC refused its outputs
    delete_committed({"aa"})
    assert (folders[0] / "shard").exists()


def test_state_folder_cannot_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGREWARD_STATE", str(tmp_path / "file" / "state"))
    with pytest.raises(StateError, match=r"file/state.*set LONGREWARD_STATE"):
        state_folder()


def test_state_lock_shared_by_name() -> None:
    with state_lock("pipeline"):
        assert state_lock("pipeline").is_locked is False  # another object, not yet acquired
        with pytest.raises(TimeoutError):
            state_lock("pipeline").acquire(timeout=0)
    with state_lock("pipeline"):
        pass
