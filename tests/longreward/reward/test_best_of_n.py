"""Best of n, with ready responses and with a policy that draws them."""

import doctest
from pathlib import Path

import pytest

import longreward
from longreward import LongReward, abest_of_n, best_of_n
from longreward.errors import BudgetExceeded, ConfigError
from longreward.judge import JudgeConfig
from longreward.judge.budget import Budget, BudgetConfig
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.models.sampling import SampleConfig
from longreward.records import Response, ScoredResponse, Verdict
from longreward.reward import ScoreConfig
from longreward.reward import best_of_n as best_of_n_module

CONTEXT = "Keld was founded by Ann Lee in 1905. The mill at Keld burned down in 1931."
QUERY = "Who founded Keld, and when?"
TRUE, FALSE = "Keld was founded by Ann Lee in 1905.", "Tom Ray founded Keld in 1866."
HALF = "Keld was founded by Ann Lee in 1905. The mill at Keld burned down in 1950."


def test_true_answer_ranks_first() -> None:
    ranked = best_of_n(context=CONTEXT, query=QUERY, responses=[FALSE, HALF, TRUE])
    assert [scored.response.text for scored in ranked] == [TRUE, HALF, FALSE]
    assert [scored.response.number for scored in ranked] == [2, 1, 0]  # each says which one it was
    rewards = [scored.reward or 0.0 for scored in ranked]
    assert rewards == sorted(rewards, reverse=True)


async def test_async_and_sync_results_agree() -> None:
    awaited = await abest_of_n(context=CONTEXT, query=QUERY, responses=[FALSE, TRUE])
    assert best_of_n(context=CONTEXT, query=QUERY, responses=[FALSE, TRUE]) == awaited


def test_ties_keep_order_and_unscored_come_last() -> None:
    def card(number: int, score: float | None) -> ScoredResponse:
        verdict = Verdict(score=score, reason=None if score is not None else "unreadable")
        response = Response(id=f"7-{number}", example_id="7", query="?", text="")
        names = ("helpfulness", "logicality", "faithfulness", "completeness")
        return ScoredResponse(response=response, verdicts=dict.fromkeys(names, verdict))

    ranked = best_of_n_module.rank_responses([card(0, None), card(1, 4.0), card(2, 9.0), card(3, 4.0)])
    assert [scored.response.number for scored in ranked] == [2, 1, 3, 0]


def test_adaptive_strategy_finds_same_best(tmp_path: Path) -> None:
    given = [FALSE, HALF, TRUE, "The mill burned down in 1931.", "Keld is a mill."]
    full = best_of_n(context=CONTEXT, query=QUERY, responses=given)
    sparing = best_of_n(
        context=CONTEXT, query=QUERY, responses=given, reward=LongReward(config=ScoreConfig(strategy="adaptive"))
    )
    assert sparing[0].response == full[0].response
    assert any(not scored.complete for scored in sparing)


def test_policy_samples_reproducibly(tiny_policy: Path) -> None:
    policy = load_policy(PolicyConfig(base_model="unused"), tiny_policy)
    sampling = SampleConfig(n=3, max_new_tokens=8)
    ranked = best_of_n(context="anna was mayor in 1912 .", query="who was mayor ?", policy=policy, sampling=sampling)
    assert sorted(scored.response.number for scored in ranked) == [0, 1, 2]
    again = best_of_n(context="anna was mayor in 1912 .", query="who was mayor ?", policy=policy, sampling=sampling)
    assert again == ranked


def test_ledger_and_budget_across_calls(tmp_path: Path) -> None:
    ledger, budget = tmp_path / "ledger.sqlite", Budget(BudgetConfig(calls=12))
    reward = LongReward(JudgeConfig(), ledger=ledger, budget=budget)
    first = best_of_n(context=CONTEXT, query=QUERY, responses=[TRUE], reward=reward)
    spent = budget.spent.calls
    assert spent == 6  # two ratings, the statements, one support, one extraction, one rating
    assert best_of_n(context=CONTEXT, query=QUERY, responses=[TRUE], reward=reward) == first
    assert budget.spent.calls == spent
    with pytest.raises(BudgetExceeded):
        best_of_n(context=CONTEXT, query=QUERY, responses=[TRUE, HALF, FALSE], reward=reward)


def test_needs_either_responses_or_policy() -> None:
    with pytest.raises(ConfigError, match="either responses or a policy"):
        best_of_n(context=CONTEXT, query=QUERY)
    with pytest.raises(ConfigError, match="empty list"):
        best_of_n(context=CONTEXT, query=QUERY, responses=[])


def test_public_names_and_example() -> None:
    assert all(getattr(longreward, name) for name in longreward.__all__)
    with pytest.raises(AttributeError, match="best_of_m"):
        longreward.best_of_m  # noqa: B018
    results = doctest.testmod(best_of_n_module)
    assert (results.attempted, results.failed) == (3, 0)
