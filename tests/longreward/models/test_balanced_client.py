"""One model at several servers: prompts are divided, and servers that fail are left out."""

import logging
from contextlib import asynccontextmanager

import pytest

from longreward.errors import ConfigError, ServerRefused, ServerUnavailable
from longreward.models.config import PolicyConfig
from longreward.models.sampling import SampleConfig
from longreward.models.served_policy import sample_served, served_policy
from longreward.models.server_config import ServerConfig
from longreward.models.servers import connect_role, probe_servers
from longreward.params import read_params
from longreward.records import Example

EXAMPLES = [
    Example(id=str(number), document_id="1", context="anna was mayor . " * (1 + number), query="who ?")
    for number in range(12)
]
SETTINGS = SampleConfig(n=3, temperature=0.7, max_new_tokens=24, seed=5)
UNREACHABLE = "http://127.0.0.1:9/v1"
OVERLOADED = (503, {"message": "overloaded"})


def make_config(*urls, **settings):
    return ServerConfig(
        kind="external", base_url=urls, model="sft", max_retries=0, **{"max_concurrency": 2, **settings}
    )


@asynccontextmanager
async def served(folder, *urls, **settings):
    client = await connect_role(make_config(*urls, **settings), "sft")
    yield served_policy(PolicyConfig(base_model=str(folder)), folder, client)
    await client.close()


async def sample_at(folder, *urls, **settings):
    async with served(folder, *urls, **settings) as policy:
        return await sample_served(policy, EXAMPLES, SETTINGS)


async def test_prompts_divided_among_servers(tiny_policy, policy_server):
    servers = [policy_server() for _ in range(3)]
    groups = await sample_at(tiny_policy, *(server.url for server in servers))
    counts = [len(server.prompts) for server in servers]
    assert sum(counts) == len(EXAMPLES)
    assert min(counts) >= 2  # the first six prompts go to different places
    assert all(body["n"] == 3 for server in servers for body in server.prompts)
    assert groups == await sample_at(tiny_policy, servers[0].url)  # the seeds do not depend on the server


async def test_failing_server_left_out(tiny_policy, policy_server, caplog):
    failing, working = policy_server(error=OVERLOADED), policy_server()
    with caplog.at_level(logging.WARNING):
        groups = await sample_at(tiny_policy, failing.url, working.url)
    assert groups == await sample_at(tiny_policy, working.url)
    assert len(failing.prompts) == 2  # its two places, and none after the first failure
    [warning] = [record.message for record in caplog.records if "left out" in record.message]
    assert failing.url in warning
    assert "policy servers left: 1" in warning


async def test_no_server_left_is_unavailable(tiny_policy, policy_server):
    servers = [policy_server(error=OVERLOADED) for _ in range(2)]
    with pytest.raises(ServerUnavailable, match="503"):
        await sample_at(tiny_policy, *(server.url for server in servers))


async def test_unreachable_server_left_out_at_start(tiny_policy, policy_server, caplog):
    server = policy_server()
    with caplog.at_level(logging.WARNING):
        groups = await sample_at(tiny_policy, UNREACHABLE, server.url)
    assert len(groups) == len(EXAMPLES)
    assert f"{UNREACHABLE}/" in caplog.text
    with pytest.raises(ServerUnavailable):
        await connect_role(make_config(UNREACHABLE, "http://127.0.0.1:10/v1"), "sft")


async def test_server_with_other_model_refused(tiny_policy, policy_server):
    servers = [policy_server(), policy_server(names=("other",))]
    with pytest.raises(ServerRefused, match="does not serve 'sft'"):
        await connect_role(make_config(*(server.url for server in servers)), "sft")


async def test_smallest_window_counts(tiny_policy, policy_server):
    servers = [policy_server(listed={"max_model_len": window}) for window in (150, 120)]
    async with served(tiny_policy, *(server.url for server in servers)) as policy:
        assert policy.window == 120


async def test_each_server_probed(policy_server):
    servers = [policy_server() for _ in range(2)]
    probes = await probe_servers(make_config(*(server.url for server in servers), UNREACHABLE))
    assert [probe.ok for probe in probes] == [True, True, False]
    assert all(server.url in probe.message for server, probe in zip(servers, probes, strict=False))


def test_list_of_addresses_in_settings(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("server: {kind: external, base_url: ['http://a:1/v1', 'http://b:2/v1']}\n")
    assert read_params(file).server.base_url == ("http://a:1/v1", "http://b:2/v1")
    for wrong in ("[]", "['http://a:1/v1', 'gpu-box']", "['http://user:secret@a/v1']"):
        file.write_text(f"server: {{kind: external, base_url: {wrong}}}\n")
        with pytest.raises(ConfigError, match=r"server\.base_url") as error:
            read_params(file)
        assert "secret" not in str(error.value)
