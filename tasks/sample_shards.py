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
    """All responses, grouped by prompt in the order of the examples; each iteration reads them from the shards."""

    groups: Iterable[list[Response]]
    report: SamplingReport

    @property
    def responses(self) -> Iterator[Response]:
        """The responses, one after another."""
        return chain.from_iterable(self.groups)


async def sample_in_shards(
    name: str, policy: AnyPolicy | RemotePolicy, examples: Sequence[Example], config: SampleConfig, *, folder: Path
) -> Sampled:
    """Sample `config.n` responses to each example; files of finished shards are in `folder`.

    Raises PolicyError, before anything is sampled, if a prompt does not fit and must not be truncated.
    """
    truncated = truncated_prompts(policy, examples, config)
    # Two shards at a server, so that it is busy while the last responses of one come in.
    concurrency = policy.capacity if isinstance(policy, RemotePolicy) else 2 if isinstance(policy, ServedPolicy) else 1
    if isinstance(policy, RemotePolicy):
        policy.check_truncated(truncated)
    elif isinstance(policy, ServedPolicy):
        check_truncated_chats(policy, truncated)

    async def sample_shard(shard: Sequence[Example], on_progress: OnProgress) -> Iterable[list[Response]]:
        if isinstance(policy, RemotePolicy):
            return await policy.sample(name, shard, config)
        if isinstance(policy, ServedPolicy):
            return await sample_served(policy, shard, config, progress=on_progress)
        return sample(policy, shard, config, progress=on_progress)

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
        and config.n > 1
        and config.temperature > 0
        and all(len({response.text for response in group}) == 1 for group in groups)
    ):
        log.warning(
            "all %d answers to each prompt are alike at temperature %g: the server seems to ignore it (a model for "
            "`transformers serve` needs do_sample: true in its generation_config.json)",
            config.n,
            config.temperature,
        )
    return Sampled(groups, report)
