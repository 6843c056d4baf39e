"""Pairs by the rewards of a reward model, and the tiny one of the built-in example."""

from pathlib import Path

import pytest

from longreward.builtin.short_instructions import short_items
from longreward.errors import PolicyError
from longreward.pairs.methods import PairConfig
from longreward.pairs.outcomes import NoPair
from longreward.pairs.srm import SrmConfig, TinyRewardConfig, srm_pair
from longreward.pairs.tiny_reward_model import tiny_reward_model
from longreward.records import Example, PreferencePair, Response
from longreward.reward.reward_model import RankedResponses, ResponseReward, load_reward_model

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = Example(id="7", document_id="d", context="the town is north of the river .", query="where is the town ?")


def responses(*texts: str, example: Example = EXAMPLE) -> list[Response]:
    return [
        Response(id=f"{example.id}-{n}", example_id=example.id, query=example.query, text=text)
        for n, text in enumerate(texts)
    ]


def test_srm_pair() -> None:
    ranked = RankedResponses(
        "7", tuple(ResponseReward(f"7-{n}", value) for n, value in enumerate((-1.0, 2.5, None, -3.0)))
    )
    candidates = responses("a", "b", "c", "d")
    outcome = srm_pair(PairConfig(method="srm", min_scored=3), EXAMPLE, candidates, ranked)
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.id, outcome.rejected.id) == ("7-1", "7-3")
    assert (outcome.method, outcome.chosen_reward, outcome.margin) == ("srm", 2.5, 5.5)
    second = srm_pair(PairConfig(method="srm", min_scored=3, selection="best_second"), EXAMPLE, candidates, ranked)
    assert isinstance(second, PreferencePair)
    assert second.rejected.id == "7-0"
    truncated = [
        response.model_copy(update={"finish_reason": "length"}) if response.id == "7-1" else response
        for response in candidates
    ]
    outcome = srm_pair(PairConfig(method="srm", min_scored=3), EXAMPLE, truncated, ranked)
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.id, outcome.rejected.id) == (
        "7-0",
        "7-3",
    )  # the best was truncated
    three = PairConfig(method="srm", min_scored=3)
    short, few = (
        srm_pair(three, EXAMPLE, candidates, ranked, min_margin=6.0),
        srm_pair(PairConfig(method="srm"), EXAMPLE, candidates, ranked),
    )
    assert isinstance(short, NoPair)
    assert isinstance(few, NoPair)
    assert (short.reason, few.reason) == ("margin too small", "too few scored responses")


def test_tiny_reward_model_trained_once(tmp_path: Path) -> None:
    config = TinyRewardConfig(base=str(ROOT / "models/tiny-base"), pairs=240, epochs=2)
    folder = tiny_reward_model(config, tmp_path)
    modified = (folder / "model.safetensors").stat().st_mtime_ns
    assert tiny_reward_model(config, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == modified
    model = load_reward_model(SrmConfig(), folder)
    right = []
    for item in short_items(90, "heldout"):
        if item.kind not in ("twice", "and", "without"):  # the others take it longer
            continue
        example = Example(id=item.id, document_id="d", context="", query=item.query)
        [ranked] = model.rank([(example, responses(item.answer, item.wrong, example=example))])
        right.append((ranked.rewards[0].reward or 0) > (ranked.rewards[1].reward or 0))
    assert sum(right) >= 12  # of 15


def test_missing_base_model_reported(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"pair.srm.tiny.base: .*absent"):
        tiny_reward_model(TinyRewardConfig(base=str(tmp_path / "absent")), tmp_path)
