"""Whether a policy's server can be worked with, before hours are spent."""

import sys

import pytest

from longreward.errors import ConfigError, ServerRefused
from longreward.models.server_config import ServerConfig
from longreward.models.servers import check_server, connect_external, probe_servers
from longreward.params import Params


def config(kind="external", **settings):
    return ServerConfig(kind=kind, **{"base_url": "http://127.0.0.1:9/v1", "max_retries": 0, **settings})


async def opened(settings, server, model=None):
    client = await connect_external(settings, base_url=server.url, model=model)
    await client.close()
    return client


def test_an_external_server_needs_an_address() -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: .*\n  server\.base_url: .*must be your server's address"):
        Params.parse({"server": {"kind": "external"}}, source="params.yaml")
    Params.parse({"server": {"max_concurrency": 4}}, source="params.yaml")


@pytest.mark.parametrize("old", [{"serve": "vllm"}, {"server": {"port": 8123}}])
def test_a_server_in_the_section_of_the_policy_is_pointed_to_its_own(old) -> None:
    with pytest.raises(ConfigError, match=r"unknown key; did you mean the section server \(server\.kind, …\)\?"):
        Params.parse({"policy": {"base_model": "x", **old}}, source="params.yaml")


def test_a_command_must_say_where_model_and_port_go() -> None:
    with pytest.raises(ConfigError, match=r"server\.command: .*\{model\} and \{port\}"):
        Params.parse({"server": {"command": ["serve", "{model}"]}}, source="params.yaml")


def test_a_key_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    check_server(config())
    with pytest.raises(ConfigError, match="MY_KEY holds no key for the policy's server"):
        check_server(config(api_key_env="MY_KEY"))
    monkeypatch.setenv("MY_KEY", "word")
    check_server(config(api_key_env="MY_KEY"))


def test_a_key_in_place_of_its_variable_is_not_shown() -> None:
    with pytest.raises(ConfigError) as raised:
        config(api_key_env="sk-secret-123")
    assert "secret" not in str(raised.value)


def test_vllm_that_is_not_installed_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=r"pip install 'longreward\[vllm\]'"):
        check_server(config("vllm"))
    with pytest.raises(ConfigError, match="there is no program 'no-such'"):
        check_server(config("vllm", command=["no-such", "{model}", "{port}"]))
    (tmp_path / "vllm").write_text("#!/bin/sh\n")
    (tmp_path / "vllm").chmod(0o755)
    check_server(config("vllm"))


async def test_a_server_with_one_model_needs_no_name_and_one_with_several_does(policy_server) -> None:
    assert (await opened(config(), policy_server(names=("mine",)))).model == "mine"
    with pytest.raises(ServerRefused, match=r"must be named, but a, b; set server\.model"):
        await opened(config(), policy_server(names=("a", "b")))


@pytest.mark.parametrize("takes_any_name", [False, True])
async def test_a_server_of_another_model_is_told_by_what_it_serves(policy_server, takes_any_name) -> None:
    server = policy_server(names=("other",), takes_any_name=takes_any_name)
    with pytest.raises(ServerRefused, match=r"does not serve 'sft', as configured, but other; set server\."):
        await opened(config(), server, "sft")


async def test_a_model_that_is_served_and_not_listed_is_good(policy_server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = policy_server(names=("listed",))
    real = server.answer
    monkeypatch.setattr(
        server, "answer", lambda path, body: real(path, body | {"model": {"sft": "listed"}.get(body["model"], "no")})
    )
    assert (await opened(config(), server, "sft")).model == "sft"


async def test_a_server_that_takes_no_ids_is_said_to_need_chat(policy_server) -> None:
    with pytest.raises(ServerRefused, match=r"prompt must be a string\..* needs server\.prompt: chat"):
        await opened(config(), policy_server(takes_ids=False), "sft")


async def test_the_key_is_sent_and_stays_out_of_errors(policy_server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = policy_server(key="right-key")
    monkeypatch.setenv("MY_KEY", "right-key")
    assert (await opened(config(api_key_env="MY_KEY"), server, "sft")).model == "sft"
    monkeypatch.setenv("MY_KEY", "wrong-key")
    with pytest.raises(ServerRefused, match="check the key in MY_KEY") as raised:
        await opened(config(api_key_env="MY_KEY"), server, "sft")
    assert "wrong-key" not in str(raised.value)


async def test_a_probe_tells_of_each_server_and_raises_nothing(policy_server, monkeypatch: pytest.MonkeyPatch) -> None:
    server = policy_server()
    both = await probe_servers(config(base_url=server.url, model="sft", trained_model="dpo"))
    assert [(one.name, one.ok) for one in both] == [("sft", True), ("dpo", False)]
    assert "'sft' answered in" in both[0].told
    assert "does not serve 'dpo', as configured, but sft" in both[1].told

    for model in ("sft", None):
        [down] = await probe_servers(config(model=model), timeout_s=1)
        assert not down.ok
        assert "is the server running?" in down.told
    monkeypatch.delenv("MY_KEY", raising=False)
    [keyless] = await probe_servers(config(api_key_env="MY_KEY"))
    assert "MY_KEY" in keyless.told
    assert await probe_servers(ServerConfig()) == []
