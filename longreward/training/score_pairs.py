"""Pairs for a reward model from the scores of a run: the better and the worse of two responses to one prompt.

Prompts are split by document, so that held-out ones are about documents that the reward model has not seen. Responses
whose score is only bounded (`score.strategy: adaptive`) are in a pair where the bounds say which one is better.
"""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from longreward.data.formats import read_examples, read_scored
from longreward.errors import DataError
from longreward.evaluation.measures import GoldMeasures, gold_reward
from longreward.records import Bounds, Dimension, Example, Response


@dataclass(frozen=True)
class ScoredPrompt:
    """A prompt with its responses and their scores: bounds from 0 to 10, equal where the score is known."""

    example: Example
    responses: tuple[Response, ...]
    """With different texts."""
    bounds: tuple[Bounds, ...]


@dataclass(frozen=True)
class ScorePair:
    """The indices of two responses to a prompt, and the least difference of their scores."""

    chosen: int
    rejected: int
    difference: float


def read_scored_prompts(data: Path, scores: Sequence[Path], weights: Mapping[Dimension, float]) -> list[ScoredPrompt]:
    """Read the prompts of `data` that have at least two different scored responses, in their order.

    Responses without a score in a dimension with a weight are left out. DataError for a response without its example,
    and where no prompt is left.
    """
    by_example: dict[str, dict[str, tuple[Response, Bounds]]] = {}
    for file in scores:
        for scored in read_scored(file):
            if (bounds := scored.reward_bounds(weights)) is not None:
                texts = by_example.setdefault(scored.response.example_id, {})
                texts.setdefault(scored.response.text, (scored.response, bounds))
    prompts = []
    for example in read_examples(data):
        responses = by_example.pop(example.id, {}).values()
        if len(responses) > 1:
            prompts.append(ScoredPrompt(example, *zip(*responses, strict=True)))
    names = ", ".join(map(str, scores))
    if by_example:
        raise DataError(f"{names}: {len(by_example)} prompts, such as {next(iter(by_example))}, are not in {data}")
    if not prompts:
        raise DataError(f"{names}: no prompt has two different responses with scores; score some responses first")
    return prompts


def label_by_gold(prompts: Iterable[ScoredPrompt], gold: GoldMeasures) -> list[ScoredPrompt]:
    """Return the prompts with gold rewards in place of scores. DataError for a prompt without gold facts."""

    def reward(response: Response) -> float:
        measures = gold(response.example_id, response.text)
        if measures is None:
            raise DataError(
                f"example {response.example_id} has no gold facts, which distill.labels: gold needs; name the file of "
                "these examples with --gold, or set distill.labels to judge"
            )
        return gold_reward(measures)

    return [
        replace(prompt, bounds=tuple((value, value) for value in map(reward, prompt.responses))) for prompt in prompts
    ]


def split_by_document(
    prompts: Iterable[ScoredPrompt], *, heldout_share: float, seed: int
) -> tuple[list[ScoredPrompt], list[ScoredPrompt]]:
    """Return the prompts to train on and the held-out ones, which share no document.

    DataError with fewer than two documents.
    """
    by_document: dict[str, list[ScoredPrompt]] = {}
    for prompt in prompts:
        by_document.setdefault(prompt.example.document_id, []).append(prompt)
    if len(by_document) < 2:
        raise DataError(
            f"the scores are about {len(by_document)} document, and a reward model is tested on documents that it was "
            "not trained on: score responses to prompts about at least two"
        )
    order = sorted(by_document, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    count = min(max(1, round(heldout_share * len(order))), len(order) - 1)
    heldout, training = order[:count], order[count:]
    return [p for name in training for p in by_document[name]], [p for name in heldout for p in by_document[name]]


def select_pairs(prompt: ScoredPrompt, *, min_margin: float, most: int | None, seed: int) -> list[ScorePair]:
    """Return up to `most` random pairs (None: all) whose scores differ by at least `min_margin`, and at all.

    >>> example = Example(id="7", document_id="7", context="c", query="q")
    >>> texts = [Response(id=f"7-{n}", example_id="7", query="q", text=str(n)) for n in range(3)]
    >>> prompt = ScoredPrompt(example, tuple(texts), ((5.0, 5.0), (8.0, 9.0), (4.0, 8.0)))
    >>> select_pairs(prompt, min_margin=0.0, most=None, seed=0)  # the bounds of the third overlap with both others
    [ScorePair(chosen=1, rejected=0, difference=3.0)]
    """
    pairs = []
    for first, second in combinations(range(len(prompt.responses)), 2):
        for chosen, rejected in ((first, second), (second, first)):
            difference = prompt.bounds[chosen][0] - prompt.bounds[rejected][1]
            if difference > 0 and difference >= min_margin:
                pairs.append(ScorePair(chosen, rejected, difference))
    if most is None or len(pairs) <= most:
        return pairs
    return random.Random(f"{seed}-{prompt.example.id}").sample(pairs, most)
