"""Supervised fine-tuning: the loss is on the answer's tokens alone."""

from pathlib import Path

from pydantic import Field

from longreward.models.config import PolicyConfig
from longreward.models.policy import link_pretrained, load_policy
from longreward.training.checkpoints import training_key
from longreward.training.config import TrainingSettings
from longreward.training.data_mixture import ShortAnswers
from longreward.training.lora import build_lora_config
from longreward.training.report import Log, TrainingReport


class SftConfig(TrainingSettings):
    """How the policy learns to answer."""

    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Peak rate of AdamW (paper: 1e-5, section 4.1)."""
    short: ShortAnswers = ShortAnswers()
    """Short instructions that are learnt beside the long ones (the paper's models learnt from both, section 4.1)."""


def train_sft(
    config: SftConfig,
    policy_config: PolicyConfig,
    *,
    base: str,
    data: Path,
    out: Path,
    state: Path,
    log: Log | None = None,
) -> TrainingReport:
    """Fine-tunes `base` on the answers in `data` and writes the model to `out`; a killed call goes on from `state`.

    Where `policy_config.sft_model` names a model that is fine-tuned already, `out` only points to it.
    """
    if policy_config.sft_model is not None:
        link_pretrained(policy_config, policy_config.sft_model, out)
        return TrainingReport(lengths=None, steps=0, resumed_from=0, seconds=0.0)
    if config.launcher != "none":
        from longreward.training.launch.launcher import launch

        return launch("sft", config, policy_config, model=base, data=data, out=out, state=state, log=log)
    from longreward.training.estimate.training_estimate import estimate_training

    settings = config.model_dump_json() + policy_config.model_dump_json()
    own_state = state / training_key(settings, model=base, data=data)
    checked = estimate_training(config, policy_config, model=base, data=data, keep=own_state / "rows")
    policy = load_policy(policy_config, base, training=config.lora is None)
    lora = build_lora_config(config.lora, policy.model)
    limit = checked.lengths.limit

    from longreward.training import run, trainers
    from longreward.training.precision import resolve_bf16

    run.check_trainable(policy)
    bf16 = resolve_bf16(
        config.bf16,
        policy,
        state=own_state,
        rows=config.micro_batch,
        tokens=checked.lengths.longest,
        whole=config.lora is None,
    )
    arguments = run.trainer_arguments(config, policy, state=own_state, max_length=limit, bf16=bf16)
    trainer = trainers.sft_trainer(policy, run.open_dataset(checked), lora, arguments)
    return run.run_trainer(trainer, policy, checked.lengths, title="sft", out=out, state=own_state, log=log)
