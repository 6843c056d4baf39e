"""The budget of one `longreward score`, remembered beside the ledger over all of its tries."""

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


@asynccontextmanager
async def scoring_budget(params: Params, *, data: Path, responses: Path, ledger: Path) -> AsyncIterator[Budget]:
    """For scoring these files with these settings; what it spent is forgotten once the block ends without an error.

    Where the budget ends, BudgetReached says what is done and what the rest needs.
    """
    limits = params.score.budget
    file = ledger.parent / "budgets" / f"{_key(params, data, responses)}.json" if limits.is_limited else None
    with Budget(limits, params.prices, file=file) as budget:
        try:
            yield budget
        except BudgetExceeded as reached:
            plan = await plan_files(params, data=data, responses=responses, ledger=ledger, sample=LOOKED_AT)
            raise BudgetExceeded(f"{reached}. {format_remaining(plan.stages[0], plan.currency)}") from None
        if file is not None:
            file.unlink(missing_ok=True)


def _key(params: Params, data: Path, responses: Path) -> str:
    """The same for another try: of these files, with the settings that decide about answers."""
    settings = without_runtime_settings(params.model_dump(mode="json", include={"judge", "score"}))
    paths = [str(path.resolve()) for path in (data, responses)]
    return hashlib.sha256(json.dumps([settings, paths], sort_keys=True).encode()).hexdigest()[:24]


LOOKED_AT = 200  # prompts, from which the rest is told
