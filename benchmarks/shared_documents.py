"""Time of an update of SFT and of DPO on several questions per document, with and without shared prefixes.

    python benchmarks/shared_documents.py [--questions 1 4] [--texts 4] [--document-tokens 2048] [--rounds 5]

    separate    `prefix_sharing: off`: each text by itself in TRL's rows, with logits at the answers only. (Unmodified
                TRL computes them at every position where it has no Triton kernel, as on a CPU.)
    pairs       DPO only: one pair in a micro batch, so that its responses share their prompt and nothing else is shared
    shared      `prefix_sharing: auto`: all rows in one micro batch, which computes each document once

The update has `--texts` examples, or pairs with two responses each, of a small random Llama in float32 with full
fine-tuning. Modes alternate, so that a busy machine affects all of them. Times are medians over the rounds after one
warm-up: CPU seconds of one thread on a CPU, seconds on a GPU.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import MODELS, argument_parser, random_llama

MODES = {"sft": ("separate", "shared"), "dpo": ("separate", "pairs", "shared")}
QUESTION_TOKENS, ANSWER_TOKENS = 32, 64
Row = dict[str, Any]


def main() -> None:
    import torch

    parser = argument_parser(__doc__)
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 4], help="questions per document")
    parser.add_argument("--texts", type=int, default=4, help="examples or pairs in an update")
    parser.add_argument("--document-tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for stage, modes in MODES.items():
        for questions in options.questions:
            rows = make_rows(stage, options.texts, questions, options.document_tokens)
            updates = {mode: make_update(stage, mode, rows) for mode in modes}
            seconds: dict[str, list[float]] = {mode: [] for mode in modes}
            for _ in range(options.rounds + 1):
                for mode, update in updates.items():
                    seconds[mode].append(update())
            print(f"\n{stage}: {options.texts} rows, {questions} per document of {options.document_tokens:,} tokens")
            print_table({mode: statistics.median(values[1:]) for mode, values in seconds.items()})


def print_table(seconds: dict[str, float]) -> None:
    """Print one line per mode, with its ratios to the modes before it."""
    for mode, value in seconds.items():
        line = f"  {mode:10} {value:7.2f} s"
        for baseline, baseline_seconds in seconds.items():
            if baseline == mode:
                break
            line += f"   {baseline_seconds / value:5.2f}x as fast as {baseline}"
        print(line, flush=True)


def make_rows(stage: str, count: int, questions: int, document_tokens: int) -> list[Row]:
    """Return rows of random tokens, `questions` of them about each document."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> list[int]:
        ids: list[int] = torch.randint(5, 1000, (length,), generator=generator).tolist()
        return ids

    rows: list[Row] = []
    document: list[int] = []
    for number in range(count):
        document = tokens(document_tokens) if number % questions == 0 else document
        prompt, answers = document + tokens(QUESTION_TOKENS), [tokens(ANSWER_TOKENS) for _ in range(2)]
        if stage == "dpo":
            rows.append({"id": str(number), "prompt_ids": prompt, "chosen_ids": answers[0], "rejected_ids": answers[1]})
        else:
            labels = [-100] * len(prompt) + answers[0]
            rows.append({"id": str(number), "input_ids": prompt + answers[0], "labels": labels})
        rows[-1]["length"] = len(prompt) + ANSWER_TOKENS
    return rows


def make_update(stage: str, mode: str, rows: list[Row]) -> Callable[[], float]:
    """Return a function that updates a model of its own with all rows once and returns the seconds."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from longreward.models.config import PolicyConfig
    from longreward.models.policy import Policy, PolicyTokenizer
    from longreward.training import run, trainers
    from longreward.training.dpo import TrainConfig, loss_arguments
    from longreward.training.prefix.row_prefixes import RowPrefixes
    from longreward.training.sft import SftConfig

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    model = random_llama(max_position_embeddings=2**20, **MODELS["small"])
    text = PolicyTokenizer(tokenizer, "{context}{query}", (1,))
    policy = Policy(PolicyConfig(base_model=""), "", model, text, 2**20, model.device)
    dataset = Dataset.from_list(rows)
    prefixes = None if mode == "separate" else RowPrefixes.of_rows(dataset)
    size = 1 if mode == "pairs" else len(rows)
    settings = {"batch_size": len(rows), "micro_batch": size, "gradient_checkpointing": False, "bf16": False}
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        if stage == "dpo":
            config = TrainConfig.model_validate(settings)
            arguments = run.trainer_arguments(config, policy, state=state, max_length=None, bf16=False)
            # The train stage computes the log-probabilities of the reference model beforehand, so they are given here.
            logps = [-10.0 * ANSWER_TOKENS] * len(rows)
            (state / "reference.json").write_text(json.dumps(dict.fromkeys(trainers.REFERENCE_COLUMNS, logps)))
            trainer = trainers.dpo_trainer(
                policy,
                dataset,
                None,
                arguments | loss_arguments(config),
                ce_weight=config.ce_weight,
                reference_file=state / "reference.json",
                prefixes=prefixes,
            )
        else:
            arguments = run.trainer_arguments(
                SftConfig.model_validate(settings), policy, state=state, max_length=None, bf16=False
            )
            trainer = trainers.sft_trainer(policy, dataset, None, arguments, prefixes=prefixes)
    trainer.create_optimizer()
    trainer.model.train()
    prepared = [trainer.train_dataset[index] for index in range(len(rows))]

    def update() -> float:
        clock = time.perf_counter if torch.cuda.is_available() else time.thread_time
        started = clock()
        for start in range(0, len(prepared), size):
            trainer.pass_micro_batch(trainer.model, trainer.data_collator(prepared[start : start + size]))
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return clock() - started

    return update


if __name__ == "__main__":
    main()
