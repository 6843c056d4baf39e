"""Probes of judge servers."""

from collections.abc import Callable
from typing import Any

import pytest

from longreward.errors import ConfigError, JudgeRefused
from longreward.judge import ChatRequest, JudgeConfig, open_judge
from longreward.judge.server_probe import check_keys, probe

pytestmark = pytest.mark.usefixtures("no_keys")


def test_missing_key_of_any_judge_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    check_keys(JudgeConfig())
    check_keys(JudgeConfig(kind="ollama", model="m"))
    two = JudgeConfig(kind="vllm", model="a", dimensions={"faithfulness": {"kind": "zhipu", "model": "b"}})
    with pytest.raises(ConfigError, match="ZHIPUAI_API_KEY holds no key for judge 'b'"):
        check_keys(two)
    monkeypatch.setenv("ZHIPUAI_API_KEY", "k")
    check_keys(two)


def test_main_judge_without_dimensions_needs_no_key() -> None:
    offline = {"kind": "offline"}
    names = ("helpfulness", "logicality", "faithfulness", "completeness")
    check_keys(JudgeConfig(kind="openai", model="m", dimensions=dict.fromkeys(names, offline)))


async def test_each_distinct_judge_gets_one_request(serve_chat: Any) -> None:
    with serve_chat("[[3]]") as a, serve_chat("I cannot say.") as b:
        result = await probe(
            JudgeConfig(
                kind="vllm", model="a", base_url=a.url, dimensions={"faithfulness": {"model": "b", "base_url": b.url}}
            )
        )
    assert [probed.ok for probed in result] == [True, False]
    assert f"judge 'a' at {a.url}/: answered, 10 tokens in" in result[0].message
    assert "without the requested verdict" in result[1].message
    assert (len(a.bodies), len(b.bodies)) == (1, 1)


async def test_offline_judge_is_always_ok() -> None:
    (result,) = await probe(JudgeConfig())
    assert result.ok
    assert "offline" in result.message


async def test_unreachable_server_and_missing_key_are_results() -> None:
    (down,) = await probe(JudgeConfig(kind="vllm", model="m", base_url="http://127.0.0.1:9/v1"))
    assert not down.ok
    assert "is the server running?" in down.message
    (keyless,) = await probe(JudgeConfig(kind="zhipu", model="m"))
    assert not keyless.ok
    assert "ZHIPUAI_API_KEY" in keyless.message


async def test_unknown_model_lists_models_of_server(serve_chat: Any) -> None:
    def unknown(_: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 404, {"error": {"message": "The model `qwen` does not exist."}}

    listed = {"object": "list", "data": [{"id": "Qwen/Qwen3-8B", "object": "model", "created": 0, "owned_by": "x"}]}
    with serve_chat(unknown, pages={"/v1/models": listed}) as server:
        (result,) = await probe(JudgeConfig(kind="vllm", model="qwen", base_url=server.url))
    assert not result.ok
    assert result.message.endswith("; the server knows Qwen/Qwen3-8B")


async def test_thinking_model_without_thinking_tokens_gets_advice(serve_chat: Any, completion: Any) -> None:
    with serve_chat(lambda _: (200, completion("<think>3?</think>[[3]]"))) as server:
        (thinks,) = await probe(JudgeConfig(kind="vllm", model="m", base_url=server.url))
        (has_room,) = await probe(JudgeConfig(kind="vllm", model="m", base_url=server.url, thinking_tokens=99))
    assert thinks.ok
    assert "judge.thinking_tokens" in thinks.advice[0]
    assert has_room.advice == ()
    with serve_chat(lambda _: (200, completion(None, "length", reasoning="Well, 3"))) as server:
        (cut,) = await probe(JudgeConfig(kind="vllm", model="m", base_url=server.url))
    assert not cut.ok
    assert "truncated while it was reasoning" in cut.message
    assert "judge.thinking_tokens" in cut.advice[0]


def loaded(window: int) -> dict[str, Any]:
    return {
        "/api/ps": {"models": [{"name": "other", "context_length": 1}, {"name": "m:latest", "context_length": window}]}
    }


async def test_unknown_ollama_context_window_gets_advice(serve_chat: Callable[..., Any]) -> None:
    advice = []
    for pages in (loaded(4096), loaded(32768), {}):
        with serve_chat("[[3]]", pages=pages) as server:
            (result,) = await probe(JudgeConfig(kind="ollama", model="m", base_url=server.url))
        assert result.ok
        advice.append(" ".join(result.advice))
    assert advice[:2] == ["", ""]  # `longreward doctor` compares a known window with the prompts
    assert "does not tell its context window" in advice[2]


@pytest.mark.parametrize(
    ("props", "concurrency", "advised"),
    [
        ({"total_slots": 4}, 32, True),
        ({"total_slots": 4}, 4, False),
        ({"total_slots": "4"}, 32, False),
        (None, 32, False),
    ],
)
async def test_max_concurrency_above_servers_slots_gets_advice(
    serve_chat: Any, props: dict[str, Any] | None, concurrency: int, advised: bool
) -> None:
    """`/props` with `total_slots` is part of the server of llama.cpp."""
    with serve_chat("[[3]]", pages={"/props": props} if props else {}) as server:
        config = JudgeConfig(kind="http", model="m", base_url=server.url, max_concurrency=concurrency)
        (result,) = await probe(config)
    assert result.ok
    assert (result.advice != ()) == advised
    if advised:
        assert "works on 4 requests at once, and judge.max_concurrency is 32" in result.advice[0]
        assert "Set judge.max_concurrency to 4" in result.advice[0]


async def test_prompt_above_ollama_context_window_refused(serve_chat: Callable[..., Any]) -> None:
    long = ChatRequest("extraction", {}, "word " * 4000, "h", 1024)
    short = ChatRequest("extraction", {}, "word " * 40, "h", 1024)
    config = JudgeConfig(kind="ollama", model="m", max_attempts=1)
    with serve_chat("[[3]]", pages=loaded(4096)) as server:
        async with open_judge(config.model_copy(update={"base_url": server.url}), ledger=None) as judge:
            with pytest.raises(
                JudgeRefused,
                match=r"reads 4,096 tokens .*about 5,714: .*OLLAMA_CONTEXT_LENGTH=8192.*, or lower score.extraction",
            ):
                await judge.query(
                    long, lambda text: text
                )  # Ollama shows the window once the model is loaded, after this reply
            assert (await judge.query(short, lambda text: text)).value == "[[3]]"
            with pytest.raises(JudgeRefused):
                await judge.query(long, lambda text: text)
        assert len(server.bodies) == 2  # the second long request was not sent
