"""Sample ten responses to one long prompt: `longreward.models.sampling` against transformers' `generate`.

    python benchmarks/sampling.py [--prompt-tokens 4096] [--samples 10] [--new-tokens 64]

    generate   `generate(num_return_sequences=10)`
    repeated   `sample.cache: repeated`: one prefill, one copy of the KV cache per response
    shared     `sample.cache: shared`: one prefill, one KV cache for all responses

Each alternative runs in its own process after a warm-up, on the same random Llama (8M weights) and the same prompt, and
samples the same number of tokens. Memory is the peak above that of the loaded model.
"""

import time
from collections.abc import Callable
from typing import Any

from common import Measurement, argument_parser, peak_rss_mb, print_comparison, random_llama, run_in_process

from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, PolicyTokenizer

ALTERNATIVES = ("generate", "repeated", "shared")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens of each response")
    options = parser.parse_args()
    sizes = (options.prompt_tokens, options.samples, options.new_tokens)
    results = {name: run_in_process(measure, name, *sizes) for name in ALTERNATIVES}
    print(f"{options.samples} samples of {options.new_tokens} tokens, prompt of {options.prompt_tokens:,} tokens")
    print_comparison(results)


def measure(alternative: str, prompt_tokens: int, samples: int, new_tokens: int) -> Measurement:
    """Sample with one alternative; return its duration and peak memory."""
    import torch

    policy = random_policy(prompt_tokens + new_tokens)
    prompt = torch.randint(10, 1000, (prompt_tokens,), generator=torch.Generator().manual_seed(1)).tolist()
    sample: Callable[..., int] = sample_with_generate if alternative == "generate" else sample_with_longreward
    sample(policy, alternative, prompt[:64], samples, 4)  # warm-up: lazy imports and buffers
    memory_before = peak_rss_mb()
    started = time.perf_counter()
    sampled_tokens = sample(policy, alternative, prompt, samples, new_tokens)
    seconds = time.perf_counter() - started
    assert sampled_tokens == samples * new_tokens, f"{alternative} sampled {sampled_tokens} tokens"
    return Measurement(seconds, peak_rss_mb() - memory_before)


def sample_with_generate(policy: Policy, _: str, prompt: list[int], samples: int, new_tokens: int) -> int:
    """Sample with transformers; return the number of sampled tokens."""
    import torch

    sequences = policy.model.generate(
        torch.tensor([prompt], device=policy.device),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=policy.device),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        num_return_sequences=samples,
        max_new_tokens=new_tokens,
        eos_token_id=None,
    )
    return int(sequences[:, len(prompt) :].numel())


def sample_with_longreward(policy: Policy, cache: str, prompt: list[int], samples: int, new_tokens: int) -> int:
    """Sample with `generate_batch`; return the number of sampled tokens."""
    from longreward.models.sampling import SampleConfig, generate_batch

    config = SampleConfig.model_validate({"n": samples, "max_new_tokens": new_tokens, "cache": cache})
    [responses] = generate_batch(policy, [prompt], ["benchmark"], config)
    return sum(len(response) for response in responses)


def random_policy(window: int) -> Policy:
    """Return a policy without an end token, so that no response ends early."""
    model: Any = random_llama(
        vocab_size=8000,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=window,
        tie_word_embeddings=True,
        eos_token_id=None,
    ).eval()
    tokenizer = PolicyTokenizer(tokenizer=None, template="", end_ids=(-1,))
    return Policy(PolicyConfig(base_model="random"), "random", model, tokenizer, window, model.device)


if __name__ == "__main__":
    main()
