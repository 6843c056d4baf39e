"""The budget of one `longreward score`, which all runs with the same files and settings share."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from longreward.errors import BudgetExceeded
from longreward.judge.budget import Budget
from longreward.params import Params, without_runtime_settings
from longreward.planning.plan import plan_files
from longreward.planning.render import format_remaining

COUNTED_PROMPTS = 200  # on which the estimate of the remaining cost is based


@asynccontextmanager
async def scoring_budget(params: Params, *, data: Path, responses: Path, ledger: Path) -> AsyncIterator[Budget]:
    """Open the budget for scoring these files; its usage is stored beside the ledger until the scoring succeeds.

    If the budget is exceeded, BudgetExceeded says how many prompts are complete and what the others will cost.
    """
    limits = params.score.budget
    usage_file = None
    if limits.is_limited:
        # All settings that affect replies.
        settings = without_runtime_settings(params.model_dump(mode="json", include={"judge", "score"}))
        paths = [str(path.resolve()) for path in (data, responses)]
        key = hashlib.sha256(json.dumps([settings, paths], sort_keys=True).encode()).hexdigest()[:24]
        usage_file = ledger.parent / "budgets" / f"{key}.json"
    with Budget(limits, params.prices, file=usage_file) as budget:
        try:
            yield budget
        except BudgetExceeded as error:
            plan = await plan_files(params, data=data, responses=responses, ledger=ledger, sample=COUNTED_PROMPTS)
            raise BudgetExceeded(f"{error}. {format_remaining(plan.stages[0], plan.currency)}") from None
        if usage_file is not None:
            usage_file.unlink(missing_ok=True)
