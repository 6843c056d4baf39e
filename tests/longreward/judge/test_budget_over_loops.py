"""One budget for scorings that follow each other, each in an event loop of its own."""

import asyncio

from longreward.judge.budget import Budget, BudgetConfig
from longreward.judge.usage import Usage

CALL, NOTHING = Usage(calls=1), Usage()


def test_calls_wait_for_each_other_in_a_second_loop_as_in_the_first() -> None:
    budget = Budget(BudgetConfig(calls=1))

    async def one_waits_for_the_other() -> None:
        async def failed() -> None:
            await asyncio.sleep(0.01)
            budget.release(CALL, NOTHING, NOTHING)  # it took nothing, so that the other one fits

        await budget.reserve(CALL, NOTHING)
        async with asyncio.TaskGroup() as group:
            group.create_task(failed())
            await budget.reserve(CALL, NOTHING)
        budget.release(CALL, NOTHING, NOTHING)

    asyncio.run(one_waits_for_the_other())
    asyncio.run(one_waits_for_the_other())
    assert budget.spent == NOTHING
