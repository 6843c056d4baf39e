"""A cache that grows in place holds what transformers' own holds."""

import itertools
import math

import pytest
import torch
from transformers import LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from longreward.models.kv_cache import PreallocatedLayer, preallocated_cache


@pytest.fixture
def new():
    """`new(tokens)` gives keys and values of so many tokens; no two numbers are alike."""
    count = itertools.count()

    def make(tokens, rows=3):
        shape = (rows, 2, tokens, 4)
        keys = torch.tensor([float(next(count)) for _ in range(math.prod(shape))]).view(shape)
        return keys, -keys

    return make


def same(ours, theirs):
    return torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


def test_tokens_are_added_behind_the_others(new):
    ours, theirs = PreallocatedLayer(), DynamicLayer()
    for tokens in (5, *[1] * 100, 70, 200, 1):
        states = new(tokens)
        given, expected = ours.update(*states), theirs.update(*states)
        assert torch.equal(given[0], expected[0])
        assert torch.equal(given[1], expected[1])
        assert same(ours, theirs)
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_a_token_is_written_where_room_is_and_nothing_is_moved(new):
    layer = PreallocatedLayer()
    layer.update(*new(5))
    before = layer.keys.data_ptr()
    for _ in range(64):
        layer.update(*new(1))
    assert layer.keys.data_ptr() == before
    layer.update(*new(1))
    assert layer.keys.data_ptr() != before


def test_rows_that_are_chosen_or_repeated_go_on_by_themselves(new):
    ours, theirs = PreallocatedLayer(), DynamicLayer()
    states = new(4)
    for layer in (ours, theirs):
        layer.update(*states)
    for layer in (ours, theirs):
        layer.batch_select_indices(torch.tensor([2, 0]))
    states = new(1, rows=2)
    for layer in (ours, theirs):
        layer.update(*states)
    assert same(ours, theirs)
    for layer in (ours, theirs):
        layer.batch_repeat_interleave(2)
    states = new(1, rows=4)
    for layer in (ours, theirs):
        layer.update(*states)
    assert same(ours, theirs)
    assert ours.keys.shape == (4, 2, 6, 4)


def test_only_layers_of_full_attention_are_replaced():
    full = preallocated_cache(LlamaConfig(num_hidden_layers=2))
    assert [type(layer) for layer in full.layers] == [PreallocatedLayer, PreallocatedLayer]
    sliding = preallocated_cache(MistralConfig(num_hidden_layers=1, sliding_window=8))
    assert [type(layer) for layer in sliding.layers] == [DynamicSlidingWindowLayer]
