"""Batched generation of conversations with a model in this process."""

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
from longreward.errors import PolicyError
from longreward.models import kv_cache
from longreward.models.config import PolicyConfig
from longreward.models.generation import SamplingParams, generate, rng_stream, sample_token
from longreward.models.kv_cache import prefill
from longreward.models.policy import load_policy

TEXT = "the town is in the north of the river . anna was mayor and ben built the bridge in 1901 . " * 9


@pytest.fixture(scope="module")
def policy(tiny_policy):
    return load_policy(PolicyConfig(base_model=str(tiny_policy)), tiny_policy)


def make_request(number, *, length, temperature=0.0, limit=24, seed=0):
    question = " ".join(TEXT.split()[number : number + length])
    turns = (Message("user", question),)
    if number % 2:
        turns = (Message("user", "who ?"), Message("assistant", "anna was mayor ."), *turns)
    return GenerationRequest(f"q{number}", turns, temperature, limit, seed)


def generate_without_cache(policy, request):
    """Generate one response without a KV cache: the model reads the full text again for each token."""
    ids = list(PromptFitter(policy.encoder, policy.window)(request).ids)
    start, draws = len(ids), rng_stream(request.seed, request.id, 0, request.max_new_tokens)
    for position in range(request.max_new_tokens):
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids])).logits[:, -1]
        ids.append(
            int(sample_token(logits, draws[position : position + 1], temperature=request.temperature, top_p=1.0))
        )
        if ids[-1] in policy.encoder.end_ids:
            break
    return policy.encoder.decode(ids[start:])


REQUESTS = [
    make_request(number, length=3 + 7 * number % 60, temperature=(0.0, 0.7)[number % 3 == 0]) for number in range(16)
]


async def test_batched_responses_equal_single_responses(policy):
    completions = await open_chat_client(policy, "tiny").generate(REQUESTS)
    assert [completion.text for completion in completions] == [
        generate_without_cache(policy, request) for request in REQUESTS
    ]
    assert len({completion.text for completion in completions}) > 8
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}


async def test_response_does_not_depend_on_other_requests(policy):
    single = [(await LocalChatClient(policy, "tiny", batch_rows=1).generate([request]))[0] for request in REQUESTS]
    small_batches = await LocalChatClient(policy, "tiny", batch_tokens=200).generate(REQUESTS[::-1])
    assert single == small_batches[::-1] == await LocalChatClient(policy, "tiny").generate(REQUESTS)


async def test_token_count_excludes_end_token(policy):
    [completion] = await open_chat_client(policy, "tiny").generate([make_request(2, length=5, limit=3)])
    assert (completion.finish_reason, completion.tokens, completion.prompt_tokens, completion.prompt_truncated) == (
        "length",
        3,
        8,
        False,
    )
    ended = next(
        completion
        for completion in await open_chat_client(policy, "tiny").generate(REQUESTS)
        if completion.finish_reason == "stop"
    )
    assert ended.tokens < 24
    assert "</s>" not in ended.text


async def test_seed_and_id_determine_random_stream(policy):
    requests = [
        GenerationRequest(name, (Message("user", "who ?"),), 1.0, 24, seed)
        for name, seed in [("a", 1), ("a", 2), ("b", 1)]
    ]
    completions = await open_chat_client(policy, "tiny").generate([*requests, requests[0]])
    assert len({completion.text for completion in completions}) == 3
    assert completions[3] == completions[0]


async def test_temperature_below_one_ten_thousandth_is_greedy(policy):
    almost_greedy, greedy = [make_request(4, length=9, temperature=value) for value in (9e-5, 0.0)]
    assert await open_chat_client(policy, "tiny").generate([almost_greedy]) == await open_chat_client(
        policy, "tiny"
    ).generate([greedy])


async def test_progress_counts_responses_per_batch(policy):
    counts = []
    await LocalChatClient(policy, "tiny", batch_rows=2).generate(
        [make_request(n, length=5) for n in (0, 2, 4)], on_progress=counts.append
    )
    assert counts == [2, 3]
    assert await LocalChatClient(policy, "tiny").generate([]) == []


async def test_lower_token_limit_ends_only_that_response(policy):
    long, short = [
        GenerationRequest(name, (Message("user", "the river " * n),), 0.0, 120) for name, n in (("a", 90), ("b", 2))
    ]
    completions = await open_chat_client(policy, "tiny").generate([long, short])
    assert completions[0].prompt_tokens == 183
    assert completions[0].tokens <= 73
    assert [completion.text for completion in completions] == [
        (await open_chat_client(policy, "tiny").generate([request]))[0].text for request in (long, short)
    ]


def make_prompt(length):
    return FittedPrompt((), [7] * length, 10, False)


def test_batches_have_equal_settings_similar_length_and_bounded_size():
    requests = [
        GenerationRequest(str(n), (), temperature, limit)
        for n, (temperature, limit) in enumerate([(0.0, 10), (0.7, 10), (0.0, 10), (5e-5, 10), (0.0, 20), (0.0, 10)])
    ]
    lengths = [make_prompt(length) for length in (5, 6, 90, 8, 6, 7)]
    # Request 2 is a batch of its own: two rows of 100 tokens exceed 150. The other greedy ones: 3 × (8 + 10) tokens.
    assert make_batches(requests, lengths, max_tokens=150, max_rows=8) == [[2], [3, 5, 0], [4], [1]]
    assert make_batches(requests, lengths, max_tokens=150, max_rows=2) == [[2], [3, 5], [0], [4], [1]]
    assert make_batches(requests, lengths, max_tokens=1, max_rows=8) == [[2], [3], [5], [0], [4], [1]]


@pytest.fixture
def steps(policy):
    """Count the rows of each forward pass."""
    counts = []
    hook = policy.model.register_forward_pre_hook(
        lambda model, args, kwargs: counts.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    yield counts
    hook.remove()


def test_finished_responses_leave_batch(policy, steps):
    prompts = [[2, 4, n] for n in range(10, 14)]
    limits = [3, 3, 3, 12]
    params = SamplingParams(0.0)
    full = generate(policy, prompts, [torch.zeros(12)] * 4, params)
    steps.clear()
    short = generate(policy, prompts, [torch.zeros(12)] * 4, params, limits=limits)
    assert short == [[ids[:limit]] for [ids], limit in zip(full, limits, strict=True)]
    remaining = len(short[3][0])
    assert steps[:3] == [4, 4, 4]
    assert steps[3:] == [1] * (remaining - 3)


def test_sampling_stops_without_callers(policy, steps):
    [[ids]] = generate(policy, [[2, 4, 8]], [torch.zeros(50)], SamplingParams(1.0), stopped=lambda: len(steps) == 4)
    assert len(ids) == 4


async def test_batch_that_exceeds_gpu_memory_is_halved(policy, monkeypatch):
    requests = [make_request(number, length=4) for number in range(3)]
    expected = await LocalChatClient(policy, "tiny").generate(requests)
    capacity, sizes = 1, []

    def prefill_within_memory(model, prompts, **options):
        sizes.append(len(prompts))
        if len(prompts) > capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 482.00 MiB.")
        return prefill(model, prompts, **options)

    monkeypatch.setattr(kv_cache, "prefill", prefill_within_memory)
    assert await LocalChatClient(policy, "tiny").generate(requests) == expected
    assert sizes == [3, 1, 2, 1, 1]
    capacity = 0
    with pytest.raises(
        PolicyError, match=f"{requests[0].id}: the GPU's memory is full .* 1 responses of up to 24 tokens"
    ):
        await LocalChatClient(policy, "tiny").generate(requests[:1])


async def test_cancelled_client_stops_model(policy, steps):
    long = GenerationRequest("long", (Message("user", "who ?"),), 0.0, 200)
    endless = replace(policy, encoder=replace(policy.encoder, end_ids=(-1,)))
    started, loop = asyncio.Event(), asyncio.get_running_loop()

    def slow_forward(*_):
        loop.call_soon_threadsafe(started.set)
        time.sleep(0.01)

    hook = policy.model.register_forward_pre_hook(slow_forward)
    try:
        waiting = asyncio.create_task(LocalChatClient(endless, "tiny").generate([long]))
        await started.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.2)
        passes = len(steps)
        await asyncio.sleep(0.2)
    finally:
        hook.remove()
    assert len(steps) == passes < 10


def test_answer_prefix_follows_rendered_prompt(policy):
    fit = PromptFitter(policy.encoder, policy.window)
    request = make_request(0, length=8)
    prefixed = replace(request, answer_prefix=" anna was")
    assert fit(prefixed).ids == [*fit(request).ids, *policy.encoder.encode(" anna was")]
    assert fit.count_tokens(prefixed) == fit.count_tokens(request) + 2
    bare = replace(prefixed, messages=request.messages[-1:], chat=False)
    assert policy.encoder.decode(fit(bare).ids).endswith(request.messages[-1].content + " anna was")
    long = replace(make_request(0, length=100), answer_prefix=" anna was", max_prompt_tokens=50)
    assert fit.count_tokens(long) > len(fit(long).ids)
    assert fit(long).ids[-2:] == policy.encoder.encode(" anna was")
