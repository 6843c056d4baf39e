"""What the methods of pairs need is looked at before hours are spent."""

from pathlib import Path

import pytest

from longreward.errors import ConfigError
from longreward.params import read_params
from longreward.readiness import check_ready

KEYLESS = ("judge.kind=openai", "judge.model=gpt-4o")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)


def problems_of(stages: list[str], *overrides: str) -> str:
    try:
        check_ready(read_params(None, overrides), stages)
    except ConfigError as error:
        return str(error)
    return ""


def test_the_judge_s_key_is_asked_for_where_the_method_asks_the_judge() -> None:
    assert "OPENAI_API_KEY" in problems_of(["score"], *KEYLESS)
    assert "OPENAI_API_KEY" in problems_of(["pair"], *KEYLESS, "pair.method=pairwise")
    assert problems_of(["score"], *KEYLESS, "pair.method=contrast", "score.strategy=none") == ""
    assert problems_of(["pair"], *KEYLESS) == ""


def test_a_reward_model_that_is_not_there_is_told_by_its_setting() -> None:
    assert "pair.srm.model: ./models/absent" in problems_of(
        ["pair"], "pair.method=srm", "pair.srm.model=./models/absent"
    )
    assert "pair.srm.tiny.base: ./tiny" in problems_of(["pair"], "pair.method=srm", "pair.srm.tiny.base=./tiny")
    assert problems_of(["pair"], "pair.srm.model=./models/absent") == ""


def test_contrast_does_with_one_response() -> None:
    assert "sample.n (1) is less" in problems_of(["pair"], "sample.n=1")
    assert problems_of(["pair"], "sample.n=1", "pair.method=contrast") == ""
