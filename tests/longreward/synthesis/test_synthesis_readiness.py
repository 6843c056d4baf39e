"""What is looked at before the first document is read."""

from pathlib import Path

import pytest

from longreward.checks import check_ready
from longreward.errors import ConfigError
from longreward.params import read_params

MADE = "prepare.source=data/synthesized/questions.jsonl"
ON = "synthesize.documents=data/raw/docs"
BOTH = ("synthesize", "prepare")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/raw/docs").mkdir(parents=True)
    (tmp_path / "data/raw/docs/a.txt").write_text("x")
    (tmp_path / "data/raw/x.jsonl").write_text("{}")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny-base").symlink_to(tiny_policy)
    monkeypatch.chdir(tmp_path)


def check(*overrides: str, stages: tuple[str, ...] = BOTH) -> None:
    check_ready(read_params(None, overrides), stages)


def test_off_needs_nothing_and_on_needs_its_files_and_that_prepare_reads_what_is_made() -> None:
    check("prepare.source=data/raw/x.jsonl")
    check(ON, MADE)
    with pytest.raises(ConfigError, match=r"so that nothing would read what is made: set prepare\.source to data"):
        check(ON, "prepare.source=data/raw/x.jsonl")
    with pytest.raises(ConfigError, match=r"which `synthesize` makes: set synthesize\.documents to your files"):
        check(MADE)
    with pytest.raises(ConfigError, match="data/raw/absent holds no file"):
        check("synthesize.documents=data/raw/absent", MADE)


def test_prepare_alone_needs_what_was_made_before() -> None:
    with pytest.raises(ConfigError, match=r"data/synthesized/questions\.jsonl is not there"):
        check(ON, MADE, stages=("prepare",))
    Path("data/synthesized").mkdir()
    Path("data/synthesized/questions.jsonl").write_text("{}")
    check(ON, MADE, stages=("prepare",))


def test_the_writers_key_is_missed_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZHIPUAI_API_KEY", raising=False)
    writer = 'synthesize.writer={"kind": "zhipu", "model": "glm-4-plus"}'
    with pytest.raises(ConfigError, match="ZHIPUAI_API_KEY"):
        check(ON, MADE, writer)
    check("prepare.source=data/raw/x.jsonl", writer)  # off: nobody is asked
    monkeypatch.setenv("ZHIPUAI_API_KEY", "for-the-test")
    check(ON, MADE, writer)
