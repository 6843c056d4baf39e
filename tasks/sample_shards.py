"""Sample responses in shards."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from longreward.models.sampling import SampleConfig, SamplingReport, sample, truncated_prompts
from longreward.models.served_policy import ServedPolicy, check_truncated_chats, sample_served
from longreward.records import Example, Response
from longreward.tasks.policy_server import AnyPolicy
from longreward.tasks.shards import OnProgress, run_in_shards
from longreward.tasks.workers.cluster import RemotePolicy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampled:
    """All responses, grouped by prompt in the order of the examples; they are read from the shards on access."""

    groups: Sequence[list[Response]]
    report: SamplingReport

    @property
    def responses(self) -> Iterator[Response]:
        """The responses, one after another."""
        return chain.from_iterable(self.groups)


async def sample_in_shards(
    name: str, policy: AnyPolicy | RemotePolicy, examples: Sequence[Example], *configs: SampleConfig, folder: Path
) -> Sampled:
    """Sample `n` responses to each example; files of finished shards are in `folder`.

    With several `configs`, which differ in `n` and `temperature` only, the groups hold the responses of one after
    another. Raises PolicyError, before anything is sampled, if a prompt does not fit and must not be truncated.
    """
    config = configs[0]
    truncated = truncated_prompts(policy, examples, config)
    # Two shards at a server, so that it is busy while the last responses of one come in.
    concurrency = policy.capacity if isinstance(policy, RemotePolicy) else 2 if isinstance(policy, ServedPolicy) else 1
    if isinstance(policy, RemotePolicy):
        policy.check_truncated(truncated)
    elif isinstance(policy, ServedPolicy):
        check_truncated_chats(policy, truncated)

    async def sample_shard(shard: Sequence[Example], on_progress: OnProgress) -> Iterable[list[Response]]:
        if isinstance(policy, RemotePolicy):
            return await policy.sample(name, shard, *configs)  # of the stage `sample`, which has one
        if isinstance(policy, ServedPolicy):
            return await _sample_served(policy, shard, configs, on_progress)
        return sample(policy, shard, *configs, progress=on_progress)

    groups = await run_in_shards(
        name,
        examples,
        sample_shard,
        record=list[Response],
        folder=folder,
        size=config.shard_size,
        concurrency=concurrency,
        remote=isinstance(policy, RemotePolicy),
    )
    report = SamplingReport.from_responses(groups, truncated_prompts=len(truncated))
    # A server may ignore the temperature: no pair can be made from n identical responses.
    if (
        report.prompts > 2
        and any(own.n > 1 and own.temperature > 0 for own in configs)
        and all(len({response.text for response in group}) == 1 for group in groups)
    ):
        log.warning(
            "all %d answers to each prompt are alike at temperature %g: the server seems to ignore it (a model for "
            "`transformers serve` needs do_sample: true in its generation_config.json)",
            max(own.n for own in configs),
            max(own.temperature for own in configs),
        )
    return Sampled(groups, report)


async def _sample_served(
    policy: ServedPolicy, examples: Sequence[Example], configs: Sequence[SampleConfig], on_progress: OnProgress
) -> list[list[Response]]:
    def on_config(number: int) -> OnProgress:
        return lambda done: on_progress((number * len(examples) + done) // len(configs))

    by_config = [
        await sample_served(policy, examples, config, progress=on_config(number))
        for number, config in enumerate(configs)
    ]
    return [[*chain.from_iterable(groups)] for groups in zip(*by_config, strict=True)]
