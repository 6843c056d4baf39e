"""What the methods of pairs need is looked at before hours are spent."""

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


GIVEN = ("pair.method=given", "prepare.pairs.source=data/raw/pairs.jsonl")


def test_given_pairs_need_their_file_and_no_judge_or_number_of_responses() -> None:
    assert "prepare.pairs.source: data/raw/pairs.jsonl does not exist" in problems_of(["prepare"], *GIVEN)
    assert problems_of(["score", "pair"], *KEYLESS, *GIVEN, "sample.n=1") == ""
    hub = ("pair.method=given", "prepare.pairs.source=hub:org/name")
    assert "prepare.pairs.source is hub:org/name: set prepare.pairs.hub.revision" in problems_of(["prepare"], *hub)


def test_given_pairs_and_a_method_that_makes_pairs_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"pair\.method is given, and prepare\.pairs\.source is not set"):
        read_params(None, GIVEN[:1])
    with pytest.raises(ConfigError, match=r"prepare\.pairs\.source is data/raw/pairs\.jsonl, and pair\.method is srm"):
        read_params(None, [GIVEN[1], "pair.method=srm"])
