"""What training data becomes, and what is refused before the first step.

    Example         {"id": …, "input_ids": prompt + answer, "labels": -100 for the prompt, then the answer, "length": …}
    PreferencePair  {"id": …, "prompt_ids": …, "chosen_ids": …, "rejected_ids": …, "length": …}

TRL cuts what is longer than `max_length` at its end, where the answer is, and drops what is left empty, both without a
word. So all lengths are looked at here: nothing that is trained on is ever cut, but for a prompt's middle where
`over_window: keep_ends` allows it.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from longreward.errors import DataError, PolicyError
from longreward.models.config import OverWindow
from longreward.models.policy import PolicyTokenizer, fit_window
from longreward.records import Example, PreferencePair
from longreward.training import tokenized_rows
from longreward.training.pair_encoding import AnswerCounts, PairEncoder, TokenMismatch
from longreward.utils.progress import show_progress

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
    answers: AnswerCounts = field(default_factory=AnswerCounts)

    def figures(self) -> dict[str, float]:
        """For metrics."""
        return self.answers.figures() | {
            "examples": self.count,
            "longest": self.longest,
            "mean_length": self.mean,
            "cut_prompts": self.cut_prompts,
        }


@dataclass(frozen=True)
class TrainingData:
    """Rows for a trainer, in the order of the data: in memory, or a `datasets.Dataset` on the disk."""

    rows: Any
    lengths: Lengths


def check_examples(
    text: PolicyTokenizer,
    examples: Iterable[Example],
    *,
    max_length: int,
    over_window: OverWindow = "refuse",
    keep: Path | None = None,
) -> TrainingData:
    """Rows of prompt and answer. DataError without data or answers, PolicyError where something does not fit.

    They are written to the folder `keep`; where it holds them already, `examples` is not looked at.
    """
    found = _Found("example", max_length, over_window)
    return _checked(_example_rows(text, examples, found), found, keep)


def check_pairs(
    text: PolicyTokenizer,
    pairs: Iterable[PreferencePair],
    *,
    max_length: int,
    over_window: OverWindow = "refuse",
    token_mismatch: TokenMismatch = "refuse",
    keep: Path | None = None,
) -> TrainingData:
    """Rows of prompt, chosen and rejected. DataError without pairs, PolicyError where something does not fit.

    PolicyError also where a response would be trained on other tokens than were sampled, unless `token_mismatch` is
    `render`. They are written to the folder `keep`; where it holds them already, `pairs` is not looked at.
    """
    encoder = PairEncoder(text)
    found = _Found("pair", max_length, over_window, encoder, token_mismatch)
    return _checked(_pair_rows(encoder, pairs, found), found, keep)


@dataclass
class _Found:
    """What is seen of lengths while rows go by."""

    kind: str
    limit: int
    rule: OverWindow
    encoder: PairEncoder | None = None
    token_mismatch: TokenMismatch = "refuse"
    lengths: list[int] = field(default_factory=list)
    cut: int = 0
    refused: list[str] = field(default_factory=list)
    hopeless: list[str] = field(default_factory=list)  # whatever became of the prompt

    def fitted(self, id_: str, prompt: list[int], answer: int, said: str, *, cut: bool = False) -> list[int]:
        """The prompt, without its middle where it is too long for its answer and the rule allows it.

        `cut`: whether it has lost its middle before.
        """
        room = self.limit - answer
        fits = fit_window(prompt, room=room, rule=self.rule, name="") if self.rule != "refuse" and room >= 2 else prompt
        self.cut += cut or len(fits) < len(prompt)
        if room < 2:
            self.hopeless.append(f"  {self.kind} {id_}: {answer:,} of the {said}, {len(prompt):,} of the prompt")
        elif len(fits) > room:
            self.refused.append(f"  {self.kind} {id_}: {len(prompt):,} of the prompt and {answer:,} of the {said}")
        self.lengths.append(len(fits) + answer)
        return fits

    def checked(self) -> Lengths:
        """DataError where there was nothing, PolicyError where something did not fit."""
        if not self.lengths:
            raise DataError(f"there are no {self.kind}s to train on")
        if self.encoder is not None and self.token_mismatch == "refuse":
            self.encoder.refuse_mismatches()
        if self.hopeless:
            raise PolicyError(
                f"{len(self.hopeless)} of {len(self.lengths)} {self.kind}s have an answer that leaves no room for any "
                f"prompt in max_length, {self.limit:,} tokens: cutting the prompt cannot help; leave them out, or "
                "raise max_length (and policy.window) if the model can:\n" + _listed(self.hopeless)
            )
        if self.refused:
            raise PolicyError(
                f"{len(self.refused)} of {len(self.lengths)} {self.kind}s are longer than max_length, {self.limit:,} "
                "tokens: an answer would be cut; raise max_length if the model can, leave them out, or set over_window "
                "to keep_ends:\n" + _listed(self.refused)
            )
        mean = sum(self.lengths) / len(self.lengths)
        answers = self.encoder.counts() if self.encoder is not None else AnswerCounts()
        return Lengths(len(self.lengths), max(self.lengths), mean, self.limit, self.cut, answers)


def _listed(lines: list[str]) -> str:
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "\n".join(lines[:SHOWN]) + more


def _example_rows(text: PolicyTokenizer, examples: Iterable[Example], found: _Found) -> Iterator[tokenized_rows.Row]:
    for example in examples:
        if not (example.answer or "").strip():
            raise DataError(f"example {example.id} has no answer to train on; leave it out")
        answer = text.completion_ids(example.answer or "")
        prompt = found.fitted(example.id, text.prompt_ids(example.context, example.query), len(answer), "answer")
        ids, labels = prompt + answer, [IGNORED] * len(prompt) + answer
        yield {"id": example.id, "input_ids": ids, "labels": labels, "length": len(ids)}


def _pair_rows(encoder: PairEncoder, pairs: Iterable[PreferencePair], found: _Found) -> Iterator[tokenized_rows.Row]:
    for pair in pairs:
        ids = encoder.encode(pair)
        longer = max(len(ids.chosen), len(ids.rejected))
        prompt = found.fitted(pair.id, ids.prompt, longer, "longer answer", cut=ids.cut)
        answers = {"chosen_ids": ids.chosen, "rejected_ids": ids.rejected}
        yield {"id": pair.id, "prompt_ids": prompt, **answers, "length": len(prompt) + longer}


def _with_progress(tokenized: Iterable[tokenized_rows.Row], kind: str) -> Iterator[tokenized_rows.Row]:
    enabled = os.environ.get("RANK", "0") == "0"  # the other processes of a launched training wait for the first
    with show_progress(f"tokenizing, {kind}s", enabled=enabled) as update:
        for count, row in enumerate(tokenized, 1):
            yield row
            update(count, None)


def _checked(tokenised: Iterable[tokenized_rows.Row], found: _Found, keep: Path | None) -> TrainingData:
    tokenised = _with_progress(tokenised, found.kind)
    if keep is None:
        in_memory = list(tokenised)
        return TrainingData(in_memory, found.checked())
    with tokenized_rows.alone(keep):
        if (kept := tokenized_rows.opened(keep)) is None:
            tokenized_rows.write(keep, tokenised)
            tokenized_rows.complete(keep, asdict(found.checked()))
            kept = tokenized_rows.opened(keep)
            assert kept is not None
        noted = {**kept[1], "answers": AnswerCounts(**kept[1].get("answers", {}))}
        return TrainingData(kept[0], Lengths(**noted))
