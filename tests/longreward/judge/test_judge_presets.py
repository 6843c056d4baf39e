"""The kinds of judge that are known by name: what is sent where, and which key goes along."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from longreward.errors import ConfigError, JudgeRefused, RequestRefused
from longreward.judge import ChatRequest, JudgeConfig, open_judge
from longreward.judge.http_client import read_api_key
from longreward.judge.judge import open_model

PAGE = Path(__file__).parents[3] / "docs" / "reward.md"
DOCUMENTED = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(judge:.*?)```", PAGE.read_text(), re.S)]

pytestmark = pytest.mark.usefixtures("no_keys")


@pytest.mark.parametrize("settings", DOCUMENTED, ids=lambda each: each["judge"]["kind"])
def test_each_documented_judge_is_valid(settings: dict[str, Any]) -> None:
    assert list(settings) == ["judge"]
    assert JudgeConfig.parse(settings["judge"], source="docs/reward.md").judges()


def test_every_kind_is_documented() -> None:
    kinds = {settings["judge"]["kind"] for settings in DOCUMENTED}
    assert kinds == {"http", "openai", "zhipu", "anthropic", "vllm", "sglang", "ollama"}


@pytest.mark.parametrize(
    ("kind", "address", "variable"),
    [
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("zhipu", "https://open.bigmodel.cn/api/paas/v4", "ZHIPUAI_API_KEY"),
        ("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    ],
)
def test_a_provider_s_key_is_needed_and_goes_to_its_own_address_only(
    kind: str, address: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = JudgeConfig.parse({"kind": kind, "model": "m"}, source="p")
    assert config.address == address
    with pytest.raises(ConfigError, match=f"{variable} holds no key for judge 'm'"):
        read_api_key(config)
    monkeypatch.setenv(variable, "k-1")
    assert read_api_key(config) == "k-1"
    assert read_api_key(JudgeConfig.parse({"kind": kind, "model": "m", "base_url": address}, source="p")) == "k-1"
    for other in ("http://localhost:8000/v1", "https://" + address.split("/")[2] + ".evil.example/v1"):
        with pytest.raises(ConfigError, match=f"{variable} is sent to .* only"):
            JudgeConfig.parse({"kind": kind, "model": "m", "base_url": other}, source="p")
        named = JudgeConfig.parse({"kind": kind, "model": "m", "base_url": other, "api_key_env": "MINE"}, source="p")
        with pytest.raises(ConfigError, match="MINE holds no key"):
            read_api_key(named)


async def test_servers_of_one_s_own_get_their_own_key_and_nobody_else_s(
    serve_chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI", "ZHIPUAI", "OLLAMA", "VLLM"):
        monkeypatch.setenv(f"{name}_API_KEY", f"{name}-key")
    with serve_chat("[[4]]") as server:
        for kind in ("vllm", "sglang", "ollama", "http"):
            model = open_model(JudgeConfig.parse({"kind": kind, "model": "m", "base_url": server.url}, source="p"))
            await model.complete(QUESTION, temperature=0.01)
            await model.close()
    assert server.keys == ["Bearer VLLM-key", "Bearer none", "Bearer none", "Bearer OPENAI-key"]
    cloud = JudgeConfig.parse({"kind": "ollama", "model": "m", "base_url": "https://ollama.com/v1"}, source="p")
    assert read_api_key(cloud) == "OLLAMA-key"


QUESTION = ChatRequest("helpfulness", {}, "How good is it?", "h", 512)


@pytest.mark.parametrize(
    ("settings", "temperature", "sent"),
    [
        ({"kind": "openai"}, 0.01, {"max_completion_tokens": 512, "temperature": 0.01}),
        ({"kind": "openai", "length_field": "max_tokens"}, 0.01, {"max_tokens": 512, "temperature": 0.01}),
        ({"kind": "openai", "extra_body": {"temperature": None}}, 0.01, {"max_completion_tokens": 512}),
        (
            {"kind": "openai", "extra_body": {"reasoning_effort": "low"}},
            0.95,
            {"max_completion_tokens": 512, "temperature": 0.95, "reasoning_effort": "low"},
        ),
        ({"kind": "zhipu"}, 0.01, {"max_tokens": 512, "temperature": 0.01}),
        ({"kind": "zhipu"}, 0.0, {"max_tokens": 512, "do_sample": False}),
        (
            {"kind": "zhipu", "extra_body": {"thinking": {"type": "disabled"}}},
            0.01,
            {"max_tokens": 512, "temperature": 0.01, "thinking": {"type": "disabled"}},
        ),
        ({"kind": "anthropic"}, 0.0, {"max_tokens": 512, "temperature": 0.0}),
        (
            {"kind": "vllm", "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
            0.01,
            {"max_tokens": 512, "temperature": 0.01, "chat_template_kwargs": {"enable_thinking": False}},
        ),
        (
            {"kind": "http", "length_field": "max_completion_tokens"},
            0.0,
            {"max_completion_tokens": 512, "temperature": 0},
        ),
    ],
)
async def test_each_kind_sends_the_fields_that_its_server_takes(
    serve_chat: Any,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    temperature: float,
    sent: dict[str, Any],
) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", "k")
    with serve_chat("[[4]]") as server:
        fixed = {"model": "m", "base_url": server.url, "api_key_env": "MY_JUDGE_KEY"}
        model = open_model(JudgeConfig.parse(settings | fixed, source="p"))
        await model.complete(QUESTION, temperature=temperature)
        await model.close()
    messages = [{"role": "user", "content": "How good is it?"}]
    assert server.bodies == [{"model": "m", "messages": messages} | sent]


def test_a_temperature_that_a_provider_does_not_take_stops_at_once() -> None:
    for kind in ("zhipu", "anthropic"):
        with pytest.raises(ConfigError, match=rf"retry_temperature: .*{kind} takes temperatures up to 1 \(is 1.2\)"):
            JudgeConfig.parse({"kind": kind, "model": "m", "retry_temperature": 1.2}, source="p")


@pytest.mark.parametrize(
    ("status", "error", "kind", "expected"),
    [
        (
            400,
            {"message": "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."},
            JudgeRefused,
            "set judge.length_field to max_completion_tokens",
        ),
        (
            400,
            {"message": "Unsupported value: 'temperature' does not support 0.01 with this model."},
            JudgeRefused,
            'set judge.extra_body to {"temperature": null}',
        ),
        (400, {"message": "`temperature` is deprecated for this model."}, JudgeRefused, '{"temperature": null}'),
        (429, {"code": "1113", "message": "account in arrears"}, JudgeRefused, "no quota left"),
        (400, {"code": "1261", "message": "Prompt exceeds"}, RequestRefused, "too long"),
    ],
)
async def test_a_provider_s_refusal_says_which_setting_helps(
    serve_chat: Any, status: int, error: dict[str, str], kind: type[Exception], expected: str
) -> None:
    with serve_chat(lambda _: (status, {"error": error})) as server:
        config = JudgeConfig(kind="vllm", model="m", base_url=server.url, max_retries=0)
        model = open_model(config)
        with pytest.raises(kind) as caught:
            await model.complete(QUESTION, temperature=0.01)
        await model.close()
    assert expected in str(caught.value)


async def test_a_system_prompt_stands_before_the_question_and_is_part_of_what_is_asked(
    serve_chat: Any, tmp_path: Path
) -> None:
    ledger = tmp_path / "l.sqlite"
    with serve_chat("[[4]]") as server:
        for system in ("", "Be strict.", "Be mild.", "", "Be strict."):
            config = JudgeConfig(kind="vllm", model="m", base_url=server.url, system=system)
            async with open_judge(config, ledger=ledger) as judge:
                await judge.query(QUESTION, lambda text: text)
    user = {"role": "user", "content": "How good is it?"}
    assert [body["messages"] for body in server.bodies] == [
        [user],
        [{"role": "system", "content": "Be strict."}, user],
        [{"role": "system", "content": "Be mild."}, user],
    ]


async def test_a_server_with_openai_s_quirks_is_reached_step_by_step_as_its_errors_say(
    serve_chat: Any, completion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def openai(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        if "max_tokens" in body:
            return 400, {"error": {"message": said, "param": "max_tokens", "code": "unsupported_parameter"}}
        if body.get("temperature", 1) != 1:
            said = (
                "Unsupported value: 'temperature' does not support 0.01 with this model. Only the default is supported."
            )
            return 400, {"error": {"message": said, "param": "temperature", "code": "unsupported_value"}}
        return 200, completion("Rating: [[4]]")

    async def ask(**settings: Any) -> str:
        async with open_judge(JudgeConfig(model="o", base_url=server.url, **settings), ledger=None) as judge:
            try:
                return (await judge.query(QUESTION, lambda text: text)).text
            except JudgeRefused as refusal:
                return str(refusal).rpartition("; ")[2]

    monkeypatch.setenv("MY_JUDGE_KEY", "k")
    with serve_chat(openai) as server:
        assert await ask(kind="http") == "set judge.length_field to max_completion_tokens"
        advice = 'where the model takes no temperature, set judge.extra_body to {"temperature": null}'
        assert await ask(kind="http", length_field="max_completion_tokens") == advice
        settings: dict[str, Any] = {"api_key_env": "MY_JUDGE_KEY", "extra_body": {"temperature": None}}
        assert await ask(kind="openai", **settings) == "Rating: [[4]]"
