"""Generation of n responses to each prompt, with one random stream per response.

    prompt ids --prefill (kv_cache.py)--> logits --sample_token--> next token --> … until the end token or the limit

A token is chosen by a number in [0, 1) of its response's own stream. So a response depends on the seed, its prompt and
its number only, not on n or on the batch, except for rounding: prompts of one batch are padded on the left, which
changes sums by about 1e-5 because they are added in another order.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from longreward.errors import PolicyError
from longreward.models.policy import Policy

# torch and kv_cache.py, which imports it, are imported in functions: every command would otherwise wait for them.
if TYPE_CHECKING:
    import torch

    from longreward.models.kv_cache import PrefillState

log = logging.getLogger(__name__)

CacheMode = Literal["auto", "shared", "repeated"]

RUNNING_SHARE = 0.75
"""Ended responses leave the batch once at most this share is still running. Removing them copies the rest of the cache,
which costs about one step, and makes every later step cheaper in proportion."""

WARN_CACHE_BYTES = 1e9
_reported_bytes: dict[str, int] = {}  # the last size that was logged, per reason
_warned_classes: set[str] = set()


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are sampled; see SampleConfig for the fields."""

    temperature: float | tuple[float, ...]
    """One for all responses to a prompt, or one for each."""
    top_p: float = 1.0
    n: int = 1
    cache: CacheMode = "auto"

    def row_temperatures(self, prompts: int, device: "torch.device") -> "float | torch.Tensor":
        """Return the one temperature, or those of all responses to this number of prompts."""
        import torch

        if isinstance(self.temperature, tuple):
            return torch.tensor(self.temperature, device=device).repeat(prompts)
        return self.temperature


def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    streams: "Sequence[torch.Tensor]",
    params: SamplingParams,
    *,
    names: Sequence[str] | None = None,
    limits: Sequence[int] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[list[list[int]]]:
    """Generate `params.n` responses to each prompt, read as one batch; halve it where the GPU's memory is too small.

    Args:
        streams: Random numbers of each response (`rng_stream`), grouped by prompt. Their common length is the maximum
            number of new tokens.
        names: What errors call the prompts.
        limits: A lower maximum for the responses to each prompt.
        stopped: Is called after each token; generation ends early once it returns True.

    Returns:
        For each prompt the token ids of its responses, including the end token if one was generated.

    Raises:
        PolicyError: One prompt alone does not fit into the GPU's memory.
    """
    import torch

    names = names or [f"prompt {number}" for number in range(len(prompts))]
    limits = limits or [len(streams[0])] * len(prompts)
    try:
        with torch.inference_mode():
            draws = torch.stack([*streams]).to(policy.device)
            run = _generate_with_transformers if _needs_transformers(policy.model) else _generate_batch
            responses = run(policy, prompts, draws, params, limits, stopped)
        return [responses[start : start + params.n] for start in range(0, len(responses), params.n)]
    except torch.OutOfMemoryError as error:
        if len(prompts) == 1:
            raise PolicyError(
                f"{names[0]}: the GPU's memory is full with {len(prompts[0])} prompt tokens and {params.n} responses "
                f"of up to {limits[0]} tokens; lower n or max_new_tokens, set cache: shared, or free the "
                f"memory that other processes use ({str(error).splitlines()[0]})"
            ) from error
    # Outside of the except clause, whose traceback keeps the tensors of the failed batch alive.
    log.warning(
        "the GPU's memory is too small for %d prompts at once: the batch is halved; for sample and evaluate, "
        "a lower sample.prompts_per_batch saves the failed attempt",
        len(prompts),
    )
    torch.cuda.empty_cache()
    half = len(prompts) // 2
    return [
        group
        for start, end in ((0, half), (half, len(prompts)))
        for group in generate(
            policy,
            prompts[start:end],
            streams[start * params.n : end * params.n],
            params,
            names=names[start:end],
            limits=limits[start:end],
            stopped=stopped,
        )
    ]


def rng_stream(seed: int, name: str, number: int, length: int) -> "torch.Tensor":
    """Return `length` random numbers in [0, 1) for response `number` to the prompt called `name`."""
    import torch

    # Hashed, so that neighbouring seeds and numbers give independent streams.
    digest = hashlib.sha256(f"{seed}\0{name}\0{number}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(length, generator=generator, dtype=torch.float64)


def sample_token(
    logits: "torch.Tensor", draws: "torch.Tensor", *, temperature: "float | torch.Tensor", top_p: float
) -> "torch.Tensor":
    """Sample one token per row by inverting the cumulative distribution at the row's random number.

    `logits` is [rows, vocabulary]; `draws` is [rows], float64 in [0, 1), and ignored at temperature 0; `temperature` is
    one number or [rows].
    """
    import torch

    if isinstance(temperature, torch.Tensor):
        greedy = temperature == 0
        positive = torch.where(greedy, 1, temperature)[:, None]
        return torch.where(greedy, logits.argmax(dim=-1), _sample_token(logits.float() / positive, draws, top_p))
    if temperature == 0:
        return logits.argmax(dim=-1)
    return _sample_token(logits.float() / temperature, draws, top_p)


def _sample_token(logits: "torch.Tensor", draws: "torch.Tensor", top_p: float) -> "torch.Tensor":
    import torch

    probabilities = torch.softmax(logits, dim=-1)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        mass_before = ordered.cumsum(dim=-1) - ordered
        nucleus = ordered.masked_fill(mass_before >= top_p, 0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, nucleus)
    # In float32 a cumulative sum over 100,000 tokens would lose the small probabilities.
    cumulative = probabilities.double().cumsum(dim=-1)
    # right=True: the interval of a token without probability is empty and never matches.
    tokens = torch.searchsorted(cumulative, (draws * cumulative[:, -1])[:, None], right=True).squeeze(-1)
    return tokens.clamp(max=logits.shape[-1] - 1)


def _generate_batch(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    draws: "torch.Tensor",
    params: SamplingParams,
    limits: Sequence[int],
    stopped: Callable[[], bool],
) -> list[list[int]]:
    import torch

    from longreward.models.kv_cache import ReplicatedCache, prefill
    from longreward.models.shared_cache import SharedPrefixCache

    state = prefill(policy.model, prompts, pad_id=policy.encoder.end_ids[0], device=policy.device)
    shared = _uses_shared_cache(policy, state, params)
    cache = (SharedPrefixCache if shared else ReplicatedCache)(policy.model, state, params.n)
    end_ids = torch.tensor(policy.encoder.end_ids, device=policy.device)
    limit_of_row = torch.tensor(limits, device=policy.device).repeat_interleave(params.n)
    # -1 marks positions after the end of a response.
    generated = torch.full(draws.shape, -1, device=policy.device)
    logits = state.logits.repeat_interleave(params.n, dim=0)
    rows = torch.arange(len(draws), device=policy.device)  # responses that are still in the batch
    temperature = params.row_temperatures(len(prompts), policy.device)
    running = torch.ones_like(rows, dtype=torch.bool)
    with cache.attention():
        for step in range(draws.shape[1]):
            tokens = sample_token(logits, draws[rows, step], temperature=temperature, top_p=params.top_p)
            generated[rows, step] = torch.where(running, tokens, -1)
            running = running & ~torch.isin(tokens, end_ids) & (limit_of_row[rows] > step + 1)
            running_count = int(running.sum())
            if running_count == 0 or stopped():
                break
            if running_count <= RUNNING_SHARE * len(rows) and cache.select_rows(kept := running.nonzero().squeeze(1)):
                rows, tokens, running = rows[kept], tokens[kept], running[kept]
                if isinstance(temperature, torch.Tensor):
                    temperature = temperature[kept]
            logits = cache.next_logits(tokens)
    return [[token for token in row if token >= 0] for row in generated.tolist()]


def _uses_shared_cache(policy: Policy, state: "PrefillState", params: SamplingParams) -> bool:
    from longreward.models.kv_cache import cache_bytes
    from longreward.models.shared_cache import SharedCacheError, unsupported_reason

    if params.cache == "repeated" or (params.cache == "auto" and params.n == 1):
        return False
    if (reason := unsupported_reason(policy.model)) is None:
        return True
    if params.cache == "shared":
        raise SharedCacheError(f"sample.cache is shared, and the policy cannot share one: {reason}; set it to auto")
    size = params.n * cache_bytes(state.cache)
    if size >= 2 * _reported_bytes.get(reason, 0):
        _reported_bytes[reason] = size
        log.log(
            logging.WARNING if size >= WARN_CACHE_BYTES else logging.INFO,
            "cache: auto copies the prompts' cache %d times, %.1f GB in total, because %s; fewer responses per prompt "
            "or fewer prompts per batch need less memory",
            params.n,
            size / 1e9,
            reason,
        )
    return False


def _needs_transformers(model: Any) -> bool:
    """Return whether responses must be sampled by transformers' `generate`; warn once per model class.

    Hybrid and recurrent models (LFM2, RecurrentGemma, Qwen3-Next, Mamba, Jamba) keep a state besides or instead of keys
    and values. transformers 5.23 cannot repeat such a state for several responses, and some models keep it inside the
    model. So each response reads its prompt again, which costs n times the prompt.
    """
    from longreward.models.kv_cache import can_repeat_cache

    if can_repeat_cache(model):
        return False
    name = type(model).__name__
    if name not in _warned_classes:
        _warned_classes.add(name)
        log.warning(
            "%s keeps a state besides keys and values: its responses are sampled by transformers' generate, and each "
            "of them reads its whole prompt",
            name,
        )
    return True


def _generate_with_transformers(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    draws: "torch.Tensor",
    params: SamplingParams,
    limits: Sequence[int],
    stopped: Callable[[], bool],
) -> list[list[int]]:
    """Generate with transformers' `generate`, one prompt at a time: recurrent states would include the padding."""
    import torch
    from transformers import LogitsProcessorList, StoppingCriteriaList

    def stop(input_ids: "torch.Tensor", scores: "torch.Tensor", **kwargs: Any) -> "torch.Tensor":
        return torch.full((len(input_ids),), stopped(), device=input_ids.device)

    end_ids = [*policy.encoder.end_ids]
    responses = []
    for index, prompt in enumerate(prompts):
        input_ids = torch.tensor([[*prompt]] * params.n, device=policy.device)
        # Greedy search with forced tokens, because generate's own sampling has one random stream for all responses.
        force_tokens = _ForcedSampling(draws[index * params.n : (index + 1) * params.n], len(prompt), params)
        with _default_generation_config(policy.model):
            output = policy.model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                do_sample=False,
                max_new_tokens=min(limits[index], draws.shape[1]),
                eos_token_id=end_ids,
                pad_token_id=end_ids[0],
                logits_processor=LogitsProcessorList([force_tokens]),
                stopping_criteria=StoppingCriteriaList([stop]),
            )
        for ids in output[:, len(prompt) :].tolist():
            # A response that ended before others is padded.
            end = next((position for position, token in enumerate(ids) if token in end_ids), len(ids) - 1)
            responses.append(ids[: end + 1])
    return responses


@dataclass(frozen=True)
class _ForcedSampling:
    """Logits processor that leaves only the sampled token possible, so that greedy search takes it."""

    draws: "torch.Tensor"  # [responses, tokens]
    prompt_length: int
    params: SamplingParams

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        import torch

        draws = self.draws[:, input_ids.shape[1] - self.prompt_length]
        temperature = self.params.row_temperatures(1, scores.device)
        tokens = sample_token(scores, draws, temperature=temperature, top_p=self.params.top_p)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


@contextmanager
def _default_generation_config(model: Any) -> Iterator[None]:
    """Ignore the model's own generation config (penalties, minimum lengths), as `_generate_batch` does."""
    from transformers import GenerationConfig

    original, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = original
