"""Validate and deduplicate raw data, and split it so that no document is in two splits."""

from pathlib import Path

from longreward.data.prepare import prepare as prepare_splits
from longreward.data.prepare import prepare_pairs, prepare_responses
from longreward.models.policy import load_tokenizer, policy_window
from longreward.tasks.stage import StageRun, main, stage
from longreward.utils.progress import show_progress

OUT = Path("data/prepared")


@stage
async def prepare(run: StageRun) -> None:
    """Validate and deduplicate raw data, and split it so that no document is in two splits."""
    policy, config = run.params.policy, run.params.prepare
    # Prompts are counted with the tokenizer that `sample` and `train` will use: SFT keeps that of its base model.
    model = policy.sft_model or policy.base_model
    text, window = load_tokenizer(policy, model), policy_window(policy, model)
    with show_progress("prepare, records") as update:
        report = prepare_splits(
            config,
            text.count_prompt_tokens,
            root=Path(),
            out=OUT,
            window=window,
            progress=lambda records: update(records, None),
        )
    run.log_metrics(report.metrics())
    run.log_metrics(prepare_pairs(config, root=Path(), out=OUT))
    if config.responses:
        run.log_metrics({"responses": prepare_responses(config, root=Path(), out=OUT)})


if __name__ == "__main__":
    main(prepare)
