"""Reuse judge checks between runs and require a passed check before scoring.

    <folder>/<key>.json   the report; the key is a hash of the judge's settings, the prompts and the check's version

Settings that cannot change a reply, such as rate limits, timeouts and the source of the API key, are not in the key.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from longreward.errors import JudgeValidationError
from longreward.judge import Judge, JudgeConfig, open_judge
from longreward.judge.prompts import PromptSet, load_prompts
from longreward.judge_validation.check import CHECK_VERSION, check_judge
from longreward.judge_validation.report import CheckReport
from longreward.reward.config import ScoreConfig
from longreward.utils.jsonl import open_atomic

KEY_SETTINGS = (
    "kind",
    "model",
    "revision",
    "system",
    "max_attempts",
    "max_reply_tokens",
    "truncated_replies",
    "first_temperature",
    "retry_temperature",
    "thinking_tokens",
    "length_field",
    "extra_body",
    "reply_format",
)


async def load_or_run_check(
    judge: JudgeConfig,
    score: ScoreConfig,
    *,
    folder: Path,
    ledger: Path | None,
    quick: bool,
    judge_factory: Callable[[JudgeConfig], Judge] | None = None,
    on_start: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda finished, total: None,
    run_id: str | None = None,
) -> CheckReport:
    """Return the report on this judge with these prompts from `folder`, or run the check and save its report there.

    `on_start` is called before the first judge call of a new check. `run_id` forces a new check that ignores earlier
    replies in the ledger. Raises the JudgeError family, ConfigError and StateError like scoring.
    """
    # Without the prompts of optional dimensions, which the cases do not use: switching one on needs no new check.
    prompts = load_prompts(score.prompts_dir, score.prompts_manifest, parsing=score.parsing)
    path = folder / f"{check_key(judge, prompts, quick=quick)}.json"
    if run_id is None:
        # No report, or one of an older format: check again.
        with suppress(OSError, ValidationError):
            return CheckReport.model_validate_json(path.read_bytes())
    on_start()
    report = await check_judge(
        judge,
        prompts,
        judge_factory=judge_factory or partial(open_judge, ledger=ledger),
        quick=quick,
        run_id=f"{run_id}." if run_id else "",
        progress=progress,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as file:
        file.write(report.model_dump_json(indent=1))
    return report


def require_passed(judge: str, failures: Sequence[str]) -> None:
    """Raise JudgeValidationError with all failures, if there are any."""
    if failures:
        raise JudgeValidationError(
            f"the judge {judge} did not pass its check:\n"
            + "\n".join(f"- {failure}" for failure in failures)
            + "\n`longreward judge-check` prints the whole report; use another judge or other prompts, change the "
            "thresholds, or set judge.check.gate to warn"
        )


def check_key(judge: JudgeConfig, prompts: PromptSet, *, quick: bool) -> str:
    """Return a key that is equal for two judges exactly if they get equal requests."""
    # Per dimension: another judge for one dimension is another configuration.
    requests = [
        [{name: getattr(config, name) for name in KEY_SETTINGS} | {"address": config.address}, dimensions]
        for config, dimensions in judge.judges()
    ]
    settings = json.dumps([CHECK_VERSION, quick, prompts.hash, requests], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:24]
