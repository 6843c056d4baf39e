"""One check for each configuration of a judge: kept as a file, looked at before scoring, binding where that is wanted.

    <folder>/<key>.json   the report; the key is a hash of the judge's settings, the prompts and the check's version

What does not change an answer (limits, timeouts, where the key comes from) is not in the key.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from longreward.errors import JudgeValidationError
from longreward.judge import Judge, JudgeConfig, open_judge
from longreward.judge.config import CheckConfig
from longreward.judge.prompts import PromptSet, load_prompts
from longreward.judge_validation.check import VERSION, check_judge
from longreward.judge_validation.report import CheckReport
from longreward.reward.config import ScoreConfig
from longreward.utils.jsonl import open_atomic


async def load_or_run_check(
    judge: JudgeConfig,
    score: ScoreConfig,
    *,
    folder: Path,
    ledger: Path | None,
    quick: bool,
    opened: Callable[[JudgeConfig], Judge] | None = None,
    checking: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    again: str | None = None,
) -> CheckReport:
    """The report on this judge with these prompts: the one in `folder`, else a new one, which is then kept there.

    `checking` is told before the first call of a new one. `again` (any word) makes a new one in any case, and past the
    ledger's answers to earlier ones. Raises the JudgeError family, ConfigError and StateError as scoring does.
    """
    prompts = load_prompts(score.prompts_dir, score.prompts_manifest, parsing=score.parsing)
    kept = folder / f"{check_key(judge, prompts, quick=quick)}.json"
    if again is None and (report := _read(kept)) is not None:
        return report
    checking()
    report = await check_judge(
        judge,
        prompts,
        opened=opened or partial(open_judge, ledger=ledger),
        quick=quick,
        again=f"{again}." if again else "",
        progress=progress,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with open_atomic(kept) as file:
        file.write(report.model_dump_json(indent=1))
    return report


def require_passed(report: CheckReport, config: CheckConfig) -> None:
    """Raises JudgeNotTrusted, with all that is wrong, where the report does not reach the thresholds."""
    faults = report.faults(config)
    if faults:
        raise JudgeValidationError(
            f"the judge {report.judge} did not pass its check:\n"
            + "\n".join(f"- {fault}" for fault in faults)
            + "\n`longreward judge-check` prints all of it; take another judge or other prompts, change the "
            "thresholds, or set judge.check.gate to warn"
        )


def check_key(judge: JudgeConfig, prompts: PromptSet, *, quick: bool) -> str:
    """The same for two judges exactly where they would be asked alike."""
    asked = [
        [{name: getattr(each, name) for name in DECIDES} | {"address": each.address}, dimensions]
        for each, dimensions in judge.judges()
    ]
    settings = json.dumps([VERSION, quick, prompts.hash, asked], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:24]


def _read(path: Path) -> CheckReport | None:
    """A report that was kept; None where there is none, or not one of this form."""
    try:
        return CheckReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


DECIDES = (
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
)
