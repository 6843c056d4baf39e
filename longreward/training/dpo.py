"""DPO with a cross-entropy term on the chosen response: L = L_DPO + lambda * L_CE (paper, section 3.2).

    L_DPO = -log sigmoid(beta * ((log p(chosen) - log r(chosen)) - (log p(rejected) - log r(rejected))))
    L_CE  = -log p(chosen) / tokens of chosen

p is the model in training, r the reference: the SFT model that the training starts from. log p(response) sums the
log-probabilities of the response's tokens, its end token included, given the prompt. TRL computes L_DPO, `trainers.py`
adds L_CE.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from longreward.models.config import PolicyConfig
from longreward.training.config import TrainingSettings
from longreward.training.data_mixture import ShortPreferences
from longreward.training.pair_encoding import TokenMismatch
from longreward.training.report import Log, TrainingReport


class TrainConfig(TrainingSettings):
    """Settings of DPO: the section `train` of params.yaml."""

    learning_rate: float = Field(default=1e-6, gt=0, le=1)
    """Peak learning rate of AdamW (paper: 1e-6, section 4.1)."""
    beta: float = Field(default=0.15, gt=0)
    """How closely the model is held to the SFT model (paper: 0.15, section 4.1)."""
    ce_weight: float = Field(default=0.1, ge=0)
    """Lambda, the weight of the cross-entropy on the chosen response (paper: 0.1, section 4.1), averaged over each
    response's tokens, as in the paper."""
    reference_batch: int = Field(default=1, ge=1)
    """Pairs that pass the SFT model at once, before the training, for its log-probabilities."""
    token_mismatch: TokenMismatch = "refuse"
    """For responses that would be trained on other tokens than were sampled, because their token ids are unknown and
    the chat template renders their text differently, or because their prompt was another: refuse, or render, to train
    on what the chat template makes of them. Responses with token ids are always trained on these."""
    short: ShortPreferences = ShortPreferences()
    """Short-context preferences that are trained on beside the pairs."""


def loss_arguments(config: TrainConfig) -> dict[str, Any]:
    """Return the arguments of TRL's DPOConfig for L_DPO."""
    return {
        "beta": config.beta,
        "loss_type": ["sigmoid"],
        # r does not change, so its log-probabilities are computed once, before the first update.
        "precompute_ref_log_probs": True,
        "precompute_ref_batch_size": config.reference_batch,
    }


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
    """Train `sft_model` on `pairs` and write the model to `out`; a killed call resumes from `state`."""
    if config.launcher != "none":
        from longreward.training.launch.launcher import launch

        return launch("train", config, policy_config, model=sft_model, data=pairs, out=out, state=state, log=log)
    from longreward.training import run, trainers
    from longreward.training.error_advice import actionable_error

    setup = run.prepare_training(
        config,
        policy_config,
        model=sft_model,
        data=pairs,
        state=state,
        token_mismatch=config.token_mismatch,
    )
    with actionable_error(setup.state):  # the pass of the reference may run out of memory, too
        trainer = trainers.dpo_trainer(
            setup.policy,
            setup.data.rows,
            setup.lora,
            {**setup.arguments, **loss_arguments(config)},
            ce_weight=config.ce_weight,
            reference_file=setup.state / "reference.json",
            prefixes=setup.prefixes,
        )
    return run.run_trainer(trainer, setup, title="train", out=out, log=log)
