"""DPO with a cross-entropy term on the chosen answer: L = L_DPO + lambda * L_CE (paper, section 3.2).

    L_DPO = -log sigmoid(beta * ((log p(chosen) - log r(chosen)) - (log p(rejected) - log r(rejected))))
    L_CE  = -log p(chosen) / tokens of chosen

p is the model in training, r the SFT model that it starts from; log p sums over the answer's tokens, its end included.
"""

import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, load_policy
from longreward.training.checkpoints import training_key
from longreward.training.config import TrainingSettings
from longreward.training.data_mixture import ShortPreferences
from longreward.training.lora import build_lora_config
from longreward.training.pair_encoding import TokenMismatch
from longreward.training.report import Log, TrainingReport


class TrainConfig(TrainingSettings):
    """How the policy learns to prefer."""

    learning_rate: float = Field(default=1e-6, gt=0, le=1)
    """Peak rate of AdamW (paper: 1e-6, section 4.1)."""
    beta: float = Field(default=0.15, gt=0)
    """How closely the model is held to the SFT model (paper: 0.15, section 4.1)."""
    ce_weight: float = Field(default=0.1, ge=0)
    """Lambda, the weight of the cross-entropy on the chosen answer (paper: 0.1, section 4.1).

    The paper averages it over each answer's tokens, TRL over all tokens of a micro batch: the same where micro_batch
    is 1; above that, long answers weigh more in this term than short ones beside them.
    """
    reference_batch: int = Field(default=1, ge=1)
    """Pairs that pass the SFT model at once, before the training, for its log-probabilities."""
    prefix_sharing: Literal["auto", "on", "off"] = "auto"
    """Whether a pair's long prompt is computed once for both answers: the same result in about half the time. auto: for
    every model that allows it, else the log says why not; on: stop where the model does not."""
    token_mismatch: TokenMismatch = "refuse"
    """Where a response would be trained on other tokens than were sampled, since its token ids are not known and the
    chat template renders its text differently, or its prompt was another: refuse, or render, to train on what the chat
    template makes of it. Responses with token ids are always trained on these."""
    short: ShortPreferences = ShortPreferences()
    """Short-context preferences that are trained on beside the pairs."""


def train_dpo(
    config: TrainConfig,
    policy_config: PolicyConfig,
    *,
    sft_model: str,
    pairs: Path,
    out: Path,
    state: Path,
    log: Log | None = None,
) -> TrainingReport:
    """Trains `sft_model` on `pairs` and writes the model to `out`; a killed call goes on from `state`."""
    if config.launcher != "none":
        from longreward.training.launch.launcher import launch

        return launch("train", config, policy_config, model=sft_model, data=pairs, out=out, state=state, log=log)
    from longreward.training.estimate.training_estimate import Preference, estimate_training

    settings = config.model_dump_json() + policy_config.model_dump_json()
    own_state = state / training_key(settings, model=sft_model, data=pairs)
    preference = Preference(config.reference_batch, config.prefix_sharing, config.token_mismatch)
    checked = estimate_training(
        config, policy_config, model=sft_model, data=pairs, keep=own_state / "rows", preference=preference
    )
    policy = load_policy(policy_config, sft_model, training=config.lora is None)
    lora = build_lora_config(config.lora, policy.model)
    limit = checked.lengths.limit

    from longreward.training import error_advice, run, trainers
    from longreward.training.precision import resolve_bf16

    run.check_trainable(policy)
    rows_at_once = 2 * config.micro_batch  # where the answers share their prompt, one row of nearly this length
    bf16 = resolve_bf16(
        config.bf16,
        policy,
        state=own_state,
        rows=rows_at_once,
        tokens=checked.lengths.longest,
        whole=config.lora is None,
    )
    arguments = {
        **run.trainer_arguments(config, policy, state=own_state, max_length=limit, bf16=bf16),
        "beta": config.beta,
        "loss_type": ["sigmoid", "sft"] if config.ce_weight else ["sigmoid"],
        "loss_weights": [1.0, config.ce_weight] if config.ce_weight else [1.0],
        "precompute_ref_log_probs": True,
        "precompute_ref_batch_size": config.reference_batch,
    }
    share, rows = _shares(config, policy, checked.lengths.longest), run.open_dataset(checked)
    with error_advice.actionable_error(own_state):  # the reference may need more memory than there is
        kept = own_state / "reference.json"
        trainer = trainers.dpo_trainer(policy, rows, lora, arguments, kept=kept, share=share)
    return run.run_trainer(trainer, policy, checked.lengths, title="train", out=out, state=own_state, log=log)


def _shares(config: TrainConfig, policy: Policy, longest: int) -> bool:
    """Whether pairs share their prompts; PolicyError where they must and cannot."""
    if config.prefix_sharing == "off":
        return False
    from longreward.training.prefix.support import unsupported_reason

    reason = unsupported_reason(policy.model, longest=longest)
    if reason and config.prefix_sharing == "on":
        raise PolicyError(f"train.prefix_sharing is on, and this model cannot: {reason}; set it to auto or off")
    if reason:
        logging.getLogger(__name__).warning("prefix sharing is off, so each prompt is computed twice: %s", reason)
    return reason is None
