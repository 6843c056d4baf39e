import pytest

from longreward.errors import DataError, PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.models.sampling import SampleConfig, encode_prompt
from longreward.records import Example, PreferencePair, Response
from longreward.training.training_data import tokenize_examples, tokenize_pairs

TOWN = Example(id="7", document_id="1", context="the town is north .", query="where is it ?", answer="it is north .")


def pair_of(chosen: str, rejected: str, *, context: str = "the town is north .") -> PreferencePair:
    def response(n: int, text: str) -> Response:
        return Response(id=f"7-{n}", example_id="7", query="where is it ?", text=text)

    return PreferencePair(
        id="7",
        context=context,
        query="where is it ?",
        chosen=response(0, chosen),
        rejected=response(1, rejected),
        chosen_reward=9.0,
        rejected_reward=2.0,
    )


@pytest.fixture(scope="module")
def policy(tiny_policy):
    return load_policy(PolicyConfig(base_model=str(tiny_policy)), tiny_policy)


def test_the_answer_and_its_end_have_loss_and_the_prompt_has_none(policy):
    [row] = tokenize_examples(policy.text, [TOWN], max_length=64).rows
    # <s> <|user|> the town is north . where is it ? <|assistant|> | it is north . </s>
    assert row["input_ids"] == [2, 4, 6, 16, 9, 19, 35, 13, 9, 31, 34, 5, 31, 9, 19, 35, 3]
    assert row["labels"] == [-100] * 12 + [31, 9, 19, 35, 3]
    assert row["length"] == 17


def test_sft_sampling_and_dpo_see_the_same_prompt(policy):
    [row] = tokenize_examples(policy.text, [TOWN], max_length=64).rows
    [pair] = tokenize_pairs(policy.text, [pair_of("it is north .", "it is south .")], max_length=64).rows
    sampled, was_cut = encode_prompt(policy, TOWN, SampleConfig(max_new_tokens=8))
    assert row["input_ids"][:12] == pair["prompt_ids"] == sampled == policy.prompt_ids(TOWN.context, TOWN.query)
    assert not was_cut


def test_a_pair_holds_both_whole_answers(policy):
    [row] = tokenize_pairs(policy.text, [pair_of("it is north .", "south")], max_length=17).rows
    assert row["chosen_ids"] == [31, 9, 19, 35, 3]
    assert row["rejected_ids"] == [20, 3]
    assert row["length"] == 17


def test_a_pair_whose_answer_would_be_cut_is_refused_by_name_and_length(policy):
    with pytest.raises(PolicyError, match=r"1 of 1 pairs .* 16 tokens(.|\n)*pair 7: 12 of the prompt and 5 of the"):
        tokenize_pairs(policy.text, [pair_of("south", "it is north .")], max_length=16)


def test_an_example_whose_answer_would_be_cut_is_refused_by_name_and_length(policy):
    with pytest.raises(PolicyError, match=r"example 7: 12 of the prompt and 5 of the answer"):
        tokenize_examples(policy.text, [TOWN], max_length=16)


def test_many_refusals_are_counted_and_some_are_named(policy):
    with pytest.raises(PolicyError, match=r"8 of 8 examples(.|\n)*and 3 more"):
        tokenize_examples(policy.text, [TOWN] * 8, max_length=16)


def test_a_prompt_may_lose_its_middle_where_asked_but_an_answer_never(policy):
    data = tokenize_pairs(policy.text, [pair_of("it is north .", "south")], max_length=16, over_window="keep_ends")
    assert data.rows[0]["prompt_ids"] == [2, 4, 6, 16, 9, 35, 13, 9, 31, 34, 5]  # "north" is the one that went
    assert data.rows[0]["chosen_ids"] == [31, 9, 19, 35, 3]
    assert data.stats.cut_prompts == 1


def test_an_answer_that_leaves_no_room_for_a_prompt_says_that_cutting_cannot_help(policy):
    for answer in (18, 20):  # 19 and 21 tokens of 20 with the end: a prompt that loses its middle keeps two
        with pytest.raises(
            PolicyError, match=rf"cutting the prompt cannot help(.|\n)*pair 7: {answer + 1} of the longer"
        ):
            tokenize_pairs(policy.text, [pair_of("north " * answer, "south")], max_length=20, over_window="keep_ends")
    assert tokenize_pairs(policy.text, [pair_of("north " * 17, "south")], max_length=20, over_window="keep_ends").rows


def test_no_data_is_refused(policy):
    with pytest.raises(DataError, match="no pairs"):
        tokenize_pairs(policy.text, [], max_length=64)
    with pytest.raises(DataError, match="no examples"):
        tokenize_examples(policy.text, [], max_length=64)


def test_an_example_without_an_answer_is_refused(policy):
    with pytest.raises(DataError, match="example 7 has no answer"):
        tokenize_examples(policy.text, [TOWN.model_copy(update={"answer": None})], max_length=64)


def test_lengths_are_reported(policy):
    longer = TOWN.model_copy(update={"answer": "it is north of the river ."})
    assert tokenize_examples(policy.text, [TOWN, longer], max_length=64).stats.metrics() == {
        "examples": 2,
        "longest": 20,
        "mean_length": 18.5,
        "cut_prompts": 0,
    }
