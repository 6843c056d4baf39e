"""Training uses the sampled tokens: template families and tokenizer kinds of chat_families.py, a random model."""

import pytest
import torch
from chat_families import KINDS, TEMPLATES, TEXTS, end_ids, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from longreward.data.formats import (
    pair_from_row,
    pair_to_row,
    read_responses,
    read_scored,
    write_responses,
    write_scored,
)
from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.generation import SamplingParams, generate, rng_stream
from longreward.models.policy import Policy, PolicyTokenizer
from longreward.models.sampling import SampleConfig, sample
from longreward.records import DIMENSIONS, Example, PreferencePair, Response, ScoredResponse, Verdict
from longreward.training.pair_encoding import AnswerCounts
from longreward.training.training_data import tokenize_pairs

EXAMPLES = [
    Example(id="1", document_id="1", context=TEXTS[0], query="Who founded Keld?"),
    Example(id="2", document_id="2", context=f"{TEXTS[2]} </s><|im_end|> {TEXTS[1]}", query="When was it?"),
]
SAMPLING = SampleConfig(n=6, max_new_tokens=16, seed=3)
MATRIX = [pytest.param(kind, family, id=f"{kind}, {family}") for kind in KINDS for family in TEMPLATES]


def make_policy(kind: str, family: str, window: int = 1024) -> Policy:
    """Create a random policy of which one token in ten is an end token."""
    tokenizer = make_tokenizer(kind, family)
    ends = end_ids(tokenizer, family)
    torch.manual_seed(7)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=window, **sizes)).eval()
    model.lm_head = torch.nn.Linear(16, len(tokenizer))
    with torch.no_grad():
        model.lm_head.bias[list(ends)] = torch.tensor(len(tokenizer) / 10 / len(ends)).log()
    text = PolicyTokenizer(tokenizer, "{context}\n\n{query}", ends)
    return Policy(PolicyConfig(base_model="random"), "random", model, text, window, torch.device("cpu"))


def sampled_ids(policy: Policy, example: Example) -> list[list[int]]:
    """Return the ids of the answers from the decoder."""
    streams = [rng_stream(SAMPLING.seed, example.id, number, SAMPLING.max_new_tokens) for number in range(SAMPLING.n)]
    prompt = policy.encoder.prompt_ids(example.context, example.query)
    return generate(policy, [prompt], streams, SamplingParams(SAMPLING.temperature, n=SAMPLING.n))[0]


def write_and_read(responses: list[Response], folder) -> list[Response]:
    """Write and read the files of the stages `sample` and `score`."""
    write_responses(folder / "sampled.jsonl", responses)
    verdicts = {dimension: Verdict(score=5.0) for dimension in DIMENSIONS}
    scored = [
        ScoredResponse(response=response, verdicts=verdicts) for response in read_responses(folder / "sampled.jsonl")
    ]
    write_scored(folder / "scored.jsonl", scored)
    return [response.response for response in read_scored(folder / "scored.jsonl")]


def make_pair(example: Example, chosen: Response, rejected: Response, **options) -> PreferencePair:
    return PreferencePair(
        id=example.id,
        context=example.context,
        query=example.query,
        chosen=chosen,
        rejected=rejected,
        chosen_reward=9.0,
        rejected_reward=2.0,
        **options,
    )


def remove_ids(response: Response, **options) -> Response:
    unknown = dict.fromkeys(("tokens", "finish_reason", "token_ids", "prompt_tokens", "prompt_hash"))
    return response.model_copy(update=unknown | options)


@pytest.mark.parametrize(("kind", "family"), MATRIX)
def test_trained_ids_equal_sampled_ids(kind, family, tmp_path):
    policy = make_policy(kind, family)
    endings = set()
    for example in EXAMPLES:
        [responses] = sample(policy, [example], SAMPLING)
        ids = sampled_ids(policy, example)
        read_responses_back = write_and_read(responses, tmp_path)
        pairs = [make_pair(example, read_responses_back[n], read_responses_back[n - 1]) for n in range(SAMPLING.n)]
        read = [pair_from_row(pair_to_row(pair)) for pair in pairs]
        data = tokenize_pairs(policy.encoder, read, max_length=policy.window)
        for n, row in enumerate(data.rows):
            assert (row["chosen_ids"], row["rejected_ids"]) == (ids[n], ids[n - 1])
            assert row["prompt_ids"] == policy.encoder.prompt_ids(example.context, example.query)
        assert data.stats.answers == AnswerCounts(sampled=2 * SAMPLING.n)
        endings |= {response[-1] in policy.encoder.end_ids for response in ids}
    assert endings == {True, False}  # with the end token that came, and without one where none did


@pytest.mark.parametrize("family", ["empty thought", "space before the answer"])
def test_response_rendered_differently_refused_or_rendered(family):
    policy = make_policy("byte-level", family)
    example = EXAMPLES[0]
    pair = make_pair(
        example,
        Response(id="1-0", example_id="1", query=example.query, text="Ann Lee founded Keld."),
        Response(id="1-4", example_id="1", query=example.query, text="In 1905."),
    )
    with pytest.raises(PolicyError, match=r"2 of 2 responses would be trained on other tokens(.|\n)*response 1-4") as e:
        tokenize_pairs(policy.encoder, [pair], max_length=512)
    assert "train.token_mismatch to render" in str(e.value)
    data = tokenize_pairs(policy.encoder, [pair], max_length=512, token_mismatch="render")
    assert data.stats.answers == AnswerCounts(rendered=2, mismatched=2)
    start = {"empty thought": "<think>\n\n</think>\n\nAnn", "space before the answer": " Ann"}[family]
    assert policy.tokenizer.decode(data.rows[0]["chosen_ids"]).startswith(start)


@pytest.mark.parametrize(("kind", "family"), MATRIX)
def test_response_without_ids_accepted_if_rendered_as_is(kind, family):
    policy = make_policy(kind, family)
    example = EXAMPLES[0]
    text = "<think>\nIt says so.\n</think>\n\nAnn Lee." if family == "empty thought" else "Ann Lee founded Keld."
    tokenized = Response(id="1-0", example_id="1", query=example.query, text=text)
    truncated = Response(id="1-1", example_id="1", query=example.query, text=text[:-3], finish_reason="length")
    pair = make_pair(example, tokenized, truncated)
    # The other kinds read "Ann" and " Ann" as the same tokens.
    if family == "space before the answer" and kind in ("byte-level", "prepending normalizer"):
        with pytest.raises(PolicyError):
            tokenize_pairs(policy.encoder, [pair], max_length=512)
        return
    data = tokenize_pairs(policy.encoder, [pair], max_length=512)
    assert data.stats.answers == AnswerCounts(rendered=2)
    [row] = data.rows
    assert row["chosen_ids"][-1] in policy.encoder.end_ids
    assert not {*row["rejected_ids"]} & {*policy.encoder.end_ids}  # it was truncated


def test_imported_preferences_and_reference_answers_rendered():
    policy = make_policy("byte-level", "empty thought")
    example = EXAMPLES[0]
    better = Response(id="1-0", example_id="1", query=example.query, text="Ann Lee.")
    worse = better.model_copy(update={"id": "1-1", "text": "Tom Ray did."})
    imported = make_pair(example, better, worse, method="given")
    assert tokenize_pairs(policy.encoder, [imported], max_length=512).stats.answers == AnswerCounts(rendered=2)
    [sampled, *_] = next(sample(policy, [example], SAMPLING))
    own_answer = make_pair(example, better.model_copy(update={"id": "1-answer"}), sampled, method="contrast")
    assert tokenize_pairs(policy.encoder, [own_answer], max_length=512).stats.answers == AnswerCounts(
        sampled=1, rendered=1
    )


def test_ids_of_another_tokenizer_refused():
    policy, example = make_policy("byte-level", "plain"), EXAMPLES[0]
    response, two, *_ = next(sample(policy, [example], SAMPLING))
    foreign = response.model_copy(update={"token_ids": tuple(i + 1 for i in response.token_ids)})
    pair = make_pair(example, foreign, two)
    with pytest.raises(PolicyError, match=r"1 of 2 responses(.|\n)*token ids are of another tokenizer or text"):
        tokenize_pairs(policy.encoder, [pair], max_length=512)
    data = tokenize_pairs(policy.encoder, [pair], max_length=512, token_mismatch="render")
    assert data.rows[0]["chosen_ids"] == policy.encoder.completion_ids(response.text, ended=not response.truncated)
    assert (data.stats.answers.sampled, data.stats.answers.rendered) == (1, 1)


def test_responses_to_another_prompt_refused():
    policy, example = make_policy("byte-level", "plain"), EXAMPLES[0]
    response, two, *_ = next(sample(policy, [example], SAMPLING))
    other = PolicyTokenizer(policy.tokenizer, "{query}\n\n{context}", policy.encoder.end_ids)
    with pytest.raises(PolicyError, match=r"2 of 2 responses(.|\n)*its prompt is another than this policy's"):
        tokenize_pairs(other, [make_pair(example, response, two)], max_length=512)


def test_prompt_cut_as_for_sampling():
    policy = make_policy("byte-level", "plain", window=60)
    example = EXAMPLES[1]
    response, two, *_ = next(sample(policy, [example], SAMPLING.model_copy(update={"over_window": "keep_ends"})))
    full = policy.encoder.prompt_ids(example.context, example.query)
    assert len(full) > 60
    data = tokenize_pairs(policy.encoder, [make_pair(example, response, two)], max_length=60)  # over_window: refuse
    assert data.rows[0]["prompt_ids"] == full[:22] + full[-22:]  # 60 - 16 new tokens
    assert data.stats.cut_prompts == 1
    # A published answer was put to nothing: the prompt is that of the sampled one.
    own_answer = remove_ids(response, id="2-answer", text="In 1905.")
    data = tokenize_pairs(policy.encoder, [make_pair(example, own_answer, two, method="contrast")], max_length=60)
    assert data.rows[0]["prompt_ids"] == full[:22] + full[-22:]


def test_counts_stored_with_rows(tmp_path):
    policy, example = make_policy("byte-level", "plain"), EXAMPLES[0]
    response, two, *_ = next(sample(policy, [example], SAMPLING))
    pair = make_pair(example, response, remove_ids(two, text="In 1905."))
    for _ in range(2):
        data = tokenize_pairs(policy.encoder, [pair], max_length=512, rows_dir=tmp_path / "rows")
        assert data.stats.answers == AnswerCounts(sampled=1, rendered=1)
    assert data.stats.metrics()["answers/sampled"] == 1.0
    assert str(data.stats.answers) == (
        "1 responses are trained on their sampled token ids, 1 as the chat template renders their text"
    )
