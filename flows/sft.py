"""The base model learns to answer; a model that can already is passed on."""

from pathlib import Path

from longreward.tasks.stage import StageRun, main, stage
from longreward.training.data_mixture import mix_examples
from longreward.training.sft import train_sft


@stage
async def sft(run: StageRun) -> None:
    """The base model learns to answer; a model that can already is passed on."""
    mixed = mix_examples(run.params.sft.short, Path("data/prepared/sft.jsonl"), out=run.state / "mixed_examples.jsonl")
    run.report(mixed.metrics())
    report = train_sft(
        run.params.sft,
        run.params.policy,
        base=run.params.policy.base_model,
        data=mixed.data,
        out=Path("models/sft"),
        state=run.state,
        log=run.curve,
    )
    run.report(report.metrics())


if __name__ == "__main__":
    main(sft)
