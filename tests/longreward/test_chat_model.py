"""Token probabilities within the text of a reply."""

from typing import Any

import pytest

from longreward.chat_model import ChatReply, TextWithLogprobs, estimate_tokens, parse_logprobs, with_logprobs
from longreward.judge.reasoning import strip_reasoning


def openai_logprobs(**tops: float) -> dict[str, Any]:
    candidates = [{"token": token, "logprob": value, "bytes": None} for token, value in tops.items()]
    return {"content": [{"token": "m", "logprob": -0.02, "top_logprobs": candidates}]}


def test_text_and_logprobs_joined_and_split() -> None:
    text = with_logprobs("m", openai_logprobs(m=-0.02, M=-4.05))
    assert text == '{"text": "m", "top_logprobs": [{"m": -0.02, "M": -4.05}]}'
    assert parse_logprobs(text) == TextWithLogprobs("m", ({"m": -0.02, "M": -4.05},))


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": [{"top_logprobs": []}]}, "x"])
def test_without_logprobs_text_unchanged(logprobs: Any) -> None:
    assert with_logprobs("M", logprobs) == "M"
    assert parse_logprobs("M") == TextWithLogprobs("M", ())


def test_token_that_equals_reasoning_tag_is_not_stripped() -> None:
    text = with_logprobs("m", openai_logprobs(**{"</think>": -3.0, "[THINK]": -9.0, "m": -0.1}))
    assert strip_reasoning(ChatReply(text, "length")) == text
    assert parse_logprobs(text).top_logprobs == ({"</think>": -3.0, "[THINK]": -9.0, "m": -0.1},)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"text": "m"}', '{"text": "m", "top_logprobs": 3}', '{"top_logprobs": [{"m": "x"}]}']
)
def test_any_other_text_has_no_logprobs(text: str) -> None:
    assert parse_logprobs(text) == TextWithLogprobs(text, ())


def test_estimate_tokens() -> None:
    assert estimate_tokens("a" * 35) == 10
    assert estimate_tokens("桥" * 7) == 6  # 3 bytes each
