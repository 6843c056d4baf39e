"""DPO that computes each prompt once: a pair is one row, in which both responses follow the same prompt.

    stock      [prompt | chosen  ]        packed   [prompt | chosen | rejected]
               [prompt | rejected]                  0 … P-1  P …      P …        positions

With a prompt of P tokens and responses of C and R, a pair costs P + C + R tokens instead of 2 (P + max(C, R)). Each
token attends to the same tokens as in its own text (attention.py), so log-probabilities and gradients are the same.

`DPOTrainer` is not changed. The collator gives it the responses only, each after the last token of its prompt, and one
more key that passes through the trainer to the model's backbone. There, hooks replace the responses by the packed rows,
and return the hidden states at the responses' positions. So the LM head, the losses and the metrics work on responses,
which is all that DPO scores.

    share_prefix(model)
    DPOTrainer(model, data_collator=PairCollator(tokenizer.pad_token_id), peft_config=lora, …)

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
from longreward.training.prefix.attention import PairLengths, attention_name

PACKED_PAIRS = "packed_pairs"


@dataclass(frozen=True)
class PairCollator:
    """Collates rows with `prompt_ids`, `chosen_ids`, `rejected_ids`, none of them empty; nothing is truncated.

    For B pairs: `input_ids` and `completion_mask` [2B, 1 + longest response], the chosen responses before the rejected
    ones; `attention_mask` [2B, longest text], from which the trainer counts tokens; `packed_pairs`, with `input_ids`
    [B, longest row] and `lengths`, one PairLengths a pair; `ref_chosen_logps`, `ref_rejected_logps` where rows have
    them.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        texts = [(row["prompt_ids"], row[column]) for column in ("chosen_ids", "rejected_ids") for row in rows]
        packed = [[*row["prompt_ids"], *row["chosen_ids"], *row["rejected_ids"]] for row in rows]
        batch: dict[str, Any] = {
            # The hidden state of the prompt's last token predicts the first token of the response.
            "input_ids": _pad([[prompt[-1], *response] for prompt, response in texts], self.pad_token_id),
            "completion_mask": _pad([[0] + [1] * len(response) for _, response in texts], 0),
            "attention_mask": _pad([[1] * (len(prompt) + len(response)) for prompt, response in texts], 0),
            PACKED_PAIRS: {
                "input_ids": _pad(packed, self.pad_token_id),
                "lengths": tuple(
                    (len(row["prompt_ids"]), len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows
                ),
            },
        }
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch


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
    """Make a causal language model of transformers, without any adapter, accept batches of PairCollator only."""
    shared = SharedPrefix(model, _attention=model.config._attn_implementation)
    model.set_attn_implementation(attention_name(shared._attention))

    def pack(backbone: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if PACKED_PAIRS not in kwargs:
            raise PolicyError(
                "a model that is set up for shared prefixes was given texts one by one: batches must come from "
                "PairCollator, or else call remove() on the result of share_prefix()"
            )
        shared.batches += 1
        packed = kwargs[PACKED_PAIRS]
        replaced = (PACKED_PAIRS, "input_ids", "attention_mask")
        kwargs = {name: value for name, value in kwargs.items() if name not in replaced}
        rows, lengths = packed["input_ids"], packed["lengths"]
        kwargs |= {
            "input_ids": rows,
            "position_ids": row_positions(lengths, rows.shape[1], rows.device),
            "pair_lengths": lengths,
        }
        if "longest_pair" in packed:  # of a self-check
            kwargs["longest_pair"] = packed["longest_pair"]
        return (), kwargs

    def unpack(backbone: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        hidden = output.last_hidden_state
        indices = response_indices(kwargs["pair_lengths"], hidden.device)
        # TRL splits the batch in the middle: all chosen responses come before all rejected ones.
        rows = torch.arange(len(hidden), device=hidden.device).repeat(2)
        output.last_hidden_state = hidden[rows[:, None], indices]
        return output

    backbone = model.base_model
    shared._hooks = [
        backbone.register_forward_pre_hook(pack, with_kwargs=True),
        backbone.register_forward_hook(unpack, with_kwargs=True),
    ]
    return shared


def row_positions(lengths: Sequence[PairLengths], width: int, device: torch.device) -> Tensor:
    """Return the position ids of packed rows, [pairs, width]: the rejected response starts behind the prompt again."""
    positions = torch.zeros(len(lengths), width, dtype=torch.long, device=device)
    for row, (prompt, chosen, rejected) in zip(positions, lengths, strict=True):
        chosen_end, rejected_end = prompt + chosen, prompt + chosen + rejected
        row[:chosen_end] = torch.arange(chosen_end, device=device)
        row[chosen_end:rejected_end] = torch.arange(prompt, prompt + rejected, device=device)
    return positions


def response_indices(lengths: Sequence[PairLengths], device: torch.device) -> Tensor:
    """Return where a packed row has the prompt's last token and each response: [2 * pairs, 1 + longest response]."""
    chosen_indices = [[prompt - 1, *range(prompt, prompt + chosen)] for prompt, chosen, _ in lengths]
    rejected_indices = [
        [prompt - 1, *range(prompt + chosen, prompt + chosen + rejected)] for prompt, chosen, rejected in lengths
    ]
    return _pad(chosen_indices + rejected_indices, 0).to(device)
