"""Sampling in shards."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.models.sampling import SampleConfig, SamplingReport, sample, truncated_prompts
from longreward.models.served_policy import ServedPolicy, check_truncated_chats, sample_served
from longreward.records import Example, Response
from longreward.tasks.policy_server import AnyPolicy
from longreward.tasks.shards import OnProgress, run_in_shards
from longreward.tasks.workers.cluster import RemotePolicy
from longreward.utils.progress import show_progress

log = logging.getLogger(__name__)


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
    name: str, policy: AnyPolicy | RemotePolicy, examples: Sequence[Example], config: SampleConfig, *, folder: Path
) -> Sampled:
    """Draws `config.n` responses to each example; finished shards lie in `folder`.

    Raises PolicyError, before anything is drawn, where a prompt does not fit and is not to be cut. At a server two
    shards are drawn at once, so that it is still busy while the last answers of one come in; with workers, one each.
    """
    cut = truncated_prompts(policy, examples, config)
    distant = isinstance(policy, RemotePolicy)
    if isinstance(policy, RemotePolicy):
        policy.check_truncated(cut)
    elif isinstance(policy, ServedPolicy):
        check_truncated_chats(policy, cut)

    async def draw(shard: Sequence[Example], tell: OnProgress) -> Iterable[_OfOnePrompt]:
        drawn: Iterable[list[Response]]
        if isinstance(policy, RemotePolicy):
            drawn = await policy.sample(name, shard, config)
        elif isinstance(policy, ServedPolicy):
            drawn = await sample_served(policy, shard, config, progress=tell)
        else:
            drawn = sample(policy, shard, config, progress=tell)
        return [_OfOnePrompt(responses) for responses in drawn]

    with show_progress(name) as progress:
        groups = [
            group.responses
            for group in await run_in_shards(
                name,
                examples,
                draw,
                record=_OfOnePrompt,
                folder=folder,
                size=config.shard_size,
                at_once=_at_once(policy),
                elsewhere=distant,
                progress=progress,
            )
        ]
    _warn_of_copies(groups, config)
    responses = [response for group in groups for response in group]
    return Sampled(responses, SamplingReport.from_responses(groups, truncated_prompts=len(cut)))


def _warn_of_copies(groups: Sequence[Sequence[Response]], config: SampleConfig) -> None:
    """Servers that do not heed a temperature give one answer n times, from which no pair can be made."""
    alike = all(len({response.text for response in group}) == 1 for group in groups)
    if alike and len(groups) > 2 and config.n > 1 and config.temperature > 0:
        log.warning(
            "all %d answers to each prompt are alike at temperature %g: the server seems to ignore it (a model for "
            "`transformers serve` needs do_sample: true in its generation_config.json)",
            config.n,
            config.temperature,
        )


def _at_once(policy: AnyPolicy | RemotePolicy) -> int:
    if isinstance(policy, RemotePolicy):
        return policy.capacity
    return 2 if isinstance(policy, ServedPolicy) else 1
