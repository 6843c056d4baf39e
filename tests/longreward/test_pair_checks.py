"""Checks of the settings of pair methods before a run."""

from pathlib import Path

import pytest

from longreward.checks import check_ready
from longreward.errors import ConfigError
from longreward.params import read_params

KEYLESS = ("judge.kind=openai", "judge.model=gpt-4o")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)


def find_problems(stages: list[str], *overrides: str) -> str:
    try:
        check_ready(read_params(None, overrides), stages)
    except ConfigError as error:
        return str(error)
    return ""


def test_judge_key_required_by_methods_that_query_judge() -> None:
    assert "OPENAI_API_KEY" in find_problems(["score"], *KEYLESS)
    assert "OPENAI_API_KEY" in find_problems(["pair"], *KEYLESS, "pair.method=pairwise")
    assert find_problems(["score"], *KEYLESS, "pair.method=contrast", "score.strategy=none") == ""
    assert find_problems(["pair"], *KEYLESS) == ""


def test_missing_reward_model_named_by_setting() -> None:
    assert "pair.srm.model: ./models/absent" in find_problems(
        ["pair"], "pair.method=srm", "pair.srm.model=./models/absent"
    )
    assert "pair.srm.tiny.base: ./tiny" in find_problems(["pair"], "pair.method=srm", "pair.srm.tiny.base=./tiny")
    assert find_problems(["pair"], "pair.srm.model=./models/absent") == ""


GIVEN = ("pair.method=given", "prepare.pairs.source=data/raw/pairs.jsonl")


def test_given_pairs_need_file_and_no_judge() -> None:
    assert "prepare.pairs.source: data/raw/pairs.jsonl does not exist" in find_problems(["prepare"], *GIVEN)
    assert find_problems(["score", "pair"], *KEYLESS, *GIVEN, "sample.n=1") == ""
    hub = ("pair.method=given", "prepare.pairs.source=hub:org/name")
    assert "prepare.pairs.source is hub:org/name: set prepare.pairs.hub.revision" in find_problems(["prepare"], *hub)


def test_given_pairs_exclude_other_methods() -> None:
    with pytest.raises(ConfigError, match=r"pair\.method is given, and prepare\.pairs\.source is not set"):
        read_params(None, GIVEN[:1])
    with pytest.raises(ConfigError, match=r"prepare\.pairs\.source is data/raw/pairs\.jsonl, and pair\.method is srm"):
        read_params(None, [GIVEN[1], "pair.method=srm"])
