import datasets

from longreward.training.estimate.flops import StepFlops, tokens_of
from longreward.training.estimate.meta_step import Batch

PAIRS = ((10, 3, 2), (20, 1, 4))


def load(*, share: bool, every: bool = False) -> StepFlops:
    return StepFlops(PAIRS, preference=True, share=share, every_position=every)


def test_stock_pairs_are_two_padded_rows_and_shared_ones_are_one():
    assert load(share=False).batch(1) == Batch(rows=2, tokens=24)
    assert load(share=False).batch(2) == Batch(rows=4, tokens=24)
    assert load(share=True).batch(1) == Batch(1, 25, ((20, 1, 4),))
    assert load(share=False).tokens() == (2 * 13 + 2 * 24) / 2
    assert load(share=True).tokens() == (15 + 25) / 2


def test_the_head_scores_answers_and_off_cuda_whole_rows_unless_prompts_are_shared():
    assert load(share=False).scored(1) == 1 + 4
    assert load(share=False, every=True).scored(1) == 2 * 23
    assert load(share=True, every=True).scored(2) == 2 * 2 * 4  # two sides of two pairs, as wide as the longest answer


def test_lengths_are_read_alike_in_memory_and_on_the_disk():
    pairs = [{"prompt_ids": [1] * 5, "chosen_ids": [2] * 3, "rejected_ids": [3]}]
    examples = [{"input_ids": [1] * 4, "labels": [-100, -100, -100, 7]}]
    for rows, expected in ((pairs, ((5, 3, 1),)), (examples, ((3, 1, 0),))):
        assert tokens_of(rows) == tokens_of(datasets.Dataset.from_list(rows)) == expected
