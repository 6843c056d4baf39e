"""Chat client of benchmarks at a policy server."""

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
REQUESTS = [
    GenerationRequest("81", TURNS, 0.7, 24, seed=5),
    GenerationRequest("82", (Message("user", "when ?"),), 0.0, 30),
]


def sorted_requests(server):
    """Return the received requests in the order of REQUESTS; they arrive in any order."""
    return sorted(server.prompts, key=lambda body: body["max_tokens"])


@asynccontextmanager
async def served(folder, server, **settings):
    config = ServerConfig(kind="external", base_url=server.url, max_retries=0, max_concurrency=1, **settings)
    client = await connect_external(config, base_url=server.url, model="sft")
    yield served_policy(PolicyConfig(base_model=str(folder)), folder, client)
    await client.close()


async def test_token_ids_equal_those_in_process(tiny_policy, policy_server):
    server, progress = policy_server(), []
    async with served(tiny_policy, server) as policy:
        completions = await open_chat_client(policy, "sft").generate(REQUESTS, on_progress=progress.append)
        fitted = [PromptFitter(policy.encoder, policy.window)(request) for request in REQUESTS]
    assert [body["prompt"] for body in sorted_requests(server)] == [prompt.ids for prompt in fitted]
    assert [(body["temperature"], body["top_p"], body["max_tokens"]) for body in sorted_requests(server)] == [
        (0.7, 1.0, 24),
        (0.0, 1.0, 30),
    ]
    assert [completion.text for completion in completions] == [
        f"seed {body['seed']} answer 0" for body in sorted_requests(server)
    ]
    assert [
        (completion.tokens, completion.finish_reason, completion.prompt_tokens, completion.prompt_truncated)
        for completion in completions
    ] == [
        (4, "stop", len(fitted[0].ids), False),
        (4, "stop", 5, False),
    ]
    assert progress == [1, 2]


async def test_chat_server_gets_messages(tiny_policy, policy_server):
    server = policy_server(accepts_token_ids=False)
    async with served(tiny_policy, server, prompt="chat") as policy:
        await open_chat_client(policy, "sft").generate(REQUESTS)
    assert sorted_requests(server)[0]["messages"] == [
        {"role": "user", "content": "anna is mayor\n\nwho ?"},  # the template of this policy has no system role
        {"role": "assistant", "content": "anna"},
        {"role": "user", "content": "where is the town ?"},
    ]


@pytest.mark.parametrize("prompt", ["ids", "chat"])
async def test_text_without_chat_template_is_continued(tiny_policy, policy_server, prompt):
    server = policy_server()
    request = GenerationRequest("lcc/1", (Message("user", "anna is"),), 0.0, 8, chat=False)
    async with served(tiny_policy, server, prompt=prompt) as policy:
        [completion] = await open_chat_client(policy, "sft").generate([request])
        ids = policy.encoder.chat.encode_text("anna is", add_special_tokens=True)
    [body] = server.prompts
    assert "messages" not in body
    # Without token ids the server tokenizes the text itself.
    assert body["prompt"] == (ids if prompt == "ids" else "anna is")
    assert completion.prompt_tokens == len(ids)


async def test_chat_server_gets_truncated_message(tiny_policy, policy_server):
    server = policy_server(accepts_token_ids=False)
    request = GenerationRequest("1", (Message("user", "anna " * 5 + "ben " * 5),), 0.0, 24, max_prompt_tokens=4)
    async with served(tiny_policy, server, prompt="chat") as policy:
        [completion] = await open_chat_client(policy, "sft").generate([request])
    assert server.prompts[0]["messages"] == [{"role": "user", "content": "anna annaben ben"}]
    assert completion.prompt_truncated


async def test_servers_window_limits_prompt_and_response(tiny_policy, policy_server):
    server = policy_server(fields={"finish_reason": "length"})  # it says 200
    request = GenerationRequest("1", (Message("user", "the river " * 80),), 0.0, 100)
    async with served(tiny_policy, server) as policy:
        [completion] = await open_chat_client(policy, "sft").generate([request])
    [body] = server.prompts
    assert len(body["prompt"]) <= 150
    assert len(body["prompt"]) + body["max_tokens"] == 200
    assert (completion.tokens, completion.prompt_truncated, completion.finish_reason) == (
        body["max_tokens"],
        True,
        "length",
    )


async def test_seeds_come_from_request_seed_and_id(tiny_policy, policy_server):
    server = policy_server()
    requests = [
        GenerationRequest(name, TURNS[1:2], 0.5, 9, seed) for name, seed in [("a", 1), ("a", 2), ("b", 1), ("a", 1)]
    ]
    async with served(tiny_policy, server) as policy:
        completions = await open_chat_client(policy, "sft").generate(requests)
    assert len({completion.text for completion in completions}) == 3
    assert completions[3] == completions[0]


async def test_server_that_dies_is_unavailable(tiny_policy, policy_server):
    server = policy_server(dies_after=1)
    async with served(tiny_policy, server) as policy:
        with pytest.raises(ServerUnavailable, match="no connection"):
            await open_chat_client(policy, "sft").generate(REQUESTS)


async def test_answer_prefix_at_end_of_ids_or_of_last_message(tiny_policy, policy_server):
    request = GenerationRequest("83", (Message("user", "who ?"),), 0.0, 8, answer_prefix=" anna was")
    for prompt in ("ids", "chat"):
        server = policy_server()
        async with served(tiny_policy, server, prompt=prompt) as policy:
            client = open_chat_client(policy, "sft")
            [completion] = await client.generate([request])
            assert completion.prompt_tokens == client.count_tokens(request)
            [body] = server.prompts
            if prompt == "ids":
                assert body["prompt"] == PromptFitter(policy.encoder, policy.window)(request).ids
            else:
                assert body["messages"] == [{"role": "user", "content": "who ? anna was"}]
