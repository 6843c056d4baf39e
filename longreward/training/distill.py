"""Distill the judge's scores into a reward model: a sequence classifier trained on pairs of scored responses.

The result is a folder of transformers (with LoRA: the merged model, and the adapter in `adapter/`) that
`longreward.reward.reward_model` loads. Its config.json has two further entries: the window and the part of long
documents that it was trained with (INPUT_KEY), and a hash of what the training depended on (TRAINING_KEY).
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from longreward.errors import DataError, PolicyError
from longreward.models.compatibility import check_attention, load_errors
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import pretrained_kwargs
from longreward.models.policy import Policy, PolicyTokenizer, load_tokenizer, policy_window, select_device
from longreward.reward.reward_model import INPUT_KEY, set_padding_token
from longreward.reward.reward_model_input import DocumentPart, InputEncoder
from longreward.training.config import OptimizationSettings
from longreward.training.report import Log, TrainingReport
from longreward.training.score_pairs import ScoredPrompt, select_pairs
from longreward.training.training_data import LengthStats, Row, TrainingData, collect_rows

TRAINING_KEY = "longreward_training"

log = logging.getLogger(__name__)


class DistillConfig(OptimizationSettings):
    """Training of a reward model on the judge's scores, by `longreward distill`."""

    base_model: str | None = None
    """The model that gets a reward head: a folder or a hub id; null: the policy's (`policy.sft_model`, else
    `policy.base_model`). It is loaded with the settings of `policy`."""
    learning_rate: float = Field(default=1e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    batch_size: int = Field(default=16, ge=1)
    """Pairs in an update."""
    max_length: int | None = Field(default=None, ge=16)
    """Most tokens of document, query and response; null: the model's window."""
    document: DocumentPart = "extracts"
    """What remains of a document that exceeds max_length: its first and last halves (ends), or the chunks that share
    most terms with query and response (extracts). The trained model keeps both settings."""
    pairs_per_prompt: int | None = Field(default=8, ge=1)
    """Pairs of responses to one prompt, at most, selected at random; null: all."""
    labels: Literal["judge", "gold"] = "judge"
    """What ranks the responses of a pair: the judge's scores, or gold facts (`--gold`; recall times the share of
    supported claims, 0 to 10). A model trained on `gold` shows what the judge's mistakes cost."""
    min_margin: float = Field(default=0.25, ge=0, le=10)
    """Least difference of the scores in a pair, 0 to 10. Equal scores never make a pair."""
    margin_scale: float = Field(default=0.0, ge=0)
    """The rewards of a pair should differ by this factor times the difference of the scores (the margin of TRL's
    RewardTrainer); 0: no margin."""
    heldout_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the documents that the reward model is tested on and not trained on."""


def trained_key(folder: Path) -> str | None:
    """Return the hash that the training of this model depended on; None for another model or none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    key = config.get(TRAINING_KEY)
    return str(key) if key else None


def train_reward_model(
    config: DistillConfig,
    policy_config: PolicyConfig,
    prompts: Sequence[ScoredPrompt],
    *,
    base: str,
    out: Path,
    state: Path,
    key: str,
    log_step: Log | None = None,
) -> TrainingReport:
    """Train `base` on pairs of the prompts' responses and write the model to `out`.

    A killed call resumes from `state`, a folder of this training alone, which is deleted at the end. `key` is stored in
    the model's config. PolicyError or DataError if the model or the data does not suit.
    """
    from transformers import set_seed

    from longreward.training import run, trainers
    from longreward.training.lora import build_lora_config
    from longreward.training.precision import resolve_bf16

    tokenizer = load_tokenizer(policy_config, base)
    limit = policy_window(policy_config, base)
    window = config.max_length or limit
    if window is None:
        raise PolicyError(f"{base}: its config states no maximum length; set distill.max_length")
    if limit is not None and window > limit:
        raise PolicyError(f"distill.max_length is {window:,}, and {base} reads {limit:,} tokens; lower it")
    data = tokenize_score_pairs(
        InputEncoder(tokenizer.chat, window, config.document), prompts, config, rows_dir=state / "rows"
    )
    log.info(
        "%s pairs of up to %s tokens (limit %s); %s with a shortened document",
        *(f"{n:,}" for n in (data.stats.count, data.stats.longest, window, data.stats.cut_prompts)),
    )
    set_seed(config.seed)  # loading the model initializes the head
    policy = load_classifier(policy_config, base, tokenizer, training=config.lora is None)
    policy.model.config.update({INPUT_KEY: {"window": window, "document": config.document}, TRAINING_KEY: key})
    lora = build_lora_config(config.lora, policy.model, task="SEQ_CLS")
    bf16 = resolve_bf16(
        config.bf16,
        policy,
        state=state,
        rows=2 * config.micro_batch,
        tokens=data.stats.longest,
        full=config.lora is None,
    )
    # TRL would silently drop longer rows; all fit.
    arguments = run.trainer_arguments(config, policy, state=state, max_length=None, bf16=bf16)
    arguments["warmup_steps"] = run.count_warmup_updates(config.warmup, config.count_updates(data.stats.count))
    trainer = trainers.reward_trainer(policy, data.rows, lora, arguments)
    setup = run.TrainingSetup(policy, data, lora, arguments, state)
    return run.run_trainer(trainer, setup, title="distill", out=out, log=log_step)


@dataclass
class _PairCounts:
    """Counts of the pairs that were tokenized, and of those that do not fit."""

    tokens: list[int]
    cut: int = 0
    too_long: int = 0

    def stats(self, limit: int) -> LengthStats:
        if not self.tokens:
            raise DataError(
                f"no pair of responses to train on: all scores of a prompt differ by less than distill.min_margin, or "
                f"query and response exceed distill.max_length, {limit:,} tokens ({self.too_long} pairs)"
            )
        if self.too_long:
            log.warning("%d pairs are left out: query and response exceed %s tokens", self.too_long, f"{limit:,}")
        mean = sum(self.tokens) / len(self.tokens)
        return LengthStats(len(self.tokens), max(self.tokens), mean, limit, self.cut)


def tokenize_score_pairs(
    encoder: InputEncoder, prompts: Sequence[ScoredPrompt], config: DistillConfig, *, rows_dir: Path
) -> TrainingData:
    """Select pairs and tokenize them into `rows_dir`, or use the rows that it holds; DataError without pairs."""
    counts = _PairCounts([])

    def rows() -> Iterator[Row]:
        for prompt in prompts:
            example = prompt.example
            pairs = select_pairs(prompt, min_margin=config.min_margin, most=config.pairs_per_prompt, seed=config.seed)
            inputs = {
                index: encoder.encode(
                    context=example.context, query=example.query, response=prompt.responses[index].text
                )
                for index in sorted({index for pair in pairs for index in (pair.chosen, pair.rejected)})
            }
            for pair in pairs:
                (chosen, chosen_cut), (rejected, rejected_cut) = inputs[pair.chosen], inputs[pair.rejected]
                if chosen is None or rejected is None:
                    counts.too_long += 1
                    continue
                length = max(len(chosen), len(rejected))
                counts.tokens.append(length)
                counts.cut += chosen_cut or rejected_cut
                row = {
                    "id": f"{prompt.responses[pair.chosen].id} over {prompt.responses[pair.rejected].id}",
                    "chosen_ids": chosen,
                    "rejected_ids": rejected,
                    "length": length,
                }
                yield row | ({"margin": config.margin_scale * pair.difference} if config.margin_scale else {})

    return collect_rows("pairs", rows(), lambda: counts.stats(encoder.window), rows_dir)


def load_classifier(config: PolicyConfig, base: str, tokenizer: PolicyTokenizer, *, training: bool) -> Policy:
    """Load a causal language model under a new head with one output; `training`: all weights are trained.

    The head's initial weights are random: set the seed before. PolicyError if the model cannot be loaded.
    """
    from transformers import AutoModelForSequenceClassification
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    check_attention(config)
    device = select_device(config)
    kwargs = pretrained_kwargs(config, base) | {
        "dtype": "float32" if training and config.dtype == "auto" else config.dtype,
        "attn_implementation": config.attention,
        "num_labels": 1,
    }
    with load_errors("model", base, config), suppress_seqcls_warning():
        model = AutoModelForSequenceClassification.from_pretrained(**kwargs)
    set_padding_token(model, tokenizer.tokenizer, base)
    return Policy(config, base, model.to(device), tokenizer, policy_window(config, base) or 0, device)
