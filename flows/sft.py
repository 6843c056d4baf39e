"""Fine-tune the base model on answers; a model that is fine-tuned already is linked."""

from pathlib import Path

from longreward.tasks.stage import StageRun, main, stage
from longreward.training.data_mixture import mix_examples
from longreward.training.sft import train_sft


@stage
async def sft(run: StageRun) -> None:
    """Fine-tune the base model on answers; a model that is fine-tuned already is linked."""
    mixed = mix_examples(run.params.sft.short, Path("data/prepared/sft.jsonl"), out=run.state / "mixed_examples.jsonl")
    run.log_metrics(mixed.metrics())
    report = train_sft(
        run.params.sft,
        run.params.policy,
        base=run.params.policy.base_model,
        data=mixed.data,
        out=Path("models/sft"),
        state=run.state,
        log=run.log_step,
    )
    run.log_metrics(report.metrics())


if __name__ == "__main__":
    main(sft)
