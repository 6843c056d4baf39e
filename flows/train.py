"""The SFT model learns to prefer: DPO with a cross-entropy term."""

from pathlib import Path

from longreward.training.dpo import train_dpo
from tasks.stage import StageRun, main, stage


@stage
async def train(run: StageRun) -> None:
    """The SFT model learns to prefer: DPO with a cross-entropy term on the chosen answer."""
    report = train_dpo(
        run.params.train,
        run.params.policy,
        sft_model="models/sft",
        pairs=Path("data/pairs/preference_pairs.jsonl"),
        out=Path("models/dpo"),
        state=run.state,
        log=run.curve,
    )
    run.report(report.figures())


if __name__ == "__main__":
    main(train)
