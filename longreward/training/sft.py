"""Supervised fine-tuning: cross-entropy on the answer's tokens only."""

from pathlib import Path

from pydantic import Field

from longreward.models.config import PolicyConfig
from longreward.models.gguf import is_gguf
from longreward.models.policy import link_pretrained, load_policy
from longreward.training.checkpoints import publish_model
from longreward.training.config import TrainingSettings
from longreward.training.data_mixture import ShortAnswers
from longreward.training.report import Log, TrainingReport


class SftConfig(TrainingSettings):
    """Settings of supervised fine-tuning: the section `sft` of params.yaml."""

    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Peak learning rate of AdamW (paper: 1e-5, section 4.1)."""
    short: ShortAnswers = ShortAnswers()
    """Short instructions that are learnt beside the long ones (the paper trains on both, section 4.1)."""


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
    """Fine-tune `base` on the answers in `data` and write the model to `out`; a killed call resumes from `state`.

    Where `policy_config.sft_model` names a model that is fine-tuned already, `out` only points to it, or holds the
    converted weights of a GGUF file.
    """
    if policy_config.sft_model is not None:
        if is_gguf(policy_config.sft_model):
            # Later stages load the model many times, and servers such as vLLM expect a folder.
            convert_gguf(policy_config, policy_config.sft_model, out)
        else:
            link_pretrained(policy_config, policy_config.sft_model, out)
        return TrainingReport(lengths=None, steps=0, resumed_from=0, seconds=0.0)
    if config.launcher != "none":
        from longreward.training.launch.launcher import launch

        return launch("sft", config, policy_config, model=base, data=data, out=out, state=state, log=log)
    from longreward.training import run, trainers

    setup = run.prepare_training(config, policy_config, model=base, data=data, state=state)
    trainer = trainers.sft_trainer(setup.policy, setup.data.rows, setup.lora, setup.arguments, prefixes=setup.prefixes)
    return run.run_trainer(trainer, setup, title="sft", out=out, log=log)


def convert_gguf(config: PolicyConfig, file: str, out: Path) -> None:
    """Write the dequantized model of a GGUF file with its tokenizer to the folder `out`, in the dtype of `config`.

    Raises PolicyError if the file cannot be read, StateError if `out` cannot be written.
    """
    policy = load_policy(config.model_copy(update={"device": "cpu", "device_map": None}), file)

    def write(folder: Path) -> None:
        policy.model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)

    publish_model(out, write)
