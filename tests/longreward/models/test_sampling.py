import weakref

import pytest
import torch

from longreward.errors import PolicyError
from longreward.models import kv_cache
from longreward.models.config import PolicyConfig
from longreward.models.generation import rng_stream, sample_token
from longreward.models.kv_cache import prefill
from longreward.models.policy import load_policy
from longreward.models.sampling import SampleConfig, SamplingReport, sample, truncated_prompts
from longreward.records import Example

EXAMPLES = [
    Example(id="a", document_id="1", context="the town is in the north of the river .", query="where is the town ?"),
    Example(id="b", document_id="2", context="anna was mayor . " * 9, query="who was the first mayor ?"),
    Example(id="c", document_id="3", context="ben built the bridge in 1901 .", query="when was it built ?"),
    Example(id="d", document_id="4", context="cara opened it . the river is south .", query="who ?"),
]
SETTINGS = SampleConfig(n=3, max_new_tokens=24, seed=5)


@pytest.fixture(scope="module")
def policy(tiny_policy):
    return load_policy(PolicyConfig(base_model=str(tiny_policy)), tiny_policy)


def texts(groups):
    return [[response.text for response in group] for group in groups]


def sample_without_cache(policy, example, config):
    """Sample one response after another, reading the whole text again for each token."""
    responses = []
    for number in range(config.n):
        ids = policy.encoder.prompt_ids(example.context, example.query)
        start, draws = len(ids), rng_stream(config.seed, example.id, number, config.max_new_tokens)
        for step in range(config.max_new_tokens):
            with torch.no_grad():
                logits = policy.model(torch.tensor([ids])).logits[:, -1]
            ids.append(
                int(sample_token(logits, draws[step : step + 1], temperature=config.temperature, top_p=config.top_p))
            )
            if ids[-1] in policy.encoder.end_ids:
                break
        responses.append(policy.encoder.decode(ids[start:]))
    return responses


@pytest.mark.parametrize("cache", ["shared", "repeated"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_p": 0.8}, {"temperature": 0.0}])
def test_cached_sampling_equals_sampling_without_cache(policy, cache, settings):
    config = SETTINGS.model_copy(update={**settings, "cache": cache, "prompts_per_batch": 2})
    expected = [sample_without_cache(policy, example, config) for example in EXAMPLES]
    assert texts(sample(policy, EXAMPLES, config)) == expected


@pytest.mark.parametrize("cache", ["shared", "repeated"])
def test_several_configs_give_responses_of_each(policy, cache):
    base = SETTINGS.model_copy(update={"cache": cache, "prompts_per_batch": 3})
    decodings = [{"n": 3}, {"n": 2, "temperature": 0.5}, {"n": 1, "temperature": 0.0}]
    configs = [base.model_copy(update=decoding) for decoding in decodings]
    separate = [list(sample(policy, EXAMPLES, config)) for config in configs]
    expected = [[response for group in groups for response in group] for groups in zip(*separate, strict=True)]
    assert list(sample(policy, EXAMPLES, *configs)) == expected
    assert expected[0][3].text != expected[0][0].text  # the temperature matters


def test_samples_do_not_depend_on_batch_order_or_shard(policy):
    batched = texts(sample(policy, EXAMPLES, SETTINGS.model_copy(update={"prompts_per_batch": 4})))
    single = [texts(sample(policy, [example], SETTINGS))[0] for example in EXAMPLES]
    reversed_order = texts(sample(policy, EXAMPLES[::-1], SETTINGS.model_copy(update={"prompts_per_batch": 3})))
    assert batched == single == reversed_order[::-1]


def test_larger_n_keeps_first_samples(policy):
    three = texts(sample(policy, EXAMPLES[:1], SETTINGS))[0]
    five = texts(sample(policy, EXAMPLES[:1], SETTINGS.model_copy(update={"n": 5})))[0]
    assert five[:3] == three
    assert len(set(five)) > 1


def test_seed_changes_samples(policy):
    other = SETTINGS.model_copy(update={"seed": 6})
    assert texts(sample(policy, EXAMPLES, SETTINGS)) != texts(sample(policy, EXAMPLES, other))


def test_temperature_zero_is_greedy(policy):
    [responses] = texts(sample(policy, EXAMPLES[:1], SETTINGS.model_copy(update={"temperature": 0.0})))
    assert len(set(responses)) == 1


def test_finish_reason_and_token_count(policy):
    config = SampleConfig(n=40, max_new_tokens=12, seed=1)
    [responses] = sample(policy, EXAMPLES[:1], config)
    assert {response.finish_reason for response in responses} == {"stop", "length"}
    for response in responses:
        # Every word of this vocabulary is one token; special ones are left out of the text.
        assert (response.tokens == 12) == (response.finish_reason == "length")
        assert len(response.text.split()) <= response.tokens
    assert [response.id for response in responses[:2]] == ["a-0", "a-1"]
    assert responses[0].example_id == "a"


def test_progress_counts_prompts(policy):
    progress = []
    config = SETTINGS.model_copy(update={"prompts_per_batch": 3})
    list(sample(policy, EXAMPLES, config, progress=progress.append))
    assert progress == [3, 4]


def test_batches_that_exceed_gpu_memory_are_halved(policy, monkeypatch, caplog):
    examples = [Example(id=f"e{n}", document_id="d", context="the town is north .", query="who ?") for n in range(7)]
    config = SampleConfig(n=2, max_new_tokens=4, prompts_per_batch=7)
    expected = texts(sample(policy, examples, config))
    sizes, capacity, failed = [], 2, []

    def prefill_within_memory(model, prompts, **options):
        assert all(tensor() is None for tensor in failed)  # a failed batch is freed before the next attempt
        sizes.append(len(prompts))
        batch = torch.zeros(len(prompts))
        if len(prompts) > capacity:
            failed.append(weakref.ref(batch))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 482.00 MiB.\nSee the manual")
        return prefill(model, prompts, **options)

    monkeypatch.setattr(kv_cache, "prefill", prefill_within_memory)
    assert texts(sample(policy, examples, config)) == expected
    assert (sizes, len(failed)) == ([7, 3, 1, 2, 4, 2, 2], 3)
    assert "too small for 7 prompts at once" in caplog.text
    capacity = 0
    with pytest.raises(
        PolicyError, match=r"e0: the GPU's memory is full with \d+ prompt tokens and 2 responses of up to 4"
    ):
        list(sample(policy, examples[:1], config))


def test_prompt_over_window_rejected_before_sampling(policy):
    long = Example(id="long", document_id="9", context="the river " * 150, query="who ?")
    with pytest.raises(PolicyError, match=r"example long: its prompt has 305 tokens, and 232 fit"):
        next(sample(policy, [EXAMPLES[0], long], SETTINGS))


def test_keep_ends_truncates_and_counts_prompt(policy):
    long = Example(id="long", document_id="9", context="the river " * 150, query="who ?")
    config = SETTINGS.model_copy(update={"over_window": "keep_ends"})
    assert truncated_prompts(policy, [*EXAMPLES, long], config) == ["long"]
    groups = list(sample(policy, [*EXAMPLES, long], config))
    assert len(groups[-1]) == 3
    report = SamplingReport.from_responses(groups, truncated_prompts=1)
    assert (report.prompts, report.responses, report.truncated_prompts) == (5, 15, 1)


def test_sample_token_inverts_cumulative_distribution():
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(5, 1)
    draws = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71], dtype=torch.float64)
    assert sample_token(logits, draws, temperature=1.0, top_p=1.0).tolist() == [0, 0, 1, 1, 2]


def test_top_p_excludes_unlikely_tokens():
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(3, 1)
    draws = torch.tensor([0.0, 0.624, 0.626], dtype=torch.float64)
    # 0.5 + 0.3 reach 0.7: what is left is 5/8 and 3/8, in the order of the vocabulary.
    assert sample_token(logits, draws, temperature=1.0, top_p=0.7).tolist() == [1, 1, 2]


def test_token_without_probability_is_never_sampled():
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf")]])
    assert sample_token(logits, torch.zeros(1, dtype=torch.float64), temperature=1.0, top_p=1.0).tolist() == [1]


def test_report_counts_responses(policy):
    report = SamplingReport.from_responses(sample(policy, EXAMPLES, SETTINGS))
    assert report.metrics()["responses"] == 12.0
    assert 0 <= report.truncated_responses <= 12
