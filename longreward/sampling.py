"""Sampling n responses to each prompt, the long prompt read once.

    prompt ids --one forward pass--> KV cache --shared or repeated--> n answers, token by token --> n Responses

The n answers of a prompt differ only behind it, so its cache serves all of them. With `cache: shared` it is kept once:
the n newest tokens pass the model as one row, and a mask lets each see the prompt and its own answer (at 64k tokens of
an 8B model the cache takes 8 GB, ten copies 80). With `repeated` each answer gets a copy (`batch_repeat_interleave`),
which also serves attention that takes no such mask.

Every answer has a random stream of its own, from the seed, the example's id and its number. With one prompt a batch, a
prompt's samples are the same whatever the order and the shard. Several prompts a batch are padded on the left, which
changes sums by about 1e-5 (they are added in another order): 3 of 1,000 answers of the tiny model then took another
turn, all of them long and unsure; the same batches always give the same samples.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from longreward.config import Config
from longreward.policy import OverWindow, Policy, fit_window
from longreward.records import Example, Response

if TYPE_CHECKING:
    import torch


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
    cache: Literal["auto", "shared", "repeated"] = "auto"
    """One prompt cache for all n answers, or a copy for each; auto: shared wherever the model's attention allows it."""
    shard_size: int = Field(default=50, ge=1)
    """Prompts whose responses are kept together when the stage is stopped."""


class Prompting(Protocol):
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
    unfinished: int  # stopped by max_new_tokens
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
            unfinished=sum(response.finish_reason == "length" for response in responses),
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
    prompts = [fitted_prompt(policy, example, config)[0] for example in examples]
    done = 0
    for block in _blocks(len(examples), config.prompts_per_batch * 8):
        by_length = sorted(block, key=lambda index: len(prompts[index]))
        found: dict[int, list[Response]] = {}
        for batch in _blocks(len(by_length), config.prompts_per_batch):
            chosen = [by_length[place] for place in batch]
            answers = _draw(policy, [prompts[i] for i in chosen], [examples[i].id for i in chosen], config)
            found |= {i: _responses(policy, examples[i], ids) for i, ids in zip(chosen, answers, strict=True)}
            done += len(chosen)
            if progress is not None:
                progress(done, len(examples))
        yield from (found[index] for index in block)


def cut_prompts(policy: Prompting, examples: Iterable[Example], config: SampleConfig) -> list[str]:
    """The ids of the examples whose prompts will be cut to fit; PolicyError under `refuse`, naming the first."""
    return [example.id for example in examples if fitted_prompt(policy, example, config)[1]]


def fitted_prompt(policy: Prompting, example: Example, config: SampleConfig) -> tuple[list[int], bool]:
    """The ids that an answer continues, and whether they were cut; PolicyError under `refuse`, naming the example."""
    ids = policy.prompt_ids(example.context, example.query)
    room = policy.window - config.max_new_tokens
    fitted = fit_window(ids, room=room, rule=config.over_window, name=example.id)
    return fitted, len(fitted) < len(ids)


def _blocks(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _responses(policy: Policy, example: Example, answers: list[list[int]]) -> list[Response]:
    return [_response(policy, example, number, ids) for number, ids in enumerate(answers)]


def _response(policy: Policy, example: Example, number: int, ids: list[int]) -> Response:
    ended = bool(ids) and ids[-1] in policy.text.end_ids
    return Response(
        id=f"{example.id}-{number}",
        example_id=example.id,
        query=example.query,
        text=policy.text.decode(ids),
        tokens=len(ids) - ended,
        finish_reason="stop" if ended else "length",
    )


def _draw(policy: Policy, prompts: list[list[int]], names: list[str], config: SampleConfig) -> list[list[list[int]]]:
    """The ids of n answers to each prompt, with the end token where there is one."""
    import torch

    with torch.inference_mode():
        reading = _read(policy, prompts)
        decode = _Shared if _shares(policy, reading.cache, config) else _Repeated
        step = decode(policy, reading, config)
        draws = torch.stack([_stream(config, name, k) for name in names for k in range(config.n)]).to(policy.device)
        ends = torch.tensor(policy.text.end_ids, device=policy.device)
        logits = reading.logits.repeat_interleave(config.n, dim=0)
        running = torch.ones(len(draws), dtype=torch.bool, device=policy.device)
        chosen = []
        for place in range(config.max_new_tokens):
            tokens = pick(logits, draws[:, place], temperature=config.temperature, top_p=config.top_p)
            chosen.append(torch.where(running, tokens, -1))
            running = running & ~torch.isin(tokens, ends)
            if place + 1 == config.max_new_tokens or not running.any():
                break
            logits = step(tokens)
    rows = [[token for token in row if token >= 0] for row in torch.stack(chosen, dim=1).tolist()]
    return [rows[start : start + config.n] for start in range(0, len(rows), config.n)]


def pick(logits: "torch.Tensor", draws: "torch.Tensor", *, temperature: float, top_p: float) -> "torch.Tensor":
    """One token a row: the one in whose stretch of the cumulative distribution the row's draw in [0, 1) falls.

    `logits` [rows, vocabulary], `draws` [rows] float64; temperature 0 ignores the draws.
    """
    import torch

    if temperature == 0:
        return logits.argmax(dim=-1)
    shares = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        ordered, order = shares.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        shares = torch.zeros_like(shares).scatter(-1, order, ordered.masked_fill(before >= top_p, 0))
    heights = shares.double().cumsum(dim=-1)
    # right=True: a token of no probability has an empty stretch and is never drawn.
    found = torch.searchsorted(heights, (draws * heights[:, -1])[:, None], right=True).squeeze(-1)
    return found.clamp(max=logits.shape[-1] - 1)


def _stream(config: SampleConfig, name: str, number: int) -> "torch.Tensor":
    """The draws of one answer: the same for any n, batch and order."""
    import torch

    digest = hashlib.sha256(f"{config.seed}\0{name}\0{number}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(config.max_new_tokens, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class _Reading:
    """Prompts that were read: their cache, their lengths, padding on the left, and the logits behind each."""

    cache: Any
    present: "torch.Tensor"  # [prompts, longest], False where padded
    logits: "torch.Tensor"  # [prompts, vocabulary]


def _read(policy: Policy, prompts: list[list[int]]) -> _Reading:
    import torch
    from transformers import DynamicCache

    longest = max(len(ids) for ids in prompts)
    filler = policy.text.end_ids[0]  # masked, so that any id does
    rows = torch.tensor([[filler] * (longest - len(ids)) + ids for ids in prompts], device=policy.device)
    lengths = torch.tensor([len(ids) for ids in prompts], device=policy.device)
    present = torch.arange(longest, device=policy.device) >= longest - lengths[:, None]
    cache = DynamicCache(config=policy.model.config)
    out = policy.model(
        input_ids=rows,
        attention_mask=None if bool(present.all()) else present.long(),
        position_ids=(present.long().cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
        logits_to_keep=1,
    )
    return _Reading(out.past_key_values, present, out.logits[:, -1])


def _shares(policy: Policy, cache: Any, config: SampleConfig) -> bool:
    """Whether one cache can serve all answers: plain full attention in every layer that takes a mask of any form."""
    from transformers.cache_utils import DynamicLayer

    if config.cache != "auto":
        return config.cache == "shared"
    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    return plain and policy.config.attention in ("sdpa", "eager") and config.n > 1


class _Repeated:
    """The prompt's cache copied for each answer, each a row of its own."""

    def __init__(self, policy: Policy, reading: _Reading, config: SampleConfig) -> None:
        self.model, self.cache = policy.model, reading.cache
        self.cache.batch_repeat_interleave(config.n)
        self.present = reading.present.long().repeat_interleave(config.n, dim=0)

    def __call__(self, tokens: "torch.Tensor") -> "torch.Tensor":
        """The logits behind the newest tokens: [answers] in, [answers, vocabulary] out."""
        import torch

        self.present = torch.cat([self.present, torch.ones_like(self.present[:, :1])], dim=1)
        out = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.present,
            position_ids=self.present.sum(dim=1, keepdim=True) - 1,
            past_key_values=self.cache,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits


class _Shared:
    """The prompt's cache once; the n newest tokens are one row, each seeing the prompt and its own answer."""

    def __init__(self, policy: Policy, reading: _Reading, config: SampleConfig) -> None:
        import torch

        self.model, self.cache, self.n = policy.model, reading.cache, config.n
        self.seen = reading.present[:, None, None, :].expand(-1, 1, config.n, -1)
        self.own = torch.eye(config.n, dtype=torch.bool, device=policy.device).expand(len(self.seen), 1, -1, -1)
        self.positions = reading.present.sum(dim=1, keepdim=True).expand(-1, config.n)

    def __call__(self, tokens: "torch.Tensor") -> "torch.Tensor":
        """The logits behind the newest tokens: [answers] in, [answers, vocabulary] out."""
        import torch

        self.seen = torch.cat([self.seen, self.own], dim=-1)
        out = self.model(
            input_ids=tokens.view(-1, self.n),
            attention_mask=self._mask(),
            position_ids=self.positions,
            past_key_values=self.cache,
        )
        self.positions = self.positions + 1
        logits: torch.Tensor = out.logits.flatten(0, 1)
        return logits

    def _mask(self) -> "torch.Tensor":
        import torch

        dtype = self.model.dtype
        return torch.zeros(self.seen.shape, dtype=dtype, device=self.seen.device).masked_fill(
            ~self.seen, torch.finfo(dtype).min
        )
