"""Checks of the settings of `synthesize` before a run."""

from pathlib import Path

import pytest

from longreward.checks import check_ready
from longreward.errors import ConfigError
from longreward.params import read_params

FROM_SYNTHESIS = "prepare.source=data/synthesized/questions.jsonl"
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


def test_documents_and_prepare_source_must_agree() -> None:
    check("prepare.source=data/raw/x.jsonl")
    check(ON, FROM_SYNTHESIS)
    with pytest.raises(ConfigError, match=r"set prepare\.source to data"):
        check(ON, "prepare.source=data/raw/x.jsonl")
    with pytest.raises(ConfigError, match=r"set synthesize\.documents to your files"):
        check(FROM_SYNTHESIS)
    with pytest.raises(ConfigError, match="data/raw/absent contains no file"):
        check("synthesize.documents=data/raw/absent", FROM_SYNTHESIS)


def test_prepare_alone_needs_existing_questions() -> None:
    with pytest.raises(ConfigError, match=r"data/synthesized/questions\.jsonl does not exist"):
        check(ON, FROM_SYNTHESIS, stages=("prepare",))
    Path("data/synthesized").mkdir()
    Path("data/synthesized/questions.jsonl").write_text("{}")
    check(ON, FROM_SYNTHESIS, stages=("prepare",))


def test_writer_needs_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZHIPUAI_API_KEY", raising=False)
    writer = 'synthesize.writer={"kind": "zhipu", "model": "glm-4-plus"}'
    with pytest.raises(ConfigError, match="ZHIPUAI_API_KEY"):
        check(ON, FROM_SYNTHESIS, writer)
    check("prepare.source=data/raw/x.jsonl", writer)  # without documents no key is needed
    monkeypatch.setenv("ZHIPUAI_API_KEY", "for-the-test")
    check(ON, FROM_SYNTHESIS, writer)
