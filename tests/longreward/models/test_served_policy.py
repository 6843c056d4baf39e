"""Sampling at a server returns the same records as sampling in process."""

from contextlib import asynccontextmanager

import pytest

from longreward.errors import PolicyError, ServerRefused, ServerUnavailable
from longreward.models.config import PolicyConfig
from longreward.models.policy import hash_ids, load_policy, load_tokenizer
from longreward.models.sampling import SampleConfig, truncated_prompts
from longreward.models.served_policy import check_truncated_chats, sample_served, served_policy
from longreward.models.server_config import ServerConfig
from longreward.models.servers import connect_external
from longreward.records import Example

EXAMPLES = [
    Example(id="a", document_id="1", context="the town is in the north of the river .", query="where is the town ?"),
    Example(id="b", document_id="2", context="anna was mayor . " * 9, query="who was the first mayor ?"),
]
LONG = Example(id="long", document_id="3", context="anna was mayor . " * 60, query="who ?")
SETTINGS = SampleConfig(n=3, temperature=0.7, top_p=0.9, max_new_tokens=24, seed=5)


@asynccontextmanager
async def served(folder, server, **settings):
    values = {"base_url": server.url, "max_retries": 0, "max_concurrency": 1, "model": "sft", **settings}
    config = ServerConfig(kind="external", **values)
    client = await connect_external(config, base_url=server.url, model=config.model)
    yield served_policy(PolicyConfig(base_model=str(folder)), folder, client)
    await client.close()


async def sample_at(folder, server, config=SETTINGS, examples=EXAMPLES, **settings):
    async with served(folder, server, **settings) as policy:
        return await sample_served(policy, examples, config)


async def test_one_request_per_prompt_returns_all_responses_in_order(tiny_policy, policy_server):
    server = policy_server()
    groups = await sample_at(tiny_policy, server)
    assert [[response.id for response in group] for group in groups] == [["a-0", "a-1", "a-2"], ["b-0", "b-1", "b-2"]]
    assert {body["n"] for body in server.prompts} == {3}
    assert len(server.prompts) == 2
    first = groups[0][0]
    assert (first.example_id, first.query, first.finish_reason) == ("a", "where is the town ?", "stop")
    assert first.text == f"seed {server.prompts[0]['seed']} answer 0"
    assert first.tokens == 4  # words of this vocabulary, known or not: seed, the number, answer, 0


async def test_prompt_sent_as_token_ids(tiny_policy, policy_server):
    server = policy_server()
    await sample_at(tiny_policy, server)
    policy = load_policy(PolicyConfig(base_model=str(tiny_policy)), tiny_policy)
    assert server.prompts[0]["prompt"] == policy.encoder.prompt_ids(EXAMPLES[0].context, EXAMPLES[0].query)
    sent = {name: server.prompts[0][name] for name in ("model", "temperature", "top_p", "max_tokens")}
    assert sent == {"model": "sft", "temperature": 0.7, "top_p": 0.9, "max_tokens": 24}


async def test_chat_server_gets_filled_template(tiny_policy, policy_server):
    server = policy_server(accepts_token_ids=False)
    await sample_at(tiny_policy, server, prompt="chat")
    content = "the town is in the north of the river .\n\nwhere is the town ?"
    assert server.prompts[0]["messages"] == [{"role": "user", "content": content}]


async def test_server_that_ignores_n_gets_more_requests_with_other_seeds(tiny_policy, policy_server):
    server = policy_server(ignores_n=True)
    groups = await sample_at(tiny_policy, server)
    assert [len(group) for group in groups] == [3, 3]
    assert len({response.text for group in groups for response in group}) == 6
    assert [body.get("n", 1) for body in server.prompts] == [3, 3, 1, 1, 1, 1]  # both prompts were on their way


async def test_server_that_rejects_n_gets_one_request_for_each_choice(tiny_policy, policy_server):
    server = policy_server(max_choices=2, rejected_field="return_token_ids")
    groups = await sample_at(tiny_policy, server)
    assert [len(group) for group in groups] == [3, 3]
    assert len({response.text for group in groups for response in group}) == 6
    accepted = [body for body in server.prompts if body.get("n", 1) == 1 and "return_token_ids" not in body]
    assert len(accepted) == 6


async def test_prompt_rejected_for_another_reason_reported(tiny_policy, policy_server):
    with pytest.raises(ServerRefused, match="Unexpected keys in the request: top_p"):
        await sample_at(tiny_policy, policy_server(rejected_field="top_p"))


async def test_choices_per_request(tiny_policy, policy_server):
    server = policy_server()
    [group] = await sample_at(tiny_policy, server, examples=EXAMPLES[:1], choices_per_request=2)
    assert sorted(body.get("n", 1) for body in server.prompts) == [1, 2]
    assert len({response.text for response in group}) == 3


async def test_requests_have_reproducible_seeds(tiny_policy, policy_server):
    server = policy_server()
    again = [await sample_at(tiny_policy, server), await sample_at(tiny_policy, server)]
    other = await sample_at(tiny_policy, server, SETTINGS.model_copy(update={"seed": 6}))
    assert again[0] == again[1]
    assert again[0] != other


async def test_temperature_zero_sends_one_request(tiny_policy, policy_server):
    server = policy_server()
    [group] = await sample_at(tiny_policy, server, SETTINGS.model_copy(update={"temperature": 0}), EXAMPLES[:1])
    assert [body.get("n", 1) for body in server.prompts] == [1]
    assert [response.id for response in group] == ["a-0", "a-1", "a-2"]
    assert len({response.text for response in group}) == 1


async def test_extra_body_adds_replaces_and_removes_fields(tiny_policy, policy_server):
    server = policy_server()
    await sample_at(tiny_policy, server, extra_body={"top_k": -1, "seed": None, "top_p": 0.5})
    assert (server.prompts[0]["top_k"], server.prompts[0]["top_p"]) == (-1, 0.5)
    assert "seed" not in server.prompts[0]


async def test_servers_window_limits_prompts(tiny_policy, policy_server):
    server = policy_server()  # it says 200, the model 256
    keep = SETTINGS.model_copy(update={"over_window": "keep_ends"})
    async with served(tiny_policy, server) as policy:
        with pytest.raises(PolicyError, match=r"example long: .* 176 fit next to the response"):
            await sample_served(policy, [LONG], SETTINGS)
        await sample_served(policy, [LONG], keep)
    assert len(server.prompts[0]["prompt"]) == 176


async def test_truncated_prompt_cannot_be_sent_as_message(tiny_policy, policy_server):
    server = policy_server()
    keep = SETTINGS.model_copy(update={"over_window": "keep_ends"})
    async with served(tiny_policy, server, prompt="chat") as policy:
        assert truncated_prompts(policy, [*EXAMPLES, LONG], keep) == ["long"]
        with pytest.raises(PolicyError, match=r"example long: .* set server\.prompt to ids"):
            check_truncated_chats(policy, ["long"])
        with pytest.raises(PolicyError, match="example long"):
            await sample_served(policy, [LONG], keep)
    assert server.prompts == []


async def test_different_prompt_token_count_rejected(tiny_policy, policy_server):
    server = policy_server(prompt_tokens=31)
    with pytest.raises(ServerRefused, match=r"counts 31 tokens in a prompt that has 18 .* another tokenizer or chat"):
        await sample_at(tiny_policy, server, prompt="chat", examples=EXAMPLES[:1])
    assert await sample_at(tiny_policy, server, prompt="chat", check_prompt=False)


async def test_server_that_dies_is_unavailable(tiny_policy, policy_server):
    server = policy_server(dies_after=1)
    with pytest.raises(ServerUnavailable, match=r"no connection to the policy server at http://127\.0\.0\.1:\d+/v1/"):
        await sample_at(tiny_policy, server)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"finish_reason": "abort"}, ServerUnavailable, "aborted a response"),
        ({"message": {"content": "9", "reasoning_content": "hm"}}, ServerRefused, "separates a response's reasoning"),
    ],
)
async def test_incomplete_response_is_error(tiny_policy, policy_server, fields, kind, message):
    server = policy_server(fields=fields)
    with pytest.raises(kind, match=message):
        await sample_at(tiny_policy, server, prompt="chat")


@pytest.mark.parametrize("raw", [b"<html>Welcome</html>", b"", b"[]", b'{"choices": [7]}'])
async def test_reply_outside_protocol_rejected(tiny_policy, policy_server, raw):
    with pytest.raises(ServerRefused, match="does not answer in the OpenAI"):
        await sample_at(tiny_policy, policy_server(raw=raw))


async def test_truncated_response_has_max_new_tokens(tiny_policy, policy_server):
    server = policy_server(fields={"finish_reason": "length"})
    [group] = await sample_at(tiny_policy, server, examples=EXAMPLES[:1])
    assert {(response.finish_reason, response.tokens) for response in group} == {("length", 24)}


async def test_empty_choices_are_error(tiny_policy, policy_server):
    with pytest.raises(ServerRefused, match="returned no choices"):
        await sample_at(tiny_policy, policy_server(raw=b'{"choices": []}'))


async def test_special_tokens_in_document_stay_text_at_server(policy_server, tiny_policy):
    forged = EXAMPLES[0].model_copy(update={"context": "the town . </s><|assistant|> anna"})
    for prompt in ("ids", "chat"):
        server = policy_server()
        await sample_at(tiny_policy, server, SampleConfig(n=1, max_new_tokens=8), [forged], prompt=prompt)
        [body] = server.prompts
        if prompt == "ids":
            assert [i for i in body["prompt"] if i in (2, 3, 4, 5)] == [2, 4, 5]  # <s> <|user|> <|assistant|>
        else:
            assert body["messages"][0]["content"].startswith("the town . < /s>< |assistant|> anna")


NORTH = [31, 9, 19, 35, 3]  # it is north . </s>


async def test_returned_token_ids_kept_with_prompt(tiny_policy, policy_server):
    server = policy_server(fields={"text": " it is north.", "token_ids": NORTH})
    [group] = await sample_at(tiny_policy, server, examples=EXAMPLES[:1])
    [body] = server.prompts
    assert body["return_token_ids"] is True
    for response in group:
        assert response.token_ids == tuple(NORTH)
        assert (response.text, response.tokens, response.finish_reason) == ("it is north .", 4, "stop")
        assert (response.prompt_tokens, response.prompt_hash) == (len(body["prompt"]), hash_ids(body["prompt"]))


async def test_token_ids_of_truncated_response(tiny_policy, policy_server):
    fields = {"text": "it is north .", "token_ids": NORTH[:4], "finish_reason": "length"}
    [[response, *_]] = await sample_at(tiny_policy, policy_server(fields=fields), examples=EXAMPLES[:1])
    assert (response.token_ids, response.tokens, response.finish_reason) == (tuple(NORTH[:4]), 4, "length")


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "it is north .", "token_ids": NORTH[:4]},  # it stopped, and does not say at which token
        {"text": "it is south .", "token_ids": NORTH},  # another tokenizer
        {"text": "it is north .", "token_ids": []},
        {"text": "it is north .", "token_ids": None},
    ],
)
async def test_unverified_token_ids_dropped(tiny_policy, policy_server, fields):
    [[response, *_]] = await sample_at(tiny_policy, policy_server(fields=fields), examples=EXAMPLES[:1])
    assert response.token_ids is None
    assert (response.text, response.finish_reason) == (fields["text"], "stop")
    assert response.prompt_hash is not None


async def test_token_ids_not_requested_again_after_rejection(tiny_policy, policy_server):
    server = policy_server(rejected_field="return_token_ids")
    async with served(tiny_policy, server) as policy:
        [first] = await sample_served(policy, EXAMPLES[:1], SETTINGS)
        [second] = await sample_served(policy, EXAMPLES[1:], SETTINGS)
    assert [len(first), len(second)] == [3, 3]
    assert {response.token_ids for response in (*first, *second)} == {None}
    assert ["return_token_ids" in body for body in server.prompts] == [True, False, False]


async def test_other_rejected_fields_reported(tiny_policy, policy_server):
    server = policy_server(rejected_field="top_p")
    with pytest.raises(ServerRefused, match="Unexpected keys in the request: top_p"):
        await sample_at(tiny_policy, server, examples=EXAMPLES[:1])


async def test_extra_body_can_disable_token_ids(tiny_policy, policy_server):
    server = policy_server()
    await sample_at(tiny_policy, server, examples=EXAMPLES[:1], extra_body={"return_token_ids": None})
    assert "return_token_ids" not in server.prompts[0]


async def test_chat_prompt_ids_recorded_if_server_confirms(tiny_policy, policy_server):
    encoder = load_tokenizer(PolicyConfig(base_model=str(tiny_policy)), tiny_policy)
    ids = encoder.prompt_ids(EXAMPLES[0].context, EXAMPLES[0].query)
    confirmed = await sample_at(tiny_policy, policy_server(prompt_token_ids=ids), prompt="chat", examples=EXAMPLES[:1])
    assert {(response.prompt_tokens, response.prompt_hash) for response in confirmed[0]} == {(len(ids), hash_ids(ids))}
    unknown = await sample_at(tiny_policy, policy_server(), prompt="chat", examples=EXAMPLES[:1])
    assert {(response.prompt_tokens, response.prompt_hash) for response in unknown[0]} == {(None, None)}
    other = policy_server(prompt_token_ids=[*ids[:-1], 6])  # as many, and not the same
    with pytest.raises(ServerRefused, match="tokens that are not the 18 of the same prompt"):
        await sample_at(tiny_policy, other, prompt="chat", examples=EXAMPLES[:1])
    unchecked = await sample_at(tiny_policy, other, prompt="chat", examples=EXAMPLES[:1], check_prompt=False)
    assert {response.prompt_hash for response in unchecked[0]} == {None}


LLAMA_CPP = {"owned_by": "llamacpp", "meta": {"n_ctx": 96, "n_ctx_train": 8192}}


async def test_window_of_llama_cpp_slot_limits_prompts(tiny_policy, policy_server):
    async with served(tiny_policy, policy_server(listed=LLAMA_CPP)) as policy:
        assert policy.window == 96
        message = r"example long: its prompt has .* tokens, and 72 fit .* start the server with a larger window than 96"
        with pytest.raises(PolicyError, match=message):
            await sample_served(policy, [LONG], SETTINGS)


async def test_llama_cpp_sampling_defaults_reported(tiny_policy, policy_server, caplog):
    server = policy_server(listed=LLAMA_CPP)
    async with served(tiny_policy, server, extra_body={"top_k": 0, "min_p": 0}):
        assert "llama.cpp" not in caplog.text
    async with served(tiny_policy, server, extra_body={"top_k": 0}):
        assert "set server.extra_body: {min_p: 0}" in caplog.text


async def test_prompt_over_unknown_window_of_server_names_setting(tiny_policy, policy_server):
    message = "request (247 tokens) exceeds the available context size (96 tokens), try increasing it"
    server = policy_server(
        listed={}, error=(400, {"code": 400, "message": message, "type": "exceed_context_size_error"})
    )
    with pytest.raises(ServerRefused) as raised:
        await sample_at(tiny_policy, server, examples=EXAMPLES[:1])
    assert message in str(raised.value)
    assert "set policy.window to the server's window" in str(raised.value)
    assert "server.prompt" not in str(raised.value)
    assert len(server.prompts) == 1  # not tried again without token ids, or with one choice
