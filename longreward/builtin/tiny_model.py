"""A fresh tiny Llama whose first two layers start as a rough lookup ("what stood behind these words before?").

Retrieval in a transformer is two steps: a first layer notes at each place which words stand before it, a second one
looks for places whose notes equal the last words. Training finds that by itself, but late (after 660 steps from random
weights 15 % of the values in the easiest documents were found, from here 99 % after 40); training then makes both steps
exact and learns when to use them. Nothing but the weights' starting point differs from a plain Llama.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longreward.builtin.pretraining_data import IDS
from longreward.builtin.tokenizer import ASSISTANT, BEGIN, END, PAD, SYSTEM, USER

ROPE_THETA = 1e8
"""Far above the usual for such short texts: most of a head's dimensions then hardly turn over 1,000 tokens and are free
to compare words at any distance, while the few fast ones tell neighbours apart. At 1,000 nearly all of them turned."""
COMPARED = ((0, 1), (1, 2), (1, 3), (0, 3))
"""For each head of layer 1, which of the last words it compares (0: the present one): a verb and a name, mostly."""
STEADY = 6
"""Index of the first frequency that turns by less than a radian over 1,000 tokens."""


def new_model(seed: int) -> LlamaForCausalLM:
    """A model of about 0.8 million parameters for the corpus's tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(IDS),
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=384,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        attention_bias=True,
        bos_token_id=IDS[BEGIN],
        eos_token_id=IDS[END],
        pad_token_id=IDS[PAD],
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        notes = _look_back(model)
        _look_up(model, notes)
    return model


def init_lookup_heads(model: LlamaForCausalLM) -> None:
    """Start the embeddings of the chat template's tokens as those of the marks that play their parts in plain text.

    Pre-training never shows a role. With embeddings left at random, one epoch of SFT at a rate that spares the lookup
    did not learn what an assistant's turn is (the first name of an answer came right in 10 % of cases, so in 97 %).
    """
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        for role, mark in ((ASSISTANT, "?"), (END, "\n\n"), (USER, "\n\n"), (SYSTEM, "\n\n")):
            embeddings[IDS[role]] = embeddings[IDS[mark]]


def _look_back(model: LlamaForCausalLM, strength: float = 6.0) -> torch.Tensor:
    """Layer 0: head h attends h + 1 places back and notes that word in a subspace of its own; returns the projection.

    The query's bias is the key's, turned back by the distance, so that scores peak there whatever the words are.
    """
    attention = model.model.layers[0].self_attn
    size, heads, width = model.config.head_dim, model.config.num_attention_heads, model.config.hidden_size
    turns = ROPE_THETA ** (-torch.arange(0, size, 2) / size)
    projection = _orthonormal(size, width)
    slots = _orthonormal(width, width)
    attention.q_proj.weight.mul_(0.2)
    attention.k_proj.weight.mul_(0.2)
    for head in range(heads):
        span = slice(head * size, (head + 1) * size)
        angles = -(head + 1) * turns
        attention.k_proj.bias[span] = strength * torch.cat([torch.ones(size // 2), torch.zeros(size // 2)])
        attention.q_proj.bias[span] = strength * torch.cat([angles.cos(), angles.sin()])
        attention.v_proj.weight[span] = 0.04 * projection  # notes about as long as an embedding
        attention.o_proj.weight[:, span] = slots[:, span]
    return projection


def _look_up(model: LlamaForCausalLM, projection: torch.Tensor, sharpness: float = 2.0) -> None:
    """Layer 1: attend where the words before are the present one and those before it, and copy the word found there."""
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    size, width = model.config.head_dim, model.config.hidden_size
    steady = torch.tensor([*range(STEADY, size // 2), *range(size // 2 + STEADY, size)])
    copies = _orthonormal(width, width)
    for head, compared in enumerate(COMPARED):
        span = slice(head * size, (head + 1) * size)
        query, key = torch.zeros(size, width), torch.zeros(size, width)
        for part, back in enumerate(compared):
            # Dimensions of its own for each distance: only a word at the same distance on both sides adds to the score.
            view = torch.zeros(size, size)
            mine = steady[part :: len(compared)]
            view[mine] = _orthonormal(len(mine), size)
            note = first.o_proj.weight[:, back * size : (back + 1) * size].T
            before = first.o_proj.weight[:, (back - 1) * size : back * size].T if back else 2 * projection
            key += sharpness * view @ note
            query += sharpness * view @ before
        second.q_proj.weight[span] = query
        second.k_proj.weight[span] = key
        second.v_proj.weight[span] = copies[span]
        second.o_proj.weight[:, span] = 0.15 * copies[span].T


def _orthonormal(rows: int, columns: int) -> torch.Tensor:
    return torch.nn.init.orthogonal_(torch.empty(rows, columns))
