"""What is thought is never what is said."""

import asyncio
from typing import Any

import pytest
from child_server import child_server

from longreward import LongReward
from longreward.judge import ChatReply, ChatRequest, JudgeConfig, ParsedReply, open_judge
from longreward.judge.reasoning import has_reasoning, strip_reasoning
from longreward.judge.server_probe import probe
from longreward.reward.parsers import parse_rating, parse_statements


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good. [[8]]", "Good. [[8]]"),
        ("<think>Is it [[9]]?</think> Rating: [[4]]", " Rating: [[4]]"),
        ("\n<think>\nIs it [[9]]?\n</think>\n\nRating: [[4]]", "\n\n\nRating: [[4]]"),
        ("Is it [[9]]?\n</think>\n\nRating: [[4]]", "\n\nRating: [[4]]"),
        ("<think>one</think>a<think>two [[9]]</think> [[4]]", "a [[4]]"),
        ("<think>It says </think> [[9]], hm.</think> [[4]]", " [[4]]"),
        ("<THINKING>no</THINKING>[[4]]", "[[4]]"),
        ("[THINK]no[/THINK][[4]]", "[[4]]"),
        ("◁think▷no◁/think▷[[4]]", "[[4]]"),
        ("<|channel|>analysis<|message|>[[9]]<|end|><|channel|>final<|message|>[[4]]", "[[4]]"),
        ("<think>", ""),
        ("<think>Perhaps [[9]]", ""),
        ("The response writes <think> but ends there. [[4]]", "The response writes <think> but ends there. [[4]]"),
    ],
)
def test_what_comes_after_the_thought_is_what_was_said(text: str, expected: str) -> None:
    assert strip_reasoning(ChatReply(text)) == expected
    assert has_reasoning(ChatReply(text)) == (text != expected)


def test_a_second_thought_that_the_limit_cut_off_is_no_answer_either() -> None:
    assert strip_reasoning(ChatReply("<think>a</think>So far. <think>Perhaps [[9]]", "length")) == "So far. "


def test_a_closing_tag_that_a_statement_quotes_ends_no_thought() -> None:
    text = "<statement>One.</statement><statement>It prints </think> twice.</statement>"
    assert parse_statements(strip_reasoning(ChatReply(text)), None) == ("One.", "It prints </think> twice.")


QUESTION = ChatRequest("helpfulness", {}, "How good is it?", "h", 512)


async def read(url: str, ledger: Any = None, **settings: Any) -> ParsedReply[float]:
    fields = {"kind": "vllm", "base_url": url, "model": "m", "max_retries": 0, "max_attempts": 1} | settings
    async with open_judge(JudgeConfig(**fields), ledger=ledger) as judge:
        return await judge.query(QUESTION, parse_rating)


@pytest.mark.usefixtures("no_keys")
async def test_the_ledger_keeps_the_thought_and_the_reading_is_what_was_said(serve_chat: Any, tmp_path: Any) -> None:
    with serve_chat("<think>[[9]] or so</think>Rating: [[4]]") as server:
        for _ in range(2):  # the second time from the ledger
            found = await read(server.url, tmp_path / "l.sqlite")
            assert (found.value, found.text, found.judge) == (4.0, "Rating: [[4]]", "m")
        assert len(server.bodies) == 1
    assert b"[[9]] or so" in b"".join(file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_a_thought_beside_the_answer_is_no_verdict(serve_chat: Any, completion: Any, field: str) -> None:
    with serve_chat(lambda _: (200, completion("No verdict.", **{field: "Certainly [[9]]"}))) as server:
        found = await read(server.url)
    assert found.value is None
    assert found.reason is not None
    assert "no verdict in the asked form: …No verdict." in found.reason


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize(
    ("content", "message"),
    [("<think>Perhaps [[9]]", {}), (None, {"reasoning": "Perhaps [[9]]"}), ("", {"reasoning_content": "[[9]]"})],
)
async def test_thinking_cut_off_is_unreadable_and_says_what_to_raise(
    serve_chat: Any, completion: Any, content: str | None, message: dict[str, str]
) -> None:
    with serve_chat(lambda _: (200, completion(content, "length", **message))) as server:
        found = await read(server.url, thinking_tokens=100)
    assert found.value is None
    assert found.reason is not None
    assert "cut at 612 tokens); raise judge.thinking_tokens, which is 100" in found.reason


@pytest.mark.usefixtures("no_keys")
async def test_a_thought_without_any_tag_that_the_limit_cut_off_is_none_of_a_judge_that_thinks(
    serve_chat: Any, completion: Any
) -> None:
    """Templates as DeepSeek-R1's open the thought in the prompt: until it is closed, nothing marks it."""
    with serve_chat(lambda _: (200, completion("Perhaps [[9]], but", "length"))) as server:
        thinks = await read(server.url, thinking_tokens=100)
        plain = await read(server.url)
    assert thinks.value is None
    assert "raise judge.thinking_tokens" in (thinks.reason or "")
    assert plain.value == 9.0


@pytest.mark.usefixtures("no_keys")
async def test_an_answer_that_is_all_thought_points_at_the_server(serve_chat: Any, completion: Any) -> None:
    with serve_chat(lambda _: (200, completion("", reasoning="Rating: [[9]]"))) as server:
        found = await read(server.url)
    assert found.value is None
    assert "reasoning parser" in (found.reason or "")


@pytest.mark.usefixtures("no_keys")
async def test_room_to_think_comes_on_top_of_what_the_prompt_allows(serve_chat: Any) -> None:
    with serve_chat("[[4]]") as server:
        await read(server.url, thinking_tokens=4096)
        await read(server.url)
    assert [body["max_tokens"] for body in server.bodies] == [512 + 4096, 512]


@pytest.mark.usefixtures("no_keys")
def test_a_whole_reward_is_the_same_from_a_judge_that_thinks_misleading_thoughts_first() -> None:
    context = "Keld was founded by Ann Lee in 1905. The mill burned down in 1930."
    asked = {"context": context, "query": "Who founded Keld?", "response": "Ann Lee founded Keld. It has a harbour."}
    thought = "[[0]] [[No support]] <statement>A trap.</statement> <no_statement/> No relevant information"
    with child_server("-m", "longreward.offline_judge_server", "--think", thought) as url:
        thinking = LongReward(JudgeConfig(kind="vllm", base_url=url, model="m", thinking_tokens=99)).score(**asked)
        (found,) = asyncio.run(probe(JudgeConfig(kind="vllm", base_url=url, model="m")))
    silent = LongReward().score(**asked)
    for name, verdict in silent.verdicts.items():
        assert thinking.verdicts[name].score == verdict.score, name
        assert thinking.verdicts[name].analysis == verdict.analysis, name
    assert [each.text for each in thinking.verdicts["faithfulness"].statements] == [
        "Ann Lee founded Keld.",
        "It has a harbour.",
    ]
    assert found.ok
    assert "it thinks before it answers" in found.advice[0]
