"""Ten samples from one long prompt: `longreward.models.sampling` against `generate(num_return_sequences=10)`.

    python benchmarks/sampling.py [--prompt 4096] [--samples 10] [--new 64]

Each way runs in a process of its own, on the same random Llama (8M weights) and the same prompt, after a warm-up, and
draws the same number of tokens (no answer may end early). Prints seconds, peak memory above the loaded model, ratios.
"""

import argparse
import multiprocessing
import os
import resource
import time
from typing import Any

WAYS = ("generate", "repeated", "shared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=4096, help="tokens of the prompt")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--new", type=int, default=64, help="new tokens a sample")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = multiprocessing.get_context("spawn")
    found = {}
    for way in WAYS:
        with context.Pool(1) as pool:
            found[way] = pool.apply(measure, (way, options.prompt, options.samples, options.new))
    plain_seconds, plain_memory = found["generate"]
    print(f"{options.samples} samples of {options.new} tokens from a prompt of {options.prompt:,}")
    for way, (seconds, memory) in found.items():
        print(
            f"  {way:9} {seconds:6.2f} s  {memory:6.0f} MB   "
            f"{plain_seconds / seconds:5.1f}x faster, {plain_memory / max(memory, 1):5.1f}x less memory"
        )


def measure(way: str, prompt_tokens: int, samples: int, new_tokens: int) -> tuple[float, float]:
    """Seconds, and MB of peak memory above what the loaded model took."""
    import torch

    model, policy = _policy(prompt_tokens + new_tokens)
    prompt = torch.randint(10, 1000, (prompt_tokens,), generator=torch.Generator().manual_seed(1)).tolist()
    draw = {"generate": _generate, "repeated": _ours, "shared": _ours}[way]
    draw(way, model, policy, prompt[:64], samples, 4)
    before = _peak()
    started = time.perf_counter()
    drawn = draw(way, model, policy, prompt, samples, new_tokens)
    seconds = time.perf_counter() - started
    assert drawn == samples * new_tokens, f"{way} drew {drawn} tokens"
    return seconds, _peak() - before


def _generate(way: str, model: Any, policy: Any, prompt: list[int], samples: int, new_tokens: int) -> int:
    import torch

    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        num_return_sequences=samples,
        max_new_tokens=new_tokens,
        eos_token_id=None,
    )
    return int(out[:, len(prompt) :].numel())


def _ours(way: str, model: Any, policy: Any, prompt: list[int], samples: int, new_tokens: int) -> int:
    from longreward.models.sampling import SampleConfig, generate_batch

    config = SampleConfig.model_validate({"n": samples, "max_new_tokens": new_tokens, "cache": way})
    [answers] = generate_batch(policy, [prompt], ["benchmark"], config)
    return sum(len(answer) for answer in answers)


def _policy(window: int) -> tuple[Any, Any]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from longreward.models.config import PolicyConfig
    from longreward.models.policy import Policy, PolicyTokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=window,
        tie_word_embeddings=True,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    no_end = PolicyTokenizer(tokenizer=None, template="", end_ids=(-1,))
    policy = Policy(PolicyConfig(base_model="random"), "random", model, no_end, window, torch.device("cpu"))
    return model, policy


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
