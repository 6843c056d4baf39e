"""Distill the judge's scores into a reward model: the flow of `longreward distill`.

It is no stage of dvc.yaml: a reward model is trained on the scores of one run to be used in others. A run that was
killed continues from its last checkpoint when the same command is repeated; a finished training is not repeated.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Flow, flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from longreward.errors import LongRewardError
from longreward.evaluation.measures import GoldMeasures, load_gold_measures
from longreward.models.model_ref import fingerprint
from longreward.params import Params
from longreward.reward.reward_model import RewardModelConfig, load_reward_model
from longreward.reward_bench.heldout import HeldoutAgreement, measure_heldout, render_heldout, to_json
from longreward.tasks.console_log import UI_ONLY
from longreward.tasks.flow_runner import configure_logging, final_state
from longreward.tasks.flow_runs import register_flow_run
from longreward.tasks.interruption import Interrupted, cancelled_state, stop_on_signals
from longreward.tasks.progress_artifact import progress_artifact
from longreward.tasks.state import file_digests, stage_folder
from longreward.tasks.tracking.run_hierarchy import distill_run
from longreward.training.distill import train_reward_model, trained_key
from longreward.training.score_pairs import ScoredPrompt, label_by_gold, read_scored_prompts, split_by_document
from longreward.utils.jsonl import open_atomic
from longreward.utils.progress import show_progress

AGREEMENT = "heldout.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillFiles:
    """What a distillation reads, and the folder that it writes."""

    data: Path
    scores: Sequence[Path]
    gold: Path | None
    out: Path


def distill_flow(params: Params, files: DistillFiles) -> Flow[[], Any]:
    """Create the flow that trains a reward model on the scores and tests it on held-out documents."""

    @flow(name="distill", validate_parameters=False, persist_result=False)
    async def distill() -> State[Any]:
        configure_logging()
        try:
            with register_flow_run(str(flow_run.id)), stop_on_signals():
                _distill(params, files)
        except LongRewardError as error:
            get_run_logger().error("%s: %s", type(error).__name__, error, extra=UI_ONLY)
            return await final_state.record(Failed(name=type(error).__name__, message=str(error)))
        except Interrupted:
            return await final_state.record(cancelled_state())
        return await final_state.record(Completed(message=f"the reward model is {files.out}"))

    return distill


def _distill(params: Params, files: DistillFiles) -> None:
    config, policy = params.distill, params.policy
    gold = load_gold_measures(files.gold) if files.gold else None
    inputs = [files.data, *files.scores]
    if files.gold and config.labels == "gold":
        inputs.append(files.gold)
    base = config.base_model or policy.sft_model or policy.base_model
    settings = params.model_dump(mode="json", include={"distill": True, "policy": True, "pair": {"weights"}})
    state = stage_folder(
        "distill",
        settings=json.dumps([settings, base, fingerprint(Path(base)) if Path(base).exists() else ""], sort_keys=True),
        inputs=file_digests(inputs),
    )
    key = state.name
    with distill_run(key) as run, progress_artifact("distill"):
        run.log_params(settings)
        run.log_dataset("prompts", files.data, "training")
        for file in files.scores:
            run.log_dataset(file.stem, file, "training")
        prompts = read_scored_prompts(files.data, files.scores, params.pair.weights)
        training, heldout = split_by_document(prompts, heldout_share=config.heldout_share, seed=config.seed)
        if gold and config.labels == "gold":
            training = label_by_gold(training, gold)
        if trained_key(files.out) == key:
            log.info("%s was trained on these scores with these settings; it is only tested again", files.out)
        else:
            report = train_reward_model(
                config, policy, training, base=base, out=files.out, state=state, key=key, log_step=run.log_step
            )
            run.log_metrics({f"training/{name}": value for name, value in report.metrics().items()})
        started = time.monotonic()
        agreements = measure_reward_model(params, heldout, files.out, gold)
        run.log_metrics({name: value for agreement in agreements for name, value in agreement.metrics().items()})
        run.log_metrics({"heldout/prompts": len(heldout), "heldout/seconds": time.monotonic() - started})
        card = _render_card(base, config.labels, training, heldout, agreements)
        run.log_report("reward_model.md", card)
        run.log_json(AGREEMENT, to_json(agreements))
        run.set_tags({"reward_model": str(files.out)})
        with open_atomic(files.out / AGREEMENT) as text:
            json.dump(to_json(agreements), text, indent=1)
        with open_atomic(files.out / "README.md") as text:
            text.write(card)


def measure_reward_model(
    params: Params, heldout: Sequence[ScoredPrompt], folder: Path, gold: GoldMeasures | None
) -> list[HeldoutAgreement]:
    """Load the trained model as its users do, and compare its rewards on held-out prompts with their scores."""
    model = load_reward_model(RewardModelConfig(model=str(folder), device=params.policy.device))
    with show_progress("distill, held-out responses") as update:
        ranked = model.rank([(prompt.example, prompt.responses) for prompt in heldout], progress=update)
    return measure_heldout(heldout, ranked, gold=gold, intervals=params.evaluate.interval_options)


def _render_card(
    base: str,
    labels: str,
    training: Sequence[ScoredPrompt],
    heldout: Sequence[ScoredPrompt],
    agreements: Sequence[HeldoutAgreement],
) -> str:
    def size(prompts: Sequence[ScoredPrompt]) -> str:
        documents = {prompt.example.document_id for prompt in prompts}
        responses = sum(len(prompt.responses) for prompt in prompts)
        return f"{responses:,} responses to {len(prompts):,} prompts about {len(documents):,} documents"

    source = {"judge": "the judge's scores", "gold": "gold facts"}[labels]
    return (
        f"# Reward model from {base}\n\n"
        f"Trained on {source} of {size(training)}; held out are {size(heldout)}.\n{render_heldout(agreements)}"
    )
