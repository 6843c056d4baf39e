"""Sampling n responses to each prompt.

    Example --prompt ids--> n answers' ids (`longreward.models.generation`) --> n Responses, in the examples' order

Every answer has a random stream of its own, from the seed, the example's id and its number. With one prompt a batch, a
prompt's samples are the same whatever the order and the shard. Several prompts a batch are padded on the left, which
changes sums by about 1e-5 (they are added in another order): 3 of 1,000 answers of the tiny model then took another
turn, all of them long and unsure; the same batches always give the same samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from longreward.config import Config
from longreward.models.config import OverWindow
from longreward.models.generation import CacheUse, SamplingParams, generate, rng_stream
from longreward.models.policy import Policy, PolicyTokenizer, fit_window, hash_ids
from longreward.records import Example, Response


class SampleConfig(Config):
    """How responses are drawn from the policy."""

    n: int = Field(default=10, ge=1)
    """Responses to each prompt (paper, section 3.2)."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """0 takes the likeliest token each time (paper, section 3.2: 1.0)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the smallest set of tokens with at least this probability."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest answer; one that reaches it has the finish reason `length`."""
    seed: int = 0
    """Another seed gives other samples of every prompt."""
    over_window: OverWindow = "refuse"
    """A prompt too long for the policy's window: stop, or keep its first and last halves as the benchmarks do."""
    prompts_per_batch: int = Field(default=1, ge=1)
    """Prompts that are read together, of like length: a few are faster for small models and short prompts."""
    cache: CacheUse = "auto"
    """One prompt cache for all n answers, or a copy for each; auto: shared wherever the model's attention allows it."""
    shard_size: int = Field(default=50, ge=1)
    """Prompts whose responses are kept together when the stage is stopped."""


class PromptEncoder(Protocol):
    """What rendering prompts needs of a policy, whether its weights are here or at a server."""

    @property
    def window(self) -> int:
        """Most tokens of prompt and completion together."""
        ...

    def prompt_ids(self, context: str, query: str) -> list[int]:
        """The ids that the model continues."""
        ...


@dataclass(frozen=True)
class SamplingReport:
    """What was drawn; lengths are in tokens, without the end token."""

    prompts: int
    responses: int
    cut_prompts: int  # kept with their first and last halves only
    unfinished: int  # truncated at max_new_tokens
    without_token_ids: int  # from a server that returns none; training has to render them
    empty: int
    mean_tokens: float

    @classmethod
    def of(cls, groups: Iterable[Sequence[Response]], *, cut_prompts: int = 0) -> "SamplingReport":
        """Counts over the responses of each prompt."""
        listed = [list(group) for group in groups]
        responses = [response for group in listed for response in group]
        return cls(
            prompts=len(listed),
            responses=len(responses),
            cut_prompts=cut_prompts,
            unfinished=sum(response.truncated for response in responses),
            without_token_ids=sum(response.token_ids is None for response in responses),
            empty=sum(not response.text.strip() for response in responses),
            mean_tokens=sum(response.tokens or 0 for response in responses) / max(len(responses), 1),
        )

    def figures(self) -> dict[str, float]:
        """For metrics."""
        return {name: float(value) for name, value in vars(self).items()}


def sample(
    policy: Policy,
    examples: Sequence[Example],
    config: SampleConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[list[Response]]:
    """Yields the `config.n` responses to each example, in the order of `examples`.

    `progress(done, total)` counts prompts. PolicyError, before anything is drawn, where a prompt does not fit and
    `over_window` is refuse.
    """
    prompts = [encode_prompt(policy, example, config)[0] for example in examples]
    done = 0
    for block in _blocks(len(examples), config.prompts_per_batch * 8):
        by_length = sorted(block, key=lambda index: len(prompts[index]))
        found: dict[int, list[Response]] = {}
        for batch in _blocks(len(by_length), config.prompts_per_batch):
            chosen = [by_length[place] for place in batch]
            answers = _draw(policy, [prompts[i] for i in chosen], [examples[i].id for i in chosen], config)
            for i, ids in zip(chosen, answers, strict=True):
                found[i] = _responses(policy, examples[i], prompts[i], ids)
            done += len(chosen)
            if progress is not None:
                progress(done, len(examples))
        yield from (found[index] for index in block)


def truncated_prompts(policy: PromptEncoder, examples: Iterable[Example], config: SampleConfig) -> list[str]:
    """The ids of the examples whose prompts will be cut to fit; PolicyError under `refuse`, naming the first."""
    return [example.id for example in examples if encode_prompt(policy, example, config)[1]]


def encode_prompt(policy: PromptEncoder, example: Example, config: SampleConfig) -> tuple[list[int], bool]:
    """The ids that an answer continues, and whether they were cut; PolicyError under `refuse`, naming the example."""
    ids = policy.prompt_ids(example.context, example.query)
    room = policy.window - config.max_new_tokens
    fitted = fit_window(ids, room=room, rule=config.over_window, name=example.id)
    return fitted, len(fitted) < len(ids)


def _blocks(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _responses(policy: Policy, example: Example, prompt: list[int], answers: list[list[int]]) -> list[Response]:
    name = hash_ids(prompt)
    return [
        response_from_ids(policy.text, example, number, ids, prompt_tokens=len(prompt), prompt_hash=name)
        for number, ids in enumerate(answers)
    ]


def response_from_ids(
    text: PolicyTokenizer,
    example: Example,
    number: int,
    ids: Sequence[int],
    *,
    prompt_tokens: int | None,
    prompt_hash: str | None,
) -> Response:
    """The response that these sampled ids are, with the end token where there is one."""
    ended = bool(ids) and ids[-1] in text.end_ids
    return Response(
        id=f"{example.id}-{number}",
        example_id=example.id,
        query=example.query,
        text=text.decode(ids),
        tokens=len(ids) - ended,
        finish_reason="stop" if ended else "length",
        token_ids=tuple(ids),
        prompt_tokens=prompt_tokens,
        prompt_hash=prompt_hash,
    )


def _draw(policy: Policy, prompts: list[list[int]], names: list[str], config: SampleConfig) -> list[list[list[int]]]:
    """The ids of n answers to each prompt, with the end token where there is one."""
    streams = [rng_stream(config.seed, name, k, config.max_new_tokens) for name in names for k in range(config.n)]
    drawing = SamplingParams(config.temperature, top_p=config.top_p, n=config.n, cache=config.cache)
    return generate(policy, prompts, streams, drawing)
