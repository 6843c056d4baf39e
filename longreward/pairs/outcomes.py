"""Outcomes of pair making: a pair, or the reason why a prompt has none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from longreward.pairs.config import SelectionConfig
from longreward.records import Example, PreferencePair, Response

NoPairReason = Literal[
    "no responses",
    "too few scored responses",
    "best and worst tie",
    "margin too small",
    "needs the full strategy",
    "all responses are truncated",
    "only truncated responses are better",
    "all responses are the same",
    "no answer of its own",
    "its own answer was sampled",
    "judges disagree",
    "excluded",
]


@dataclass(frozen=True)
class NoPair:
    """A prompt without a pair, and the reason."""

    example_id: str
    reason: NoPairReason
    responses: int
    scored: int
    """Responses that take part: scored in all dimensions with a weight, or left open by adaptive scoring."""
    margin: float | None


Outcome = PreferencePair | NoPair


def sampling_order(config: SelectionConfig, responses: Iterable[Response]) -> list[Response]:
    """Return the responses that take part, in sampling order."""
    return sorted(responses, key=lambda response: response.number)[: config.responses]


def can_be_chosen(config: SelectionConfig, responses: Iterable[Response]) -> list[bool]:
    """Return which responses may be the chosen one."""
    # `truncated` is False for published responses, whose finish reason is unknown.
    return [config.choose_truncated or not response.truncated for response in responses]


def reason_without_pair(config: SelectionConfig, responses: Sequence[Response]) -> NoPairReason | None:
    """Return why these responses cannot give a pair, whatever their quality; for methods without rewards."""
    if len(responses) < config.min_scored:
        return "too few scored responses" if responses else "no responses"
    if not any(can_be_chosen(config, responses)):
        return "all responses are truncated"
    if len({response.text for response in responses}) < 2:
        return "all responses are the same"
    return None


def make_no_pair(example: Example, reason: NoPairReason, responses: Sequence[Response]) -> NoPair:
    """Return the outcome of a method that counts all responses as scored."""
    return NoPair(example.id, reason, len(responses), len(responses), None)


def make_pair(
    example: Example,
    chosen: Response,
    rejected: Response,
    *,
    method: str,
    rewards: tuple[float | None, float | None] = (None, None),
) -> PreferencePair:
    """Return the pair; `rewards` are those of the chosen and the rejected response, if the method has any."""
    return PreferencePair(
        id=example.id,
        context=example.context,
        query=example.query,
        chosen=chosen,
        rejected=rejected,
        chosen_reward=rewards[0],
        rejected_reward=rewards[1],
        method=method,
    )
