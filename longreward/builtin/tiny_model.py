"""An untrained tiny Llama whose first two layers start as a rough lookup ("which word followed these words before?").

Retrieval in a transformer takes two steps: a first layer writes at each position which words stand before it, a second
layer attends to positions where these match the last words. Training finds both by itself, but late: after 660 steps
from random weights the model found 15 % of the values in the easiest documents, from this initialization 99 % after 40.
Training then sharpens both steps and learns when to use them. Apart from the initial weights it is a plain Llama.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longreward.builtin.tokenizer import ASSISTANT, BEGIN, END, PAD, SYSTEM, TOKEN_IDS, USER

ROPE_THETA = 1e8
"""Far above the usual value for such short texts: most of a head's dimensions then hardly rotate over 1,000 tokens and
can compare words at any distance, while the few fast ones separate neighbours. With 1,000 nearly all of them rotate."""
COMPARED_OFFSETS = ((0, 1), (1, 2), (1, 3), (0, 3))
"""For each head of layer 1, offsets of the words that it compares (0: the current one), mostly a verb and a name."""
FIRST_SLOW_FREQUENCY = 6
"""Index of the first frequency that rotates by less than a radian over 1,000 tokens."""


def new_model(seed: int) -> LlamaForCausalLM:
    """Return a model of about 0.8 million parameters for the corpus's tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(TOKEN_IDS),
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=384,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        attention_bias=True,
        bos_token_id=TOKEN_IDS[BEGIN],
        eos_token_id=TOKEN_IDS[END],
        pad_token_id=TOKEN_IDS[PAD],
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        projection = _init_previous_word_heads(model)
        _init_matching_heads(model, projection)
    return model


def init_lookup_heads(model: LlamaForCausalLM) -> None:
    """Initialize the embeddings of the chat template's tokens with those of the marks with their role in plain text.

    Pre-training has no roles. With random embeddings, one epoch of SFT at a learning rate that preserves the lookup did
    not learn what an assistant's turn is: the first name of an answer was right in 10 % of cases, and is in 97 % with
    this initialization.
    """
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        for role, mark in ((ASSISTANT, "?"), (END, "\n\n"), (USER, "\n\n"), (SYSTEM, "\n\n")):
            embeddings[TOKEN_IDS[role]] = embeddings[TOKEN_IDS[mark]]


def _init_previous_word_heads(model: LlamaForCausalLM, strength: float = 6.0) -> torch.Tensor:
    """Let head h of layer 0 attend h + 1 positions back and write that word to a subspace; return the projection.

    The query's bias is the key's, rotated back by the distance, so that the score peaks there for any words.
    """
    attention = model.model.layers[0].self_attn
    size, heads, width = model.config.head_dim, model.config.num_attention_heads, model.config.hidden_size
    frequencies = ROPE_THETA ** (-torch.arange(0, size, 2) / size)
    projection = _orthonormal(size, width)
    subspaces = _orthonormal(width, width)
    attention.q_proj.weight.mul_(0.2)
    attention.k_proj.weight.mul_(0.2)
    for head in range(heads):
        span = slice(head * size, (head + 1) * size)
        angles = -(head + 1) * frequencies
        attention.k_proj.bias[span] = strength * torch.cat([torch.ones(size // 2), torch.zeros(size // 2)])
        attention.q_proj.bias[span] = strength * torch.cat([angles.cos(), angles.sin()])
        attention.v_proj.weight[span] = 0.04 * projection  # about the norm of an embedding
        attention.o_proj.weight[:, span] = subspaces[:, span]
    return projection


def _init_matching_heads(model: LlamaForCausalLM, projection: torch.Tensor, sharpness: float = 2.0) -> None:
    """Let layer 1 attend to positions after the current word and the words before it, and copy the word there."""
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    size, width = model.config.head_dim, model.config.hidden_size
    slow = torch.tensor([*range(FIRST_SLOW_FREQUENCY, size // 2), *range(size // 2 + FIRST_SLOW_FREQUENCY, size)])
    copies = _orthonormal(width, width)
    for head, offsets in enumerate(COMPARED_OFFSETS):
        span = slice(head * size, (head + 1) * size)
        query, key = torch.zeros(size, width), torch.zeros(size, width)
        for part, offset in enumerate(offsets):
            # Separate dimensions for each offset: only equal words at the same offset add to the score.
            view = torch.zeros(size, size)
            dimensions = slow[part :: len(offsets)]
            view[dimensions] = _orthonormal(len(dimensions), size)
            preceding = first.o_proj.weight[:, offset * size : (offset + 1) * size].T
            current = first.o_proj.weight[:, (offset - 1) * size : offset * size].T if offset else 2 * projection
            key += sharpness * view @ preceding
            query += sharpness * view @ current
        second.q_proj.weight[span] = query
        second.k_proj.weight[span] = key
        second.v_proj.weight[span] = copies[span]
        second.o_proj.weight[:, span] = 0.15 * copies[span].T


def _orthonormal(rows: int, columns: int) -> torch.Tensor:
    return torch.nn.init.orthogonal_(torch.empty(rows, columns))
