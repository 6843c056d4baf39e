"""Time and peak memory of a DPO step on one long pair, with and without shared prefixes.

    python benchmarks/dpo_step.py [--prompt-tokens 2048 8192] [--response-tokens 256] [--rounds 3]
    python benchmarks/dpo_step.py --model 8b --prompt-tokens 8192 32768 65536 --response-tokens 512 --modes trl shared
    python benchmarks/dpo_step.py --model 8b --longest --response-tokens 512 --modes trl shared

    trl-responses    TRL's rows with logits at the response tokens only: the fair alternative without CUDA
    trl              unmodified TRL: without CUDA it computes logits at every position of both rows
    trl-offload      the same with `activation_offloading`, which moves saved activations to the CPU's memory (GPU only)
    shared           `train.prefix_sharing`: the prompt once for both responses

Each mode runs in its own process on the same random Llama: `small` in float32 with full fine-tuning, `8b` in bfloat16
with LoRA and gradient checkpointing. Modes alternate, so that a busy machine affects all of them (`8b`: one after the
other, since two models do not fit on a GPU). `--liger` replaces norms, rotary embeddings and MLPs by the kernels of
liger-kernel in all modes. Times are medians over the rounds after one warm-up. Peak memory is that of the whole process
on a CPU, and torch's allocated memory on a GPU; "estimate" is what `longreward preflight` computes for the same step.
"loss" is the relative difference to the loss of the first mode. `--longest` searches for the longest prompt that fits.
"""

import statistics
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any, NamedTuple

from common import MODELS, argument_parser, peak_rss_mb, random_llama, reset_gpu_peak

MODES = ("trl-responses", "trl", "trl-offload", "shared")
DEFAULT_MODES = ("trl-responses", "trl", "shared")
SEARCH_STEP = 1024  # tokens

trainer: Any  # of a worker process, as its mode
trainer_mode: str


class PairSize(NamedTuple):
    """Numbers of tokens."""

    prompt: int
    response: int


class StepResult(NamedTuple):
    """One training step."""

    seconds: float
    peak_mb: float
    estimate_mb: float
    loss: float


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--response-tokens", type=int, default=256, help="tokens of each response")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=DEFAULT_MODES)
    parser.add_argument("--liger", action="store_true", help="use the kernels of liger-kernel in all modes")
    parser.add_argument("--longest", action="store_true", help="search for the longest prompt that fits on the GPU")
    options = parser.parse_args()
    if options.longest:
        for mode in options.modes:
            tokens = find_longest_prompt(mode, options.model, options.response_tokens, options.liger)
            print(f"{mode:15} longest prompt {tokens:,} tokens", flush=True)
        return
    # In ascending order: the peak memory of a process on a CPU never falls.
    sizes = [PairSize(prompt_tokens, options.response_tokens) for prompt_tokens in sorted(options.prompt_tokens)]
    results = run_rounds(options.modes, options.model, sizes, options.rounds, options.liger)
    for size, steps in results.items():
        print(f"\n{options.model}: prompt {size.prompt:,} tokens, two responses of {size.response}")
        print_table(steps)


def print_table(results: dict[str, list[StepResult]]) -> None:
    """Print one line per mode, with its ratios to the modes before it."""
    first = next(iter(results), None)
    for mode, steps in results.items():
        seconds = statistics.median(step.seconds for step in steps)
        line = f"  {mode:15} {seconds:8.2f} s   peak {steps[-1].peak_mb:8,.0f} MB"
        line += f" (estimate {steps[-1].estimate_mb / steps[-1].peak_mb - 1:+.0%})"
        for baseline, baseline_steps in results.items():
            if baseline == mode:
                break
            speedup = statistics.median(step.seconds for step in baseline_steps) / seconds
            memory = steps[-1].peak_mb / baseline_steps[-1].peak_mb
            line += f"   {speedup:5.2f}x as fast as {baseline} in {memory:.2f} of its memory"
        if first is not None and mode != first:
            line += f"   loss {steps[0].loss / results[first][0].loss - 1:+.1e}"
        print(line, flush=True)


def run_rounds(
    modes: list[str], model: str, sizes: list[PairSize], rounds: int, liger: bool
) -> dict[PairSize, dict[str, list[StepResult]]]:
    """Run all modes alternately, or one after the other with the large model; drop the warm-up round of each size."""
    results: dict[PairSize, dict[str, list[StepResult]]] = {size: {} for size in sizes}
    for group in [[mode] for mode in modes] if model == "8b" else [modes]:
        with ExitStack() as stack:
            workers = {mode: stack.enter_context(start_worker(mode, model, liger)) for mode in group}
            for size in sizes:
                for number in range(rounds + 1):
                    for mode, worker in list(workers.items()):
                        try:
                            result = worker.submit(run_step, size).result()
                        except BrokenProcessPool:  # the initializer has printed its error
                            result = None
                        if result is None:
                            print(f"{mode}: failed or out of memory at {size.prompt:,} tokens", flush=True)
                            del workers[mode]
                            results[size].pop(mode, None)
                        elif number:
                            results[size].setdefault(mode, []).append(result)
                            print(f"{mode}: {size.prompt:,} tokens, {result.seconds:.2f} s", flush=True)
    return results


def find_longest_prompt(mode: str, model: str, response_tokens: int, liger: bool) -> int:
    """Double and then bisect the prompt length until the longest one that fits is known to 1,024 tokens."""

    def fits(prompt_tokens: int) -> bool:
        # A new process each time: the GPU's memory is fragmented after an error.
        with start_worker(mode, model, liger) as worker:
            return worker.submit(run_step, PairSize(prompt_tokens, response_tokens)).result() is not None

    longest, too_long = 0, 32 * SEARCH_STEP
    while fits(too_long):
        longest, too_long = too_long, 2 * too_long
    while too_long - longest > SEARCH_STEP:
        middle = (longest + too_long) // (2 * SEARCH_STEP) * SEARCH_STEP
        longest, too_long = (middle, too_long) if fits(middle) else (longest, middle)
    return longest


def start_worker(mode: str, model: str, liger: bool) -> ProcessPoolExecutor:
    """Return a process with a trainer of its own."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=initialize_worker, initargs=(mode, model, liger))


def initialize_worker(mode: str, model: str, liger: bool) -> None:
    """Create the trainer of this process."""
    global trainer, trainer_mode
    warnings.simplefilter("ignore")
    trainer, trainer_mode = make_trainer(mode, model, liger), mode


def run_step(size: PairSize) -> StepResult | None:
    """Compute loss and gradients of one pair of random tokens and update the weights; None if memory is exhausted."""
    import torch

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (size.prompt + 2 * size.response,), generator=generator).tolist()
    # The train stage computes the log-probabilities of the reference model beforehand, so they are given here.
    row = {
        "prompt_ids": ids[: size.prompt],
        "chosen_ids": ids[size.prompt : size.prompt + size.response],
        "rejected_ids": ids[size.prompt + size.response :],
        "ref_chosen_logps": -10.0 * size.response,
        "ref_rejected_logps": -10.0 * size.response,
    }
    batch = trainer.data_collator([row])
    reset_gpu_peak()
    started = time.perf_counter()
    try:
        loss_tensor = trainer.training_step(trainer.model, batch)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        loss = float(loss_tensor)  # waits for the GPU
    except torch.OutOfMemoryError:
        return None
    seconds = time.perf_counter() - started
    peak_mb = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_rss_mb()
    return StepResult(seconds, peak_mb, estimate_peak_mb(size), loss)


def estimate_peak_mb(size: PairSize) -> float:
    """Return the peak that the train stage would forecast for this process."""
    import torch

    from longreward.training.estimate.memory import LIBRARIES, estimate_memory, measure_shape

    cuda = torch.cuda.is_available()
    tokens = size.prompt + 2 * size.response if trainer_mode == "shared" else 2 * (size.prompt + size.response)
    memory = estimate_memory(
        measure_shape(trainer.model, None),
        tokens=tokens,
        scored=tokens if trainer_mode == "trl" and not cuda else 2 * size.response,
        bf16=trainer.args.bf16,
        cuda=cuda,
        checkpointing=trainer.args.gradient_checkpointing,
    )
    # torch does not count the libraries' own memory on a GPU.
    return (memory.total - (LIBRARIES if cuda else 0)) / 2**20


def make_trainer(mode: str, model_name: str, liger: bool) -> Any:
    """Return a DPOTrainer of TRL that reads the reference log-probabilities from the rows."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.liger import apply_liger_kernel
    from trl import DPOConfig, DPOTrainer
    from trl.trainer import dpo_trainer as dpo_trainer_module

    from longreward.training.prefix.sharing import PairCollator, share_prefix

    class PreparedDPOTrainer(DPOTrainer):  # type: ignore[misc]
        """Takes tokenized rows as they are."""

        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any) -> Any:
            return dataset

    vocabulary = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token="<pad>", eos_token="</s>")
    model, collator = random_llama(max_position_embeddings=2**20, **MODELS[model_name]), None
    if mode == "shared":
        share_prefix(model)
        collator = PairCollator(pad_token_id=0)
    elif mode == "trl-responses":
        collator = compute_response_logits_only(model)
    # TRL 1.16 hashes all weights for its cache of reference log-probabilities: half a minute with 8B.
    dpo_trainer_module.hash_module = lambda module: ""
    large = model_name == "8b"
    config = DPOConfig(
        output_dir=tempfile.gettempdir(),  # nothing is saved
        per_device_train_batch_size=1,
        max_length=None,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.1],
        precompute_ref_log_probs=True,
        gradient_checkpointing=large,
        bf16=large,
        use_cpu=not torch.cuda.is_available(),
        activation_offloading=mode == "trl-offload",
        use_liger_kernel=liger,
        report_to="none",
        disable_tqdm=True,
    )
    dpo_trainer = PreparedDPOTrainer(
        model,
        args=config,
        data_collator=collator,
        train_dataset=Dataset.from_list([{"prompt_ids": [1], "chosen_ids": [1], "rejected_ids": [1]}]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if large else None,
    )
    # What train() does before its first step.
    if liger:
        apply_liger_kernel(dpo_trainer.model, config.liger_kernel_config)
    if large:
        dpo_trainer.model.activation_checkpointing_enable()
        assert dpo_trainer.model.is_gradient_checkpointing
    dpo_trainer.accelerator.prepare_model(dpo_trainer.model)  # adds autocast
    dpo_trainer.create_optimizer()
    dpo_trainer.current_gradient_accumulation_steps = 1  # train() would set it
    dpo_trainer.model.train()
    return dpo_trainer


def compute_response_logits_only(model: Any) -> Any:
    """Pass TRL's two rows per pair through the model, but only the response tokens through the LM head.

    Returns the collator for it. Both responses must have the same length.
    """
    import torch

    from longreward.training.prefix.sharing import PairCollator

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = PairCollator(pad_token_id=0)(rows)
        del batch["packed_texts"]
        texts = [row["prompt_ids"] + row[column] for column in ("chosen_ids", "rejected_ids") for row in rows]
        return {**batch, "texts": torch.tensor(texts)}

    def restore_rows(backbone: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        # TRL sees only the responses, as with shared prefixes; the backbone needs the whole rows.
        response_tokens = kwargs.pop("input_ids").shape[1]
        rows = kwargs.pop("texts")
        return (), {**kwargs, "input_ids": rows, "attention_mask": None, "response_tokens": response_tokens}

    def select_responses(backbone: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, -kwargs["response_tokens"] :]
        return output

    model.base_model.register_forward_pre_hook(restore_rows, with_kwargs=True)
    model.base_model.register_forward_hook(select_responses, with_kwargs=True)
    return collate


if __name__ == "__main__":
    main()
