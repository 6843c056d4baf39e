"""A training's first act: its data made rows and its needs told, while no weights are loaded yet.

    data = look_ahead(config, policy_config, model="models/sft", data=pairs, keep=folder).data

Raises what would fail hours later: pairs that do not fit, a chat template that shows other prompts in training than in
sampling, a device that is too small. The figures go to the log.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from longreward.data.formats import read_examples, read_pairs
from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_tokenizer, policy_window
from longreward.training.config import TrainingSettings
from longreward.training.estimate.flops import tokens_of
from longreward.training.estimate.forecast import Forecast, TrainingShape, check_fits, forecast, lines
from longreward.training.estimate.memory import Device, local_device
from longreward.training.estimate.meta_step import ModelSpec, read_blueprint, reason_against_sharing
from longreward.training.pair_encoding import TokenMismatch
from longreward.training.precision import resolve_without_model
from longreward.training.template_check import TemplateReport, check_template
from longreward.training.training_data import TrainingData, tokenize_examples, tokenize_pairs

Sharing = Literal["auto", "on", "off"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preference:
    """What DPO adds to the settings that a forecast looks at."""

    reference_batch: int
    sharing: Sharing
    token_mismatch: TokenMismatch = "refuse"


@dataclass(frozen=True)
class TrainingEstimate:
    """The rows, and what their training will need."""

    data: TrainingData
    borders: TemplateReport
    plan: ModelSpec
    found: Forecast

    def lines(self) -> list[str]:
        """As people read it."""
        cut = self.data.lengths.cut_prompts
        fits = f"{cut:,} prompts lose their middle (over_window: keep_ends)" if cut else "nothing is cut"
        first, *rest = lines(self.found)
        answers = self.data.lengths.answers
        told = [str(answers)] if answers.figures() else []
        borders = [str(self.borders)] if self.borders.answers else []
        return [f"{first}, {fits} at max_length {self.data.lengths.limit:,}; tokens:", *rest, *told, *borders]


def estimate_training(
    settings: TrainingSettings,
    policy: PolicyConfig,
    *,
    model: str,
    data: Path,
    keep: Path | None = None,
    preference: Preference | None = None,
) -> TrainingData:
    """The rows of `data`, kept in the folder `keep`; PolicyError or DataError where they or the device will not do.

    With `preference` they are pairs, else examples.
    """
    outlook = look(settings, policy, model=model, data=data, keep=keep, preference=preference)
    if os.environ.get("RANK", "0") == "0":  # of several processes the first speaks
        for line in outlook.lines():
            log.info("%s", line)
        if outlook.found.peak > outlook.found.device.free:
            log.warning(
                "the predicted peak, %.1f GB, is more than the %.1f GB that are free on %s: it may run out of memory; "
                "see docs/training.md",
                outlook.found.peak / 1e9,
                outlook.found.device.free / 1e9,
                outlook.found.device.name,
            )
    check_fits(outlook.plan, outlook.found)
    return outlook.data


def look(
    settings: TrainingSettings,
    policy: PolicyConfig,
    *,
    model: str,
    data: Path,
    keep: Path | None = None,
    preference: Preference | None = None,
    device: Device | None = None,
    processes: int | None = None,
) -> TrainingEstimate:
    """As `look_ahead`, on `device` (None: this machine's); whether it fits is left to be asked."""
    if settings.bf16 == "auto":
        # A CPU is measured when the model is there; until then float32, which needs more memory.
        on_gpu = device.cuda if device is not None else resolve_without_model("auto", policy)
        settings = settings.model_copy(update={"bf16": on_gpu})
    text = load_tokenizer(policy, model)
    limit = settings.max_length or policy_window(policy, model)
    if limit is None:
        raise PolicyError(f"{model}: its config does not say how long a text may be; set policy.window")
    borders = check_template(text, read_pairs(data) if preference else read_examples(data))
    fit: dict[str, Any] = {"max_length": limit, "over_window": settings.over_window, "keep": keep}
    if preference:
        rows = tokenize_pairs(text, read_pairs(data), token_mismatch=preference.token_mismatch, **fit)
    else:
        rows = tokenize_examples(text, read_examples(data), **fit)
    plan = read_blueprint(policy, model, settings)
    asked = TrainingShape(
        settings=settings,
        processes=processes or settings.processes or 1,
        sharded=_is_sharded(settings),
        share=_shares(preference, plan, rows.lengths.longest),
        reference_batch=preference.reference_batch if preference else None,
    )
    return TrainingEstimate(
        rows, borders, plan, forecast(plan, tokens_of(rows.rows), asked, device or local_device(policy))
    )


def _shares(preference: Preference | None, plan: ModelSpec, longest: int) -> bool:
    if preference is None or preference.sharing == "off":
        return False
    return reason_against_sharing(plan, longest=longest) is None


def _is_sharded(settings: TrainingSettings) -> bool:
    """Whether processes hold a part of the model each: with all kinds but those that copy it."""
    from longreward.training.launch.launcher import launcher_file

    return settings.launcher_config is None or not launcher_file(settings).kind.startswith("MULTI_")
