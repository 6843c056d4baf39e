"""Conversations answered by a server."""

from contextlib import asynccontextmanager

import pytest

from longreward.benchmarks.chat_clients import PromptFitter, open_chat_client
from longreward.benchmarks.types import GenerationRequest, Message
from longreward.errors import ServerUnavailable
from longreward.models.config import PolicyConfig
from longreward.models.served_policy import served_policy
from longreward.models.server_config import ServerConfig
from longreward.models.servers import connect_external

TURNS = (
    Message("system", "anna is mayor"),
    Message("user", "who ?"),
    Message("assistant", "anna"),
    Message("user", "where is the town ?"),
)
ASKS = [GenerationRequest("81", TURNS, 0.7, 24, seed=5), GenerationRequest("82", (Message("user", "when ?"),), 0.0, 30)]


def asked(server):
    """The requests in the order of ASKS; they come in any."""
    return sorted(server.prompts, key=lambda body: body["max_tokens"])


@asynccontextmanager
async def served(folder, server, **settings):
    config = ServerConfig(kind="external", base_url=server.url, max_retries=0, max_concurrency=1, **settings)
    client = await connect_external(config, base_url=server.url, model="sft")
    yield served_policy(PolicyConfig(base_model=str(folder)), folder, client)
    await client.close()


async def test_ids_are_those_of_the_conversation_that_the_model_in_process_sees(tiny_policy, policy_server):
    server, seen = policy_server(), []
    async with served(tiny_policy, server) as policy:
        said = await open_chat_client(policy, "sft").generate(ASKS, on_progress=seen.append)
        fitted = [PromptFitter(policy.text, policy.window)(each) for each in ASKS]
    assert [body["prompt"] for body in asked(server)] == [each.ids for each in fitted]
    assert [(body["temperature"], body["top_p"], body["max_tokens"]) for body in asked(server)] == [
        (0.7, 1.0, 24),
        (0.0, 1.0, 30),
    ]
    assert [each.text for each in said] == [f"seed {body['seed']} answer 0" for body in asked(server)]
    assert [(each.tokens, each.finish_reason, each.prompt_tokens, each.prompt_truncated) for each in said] == [
        (4, "stop", len(fitted[0].ids), False),
        (4, "stop", 5, False),
    ]
    assert seen == [1, 2]


async def test_a_chat_server_gets_the_turns(tiny_policy, policy_server):
    server = policy_server(takes_ids=False)
    async with served(tiny_policy, server, prompt="chat") as policy:
        await open_chat_client(policy, "sft").generate(ASKS)
    assert asked(server)[0]["messages"] == [
        {"role": "user", "content": "anna is mayor\n\nwho ?"},  # the template of this policy has no system role
        {"role": "assistant", "content": "anna"},
        {"role": "user", "content": "where is the town ?"},
    ]


async def test_a_chat_server_gets_a_long_turn_cut(tiny_policy, policy_server):
    server = policy_server(takes_ids=False)
    asked = GenerationRequest("1", (Message("user", "anna " * 5 + "ben " * 5),), 0.0, 24, max_prompt_tokens=4)
    async with served(tiny_policy, server, prompt="chat") as policy:
        [said] = await open_chat_client(policy, "sft").generate([asked])
    assert server.prompts[0]["messages"] == [{"role": "user", "content": "anna annaben ben"}]
    assert said.prompt_truncated


async def test_the_servers_window_bounds_prompt_and_answer(tiny_policy, policy_server):
    server = policy_server(fields={"finish_reason": "length"})  # it says 200
    asked = GenerationRequest("1", (Message("user", "the river " * 80),), 0.0, 100)
    async with served(tiny_policy, server) as policy:
        [said] = await open_chat_client(policy, "sft").generate([asked])
    [body] = server.prompts
    assert len(body["prompt"]) <= 150
    assert len(body["prompt"]) + body["max_tokens"] == 200
    assert (said.tokens, said.prompt_truncated, said.finish_reason) == (body["max_tokens"], True, "length")


async def test_seeds_come_from_the_asks_seed_and_id(tiny_policy, policy_server):
    server = policy_server()
    asks = [
        GenerationRequest(name, TURNS[1:2], 0.5, 9, seed) for name, seed in [("a", 1), ("a", 2), ("b", 1), ("a", 1)]
    ]
    async with served(tiny_policy, server) as policy:
        said = await open_chat_client(policy, "sft").generate(asks)
    assert len({each.text for each in said}) == 3
    assert said[3] == said[0]


async def test_a_server_that_dies_is_unavailable(tiny_policy, policy_server):
    server = policy_server(dies_after=1)
    async with served(tiny_policy, server) as policy:
        with pytest.raises(ServerUnavailable, match="no connection"):
            await open_chat_client(policy, "sft").generate(ASKS)
