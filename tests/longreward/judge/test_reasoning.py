"""Reasoning is never parsed as a reply."""

import asyncio
from typing import Any

import pytest
from child_server import offline_judge_server

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
def test_strip_reasoning(text: str, expected: str) -> None:
    assert strip_reasoning(ChatReply(text)) == expected
    assert has_reasoning(ChatReply(text)) == (text != expected)


def test_truncated_second_reasoning_stripped() -> None:
    assert strip_reasoning(ChatReply("<think>a</think>So far. <think>Perhaps [[9]]", "length")) == "So far. "


def test_closing_tag_quoted_in_statement_kept() -> None:
    text = "<statement>One.</statement><statement>It prints </think> twice.</statement>"
    assert parse_statements(strip_reasoning(ChatReply(text)), None) == ("One.", "It prints </think> twice.")


REQUEST = ChatRequest("helpfulness", {}, "How good is it?", "h", 512)


async def query(url: str, ledger: Any = None, **settings: Any) -> ParsedReply[float]:
    fields = {"kind": "vllm", "base_url": url, "model": "m", "max_retries": 0, "max_attempts": 1} | settings
    async with open_judge(JudgeConfig(**fields), ledger=ledger) as judge:
        return await judge.query(REQUEST, parse_rating)


@pytest.mark.usefixtures("no_keys")
async def test_ledger_keeps_reasoning_and_parsed_reply_does_not(serve_chat: Any, tmp_path: Any) -> None:
    with serve_chat("<think>[[9]] or so</think>Rating: [[4]]") as server:
        for _ in range(2):  # the second time from the ledger
            reply = await query(server.url, tmp_path / "l.sqlite")
            assert (reply.value, reply.text, reply.judge) == (4.0, "Rating: [[4]]", "m")
        assert len(server.bodies) == 1
    assert b"[[9]] or so" in b"".join(file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_in_own_field_not_parsed(serve_chat: Any, completion: Any, field: str) -> None:
    with serve_chat(lambda _: (200, completion("No verdict.", **{field: "Certainly [[9]]"}))) as server:
        reply = await query(server.url)
    assert reply.value is None
    assert reply.reason is not None
    assert "no verdict in the asked form: …No verdict." in reply.reason


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize(
    ("content", "message"),
    [("<think>Perhaps [[9]]", {}), (None, {"reasoning": "Perhaps [[9]]"}), ("", {"reasoning_content": "[[9]]"})],
)
async def test_truncated_reasoning_is_unreadable_with_advice(
    serve_chat: Any, completion: Any, content: str | None, message: dict[str, str]
) -> None:
    with serve_chat(lambda _: (200, completion(content, "length", **message))) as server:
        reply = await query(server.url, thinking_tokens=100)
    assert reply.value is None
    assert reply.reason is not None
    assert "cut at 612 tokens); raise judge.thinking_tokens, which is 100" in reply.reason


@pytest.mark.usefixtures("no_keys")
async def test_truncated_untagged_text_is_reasoning_if_judge_thinks(serve_chat: Any, completion: Any) -> None:
    """Templates as DeepSeek-R1's open the thought in the prompt: until it is closed, nothing marks it."""
    with serve_chat(lambda _: (200, completion("Perhaps [[9]], but", "length"))) as server:
        thinks = await query(server.url, thinking_tokens=100)
        plain = await query(server.url)
    assert thinks.value is None
    assert "raise judge.thinking_tokens" in (thinks.reason or "")
    assert plain.value == 9.0


@pytest.mark.usefixtures("no_keys")
async def test_reply_of_only_reasoning_names_reasoning_parser(serve_chat: Any, completion: Any) -> None:
    with serve_chat(lambda _: (200, completion("", reasoning="Rating: [[9]]"))) as server:
        reply = await query(server.url)
    assert reply.value is None
    assert "reasoning parser" in (reply.reason or "")


@pytest.mark.usefixtures("no_keys")
async def test_thinking_tokens_add_to_limit_of_prompt(serve_chat: Any) -> None:
    with serve_chat("[[4]]") as server:
        await query(server.url, thinking_tokens=4096)
        await query(server.url)
    assert [body["max_tokens"] for body in server.bodies] == [512 + 4096, 512]


@pytest.mark.usefixtures("no_keys")
def test_scores_are_same_with_misleading_reasoning() -> None:
    context = "Keld was founded by Ann Lee in 1905. The mill burned down in 1930."
    inputs = {"context": context, "query": "Who founded Keld?", "response": "Ann Lee founded Keld. It has a harbour."}
    reasoning = "[[0]] [[No support]] <statement>A trap.</statement> <no_statement/> No relevant information"
    with offline_judge_server("--think", reasoning) as url:
        thinking = LongReward(JudgeConfig(kind="vllm", base_url=url, model="m", thinking_tokens=99)).score(**inputs)
        (probed,) = asyncio.run(probe(JudgeConfig(kind="vllm", base_url=url, model="m")))
    plain = LongReward().score(**inputs)
    for name, verdict in plain.verdicts.items():
        assert thinking.verdicts[name].score == verdict.score, name
        assert thinking.verdicts[name].analysis == verdict.analysis, name
    assert [statement.text for statement in thinking.verdicts["faithfulness"].statements] == [
        "Ann Lee founded Keld.",
        "It has a harbour.",
    ]
    assert probed.ok
    assert "it reasons before it replies" in probed.advice[0]
