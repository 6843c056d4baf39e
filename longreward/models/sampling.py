"""Sampling of n responses to each prompt with a model in this process.

    Example --prompt ids--> n responses as ids (generation.py) --> n Responses, in the order of the examples

Every response has its own random stream, derived from the seed, the example's id and the response's number. With one
prompt per batch, the samples of a prompt do not depend on order or shard. Batches of several prompts are padded on the
left, which changes sums by about 1e-5: 3 of 1,000 responses of the tiny model then differed, all of them long and
uncertain. The same batches always give the same samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from longreward.config import Config
from longreward.models.config import OverWindow
from longreward.models.generation import CacheMode, SamplingParams, generate, rng_stream
from longreward.models.policy import Policy, PolicyTokenizer, fit_window, hash_ids
from longreward.records import Example, Response

# Batches are formed from this many prompts sorted by length, so that the prompts of a batch have similar lengths.
BATCHES_PER_BLOCK = 8


class SampleConfig(Config):
    """How responses are sampled from the policy."""

    n: int = Field(default=10, ge=1)
    """Responses per prompt (paper, section 3.2)."""
    temperature: float = Field(default=1.0, ge=0, le=10)
    """0: greedy decoding (paper, section 3.2: 1.0)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the smallest set of tokens with at least this probability."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Maximum length of a response. One that reaches it has the finish reason `length`."""
    seed: int = 0
    """Random seed. Another seed gives other samples of every prompt."""
    over_window: OverWindow = "refuse"
    """A prompt that exceeds the policy's window: stop (refuse), or keep its first and last halves (keep_ends)."""
    prompts_per_batch: int = Field(default=1, ge=1)
    """Prompts of similar length that are read together. A few are faster for small models and short prompts."""
    cache: CacheMode = "auto"
    """One KV cache of the prompt for all n responses (shared), or a copy for each (repeated). auto: shared if the
    model's attention allows it."""
    shard_size: int = Field(default=50, ge=1)
    """Prompts per shard. Finished shards are kept if the stage is stopped."""


class PromptEncoder(Protocol):
    """What encoding a prompt needs of a policy, whether its weights are in this process or at a server."""

    @property
    def window(self) -> int:
        """Maximum number of prompt and completion tokens together."""
        ...

    @property
    def window_advice(self) -> str:
        """How to get a larger window, for messages."""
        ...

    @property
    def encoder(self) -> PolicyTokenizer:
        """Tokenizer, chat template and prompt template."""
        ...


@dataclass(frozen=True)
class SamplingReport:
    """Counts over all sampled responses; lengths are in tokens, without the end token."""

    prompts: int
    responses: int
    truncated_prompts: int  # reduced to their first and last halves
    truncated_responses: int  # stopped at max_new_tokens
    without_token_ids: int  # from a server that returns no token ids; training has to encode these responses
    empty: int
    mean_tokens: float

    @classmethod
    def from_responses(cls, groups: Iterable[Sequence[Response]], *, truncated_prompts: int = 0) -> "SamplingReport":
        """Count the responses, grouped by prompt."""
        prompts = responses = truncated = without_ids = empty = tokens = 0
        for group in groups:
            prompts += 1
            responses += len(group)
            truncated += sum(response.truncated for response in group)
            without_ids += sum(response.token_ids is None for response in group)
            empty += sum(not response.text.strip() for response in group)
            tokens += sum(response.tokens or 0 for response in group)
        return cls(
            prompts=prompts,
            responses=responses,
            truncated_prompts=truncated_prompts,
            truncated_responses=truncated,
            without_token_ids=without_ids,
            empty=empty,
            mean_tokens=tokens / max(responses, 1),
        )

    def metrics(self) -> dict[str, float]:
        """Return the counts as metrics."""
        return {name: float(value) for name, value in vars(self).items()}


def sample(
    policy: Policy,
    examples: Sequence[Example],
    *configs: SampleConfig,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[list[Response]]:
    """Yield the `n` responses to each example, in the order of `examples`.

    Each prompt is read once for several `configs`, which differ in `n` and `temperature` only; their responses follow
    one another. `progress` receives the number of finished prompts. Raises PolicyError, before anything is sampled, if
    a prompt does not fit into the window and `over_window` is "refuse".
    """
    config = configs[0]
    prompts = [encode_prompt(policy, example, config)[0] for example in examples]
    # A response's random numbers depend on its number among those of its own config.
    numbers = [number for own in configs for number in range(own.n)]
    temperatures = tuple(own.temperature for own in configs for _ in range(own.n))
    temperature = temperatures if len(configs) > 1 else config.temperature
    params = SamplingParams(temperature, top_p=config.top_p, n=len(numbers), cache=config.cache)
    done = 0
    for block in _ranges(len(examples), config.prompts_per_batch * BATCHES_PER_BLOCK):
        by_length = sorted(block, key=lambda index: len(prompts[index]))
        responses: dict[int, list[Response]] = {}
        for batch in _ranges(len(by_length), config.prompts_per_batch):
            indices = [by_length[position] for position in batch]
            names = [examples[i].id for i in indices]
            streams = [rng_stream(config.seed, name, k, config.max_new_tokens) for name in names for k in numbers]
            generated = generate(policy, [prompts[i] for i in indices], streams, params, names=names)
            for i, group in zip(indices, generated, strict=True):
                responses[i] = [
                    response_from_ids(policy.encoder, examples[i], number, ids, prompt_ids=prompts[i])
                    for number, ids in zip(numbers, group, strict=True)
                ]
            done += len(indices)
            progress(done)
        yield from (responses[index] for index in block)


def truncated_prompts(policy: PromptEncoder, examples: Iterable[Example], config: SampleConfig) -> list[str]:
    """Return the ids of the examples whose prompts are truncated; raises PolicyError under "refuse"."""
    return [example.id for example in examples if encode_prompt(policy, example, config)[1]]


def encode_prompt(policy: PromptEncoder, example: Example, config: SampleConfig) -> tuple[list[int], bool]:
    """Return the ids of a prompt that fits into the window, and whether it was truncated.

    Raises PolicyError that names the example if it does not fit and `over_window` is "refuse".
    """
    ids = policy.encoder.prompt_ids(example.context, example.query)
    limit = policy.window - config.max_new_tokens
    advice = policy.window_advice
    fitted = fit_window(ids, limit=limit, rule=config.over_window, name=example.id, window_advice=advice)
    return fitted, len(fitted) < len(ids)


def response_from_ids(
    encoder: PolicyTokenizer,
    example: Example,
    number: int,
    ids: Sequence[int],
    *,
    prompt_ids: Sequence[int] | None,
) -> Response:
    """Return the Response of sampled ids, which include the end token if one was generated.

    `prompt_ids` are those that the model has read; None if they are unknown.
    """
    ended = bool(ids) and ids[-1] in encoder.end_ids
    return Response(
        id=f"{example.id}-{number}",
        example_id=example.id,
        query=example.query,
        text=encoder.decode(ids),
        tokens=len(ids) - ended,
        finish_reason="stop" if ended else "length",
        token_ids=tuple(ids),
        prompt_tokens=len(prompt_ids) if prompt_ids else None,
        prompt_hash=hash_ids(prompt_ids) if prompt_ids else None,
    )


def _ranges(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))
