"""One judge for callers in many threads."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from longreward.builtin.offline_judge.judge import OfflineJudge
from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import BudgetExceeded, JudgeRefused
from longreward.integrations.background_scorer import BackgroundScorer, Row
from longreward.judge import JudgeConfig
from longreward.judge.budget import BudgetConfig
from longreward.reward import LongReward, ScoreConfig

CONTEXT = "Keld was founded in 1905 by Ann Lee. The market opened in 1931."
QUERY = "Who founded Keld, and when?"
ROWS = [Row(CONTEXT, QUERY, f"Ann Lee founded Keld in {year}.") for year in (1905, 1907, 1931)]


class CountingJudge:
    """The offline judge, which counts the requests by template; `refuse` names one that it refuses."""

    name = "counting"

    def __init__(self, refuse: str = "") -> None:
        self._judge, self._refuse = OfflineJudge(), refuse
        self.counts: Counter[str] = Counter()

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.counts[request.template] += 1
        if request.template == self._refuse:
            raise JudgeRefused("the key is not valid; check OPENAI_API_KEY")
        return await self._judge.complete(request, temperature=temperature)

    async def close(self) -> None:
        pass


def test_scores_equal_those_of_long_reward() -> None:
    with BackgroundScorer() as scorer:
        scored = scorer.score_rows(ROWS)
    expected = [LongReward().score(context=row.context, query=row.query, response=row.response) for row in ROWS]
    assert [one.reward for one in scored] == [one.reward for one in expected]
    assert scored[0].verdicts["faithfulness"].score == 10.0


def test_each_row_is_scored_once_whoever_asks() -> None:
    judge = CountingJudge()
    with BackgroundScorer(judge) as scorer, ThreadPoolExecutor(12) as threads:
        rewards = list(threads.map(lambda row: scorer.submit(row).result().reward, ROWS * 4))
        again = [one.reward for one in scorer.score_rows(ROWS)]
    assert rewards == again * 4
    assert judge.counts["helpfulness"] == 3
    assert judge.counts["extraction"] == 1  # the three responses are to one query: the ledger has it after the first


def test_rows_keep_their_results_after_close() -> None:
    judge = CountingJudge()
    scorer = BackgroundScorer(judge)
    first = scorer.submit(ROWS[0]).result()
    scorer.close()
    scorer.close()
    assert scorer.submit(ROWS[0]).result() is first
    assert scorer.submit(ROWS[1]).result().reward is not None  # opens the judge again
    scorer.close()
    assert judge.counts["helpfulness"] == 2


def test_error_of_the_judge_is_raised_and_the_row_can_be_tried_again() -> None:
    judge = CountingJudge(refuse="helpfulness")
    with BackgroundScorer(judge) as scorer:
        with pytest.raises(JudgeRefused, match="check OPENAI_API_KEY"):
            scorer.score_rows(ROWS)
        with pytest.raises(JudgeRefused):
            scorer.submit(ROWS[0]).result()
        judge._refuse = ""
        assert scorer.submit(ROWS[0]).result().complete


def test_budget_holds_for_all_rows() -> None:
    config = ScoreConfig(budget=BudgetConfig(calls=12))
    with BackgroundScorer(JudgeConfig(), config) as scorer, pytest.raises(BudgetExceeded):
        scorer.score_rows(ROWS)


def test_import_of_the_package_brings_in_no_evaluation_tool() -> None:
    code = "import longreward, sys; print([name for name in ('mlflow', 'inspect_ai', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
