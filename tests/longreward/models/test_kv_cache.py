"""PreallocatedLayer behaves like transformers' DynamicLayer."""

import itertools
import math

import pytest
import torch
from transformers import LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from longreward.models.kv_cache import PreallocatedLayer, preallocated_cache


@pytest.fixture
def new():
    """`new(tokens)` returns keys and values of that many tokens, with unique numbers."""
    count = itertools.count()

    def make(tokens, rows=3):
        shape = (rows, 2, tokens, 4)
        keys = torch.tensor([float(next(count)) for _ in range(math.prod(shape))]).view(shape)
        return keys, -keys

    return make


def equal(preallocated, reference):
    return torch.equal(preallocated.keys, reference.keys) and torch.equal(preallocated.values, reference.values)


def test_update_appends_tokens(new):
    preallocated, reference = PreallocatedLayer(), DynamicLayer()
    for tokens in (5, *[1] * 100, 70, 200, 1):
        states = new(tokens)
        actual, expected = preallocated.update(*states), reference.update(*states)
        assert torch.equal(actual[0], expected[0])
        assert torch.equal(actual[1], expected[1])
        assert equal(preallocated, reference)
        assert preallocated.get_seq_length() == reference.get_seq_length()


def test_update_writes_in_place(new):
    layer = PreallocatedLayer()
    layer.update(*new(5))
    before = layer.keys.data_ptr()
    for _ in range(64):
        layer.update(*new(1))
    assert layer.keys.data_ptr() == before
    layer.update(*new(1))
    assert layer.keys.data_ptr() != before


def test_rows_can_be_selected_and_repeated(new):
    preallocated, reference = PreallocatedLayer(), DynamicLayer()
    states = new(4)
    for layer in (preallocated, reference):
        layer.update(*states)
    for layer in (preallocated, reference):
        layer.batch_select_indices(torch.tensor([2, 0]))
    states = new(1, rows=2)
    for layer in (preallocated, reference):
        layer.update(*states)
    assert equal(preallocated, reference)
    for layer in (preallocated, reference):
        layer.batch_repeat_interleave(2)
    states = new(1, rows=4)
    for layer in (preallocated, reference):
        layer.update(*states)
    assert equal(preallocated, reference)
    assert preallocated.keys.shape == (4, 2, 6, 4)


def test_only_full_attention_layers_replaced():
    full = preallocated_cache(LlamaConfig(num_hidden_layers=2))
    assert [type(layer) for layer in full.layers] == [PreallocatedLayer, PreallocatedLayer]
    sliding = preallocated_cache(MistralConfig(num_hidden_layers=1, sliding_window=8))
    assert [type(layer) for layer in sliding.layers] == [DynamicSlidingWindowLayer]
