"""A step of DPO on one long pair: shared prefixes against TRL's own, in time and peak memory.

    python benchmarks/dpo_step.py [--prompts 2048 8192] [--completion 256] [--rounds 3]
    python benchmarks/dpo_step.py --model 8b --prompts 8192 32768 65536 --completion 512 --ways stock shared
    python benchmarks/dpo_step.py --model 8b --fit --completion 512 --ways stock shared

    stock    TRL as it is: off CUDA it scores every position of both rows
    answers  TRL's rows, scored at the answers' positions alone: what is fair to compare with off CUDA
    shared   one row a pair (longreward.training.prefix.sharing)

Every way is a process of its own with the same random Llama: `small` in float32, all weights trained (hidden 256, 6
layers, vocabulary 32k), `8b` in bfloat16 with LoRA and gradient checkpointing. All are ready before the first step,
and then take turns, so that a noisy machine is noisy to all; times are medians of the rounds after one for warming up.
Peaks are the process's whole resident memory on a CPU, torch's allocated memory on a GPU. `--fit` doubles and then
halves the prompt's length until it is known, to 1,024 tokens, how much fits on the card. Every line says how far the
loss of a way lies from the first way's, on the same weights and pair.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from typing import Any

WAYS = ("stock", "answers", "shared")
Request = tuple[int, int]  # tokens of the prompt, tokens of each answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["small", "8b"], default="small")
    parser.add_argument("--prompts", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--completion", type=int, default=256, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--fit", action="store_true", help="find the longest prompt that fits on the GPU")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if options.fit:
        for way in options.ways:
            print(f"{way:8} longest prompt {longest(way, options.model, options.completion):,} tokens", flush=True)
        return
    for prompt in options.prompts:
        print(f"\n{options.model}, prompt {prompt:,}, two answers of {options.completion}", flush=True)
        table(measured(options.ways, options.model, (prompt, options.completion), options.rounds))


def table(found: dict[str, list[dict[str, float]]]) -> None:
    """Prints a line a way; ratios are against the first way and against `answers`."""
    base = next(iter(found))
    for way, steps in found.items():
        seconds = statistics.median(step["seconds"] for step in steps)
        line = f"  {way:8} {seconds:8.2f} s   peak {steps[-1]['peak'] / 2**20:8,.0f} MB"
        for other in dict.fromkeys([base, "answers"]):
            if other in found and other != way:
                faster = statistics.median(step["seconds"] for step in found[other]) / seconds
                line += f"   {faster:5.2f}x {other} in {steps[-1]['peak'] / found[other][-1]['peak']:.2f} of its memory"
        print(f"{line}   loss {steps[0]['loss'] - found[base][0]['loss']:+.1e}", flush=True)


def measured(ways: list[str], model: str, request: Request, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Each way's steps, taken in turn; where two models do not fit on one GPU, one way after the other."""
    groups = [[way] for way in ways] if model == "8b" else [ways]
    found: dict[str, list[dict[str, float]]] = {}
    for group in groups:
        workers = {way: _start(way, model) for way in group}
        for turn in range(rounds + 1):
            for way, (_, pipe) in workers.items():
                pipe.send(request)
                step = pipe.recv()
                if turn or rounds == 0:
                    found.setdefault(way, []).append(step)
        for process, pipe in workers.values():
            pipe.send(None)
            process.join()
    return found


def longest(way: str, model: str, completion: int) -> int:
    """The longest prompt, in steps of 1,024 tokens, whose step does not run out of the GPU's memory."""
    low, high = 0, 0
    prompt = 32
    while True:
        process, pipe = _start(way, model)
        pipe.send((prompt * 1024, completion))
        fits = "peak" in pipe.recv()
        pipe.send(None)
        process.join()
        low, high = (prompt, high) if fits else (low, prompt)
        if high and high - low <= 1:
            return low * 1024
        prompt = (low + high) // 2 if high else prompt * 2


def _start(way: str, model: str) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(way, model, there), daemon=True)
    process.start()
    assert here.recv() == "ready"
    return process, here


def _serve(way: str, model: str, pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(way, model, folder)
        pipe.send("ready")
        while (request := pipe.recv()) is not None:
            try:
                pipe.send(step(trainer, *request))
            except Exception as error:
                if "out of memory" not in str(error):
                    raise
                pipe.send({"failed": 1.0})


def step(trainer: Any, prompt: int, completion: int) -> dict[str, float]:
    """Loss, gradients and update on one pair of random tokens."""
    import torch

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (prompt + 2 * completion,), generator=generator).tolist()
    row = {
        "prompt_ids": ids[:prompt],
        "chosen_ids": ids[prompt : prompt + completion],
        "rejected_ids": ids[prompt + completion :],
        "ref_chosen_logps": -10.0 * completion,
        "ref_rejected_logps": -10.0 * completion,
    }
    batch = trainer.data_collator([row])
    started = time.perf_counter()
    loss = trainer.training_step(trainer.model, batch)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    found = float(loss)  # waits for the GPU
    seconds = time.perf_counter() - started
    if torch.cuda.is_available():
        peak = float(torch.cuda.max_memory_allocated())
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return {"seconds": seconds, "peak": peak, "loss": found}


def make_trainer(way: str, size: str, folder: str) -> Any:
    """A DPOTrainer of TRL whose reference is given with the rows."""
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    from longreward.training.prefix.sharing import PairCollator, share_prefix

    class Trainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any) -> Any:
            return dataset

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    model, collator = make_model(size), None
    if way == "shared":
        share_prefix(model)
        collator = PairCollator(pad_token_id=0)
    elif way == "answers":
        collator = score_answers_alone(model)
    large = size == "8b"
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
    trainer = Trainer(
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


def make_model(size: str) -> Any:
    """A Llama with random weights, the same ones each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4}
    of_8b = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    small = size == "small"
    config = LlamaConfig(
        **(shape if small else of_8b),
        num_key_value_heads=4 if small else 8,
        vocab_size=32_000 if small else 128_256,
        max_position_embeddings=2**20,
        dtype="float32" if small else "bfloat16",
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return LlamaForCausalLM._from_config(config, attn_implementation="sdpa")


def score_answers_alone(model: Any) -> Any:
    """TRL's two rows a pair, of whose hidden states only the answers' reach the LM head (answers of one length)."""
    import torch

    from longreward.training.prefix.sharing import PairCollator

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = PairCollator(pad_token_id=0)(rows)
        sides = [row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids") for row in rows]
        return {**batch, "packed_pairs": torch.tensor(sides)}

    def whole(backbone: Any, positional: Any, named: dict[str, Any]) -> Any:
        answers = named.pop("input_ids").shape[1]
        return (), {**named, "input_ids": named.pop("packed_pairs"), "attention_mask": None, "answers": answers}

    def answers_alone(backbone: Any, positional: Any, named: dict[str, Any], output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, -named["answers"] :]
        return output

    model.base_model.register_forward_pre_hook(whole, with_kwargs=True)
    model.base_model.register_forward_hook(answers_alone, with_kwargs=True)
    return collate


if __name__ == "__main__":
    main()
