"""Drawing answers to prompt ids, the long prompt read once.

    prompt ids --one forward pass--> KV cache --shared or repeated--> n answers, token by token --> their ids

The n answers of a prompt differ only behind it, so its cache serves all of them. With `cache: shared` it is kept once:
the n newest tokens pass the model as one row, and a mask lets each see the prompt and its own answer (at 64k tokens of
an 8B model the cache takes 8 GB, ten copies 80). With `repeated` each answer gets a copy (`batch_repeat_interleave`),
which also serves attention that takes no such mask, and answers that have ended leave the batch.

Prompts of one batch are padded on the left, which changes sums by about 1e-5 (they are added in another order).
Models that keep more than keys and values are sampled by transformers' `generate` (see `generate_with_transformers`).
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from longreward.models.policy import Policy

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

CacheUse = Literal["auto", "shared", "repeated"]
STAYING = 0.75
"""Rows that ended leave the batch once at most this share still runs: leaving costs a copy of what stays in the cache,
about as much as a step, and each later step is as much cheaper."""


LARGE_BYTES = 1e9
_reported: dict[str, int] = {}


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn; the fields mean what they mean in SampleConfig."""

    temperature: float
    top_p: float = 1.0
    n: int = 1
    cache: CacheUse = "auto"


def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    streams: "Sequence[torch.Tensor]",
    drawing: SamplingParams,
    *,
    limits: Sequence[int] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[list[list[int]]]:
    """The ids of n answers to each prompt, read as one batch; each with the end token where it came.

    `streams` has one for each answer, a prompt's n in a row, all of one length: the most tokens that an answer has.
    `limits` may allow a prompt's answers fewer. Where `stopped` says so, what is there is given back.
    """
    import torch

    if has_recurrent_state(policy.model):
        return _draw_by_generate(policy, prompts, streams, drawing, limits, stopped)
    with torch.inference_mode():
        reading = _read(policy, prompts)
        shares = _shares(policy, reading.cache, drawing)
        step = SharedPrefixCache(policy, reading, drawing.n) if shares else ReplicatedCache(policy, reading, drawing.n)
        draws = torch.stack([*streams]).to(policy.device)
        ends = torch.tensor(policy.text.end_ids, device=policy.device)
        most = torch.tensor(limits or [draws.shape[1]] * len(prompts), device=policy.device)
        most = most.repeat_interleave(drawing.n)
        found = torch.full(draws.shape, -1, device=policy.device)
        logits = reading.logits.repeat_interleave(drawing.n, dim=0)
        rows = torch.arange(len(draws), device=policy.device)  # the answers that are in the batch
        running = torch.ones_like(rows, dtype=torch.bool)
        for place in range(draws.shape[1]):
            tokens = sample_token(logits, draws[rows, place], temperature=drawing.temperature, top_p=drawing.top_p)
            found[rows, place] = torch.where(running, tokens, -1)
            running = running & ~torch.isin(tokens, ends) & (most[rows] > place + 1)
            left = int(running.sum())
            if left == 0 or stopped():
                break
            if left <= STAYING * len(rows) and step.keep(stay := running.nonzero().squeeze(1)):
                rows, tokens, running = rows[stay], tokens[stay], running[stay]
            logits = step(tokens)
    answers = [[token for token in row if token >= 0] for row in found.tolist()]
    return [answers[start : start + drawing.n] for start in range(0, len(answers), drawing.n)]


def _draw_by_generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    streams: "Sequence[torch.Tensor]",
    drawing: SamplingParams,
    limits: Sequence[int] | None,
    stopped: Callable[[], bool],
) -> list[list[list[int]]]:
    """As `draw`, a prompt at a time: recurrent states would take in the padding of a batch."""
    import torch

    def choose(logits: "torch.Tensor", draws: "torch.Tensor") -> "torch.Tensor":
        return sample_token(logits, draws, temperature=drawing.temperature, top_p=drawing.top_p)

    answers: list[list[list[int]]] = []
    with torch.inference_mode():
        draws = torch.stack([*streams]).to(policy.device)
        for number, prompt in enumerate(prompts):
            own = draws[number * drawing.n : (number + 1) * drawing.n]
            limit = limits[number] if limits else own.shape[1]
            ends = policy.text.end_ids
            answers.append(
                generate_with_transformers(
                    policy.model, prompt, own, choose, end_ids=ends, limit=limit, stopped=stopped
                )
            )
    return answers


def rng_stream(seed: int, name: str, number: int, length: int) -> "torch.Tensor":
    """The draws in [0, 1) of answer `number` to the prompt called `name`: the same for any n, batch and order."""
    import torch

    digest = hashlib.sha256(f"{seed}\0{name}\0{number}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(length, generator=generator, dtype=torch.float64)


def sample_token(logits: "torch.Tensor", draws: "torch.Tensor", *, temperature: float, top_p: float) -> "torch.Tensor":
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


@dataclass(frozen=True)
class PrefillState:
    """Prompts that were read: their cache, their lengths, padding on the left, and the logits behind each."""

    cache: Any
    present: "torch.Tensor"  # [prompts, longest], False where padded
    logits: "torch.Tensor"  # [prompts, vocabulary]


def _read(policy: Policy, prompts: Sequence[Sequence[int]]) -> PrefillState:
    import torch

    from longreward.models.kv_cache import preallocated_cache

    longest = max(len(ids) for ids in prompts)
    filler = policy.text.end_ids[0]  # masked, so that any id does
    rows = torch.tensor([[filler] * (longest - len(ids)) + [*ids] for ids in prompts], device=policy.device)
    lengths = torch.tensor([len(ids) for ids in prompts], device=policy.device)
    present = torch.arange(longest, device=policy.device) >= longest - lengths[:, None]
    cache = preallocated_cache(policy.model.config)
    out = policy.model(
        input_ids=rows,
        attention_mask=None if bool(present.all()) else present.long(),
        position_ids=(present.long().cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
        logits_to_keep=1,
    )
    return PrefillState(out.past_key_values, present, out.logits[:, -1])


def _shares(policy: Policy, cache: Any, drawing: SamplingParams) -> bool:
    """Whether one cache can serve all answers: plain full attention in every layer that takes a mask of any form."""
    from longreward.models.kv_cache import PreallocatedLayer

    if drawing.cache != "auto":
        return drawing.cache == "shared"
    if drawing.n == 1:
        return False
    plain = all(type(layer) is PreallocatedLayer for layer in cache.layers)
    if plain and policy.config.attention in ("sdpa", "eager"):
        return True
    reason = "some layers have windows" if not plain else f"policy.attention is {policy.config.attention}"
    _report_copies(cache, drawing.n, reason)
    return False


def _report_copies(cache: Any, n: int, reason: str) -> None:
    """Says once, and again where twice as much is needed, how much memory the copies of a prompt's cache take."""
    size = sum(getattr(layer, name).nbytes for layer in cache.layers for name in ("keys", "values"))
    if size * n < 2 * _reported.get(reason, 0):
        return
    _reported[reason] = size * n
    log.log(
        logging.WARNING if size * n >= LARGE_BYTES else logging.INFO,
        "cache: auto keeps the prompts' cache %d times, %.1f GB in all, since %s; fewer answers to a prompt or "
        "fewer prompts in a batch need less%s",
        n,
        size * n / 1e9,
        reason,
        ", and policy.attention: sdpa shares one cache" if "attention" in reason else "",
    )


class ReplicatedCache:
    """The prompt's cache copied for each answer, each a row of its own."""

    def __init__(self, policy: Policy, reading: PrefillState, n: int) -> None:
        self.model, self.cache = policy.model, reading.cache
        if n > 1:
            self.cache.batch_repeat_interleave(n)
        self.present = reading.present.long().repeat_interleave(n, dim=0)

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

    def keep(self, rows: "torch.Tensor") -> bool:
        """Leaves only these rows; False where a layer keeps more than keys and values, which could not follow."""
        from transformers.cache_utils import DynamicSlidingWindowLayer

        from longreward.models.kv_cache import PreallocatedLayer

        if not all(type(layer) in (PreallocatedLayer, DynamicSlidingWindowLayer) for layer in self.cache.layers):
            return False
        self.cache.batch_select_indices(rows)
        self.present = self.present[rows]
        return True


class SharedPrefixCache:
    """The prompt's cache once; the n newest tokens are one row, each seeing the prompt and its own answer."""

    def __init__(self, policy: Policy, reading: PrefillState, n: int) -> None:
        import torch

        self.model, self.cache, self.n = policy.model, reading.cache, n
        self.seen = reading.present[:, None, None, :].expand(-1, 1, n, -1)
        self.own = torch.eye(n, dtype=torch.bool, device=policy.device).expand(len(self.seen), 1, -1, -1)
        self.positions = reading.present.sum(dim=1, keepdim=True).expand(-1, n)

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

    def keep(self, rows: "torch.Tensor") -> bool:
        """False: a prompt's answers are one row, which they cannot leave one by one."""
        return False

    def _mask(self) -> "torch.Tensor":
        import torch

        dtype = self.model.dtype
        return torch.zeros(self.seen.shape, dtype=dtype, device=self.seen.device).masked_fill(
            ~self.seen, torch.finfo(dtype).min
        )


# Sampling by transformers' `generate`, for models whose answers cannot branch off one prompt cache.
#
# Hybrid and recurrent models (LFM2, RecurrentGemma, Qwen3-Next, Mamba, Jamba) keep a state besides or instead of keys
# and values. transformers 5.23 cannot repeat such a state for several answers, and some models keep it inside.
# So each answer reads the prompt by itself, which costs n times the prompt.
#
# Tokens come from the same random streams as elsewhere (decoding.py): an answer depends on the seed, its prompt and its
# number, not on n or on the batch, but for rounding, since the rows of a batch are added up in another order.


if TYPE_CHECKING:
    import torch

CACHED_LAYERS = {"PreallocatedLayer", "DynamicSlidingWindowLayer", "DynamicIndexedLayer", "DummyLayer"}
"""Classes of cache layers that can repeat what they hold; a class that is not known here is not trusted to."""

log = logging.getLogger(__name__)
_warned: set[str] = set()


def has_recurrent_state(model: Any) -> bool:
    """Whether a model keeps more than keys and values; warns once for each class of models."""
    from longreward.models.kv_cache import preallocated_cache  # imports torch, which every command would wait for

    stateful = bool(getattr(model, "_is_stateful", False))
    if not stateful and all(type(layer).__name__ in CACHED_LAYERS for layer in preallocated_cache(model.config).layers):
        return False
    name = type(model).__name__
    if name not in _warned:
        _warned.add(name)
        log.warning(
            "%s keeps a state besides keys and values: its responses are sampled by transformers' generate, and each "
            "of them reads its whole prompt",
            name,
        )
    return True


def generate_with_transformers(
    model: Any,
    prompt: Sequence[int],
    draws: "torch.Tensor",
    choose: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
    *,
    end_ids: Sequence[int],
    limit: int,
    stopped: Callable[[], bool],
) -> list[list[int]]:
    """The ids of one answer for each row of `draws` [answers, tokens], each with its end token where it came.

    `choose(logits, draws)` takes [answers, vocabulary] and one column of `draws`, and gives a token for each answer.
    """
    import torch
    from transformers import LogitsProcessorList, StoppingCriteriaList

    start = len(prompt)

    def force(input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """Leaves only the chosen token possible, so that generate's greedy search takes it."""
        tokens = choose(scores, draws[:, input_ids.shape[1] - start])
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)

    def stop(input_ids: "torch.Tensor", scores: "torch.Tensor", **kwargs: Any) -> "torch.Tensor":
        return torch.full((len(input_ids),), stopped(), device=input_ids.device)

    rows = torch.tensor([list(prompt)] * len(draws), device=draws.device)
    with _plain_generation(model):
        found = model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            do_sample=False,
            max_new_tokens=min(limit, draws.shape[1]),
            eos_token_id=list(end_ids),
            pad_token_id=end_ids[0],
            logits_processor=LogitsProcessorList([force]),
            stopping_criteria=StoppingCriteriaList([stop]),
        )
    return [_up_to_end(row, end_ids) for row in found[:, start:].tolist()]


def _up_to_end(ids: list[int], end_ids: Sequence[int]) -> list[int]:
    """Without the padding behind an answer that ended before others."""
    end = next((at for at, token in enumerate(ids) if token in end_ids), len(ids) - 1)
    return ids[: end + 1]


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Keeps the model's own generation config (penalties, least lengths) out, which sampling elsewhere ignores too."""
    from transformers import GenerationConfig

    before, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before
