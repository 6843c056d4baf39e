"""A tiny reward model for the built-in example project: the tiny base model with a reward head.

    tiny_reward_model(config, Path(".longreward/reward-models"))    # …/reward-models/4f1c…, trained if it is missing

It is trained once for the same base, data and settings. It knows only short texts in the words of the built-in corpus:
the weakness of short-context reward models that the paper describes.
"""

import hashlib
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from filelock import FileLock

from longreward.builtin.short_instructions import short_items
from longreward.errors import PolicyError, StateError
from longreward.models.chat_encoding import ChatEncoder
from longreward.models.compatibility import load_errors
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import fingerprint
from longreward.pairs.srm import TinyRewardConfig
from longreward.reward.reward_model_input import InputEncoder

WINDOW = 512  # far more tokens than a short preference has
RECIPE_VERSION = 2  # increase it if the data or the training changes, so that no older model is reused


def tiny_reward_model(config: TinyRewardConfig, folder: Path) -> Path:
    """Return the model's folder below `folder`; PolicyError if the base is missing, StateError if writing fails."""
    base = Path(config.base)
    if not base.is_dir():
        raise PolicyError(
            f"pair.srm.tiny.base: the model folder {base} does not exist; restore it, or set pair.srm.model to an "
            "existing reward model"
        )
    key = f"{RECIPE_VERSION} {fingerprint(base)} {config.model_dump_json()}"
    out = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Two stages may start at once; the second one waits and uses the model of the first.
        with FileLock(out.with_suffix(".lock")):
            if not out.is_dir():
                partial = out.with_name(f".{out.name}.{os.getpid()}.part")
                # Renamed when it is complete, so that an interrupted training leaves no broken model.
                try:
                    _train(config, base, partial)
                    partial.replace(out)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise StateError(f"{out}: cannot write the reward model ({error}); free disk space and run again") from error
    return out


def _train(config: TinyRewardConfig, base: Path, out: Path) -> None:
    import datasets
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback, set_seed
    from transformers.utils import logging
    from trl import RewardConfig, RewardTrainer
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        logging.disable_progress_bar()
    files = PolicyConfig(base_model=str(base))
    with load_errors("tokenizer", base, files):
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    # TRL still passes gradient_checkpointing, which transformers 5 deprecates.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing` is deprecated", category=FutureWarning)
    set_seed(config.seed)  # loading the model initializes the head
    with load_errors("model", base, files), suppress_seqcls_warning():
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, local_files_only=True)
    rows = datasets.Dataset.from_list(preferences(tokenizer, config.pairs))
    arguments = RewardConfig(
        output_dir=str(out / "state"),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.batch_size,
        max_length=None,  # TRL would silently drop longer rows
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=config.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.rmtree(out / "state", ignore_errors=True)


def preferences(tokenizer: Any, count: int) -> list[dict[str, list[int]]]:
    """Return the built-in short preferences as rows for RewardTrainer, tokenized like responses at inference."""
    encoder = InputEncoder(ChatEncoder(tokenizer), WINDOW)

    def ids(query: str, response: str) -> list[int]:
        token_ids, _ = encoder.encode(context="", query=query, response=response)
        return token_ids or []

    return [
        {"chosen_ids": ids(item.query, item.answer), "rejected_ids": ids(item.query, item.wrong)}
        for item in short_items(count)
    ]
