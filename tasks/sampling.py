"""Sampling in shards."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.policy import Policy
from longreward.records import Example, Response
from longreward.sampling import SampleConfig, SamplingReport, cut_prompts, sample
from tasks.progress import progress_bar
from tasks.shards import Tell, in_shards


@dataclass(frozen=True)
class Sampled:
    """All responses, in the order of the examples."""

    responses: list[Response]
    report: SamplingReport


@dataclass(frozen=True)
class _OfOnePrompt:
    """What a shard's file holds in a line."""

    responses: list[Response]


async def sample_in_shards(
    name: str, policy: Policy, examples: Sequence[Example], config: SampleConfig, *, folder: Path
) -> Sampled:
    """Draws `config.n` responses to each example; finished shards lie in `folder`.

    Raises PolicyError, before anything is drawn, where a prompt does not fit and is not to be cut.
    """
    cut = cut_prompts(policy, examples, config)

    async def draw(shard: Sequence[Example], tell: Tell) -> Iterable[_OfOnePrompt]:
        drawn = sample(policy, shard, config, progress=lambda done, total: tell(done))
        return [_OfOnePrompt(responses) for responses in drawn]

    with progress_bar(name) as progress:
        groups = [
            group.responses
            for group in await in_shards(
                name, examples, draw, record=_OfOnePrompt, folder=folder, size=config.shard_size, progress=progress
            )
        ]
    responses = [response for group in groups for response in group]
    return Sampled(responses, SamplingReport.of(groups, cut_prompts=len(cut)))
