"""Checks and probes of policy servers, and the command that starts one."""

import sys

import pytest
from pydantic import ValidationError

from longreward.errors import ConfigError, ServerRefused
from longreward.models.config import PolicyConfig
from longreward.models.server_config import ServerConfig
from longreward.models.servers import check_server, connect_external, launch_command, probe_servers
from longreward.params import Params


def config(kind="external", **settings):
    return ServerConfig(kind=kind, **{"base_url": "http://127.0.0.1:9/v1", "max_retries": 0, **settings})


async def connect(settings, server, model=None):
    client = await connect_external(settings, base_url=server.url, model=model)
    await client.close()
    return client


def test_external_server_needs_address() -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: .*\n  server\.base_url: .*must be your server's address"):
        Params.parse({"server": {"kind": "external"}}, source="params.yaml")
    Params.parse({"server": {"max_concurrency": 4}}, source="params.yaml")


@pytest.mark.parametrize("fields", [{"serve": "vllm"}, {"server": {"port": 8123}}])
def test_server_settings_in_policy_section_rejected(fields) -> None:
    with pytest.raises(ConfigError, match=r"unknown key; did you mean the section server \(server\.kind, …\)\?"):
        Params.parse({"policy": {"base_model": "x", **fields}}, source="params.yaml")


def test_command_must_contain_model_and_port() -> None:
    with pytest.raises(ConfigError, match=r"server\.command: .*\{model\} and \{port\}"):
        Params.parse({"server": {"command": ["serve", "{model}"]}}, source="params.yaml")


def test_named_key_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    check_server(config())
    with pytest.raises(ConfigError, match="MY_KEY holds no key for the policy's server"):
        check_server(config(api_key_env="MY_KEY"))
    monkeypatch.setenv("MY_KEY", "word")
    check_server(config(api_key_env="MY_KEY"))


def test_key_given_as_variable_name_is_not_shown() -> None:
    with pytest.raises(ValidationError) as raised:
        config(api_key_env="sk-secret-123")
    assert "secret-123" not in str(raised.value)


def test_missing_program_rejected_with_advice(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=r"pip install 'longreward\[vllm\]'"):
        check_server(config("vllm"))
    with pytest.raises(ConfigError, match="there is no program 'no-such'"):
        check_server(config("vllm", command=["no-such", "{model}", "{port}"]))
    (tmp_path / "vllm").write_text("#!/bin/sh\n")
    (tmp_path / "vllm").chmod(0o755)
    check_server(config("vllm"))


async def test_model_name_is_optional_for_server_with_one_model(policy_server) -> None:
    assert (await connect(config(), policy_server(names=("mine",)))).model == "mine"
    with pytest.raises(ServerRefused, match=r"must be named, but a, b; set server\.model"):
        await connect(config(), policy_server(names=("a", "b")))


@pytest.mark.parametrize("accepts_any_name", [False, True])
async def test_server_with_another_model_rejected(policy_server, accepts_any_name) -> None:
    server = policy_server(names=("other",), accepts_any_name=accepts_any_name)
    with pytest.raises(ServerRefused, match=r"does not serve 'sft', as configured, but other; set server\."):
        await connect(config(), server, "sft")


async def test_served_but_unlisted_model_accepted(policy_server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = policy_server(names=("listed",))
    original = server.answer
    monkeypatch.setattr(
        server,
        "answer",
        lambda path, body: original(path, body | {"model": {"sft": "listed"}.get(body["model"], "no")}),
    )
    assert (await connect(config(), server, "sft")).model == "sft"


async def test_server_without_token_id_prompts_needs_chat(policy_server) -> None:
    with pytest.raises(ServerRefused, match=r"prompt must be a string\..* needs server\.prompt: chat"):
        await connect(config(), policy_server(accepts_token_ids=False), "sft")


async def test_key_sent_and_not_shown_in_errors(policy_server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = policy_server(key="right-key")
    monkeypatch.setenv("MY_KEY", "right-key")
    assert (await connect(config(api_key_env="MY_KEY"), server, "sft")).model == "sft"
    monkeypatch.setenv("MY_KEY", "wrong-key")
    with pytest.raises(ServerRefused, match="check the key in MY_KEY") as raised:
        await connect(config(api_key_env="MY_KEY"), server, "sft")
    assert "wrong-key" not in str(raised.value)


async def test_probe_reports_each_server_without_raising(policy_server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = policy_server()
    both = await probe_servers(config(base_url=server.url, model="sft", trained_model="dpo"))
    assert [probe.ok for probe in both] == [True, False]
    assert "'sft' answered in" in both[0].message
    assert "does not serve 'dpo', as configured, but sft" in both[1].message

    for model in ("sft", None):
        [down] = await probe_servers(config(model=model), timeout_s=1)
        assert not down.ok
        assert "is the server running?" in down.message
    monkeypatch.delenv("MY_KEY", raising=False)
    [keyless] = await probe_servers(config(api_key_env="MY_KEY"))
    assert "MY_KEY" in keyless.message
    assert await probe_servers(ServerConfig()) == []


@pytest.fixture
def programs(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A folder of programs on PATH, with one called vllm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("vllm", "other"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))
    return folder


def command(path, *, server=None, **settings):
    config = ServerConfig(kind="vllm", **(server or {}))
    return launch_command(PolicyConfig(base_model="x", **settings), config, path, port=8123, window=4096)


def test_vllm_command_of_folder(programs, tmp_path) -> None:
    assert command(tmp_path, server={"arguments": ["--tensor-parallel-size", "4"]}) == [
        str(programs / "vllm"),
        "serve",
        str(tmp_path),
        *["--host", "127.0.0.1", "--port", "8123", "--max-model-len", "4096", "--dtype", "auto"],
        *["--enable-prefix-caching", "--generation-config", "vllm", "--tensor-parallel-size", "4"],
    ]


def test_vllm_command_of_hub_id_has_revision(programs) -> None:
    words = command("org/name", revision="v2", trust_remote_code=True, dtype="bfloat16")
    assert words[2] == "org/name"
    assert "--revision v2 --tokenizer-revision v2" in " ".join(words)
    assert "--trust-remote-code" in words
    assert "--dtype bfloat16" in " ".join(words)


def test_slots_of_configured_command_filled(programs, tmp_path) -> None:
    server = {"command": ["other", "--model={model}", "--port", "{port}", "--ctx", "{window}", "{unknown}"]}
    assert command(tmp_path, server=server) == [
        str(programs / "other"),
        f"--model={tmp_path}",
        "--port",
        "8123",
        "--ctx",
        "4096",
        "{unknown}",
    ]
