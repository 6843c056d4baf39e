import pytest
import torch

from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.generation import rng_stream, sample_token
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


def one_row_at_a_time(policy, example, config):
    """The plain way: no cache, one answer after another, the whole text read again for each token."""
    found = []
    for number in range(config.n):
        ids = policy.prompt_ids(example.context, example.query)
        start, draws = len(ids), rng_stream(config.seed, example.id, number, config.max_new_tokens)
        for place in range(config.max_new_tokens):
            with torch.no_grad():
                logits = policy.model(torch.tensor([ids])).logits[:, -1]
            ids.append(
                int(sample_token(logits, draws[place : place + 1], temperature=config.temperature, top_p=config.top_p))
            )
            if ids[-1] in policy.text.end_ids:
                break
        found.append(policy.text.decode(ids[start:]))
    return found


@pytest.mark.parametrize("cache", ["shared", "repeated"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_p": 0.8}, {"temperature": 0.0}])
def test_one_reading_of_the_prompt_gives_the_tokens_of_separate_rows(policy, cache, settings):
    config = SETTINGS.model_copy(update={**settings, "cache": cache, "prompts_per_batch": 2})
    expected = [one_row_at_a_time(policy, example, config) for example in EXAMPLES]
    assert texts(sample(policy, EXAMPLES, config)) == expected


def test_batch_order_and_shard_change_no_sample(policy):
    whole = texts(sample(policy, EXAMPLES, SETTINGS.model_copy(update={"prompts_per_batch": 4})))
    alone = [texts(sample(policy, [example], SETTINGS))[0] for example in EXAMPLES]
    backwards = texts(sample(policy, EXAMPLES[::-1], SETTINGS.model_copy(update={"prompts_per_batch": 3})))
    assert whole == alone == backwards[::-1]


def test_more_samples_keep_the_first_ones(policy):
    few = texts(sample(policy, EXAMPLES[:1], SETTINGS))[0]
    more = texts(sample(policy, EXAMPLES[:1], SETTINGS.model_copy(update={"n": 5})))[0]
    assert more[:3] == few
    assert len(set(more)) > 1


def test_another_seed_gives_other_samples(policy):
    other = SETTINGS.model_copy(update={"seed": 6})
    assert texts(sample(policy, EXAMPLES, SETTINGS)) != texts(sample(policy, EXAMPLES, other))


def test_temperature_zero_takes_the_same_likeliest_answer_each_time(policy):
    [answers] = texts(sample(policy, EXAMPLES[:1], SETTINGS.model_copy(update={"temperature": 0.0})))
    assert len(set(answers)) == 1


def test_an_answer_that_ends_itself_says_stop_and_one_that_is_cut_says_length(policy):
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
    seen = []
    config = SETTINGS.model_copy(update={"prompts_per_batch": 3})
    list(sample(policy, EXAMPLES, config, progress=lambda done, total: seen.append((done, total))))
    assert seen == [(3, 4), (4, 4)]


def test_a_prompt_over_the_window_stops_before_anything_is_drawn(policy):
    long = Example(id="long", document_id="9", context="the river " * 150, query="who ?")
    with pytest.raises(PolicyError, match=r"example long: its prompt has 305 tokens, and 232 fit"):
        next(sample(policy, [EXAMPLES[0], long], SETTINGS))


def test_a_prompt_over_the_window_keeps_its_ends_where_asked_and_is_counted(policy):
    long = Example(id="long", document_id="9", context="the river " * 150, query="who ?")
    config = SETTINGS.model_copy(update={"over_window": "keep_ends"})
    assert truncated_prompts(policy, [*EXAMPLES, long], config) == ["long"]
    groups = list(sample(policy, [*EXAMPLES, long], config))
    assert len(groups[-1]) == 3
    report = SamplingReport.of(groups, cut_prompts=1)
    assert (report.prompts, report.responses, report.cut_prompts) == (5, 15, 1)


def test_a_draw_falls_into_the_stretch_of_its_token():
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(5, 1)
    draws = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71], dtype=torch.float64)
    assert sample_token(logits, draws, temperature=1.0, top_p=1.0).tolist() == [0, 0, 1, 1, 2]


def test_top_p_leaves_the_unlikely_out():
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log().repeat(3, 1)
    draws = torch.tensor([0.0, 0.624, 0.626], dtype=torch.float64)
    # 0.5 + 0.3 reach 0.7: what is left is 5/8 and 3/8, in the order of the vocabulary.
    assert sample_token(logits, draws, temperature=1.0, top_p=0.7).tolist() == [1, 1, 2]


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf")]])
    assert sample_token(logits, torch.zeros(1, dtype=torch.float64), temperature=1.0, top_p=1.0).tolist() == [1]


def test_the_report_counts_unfinished_and_empty_answers(policy):
    report = SamplingReport.of(sample(policy, EXAMPLES, SETTINGS))
    assert report.figures()["responses"] == 12.0
    assert 0 <= report.unfinished <= 12
