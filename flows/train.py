"""Train the SFT model on preference pairs: DPO with a cross-entropy term."""

from pathlib import Path

from longreward.tasks.model_card import model_card, write_card
from longreward.tasks.stage import StageRun, main, stage
from longreward.training.data_mixture import mix_pairs
from longreward.training.dpo import train_dpo


@stage
async def train(run: StageRun) -> None:
    """Train the SFT model on preference pairs: DPO with a cross-entropy term on the chosen answer."""
    pairs, out = Path("data/pairs/preference_pairs.jsonl"), Path("models/dpo")
    mixed = mix_pairs(run.params.train.short, pairs, out=run.state / "mixed_pairs.jsonl")
    run.log_metrics(mixed.metrics())
    report = train_dpo(
        run.params.train,
        run.params.policy,
        sft_model="models/sft",  # where the training starts, and the frozen reference of the DPO loss
        pairs=mixed.data,
        out=out,
        state=run.state,
        log=run.log_step,
    )
    run.log_metrics(report.metrics())
    write_card(out / "README.md", model_card(run.params, training=report.metrics()))


if __name__ == "__main__":
    main(train)
