"""What training data becomes, and what is refused before the first step.

    Example         {"input_ids": prompt + answer, "labels": -100 for the prompt, then the answer, "length": …}
    PreferencePair  {"prompt_ids": …, "chosen_ids": …, "rejected_ids": …, "length": …}

TRL cuts what is longer than `max_length` at its end, where the answer is, and drops what is left empty, both without a
word. So all lengths are looked at here: nothing that is trained on is ever cut, but for a prompt's middle where
`over_window: keep_ends` allows it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from longreward.errors import DataError, PolicyError
from longreward.policy import OverWindow, PolicyTokenizer, fit_window
from longreward.records import Example, PreferencePair

SHOWN = 5
IGNORED = -100  # torch's label of a token without loss


@dataclass(frozen=True)
class Lengths:
    """What was found; lengths count the tokens of a prompt with its (longer) answer."""

    count: int
    longest: int
    mean: float
    limit: int
    cut_prompts: int

    def figures(self) -> dict[str, float]:
        """For metrics."""
        return {
            "examples": self.count,
            "longest": self.longest,
            "mean_length": self.mean,
            "cut_prompts": self.cut_prompts,
        }


@dataclass(frozen=True)
class TrainingData:
    """Rows for a trainer, in the order of the data."""

    rows: list[dict[str, Any]]
    lengths: Lengths


def check_examples(
    text: PolicyTokenizer, examples: Iterable[Example], *, max_length: int, over_window: OverWindow = "refuse"
) -> TrainingData:
    """Rows of prompt and answer. DataError without data or answers, PolicyError where something does not fit."""
    rows, cut, refused = [], 0, []
    for example in examples:
        if not (example.answer or "").strip():
            raise DataError(f"example {example.id} has no answer to train on; leave it out")
        answer = text.completion_ids(example.answer or "")
        prompt = text.prompt_ids(example.context, example.query)
        whole, prompt = len(prompt), _fit(prompt, max_length - len(answer), over_window)
        cut += len(prompt) < whole
        if len(prompt) + len(answer) > max_length:
            refused.append(f"  example {example.id}: {whole:,} of the prompt and {len(answer):,} of the answer")
        labels = [IGNORED] * len(prompt) + answer
        rows.append({"input_ids": prompt + answer, "labels": labels, "length": len(labels)})
    return _checked(rows, cut, refused, max_length, "examples")


def check_pairs(
    text: PolicyTokenizer, pairs: Iterable[PreferencePair], *, max_length: int, over_window: OverWindow = "refuse"
) -> TrainingData:
    """Rows of prompt, chosen and rejected. DataError without pairs, PolicyError where something does not fit."""
    rows, cut, refused = [], 0, []
    for pair in pairs:
        chosen, rejected = text.completion_ids(pair.chosen.text), text.completion_ids(pair.rejected.text)
        longer = max(len(chosen), len(rejected))
        prompt = text.prompt_ids(pair.context, pair.query)
        whole, prompt = len(prompt), _fit(prompt, max_length - longer, over_window)
        cut += len(prompt) < whole
        if len(prompt) + longer > max_length:
            refused.append(f"  pair {pair.id}: {whole:,} of the prompt and {longer:,} of the longer answer")
        rows.append(
            {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "length": len(prompt) + longer}
        )
    return _checked(rows, cut, refused, max_length, "pairs")


def _fit(prompt: list[int], room: int, rule: OverWindow) -> list[int]:
    return fit_window(prompt, room=room, rule=rule, name="") if rule == "keep_ends" and room >= 2 else prompt


def _checked(rows: list[dict[str, Any]], cut: int, refused: Sequence[str], max_length: int, what: str) -> TrainingData:
    if not rows:
        raise DataError(f"there are no {what} to train on")
    if refused:
        more = f"\n  and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        raise PolicyError(
            f"{len(refused)} of {len(rows)} {what} are longer than max_length, {max_length:,} tokens: an answer would "
            "be cut; raise max_length if the model can, leave them out, or set over_window to keep_ends:\n"
            + "\n".join(refused[:SHOWN])
            + more
        )
    lengths = [row["length"] for row in rows]
    return TrainingData(rows, Lengths(len(rows), max(lengths), sum(lengths) / len(rows), max_length, cut))
