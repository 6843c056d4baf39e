"""A model in this process answers conversations in batches."""

import asyncio
import time
from dataclasses import replace

import pytest
import torch

from longreward.benchmarks.chat_clients import (
    FittedPrompt,
    LocalChatClient,
    PromptFitter,
    make_batches,
    open_chat_client,
)
from longreward.benchmarks.types import GenerationRequest, Message
from longreward.models.config import PolicyConfig
from longreward.models.generation import SamplingParams, generate, rng_stream, sample_token
from longreward.models.policy import load_policy

TEXT = "the town is in the north of the river . anna was mayor and ben built the bridge in 1901 . " * 9


@pytest.fixture(scope="module")
def policy(tiny_policy):
    return load_policy(PolicyConfig(base_model=str(tiny_policy)), tiny_policy)


def ask(number, *, words, temperature=0.0, limit=24, seed=0):
    question = " ".join(TEXT.split()[number : number + words])
    turns = (Message("user", question),)
    if number % 2:
        turns = (Message("user", "who ?"), Message("assistant", "anna was mayor ."), *turns)
    return GenerationRequest(f"q{number}", turns, temperature, limit, seed)


def one_at_a_time(policy, ask):
    """The plain way: no cache, the whole text read again for each token."""
    ids = list(PromptFitter(policy.encoder, policy.window)(ask).ids)
    start, draws = len(ids), rng_stream(ask.seed, ask.id, 0, ask.max_new_tokens)
    for place in range(ask.max_new_tokens):
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids])).logits[:, -1]
        ids.append(int(sample_token(logits, draws[place : place + 1], temperature=ask.temperature, top_p=1.0)))
        if ids[-1] in policy.encoder.end_ids:
            break
    return policy.encoder.decode(ids[start:])


ASKS = [ask(number, words=3 + 7 * number % 60, temperature=(0.0, 0.7)[number % 3 == 0]) for number in range(16)]


async def test_batched_responses_equal_single_responses(policy):
    said = await open_chat_client(policy, "tiny").generate(ASKS)
    assert [each.text for each in said] == [one_at_a_time(policy, each) for each in ASKS]
    assert len({each.text for each in said}) > 8
    assert {each.finish_reason for each in said} == {"stop", "length"}


async def test_response_does_not_depend_on_other_requests(policy):
    alone = [(await LocalChatClient(policy, "tiny", batch_rows=1).generate([each]))[0] for each in ASKS]
    few = await LocalChatClient(policy, "tiny", batch_tokens=200).generate(ASKS[::-1])
    assert alone == few[::-1] == await LocalChatClient(policy, "tiny").generate(ASKS)


async def test_token_count_excludes_end_token(policy):
    [said] = await open_chat_client(policy, "tiny").generate([ask(2, words=5, limit=3)])
    assert (said.finish_reason, said.tokens, said.prompt_tokens, said.prompt_truncated) == ("length", 3, 8, False)
    ended = next(each for each in await open_chat_client(policy, "tiny").generate(ASKS) if each.finish_reason == "stop")
    assert ended.tokens < 24
    assert "</s>" not in ended.text


async def test_seed_and_id_determine_random_stream(policy):
    asks = [
        GenerationRequest(name, (Message("user", "who ?"),), 1.0, 24, seed)
        for name, seed in [("a", 1), ("a", 2), ("b", 1)]
    ]
    said = await open_chat_client(policy, "tiny").generate([*asks, asks[0]])
    assert len({each.text for each in said}) == 3
    assert said[3] == said[0]


async def test_temperature_below_one_ten_thousandth_is_greedy(policy):
    nearly, greedy = [ask(4, words=9, temperature=value) for value in (9e-5, 0.0)]
    assert await open_chat_client(policy, "tiny").generate([nearly]) == await open_chat_client(policy, "tiny").generate(
        [greedy]
    )


async def test_progress_counts_responses_per_batch(policy):
    seen = []
    await LocalChatClient(policy, "tiny", batch_rows=2).generate(
        [ask(n, words=5) for n in (0, 2, 4)], on_progress=seen.append
    )
    assert seen == [2, 3]
    assert await LocalChatClient(policy, "tiny").generate([]) == []


async def test_lower_token_limit_ends_only_that_response(policy):
    long, short = [
        GenerationRequest(name, (Message("user", "the river " * n),), 0.0, 120) for name, n in (("a", 90), ("b", 2))
    ]
    said = await open_chat_client(policy, "tiny").generate([long, short])
    assert said[0].prompt_tokens == 183
    assert said[0].tokens <= 73
    assert [each.text for each in said] == [
        (await open_chat_client(policy, "tiny").generate([each]))[0].text for each in (long, short)
    ]


def fitted(length):
    return FittedPrompt((), [7] * length, 10, False)


def test_batches_have_equal_settings_similar_length_and_bounded_size():
    asks = [
        GenerationRequest(str(n), (), temperature, limit)
        for n, (temperature, limit) in enumerate([(0.0, 10), (0.7, 10), (0.0, 10), (5e-5, 10), (0.0, 20), (0.0, 10)])
    ]
    lengths = [fitted(length) for length in (5, 6, 90, 8, 6, 7)]
    # 2 is alone: 2 rows of 100 are over 150. The others of its kind: 3 × (8 + 10) tokens.
    assert make_batches(asks, lengths, max_tokens=150, max_rows=8) == [[2], [3, 5, 0], [4], [1]]
    assert make_batches(asks, lengths, max_tokens=150, max_rows=2) == [[2], [3, 5], [0], [4], [1]]
    assert make_batches(asks, lengths, max_tokens=1, max_rows=8) == [[2], [3], [5], [0], [4], [1]]


@pytest.fixture
def steps(policy):
    """The rows of each pass through the model."""
    seen = []
    hook = policy.model.register_forward_pre_hook(
        lambda model, args, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    yield seen
    hook.remove()


def test_finished_responses_leave_batch(policy, steps):
    prompts = [[2, 4, n] for n in range(10, 14)]
    endless = [3, 3, 3, 12]
    drawing = SamplingParams(0.0)
    whole = generate(policy, prompts, [torch.zeros(12)] * 4, drawing)
    steps.clear()
    short = generate(policy, prompts, [torch.zeros(12)] * 4, drawing, limits=endless)
    assert short == [[ids[:limit]] for [ids], limit in zip(whole, endless, strict=True)]
    left = len(short[3][0])
    assert steps[:3] == [4, 4, 4]
    assert steps[3:] == [1] * (left - 3)


def test_sampling_stops_without_callers(policy, steps):
    [[ids]] = generate(policy, [[2, 4, 8]], [torch.zeros(50)], SamplingParams(1.0), stopped=lambda: len(steps) == 4)
    assert len(ids) == 4


async def test_cancelled_client_stops_model(policy, steps):
    long = GenerationRequest("long", (Message("user", "who ?"),), 0.0, 200)
    endless = replace(policy, encoder=replace(policy.encoder, end_ids=(-1,)))
    begun, loop = asyncio.Event(), asyncio.get_running_loop()

    def slowly(*_):
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.01)

    slow = policy.model.register_forward_pre_hook(slowly)
    try:
        waiting = asyncio.create_task(LocalChatClient(endless, "tiny").generate([long]))
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.2)
        done = len(steps)
        await asyncio.sleep(0.2)
    finally:
        slow.remove()
    assert len(steps) == done < 10
