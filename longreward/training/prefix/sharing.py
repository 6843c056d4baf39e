"""SFT and DPO that compute each shared prefix once: a micro batch is one row, in which texts follow their common start.

    stock      [document question-1 chosen  ]      packed   [document | question-1 | chosen | rejected | question-2 | …]
               [document question-1 rejected]                0 … D-1    D …          Q …      Q …        D …   positions
               [document question-2 chosen  ]
               [document question-2 rejected]

The row has no padding, and each token attends to the same tokens as in its own text (attention.py), so
log-probabilities and gradients are the same. What texts share is read from their token ids (text_tree.py): the prompt
of a pair, the document of several questions about it.

TRL's trainers are not changed. The collators give them the answers only, each after the last token before it, and one
more key that passes through the trainer to the model's backbone. There, hooks replace the answers by the packed row,
and return the hidden states at the answers' positions. So the LM head, the losses and the metrics work on answers,
which is all that SFT and DPO score.

    share_prefix(model)
    DPOTrainer(model, data_collator=PairCollator(tokenizer.pad_token_id), peft_config=lora, …)
    SFTTrainer(model, data_collator=ExampleCollator(tokenizer.pad_token_id), peft_config=lora, …)

Traps: pass `peft_config` rather than a PeftModel, whose reference would be a copy of its adapter. A separate reference
model needs `share_prefix` as well; one that the trainer loads without it raises PolicyError at its first batch.

Imports torch and transformers at the top, so import it only where a training starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from longreward.errors import PolicyError
from longreward.training.prefix.attention import PackedTexts, attention_name
from longreward.training.prefix.text_tree import build_text_tree, span_indices
from longreward.training.training_data import IGNORE_INDEX

PACKED_TEXTS = "packed_texts"


@dataclass(frozen=True)
class PairCollator:
    """Collates rows with `prompt_ids`, `chosen_ids`, `rejected_ids`, none of them empty; nothing is truncated.

    For B pairs: `input_ids` and `completion_mask` [2B, 1 + longest response], the chosen responses before the rejected
    ones; `attention_mask` [2B, longest text], from which the trainer counts tokens; `packed_texts`; `ref_chosen_logps`,
    `ref_rejected_logps` where rows have them.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        # TRL splits the batch in the middle: all chosen responses come before all rejected ones.
        texts = [(row["prompt_ids"], row[column]) for column in ("chosen_ids", "rejected_ids") for row in rows]
        batch = _pack(texts, self.pad_token_id)
        batch["completion_mask"] = _pad([[0] + [1] * len(response) for _, response in texts], 0)
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch


@dataclass(frozen=True)
class ExampleCollator:
    """Collates rows with `input_ids` and `labels`, which are -100 before the answer; nothing is truncated.

    For B examples: `input_ids` and `labels` [B, 1 + longest answer]; `attention_mask` [B, longest text], from which the
    trainer counts tokens; `packed_texts`.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        starts = [_answer_start(row["labels"]) for row in rows]
        texts = [(row["input_ids"][:start], row["input_ids"][start:]) for row, start in zip(rows, starts, strict=True)]
        batch = _pack(texts, self.pad_token_id)
        labels = [[IGNORE_INDEX, *row["labels"][start:]] for row, start in zip(rows, starts, strict=True)]
        batch["labels"] = _pad(labels, IGNORE_INDEX)
        return batch


def _answer_start(labels: Sequence[int]) -> int:
    """Return the index of the first token that is predicted; the very first of a text never is."""
    return next((index for index in range(1, len(labels)) if labels[index] != IGNORE_INDEX), len(labels))


def _pack(texts: Sequence[tuple[list[int], list[int]]], pad_token_id: int) -> dict[str, Any]:
    """Return the answers of texts, given as tokens before the answer and answer, and the packed row."""
    tree = build_text_tree([[*context, *answer] for context, answer in texts])
    answers = [
        span_indices(branch)[len(context) - 1 :].tolist()
        for (context, _), branch in zip(texts, tree.texts, strict=True)
    ]
    packed: PackedTexts = {
        "input_ids": torch.from_numpy(tree.tokens)[None],
        "position_ids": torch.from_numpy(tree.positions)[None],
        "answers": _pad(answers, 0),
        "branches": tree.branches,
    }
    return {
        # The hidden state of the last token before the answer predicts the answer's first token.
        "input_ids": _pad([[context[-1], *answer] for context, answer in texts], pad_token_id),
        "attention_mask": _pad([[1] * (len(context) + len(answer)) for context, answer in texts], 0),
        PACKED_TEXTS: packed,
    }


def _pad(rows: list[list[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


@dataclass
class SharedPrefix:
    """The handle of a model that `share_prefix` changed; `batches` counts the packed batches that passed it."""

    model: Any
    batches: int = 0
    _attention: str = ""
    _hooks: list[Any] = field(default_factory=list)

    def remove(self) -> None:
        """Restore the model."""
        for hook in self._hooks:
            hook.remove()
        self.model.set_attn_implementation(self._attention)


def share_prefix(model: Any) -> SharedPrefix:
    """Make a causal language model of transformers, without any adapter, accept batches of the collators above only."""
    shared = SharedPrefix(model, _attention=model.config._attn_implementation)
    model.set_attn_implementation(attention_name(shared._attention))

    def pack(backbone: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        packed: PackedTexts | None = kwargs.get(PACKED_TEXTS)
        if packed is None:
            raise PolicyError(
                "a model that is set up for shared prefixes was given texts one by one: batches must come from "
                "PairCollator or ExampleCollator, or else call remove() on the result of share_prefix()"
            )
        shared.batches += 1
        kwargs = {name: value for name, value in kwargs.items() if name not in (PACKED_TEXTS, "attention_mask")}
        inputs = {"input_ids": packed["input_ids"], "position_ids": packed["position_ids"]}
        # Under another name than in the batch, so that the attention of a model without these hooks notices.
        return (), kwargs | inputs | {"packed_row": packed}

    def unpack(backbone: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[0, kwargs["packed_row"]["answers"]]
        return output

    backbone = model.base_model
    shared._hooks = [
        backbone.register_forward_pre_hook(pack, with_kwargs=True),
        backbone.register_forward_hook(unpack, with_kwargs=True),
    ]
    return shared
