"""Pairwise rewards: all pairs of responses in both orders, by a judge with a fixed preference."""

import pytest

from longreward.judge import ChatReply, Judge, JudgeConfig
from longreward.pairs.pairwise import PairwiseConfig
from longreward.reward_bench.items import Item
from longreward.reward_bench.rewards import compare_items

LABELS = (4.0, 3.0, 2.0, 1.0)


class PreferenceModel:
    """Prefers the answer with more x, or returns a fixed reply."""

    name = "preference"

    def __init__(self, reply: str = "") -> None:
        self.reply = reply
        self.requests = 0

    async def complete(self, request, *, temperature):
        self.requests += 1
        a, b = (request.slots[f"answer_{side}"].count("x") for side in "ab")
        return ChatReply(self.reply or f"Better: [[{'A' if a > b else 'B' if b > a else 'C'}]]")

    async def close(self):
        pass


async def compare(model, *responses):
    items = [Item("1", "A document.", "Which?", responses, LABELS[: len(responses)], "", "d")]
    progress = []
    async with Judge.from_model(model, JudgeConfig(max_attempts=1)) as judge:
        (match,) = await compare_items(judge, PairwiseConfig(), items, progress=progress.append)
    assert progress == [1]
    return match


async def test_pairwise_reward_is_share_of_wins():
    model = PreferenceModel()
    match = await compare(model, "xx", "x", "xxx", "yx")
    # xxx beats all; xx beats x and yx; these two tie: half a win of three each.
    assert match.rewards == pytest.approx([2 / 3, 0.5 / 3, 1.0, 0.5 / 3])
    assert (match.comparisons, match.undecided, match.unreadable) == (6, 1, 0)
    assert model.requests == 12


async def test_position_bias_undecided():
    match = await compare(PreferenceModel("Better: [[A]]"), "xx", "x")
    assert (match.rewards, match.undecided) == ([0.5, 0.5], 1)


async def test_equal_texts_tie_without_request():
    model = PreferenceModel()
    match = await compare(model, "xx", "x", "x")
    assert match.rewards == [1.0, 0.25, 0.25]
    assert (match.comparisons, match.undecided) == (2, 0)
    assert model.requests == 2  # in both orders; xx meets the same text twice


async def test_unreadable_comparison_leaves_item_unscored():
    match = await compare(PreferenceModel("Who knows."), "xx", "x")
    assert (match.rewards, match.undecided, match.unreadable) == ([None, None], 0, 1)


async def test_comparison_without_context_says_that_no_document_is_shown():
    model, contexts = PreferenceModel(), []
    complete = model.complete

    async def record(request, *, temperature):
        contexts.append(request.slots["context"])
        return await complete(request, temperature=temperature)

    model.complete = record
    items = [Item(context, context, "Which?", ("xx", "x"), (1.0, 0.0)) for context in ("", "A document.")]
    async with Judge.from_model(model, JudgeConfig(max_attempts=1)) as judge:
        await compare_items(judge, PairwiseConfig(), items)
    assert sorted(contexts) == ["(not shown)"] * 2 + ["A document."] * 2
