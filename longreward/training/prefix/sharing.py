"""DPO that reads each long prompt once: a pair is one row, whose two answers share the prompt before them.

    stock      [prompt | chosen  ]        packed   [prompt | chosen | rejected]
               [prompt | rejected]                  0 … P-1  P …      P …        positions

With a prompt of P tokens and answers of C and R, a pair costs P + C + R tokens instead of 2 (P + max(C, R)). Each token
still sees what it would see alone (attention.py), so log-probabilities and gradients are the same.

`DPOTrainer` knows nothing of it. The collator hands it the answers alone, each behind the last token of its prompt, and
one more key that passes through the trainer to the model's backbone; there the hooks put the packed rows in place of
the answers, and hand back the hidden states at the answers' places. So the LM head, the losses and the metrics work on
answers, which is all that DPO scores.

    share_prefix(model)
    DPOTrainer(model, data_collator=PairCollator(tokenizer.pad_token_id), peft_config=lora, …)

Traps: give `peft_config`, no ready PeftModel, whose reference would be a copy of its adapter; a reference model of its
own needs `share_prefix` too (one that the trainer loads without it raises PolicyError at its first batch).

Imports torch and transformers at its top, so import it only where a training starts.
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
    """Batches of rows with `prompt_ids`, `chosen_ids`, `rejected_ids`, none of them empty; nothing is cut.

    For B pairs: `input_ids` and `completion_mask` [2B, 1 + longest answer], the chosen answers before the rejected
    ones; `attention_mask` [2B, longest text], from which the trainer counts tokens; `packed_pairs`, with `input_ids`
    [B, longest row] and `lengths`, one PairLengths a pair; `ref_chosen_logps`, `ref_rejected_logps` where rows have
    them.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        sides = [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
        packed = [[*row["prompt_ids"], *row["chosen_ids"], *row["rejected_ids"]] for row in rows]
        batch: dict[str, Any] = {
            "input_ids": self._padded([[prompt[-1], *answer] for prompt, answer in sides], self.pad_token_id),
            "completion_mask": self._padded([[0] + [1] * len(answer) for _, answer in sides], 0),
            "attention_mask": self._padded([[1] * (len(prompt) + len(answer)) for prompt, answer in sides], 0),
            PACKED_PAIRS: {
                "input_ids": self._padded(packed, self.pad_token_id),
                "lengths": tuple(
                    (len(row["prompt_ids"]), len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows
                ),
            },
        }
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch

    def _padded(self, rows: list[list[int]], filler: int) -> Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filler)


@dataclass
class SharedPrefix:
    """What `share_prefix` set up; `packed` counts the batches that passed the model packed."""

    model: Any
    packed: int = 0
    _attention: str = ""
    _hooks: list[Any] = field(default_factory=list)

    def remove(self) -> None:
        """Makes the model what it was."""
        for hook in self._hooks:
            hook.remove()
        self.model.set_attn_implementation(self._attention)


def share_prefix(model: Any) -> SharedPrefix:
    """Sets up a causal language model of transformers, bare of any adapter, for batches of PairCollator alone."""
    shared = SharedPrefix(model, _attention=model.config._attn_implementation)
    model.set_attn_implementation(attention_name(shared._attention))

    def pack(backbone: Any, positional: Any, named: dict[str, Any]) -> Any:
        if PACKED_PAIRS not in named:
            raise PolicyError(
                "a model that is set up for shared prefixes was given texts one by one: batches must come from "
                "PairCollator, or else call remove() on what share_prefix() gave"
            )
        shared.packed += 1
        pairs = named[PACKED_PAIRS]
        own = {
            name: value for name, value in named.items() if name not in (PACKED_PAIRS, "input_ids", "attention_mask")
        }
        rows, lengths = pairs["input_ids"], pairs["lengths"]
        positions = _positions(lengths, rows.shape[1], rows.device)
        named = {**own, "input_ids": rows, "position_ids": positions, "pair_lengths": lengths}
        return (), named | {name: pairs[name] for name in ("longest_pair",) if name in pairs}

    def unpack(backbone: Any, positional: Any, named: dict[str, Any], output: Any) -> Any:
        hidden = output.last_hidden_state
        places = _answers(named["pair_lengths"], hidden.device)
        rows = torch.arange(len(hidden), device=hidden.device).repeat(2)
        output.last_hidden_state = hidden[rows[:, None], places]
        return output

    backbone = model.base_model
    shared._hooks = [
        backbone.register_forward_pre_hook(pack, with_kwargs=True),
        backbone.register_forward_hook(unpack, with_kwargs=True),
    ]
    return shared


def _positions(lengths: Sequence[PairLengths], longest: int, device: torch.device) -> Tensor:
    """[pairs, longest row]: the rejected answer's positions start again behind the prompt."""
    positions = torch.zeros(len(lengths), longest, dtype=torch.long, device=device)
    for row, (prompt, chosen, rejected) in zip(positions, lengths, strict=True):
        first, end = prompt + chosen, prompt + chosen + rejected
        row[:first] = torch.arange(first, device=device)
        row[first:end] = torch.arange(prompt, prompt + rejected, device=device)
    return positions


def _answers(lengths: Sequence[PairLengths], device: torch.device) -> Tensor:
    """[2 * pairs, 1 + longest answer]: where in its row each side has its prompt's last token and its answer."""
    chosen_sides = [[prompt - 1, *range(prompt, prompt + chosen)] for prompt, chosen, _ in lengths]
    rejected_sides = [
        [prompt - 1, *range(prompt + chosen, prompt + chosen + rejected)] for prompt, chosen, rejected in lengths
    ]
    sides = [torch.tensor(side) for side in (*chosen_sides, *rejected_sides)]
    return pad_sequence(sides, batch_first=True).to(device)
