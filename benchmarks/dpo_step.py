"""Time and peak memory of a DPO step on one long pair, with and without shared prefixes.

    python benchmarks/dpo_step.py [--prompt-tokens 2048 8192] [--response-tokens 256] [--rounds 3]
    python benchmarks/dpo_step.py --model 8b --prompt-tokens 8192 32768 65536 --response-tokens 512 --modes trl shared
    python benchmarks/dpo_step.py --model 8b --longest --response-tokens 512 --modes trl shared

    trl              unmodified TRL: without CUDA it computes logits at every position of both rows
    trl-responses    TRL's rows with logits at the response tokens only: the fair alternative without CUDA
    shared           `train.prefix_sharing`: one row per pair

Each mode runs in its own process on the same random Llama: `small` in float32 with full fine-tuning, `8b` in bfloat16
with LoRA and gradient checkpointing. Modes alternate, so that a busy machine affects all of them (`8b`: one after the
other, since two models do not fit on a GPU). Times are medians over the rounds after one warm-up. Peak memory is that
of the whole process on a CPU, and torch's allocated memory on a GPU. "loss" is the difference to the loss of the first
mode. `--longest` searches for the longest prompt that fits on the GPU.
"""

import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from common import argument_parser, peak_rss_mb, random_llama

MODES = ("trl", "trl-responses", "shared")
SEARCH_STEP = 1024  # tokens
MODELS: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 32_000,
        "dtype": "float32",
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "dtype": "bfloat16",
    },
}


class PairSize(NamedTuple):
    """Numbers of tokens."""

    prompt: int
    response: int


class StepResult(NamedTuple):
    """One training step."""

    seconds: float
    peak_mb: float
    loss: float


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--response-tokens", type=int, default=256, help="tokens of each response")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--longest", action="store_true", help="search for the longest prompt that fits on the GPU")
    options = parser.parse_args()
    if options.longest:
        for mode in options.modes:
            tokens = find_longest_prompt(mode, options.model, options.response_tokens)
            print(f"{mode:15} longest prompt {tokens:,} tokens", flush=True)
        return
    for prompt_tokens in options.prompt_tokens:
        print(f"\n{options.model}: prompt {prompt_tokens:,} tokens, two responses of {options.response_tokens}")
        size = PairSize(prompt_tokens, options.response_tokens)
        print_table(run_rounds(options.modes, options.model, size, options.rounds))


def print_table(results: dict[str, list[StepResult]]) -> None:
    """Print one line per mode, with its ratios to the first mode and to `trl-responses`."""
    first = next(iter(results))
    for mode, steps in results.items():
        seconds = statistics.median(step.seconds for step in steps)
        line = f"  {mode:15} {seconds:8.2f} s   peak {steps[-1].peak_mb:8,.0f} MB"
        for baseline in dict.fromkeys([first, "trl-responses"]):
            if baseline in results and mode not in (first, baseline):
                speedup = statistics.median(step.seconds for step in results[baseline]) / seconds
                memory = steps[-1].peak_mb / results[baseline][-1].peak_mb
                line += f"   {speedup:5.2f}x as fast as {baseline} in {memory:.2f} of its memory"
        print(f"{line}   loss {steps[0].loss - results[first][0].loss:+.1e}", flush=True)


def run_rounds(modes: list[str], model: str, size: PairSize, rounds: int) -> dict[str, list[StepResult]]:
    """Run all modes alternately, or one after the other with the large model; drop the warm-up round."""
    results: dict[str, list[StepResult]] = {mode: [] for mode in modes}
    for group in [[mode] for mode in modes] if model == "8b" else [modes]:
        with start_workers(group, model) as workers:
            for _ in range(rounds + 1):
                for mode, worker in workers.items():
                    worker.send(size)
                    result = worker.recv()
                    if result is None:
                        raise SystemExit(f"{mode}: out of memory with a prompt of {size.prompt:,} tokens")
                    results[mode].append(result)
    return {mode: steps[1:] for mode, steps in results.items()}


def find_longest_prompt(mode: str, model: str, response_tokens: int) -> int:
    """Double and then bisect the prompt length until the longest one that fits is known to 1,024 tokens."""
    fits, too_long = 0, None  # multiples of SEARCH_STEP
    while too_long is None or too_long - fits > 1:
        candidate = (fits + too_long) // 2 if too_long is not None else max(32, 2 * fits)
        # A new process each time: memory is fragmented after an error.
        with start_workers([mode], model) as workers:
            workers[mode].send(PairSize(candidate * SEARCH_STEP, response_tokens))
            result = workers[mode].recv()
        if result is None:
            too_long = candidate
        else:
            fits = candidate
    return fits * SEARCH_STEP


@contextmanager
def start_workers(modes: list[str], model: str) -> Iterator[dict[str, Connection]]:
    """Start one process per mode; yield the pipes to them when all trainers are ready."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    for mode in modes:
        parent_end, worker_end = context.Pipe()
        process = context.Process(target=run_worker, args=(mode, model, worker_end), daemon=True)
        process.start()
        assert parent_end.recv() == "ready"
        workers[mode] = (process, parent_end)
    yield {mode: pipe for mode, (_, pipe) in workers.items()}
    for process, pipe in workers.values():
        pipe.send(None)
        process.join()


def run_worker(mode: str, model: str, pipe: Connection) -> None:
    """Run a step for each PairSize received, until None; reply with its result, or None if memory is exhausted."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(mode, model, folder)
        pipe.send("ready")
        while (size := pipe.recv()) is not None:
            try:
                pipe.send(run_step(trainer, size))
            except RuntimeError as error:
                if "out of memory" not in str(error):
                    raise
                pipe.send(None)


def run_step(trainer: Any, size: PairSize) -> StepResult:
    """Compute loss and gradients of one pair of random tokens and update the weights."""
    import torch

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (size.prompt + 2 * size.response,), generator=generator).tolist()
    row = {
        "prompt_ids": ids[: size.prompt],
        "chosen_ids": ids[size.prompt : size.prompt + size.response],
        "rejected_ids": ids[size.prompt + size.response :],
        "ref_chosen_logps": -10.0 * size.response,
        "ref_rejected_logps": -10.0 * size.response,
    }
    batch = trainer.data_collator([row])
    started = time.perf_counter()
    loss_tensor = trainer.training_step(trainer.model, batch)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    loss = float(loss_tensor)  # waits for the GPU
    seconds = time.perf_counter() - started
    peak_mb = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_rss_mb()
    return StepResult(seconds, peak_mb, loss)


def make_trainer(mode: str, model_name: str, folder: str) -> Any:
    """Return a DPOTrainer of TRL that reads the reference log-probabilities from the rows."""
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

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
    large = model_name == "8b"
    config = DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=1,
        max_length=None,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.1],
        precompute_ref_log_probs=True,
        gradient_checkpointing=large,
        bf16=large,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = PreparedDPOTrainer(
        model,
        args=config,
        data_collator=collator,
        train_dataset=Dataset.from_list([{"prompt_ids": [1], "chosen_ids": [1], "rejected_ids": [1]}]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if large else None,
    )
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1  # train() would set it
    trainer.model.train()
    return trainer


def compute_response_logits_only(model: Any) -> Any:
    """Pass TRL's two rows per pair through the model, but only the response tokens through the LM head.

    Returns the collator for it. Both responses must have the same length.
    """
    import torch

    from longreward.training.prefix.sharing import PairCollator

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = PairCollator(pad_token_id=0)(rows)
        texts = [row["prompt_ids"] + row[column] for column in ("chosen_ids", "rejected_ids") for row in rows]
        return {**batch, "packed_pairs": torch.tensor(texts)}

    def restore_rows(backbone: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        # TRL sees only the responses, as with shared prefixes; the backbone needs the whole rows.
        response_tokens = kwargs.pop("input_ids").shape[1]
        rows = kwargs.pop("packed_pairs")
        return (), {**kwargs, "input_ids": rows, "attention_mask": None, "response_tokens": response_tokens}

    def select_responses(backbone: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, -kwargs["response_tokens"] :]
        return output

    model.base_model.register_forward_pre_hook(restore_rows, with_kwargs=True)
    model.base_model.register_forward_hook(select_responses, with_kwargs=True)
    return collate


if __name__ == "__main__":
    main()
