"""The embedded default's reward model: the tiny base under a head of one output, trained on short preferences.

    tiny_reward_model(config, Path(".longreward/reward-models"))    # …/reward-models/4f1c…, made where it is not there

It is trained once for the same base, data and settings. It knows the built-in corpus's words and short texts alone,
which is just what the paper holds against short-context reward models.
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
from longreward.pairs.config import TinyRewardConfig
from longreward.pairs.srm import render_input

WINDOW = 512  # far more than a short preference needs
MADE = 2  # to be raised where the data or the recipe changes, so that no older model is taken


def tiny_reward_model(config: TinyRewardConfig, folder: Path) -> Path:
    """The model's folder below `folder`; PolicyError where the base is not there, StateError where the disk refuses."""
    base = Path(config.base)
    if not base.is_dir():
        raise PolicyError(
            f"pair.srm.tiny.base: there is no folder {base} of a model to train a reward model from; bring it back, or "
            "name a ready reward model in pair.srm.model"
        )
    told = f"{MADE} {fingerprint(base)} {config.model_dump_json()}"
    out = folder / hashlib.sha256(told.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(out.with_suffix(".lock")):
            if not out.is_dir():
                part = out.with_name(f".{out.name}.{os.getpid()}.part")
                try:
                    _train(config, base, part)
                    part.replace(out)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise StateError(f"{out}: the reward model cannot be kept ({error}); make room and run again") from error
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
    warnings.filterwarnings(
        "ignore", message=".*gradient_checkpointing` is deprecated", category=FutureWarning
    )  # TRL's
    set_seed(config.seed)  # the head is drawn while the model is loaded
    with load_errors("model", base, files), suppress_seqcls_warning():
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, local_files_only=True)
    rows = datasets.Dataset.from_list(preferences(tokenizer, config.pairs))
    arguments = RewardConfig(
        output_dir=str(out / "state"),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.batch_size,
        max_length=None,  # TRL would leave longer ones out without a word
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
    """The built-in short preferences as RewardTrainer's rows, read as the model will read responses."""
    encoder = ChatEncoder(tokenizer)

    def ids(query: str, response: str) -> list[int]:
        return render_input(encoder, context="", query=query, response=response, window=WINDOW).ids or []

    return [
        {"chosen_ids": ids(item.query, item.answer), "rejected_ids": ids(item.query, item.wrong)}
        for item in short_items(count)
    ]
