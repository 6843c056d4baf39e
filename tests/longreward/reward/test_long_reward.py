import asyncio
import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longreward import LongReward
from longreward.errors import ConfigError
from longreward.judge import reply_text
from longreward.pairs import pairwise, selection
from longreward.records import Example
from longreward.reward import ScoreConfig, adaptive, best_of_n, long_reward, parsers
from longreward.utils import token_spans

DOCUMENT = "Keld was founded by Ann Lee in 1905. The mill at Keld burned down in 1931."
QUERY = "Who founded Keld, and when?"
TRUE, FALSE = "Keld was founded by Ann Lee in 1905.", "Keld was founded by Tom Ray in 1866."
TABLE = {
    "helpfulness": "[[8]]",
    "logicality": "[[9]]",
    "statements": "<statement>Ann Lee founded Keld.</statement>",
    "support": "[[Fully supported]]",
    "extraction": "1. Ann Lee founded Keld.",
    "completeness": "[[5]]",
}


def test_scores_without_key_or_network() -> None:
    true = LongReward().score(context=DOCUMENT, query=QUERY, response=TRUE)
    false = LongReward().score(context=DOCUMENT, query=QUERY, response=FALSE)
    assert true.reward is not None
    assert false.reward is not None
    assert true.verdicts["faithfulness"].score == 10.0
    assert true.reward > false.reward
    assert "offline" in true.verdicts["helpfulness"].judge


async def test_scores_inside_running_loop() -> None:
    rewarding = LongReward()
    awaited = await rewarding.ascore(context=DOCUMENT, query=QUERY, response=TRUE)
    assert rewarding.score(context=DOCUMENT, query=QUERY, response=TRUE) == awaited


def test_custom_model_not_closed(scripted: Callable[..., Any]) -> None:
    model = scripted(TABLE)
    model.close = pytest.fail
    card = LongReward(model).score(context=DOCUMENT, query=QUERY, response=TRUE)
    assert card.reward == 8.0  # (8 + 9 + 10 + 5) / 4
    assert card.verdicts["logicality"].judge == "scripted"


def test_responses_share_extraction(scripted: Callable[..., Any]) -> None:
    model = scripted(TABLE)
    example = Example(id="7", document_id="7", context=DOCUMENT, query=QUERY)
    scored = LongReward(model).score_responses(example, [TRUE, FALSE])
    assert [card.response.id for card in scored.responses] == ["7-0", "7-1"]
    assert model.counts()["extraction"] == 1


def test_ledger_answers_second_call(scripted: Callable[..., Any], tmp_path: Path) -> None:
    first, second = scripted(TABLE), scripted(TABLE)
    cards = [
        LongReward(model, ledger=tmp_path / "ledger.sqlite").score(context=DOCUMENT, query=QUERY, response=TRUE)
        for model in (first, second)
    ]
    assert cards[0] == cards[1]
    assert len(first.requests) == 6
    assert second.requests == []


def test_context_of_200000_words() -> None:
    config = ScoreConfig(extraction_chunk_tokens=20_000)
    card = LongReward(config=config).score(context="word " * 199_993 + DOCUMENT, query=QUERY, response=TRUE)
    assert card.verdicts["faithfulness"].score == 10.0


def test_invalid_setting_fails_before_any_request(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"score\.tokenizer"):
        LongReward(config=ScoreConfig(tokenizer=str(tmp_path / "absent" / "tokenizer.json")))
    with pytest.raises(ConfigError, match=r"score\.prompts_dir"):
        LongReward(config=ScoreConfig(prompts_dir=tmp_path / "absent"))


@pytest.mark.parametrize(
    "module", [reply_text, parsers, long_reward, adaptive, best_of_n, pairwise, selection, token_spans]
)
def test_doctests(module: Any) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def test_score_in_event_loop_of_user(scripted: Callable[..., Any]) -> None:
    rewarding = LongReward(scripted(TABLE))

    async def both() -> list[float | None]:
        calls = [rewarding.ascore(context=DOCUMENT, query=QUERY, response=text) for text in (TRUE, FALSE)]
        return [card.reward for card in await asyncio.gather(*calls)]

    assert asyncio.run(both()) == [8.0, 8.0]
