"""Sample ten responses to one long prompt: `longreward.models.sampling` against transformers.

    python benchmarks/sampling.py [--prompt-tokens 4096] [--samples 10] [--new-tokens 64]
    python benchmarks/sampling.py --model 8b --prompt-tokens 32768 --new-tokens 128

    prefilled        the prompt read once, its cache copied for each response, then `generate(past_key_values=…)`: the
                     fair alternative, which an expert would write
    generate         `generate(num_return_sequences=10)`, which reads the prompt ten times
    generate_batch   `generate_batch`, continuous batching with shared pages (GPU only)
    repeated         `sample.cache: repeated`: one prefill, one copy of the KV cache per response
    shared           `sample.cache: shared`: one prefill, one KV cache for all responses

Each alternative runs in its own process after a warm-up, on the same random Llama (`small`: 8M weights in float32; `8b`
in bfloat16) and the same prompt, and samples the same number of tokens. Memory is the peak above that of the loaded
model: of the process on a CPU, of torch's allocator on a GPU.
"""

import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from common import (
    MODELS,
    Measurement,
    argument_parser,
    peak_rss_mb,
    print_comparison,
    random_llama,
    reset_gpu_peak,
    run_in_process,
)

from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, PolicyTokenizer

SMALL = {
    "vocab_size": 8000,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}
GPU_ONLY = ("generate_batch",)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", choices=("small", "8b"), default="small")
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens of each response")
    parser.add_argument("--alternatives", nargs="+", choices=ALTERNATIVES, default=[*ALTERNATIVES])
    options = parser.parse_args()
    results = {}
    print(f"{options.samples} samples of {options.new_tokens} tokens, prompt of {options.prompt_tokens:,} tokens")
    for name in options.alternatives:
        try:
            results[name] = run_in_process(
                measure, name, options.model, options.prompt_tokens, options.samples, options.new_tokens
            )
        except (RuntimeError, BrokenProcessPool) as error:
            print(f"  {name} failed: {str(error).splitlines()[0]}", flush=True)
        else:
            seconds = results[name].seconds
            tokens_per_s = options.samples * options.new_tokens / seconds
            print(f"  {name}: {seconds:.2f} s, {tokens_per_s:,.0f} tokens/s with the prompt", flush=True)
    if results:
        print_comparison(results)


def measure(alternative: str, model: str, prompt_tokens: int, samples: int, new_tokens: int) -> Measurement:
    """Sample with one alternative; return its duration and peak memory."""
    import torch

    policy = random_policy(model, prompt_tokens + new_tokens)
    if alternative in GPU_ONLY and policy.device.type != "cuda":
        raise RuntimeError("needs a GPU")
    prompt = torch.randint(10, 1000, (prompt_tokens,), generator=torch.Generator().manual_seed(1)).tolist()
    sample = ALTERNATIVES[alternative]
    sample(policy, alternative, prompt[:64], samples, 4)  # warm-up: lazy imports and buffers
    memory_before = reset_gpu_peak() if policy.device.type == "cuda" else peak_rss_mb()
    started = time.perf_counter()
    sampled_tokens = sample(policy, alternative, prompt, samples, new_tokens)
    seconds = time.perf_counter() - started
    assert sampled_tokens == samples * new_tokens, f"{alternative} sampled {sampled_tokens} tokens"
    peak = torch.cuda.max_memory_allocated() / 2**20 if policy.device.type == "cuda" else peak_rss_mb()
    return Measurement(seconds, peak - memory_before)


def generation_arguments(new_tokens: int) -> dict[str, Any]:
    """Return arguments of `generate` that sample exactly `new_tokens` tokens from the whole distribution."""
    return {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": new_tokens,
        "eos_token_id": None,
        "pad_token_id": 0,
    }


def sample_with_generate(policy: Policy, _: str, prompt: list[int], samples: int, new_tokens: int) -> int:
    """Sample with transformers; return the number of sampled tokens."""
    import torch

    sequences = policy.model.generate(
        torch.tensor([prompt], device=policy.device),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=policy.device),
        num_return_sequences=samples,
        **generation_arguments(new_tokens),
    )
    return int(sequences[:, len(prompt) :].numel())


def sample_prefilled(policy: Policy, _: str, prompt: list[int], samples: int, new_tokens: int) -> int:
    """Read the prompt once, copy its cache, and sample with transformers; return the number of sampled tokens."""
    import torch
    from transformers import DynamicCache

    ids = torch.tensor([prompt], device=policy.device)
    cache = DynamicCache(config=policy.model.config)
    with torch.inference_mode():
        # All tokens but the last, which `generate` needs for its first step.
        policy.model(input_ids=ids[:, :-1], past_key_values=cache, logits_to_keep=1)
        cache.batch_repeat_interleave(samples)
        sequences = policy.model.generate(
            ids.repeat(samples, 1),
            attention_mask=torch.ones(samples, len(prompt), dtype=torch.long, device=policy.device),
            past_key_values=cache,
            **generation_arguments(new_tokens),
        )
    return int(sequences[:, len(prompt) :].numel())


def sample_with_generate_batch(policy: Policy, _: str, prompt: list[int], samples: int, new_tokens: int) -> int:
    """Sample with transformers' continuous batching; return the number of sampled tokens."""
    from transformers import GenerationConfig

    arguments = {**generation_arguments(new_tokens), "eos_token_id": -1}
    config = GenerationConfig(num_return_sequences=samples, **arguments)
    outputs = policy.model.generate_batch([prompt], generation_config=config)
    return sum(len(output.generated_tokens) for output in outputs.values())


def sample_with_longreward(policy: Policy, cache: Any, prompt: list[int], samples: int, new_tokens: int) -> int:
    """Sample as the stage `sample` does; return the number of sampled tokens."""
    from longreward.models.generation import SamplingParams, generate, rng_stream

    streams = [rng_stream(0, "benchmark", number, new_tokens) for number in range(samples)]
    [responses] = generate(policy, [prompt], streams, SamplingParams(1.0, n=samples, cache=cache))
    return sum(len(response) for response in responses)


ALTERNATIVES: dict[str, Callable[[Policy, str, list[int], int, int], int]] = {
    "prefilled": sample_prefilled,
    "generate": sample_with_generate,
    "generate_batch": sample_with_generate_batch,
    "repeated": sample_with_longreward,
    "shared": sample_with_longreward,
}


def random_policy(model: str, window: int) -> Policy:
    """Return a policy without an end token, so that no response ends early."""
    config = SMALL if model == "small" else MODELS[model]
    llama: Any = random_llama(max_position_embeddings=window, eos_token_id=None, **config).eval()
    tokenizer = PolicyTokenizer(tokenizer=None, template="", end_ids=(-1,))
    return Policy(PolicyConfig(base_model="random"), "random", llama, tokenizer, window, llama.device)


if __name__ == "__main__":
    main()
