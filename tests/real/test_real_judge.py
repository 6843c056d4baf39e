"""A real, small judge over llama.cpp: it often departs from the requested formats, which no test double does as well.

The judge is Qwen2.5-Coder-0.5B. Its opinions are often wrong; these tests check what becomes of its replies.
"""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from score_child import EXAMPLE, RESPONSES, score

from longreward.benchmarks.longbench_chat import LongBenchChat
from longreward.benchmarks.mt_bench.benchmark import MtBench
from longreward.benchmarks.types import Answer, Completion
from longreward.judge import ChatRequest, JudgeConfig, open_judge
from longreward.judge.judge import is_overloaded, request_summary
from longreward.judge.ledger import Ledger
from longreward.judge.prompts import load_prompts
from longreward.judge.server_probe import probe
from longreward.judge_validation.window_check import check_windows, longest_prompts
from longreward.pairs.methods import PairConfig
from longreward.pairs.pairwise import pairwise_pair
from longreward.records import DIMENSIONS
from longreward.reward.config import ScoreConfig
from longreward.reward.parsers import parse_rating

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
MODEL = "qwen-0.5b"
SLOTS = 4
WINDOW = 3072


@pytest.fixture(scope="module")
def judge_url(serve_gguf) -> Iterator[str]:
    with serve_gguf(f"{MODEL}.gguf", context=WINDOW, slots=SLOTS) as url:
        yield url


def judge_config(url: str, **settings: Any) -> JudgeConfig:
    return JudgeConfig(
        **{"kind": "http", "model": MODEL, "base_url": url, "max_concurrency": 2, "timeout_s": 600} | settings
    )


async def test_probe_advises_slots_and_window(judge_url: str) -> None:
    (result,) = await probe(judge_config(judge_url, max_concurrency=32), timeout_s=600)
    assert result.ok, result.message
    assert result.advice == (
        f"it works on {SLOTS} requests at once, and judge.max_concurrency is 32: those that wait count towards "
        f"judge.timeout_s. Set judge.max_concurrency to {SLOTS}",
    )
    prompts = longest_prompts(load_prompts(), ScoreConfig(), response_tokens=64)
    (sentence,) = await check_windows(judge_config(judge_url), prompts)
    assert "context window of 3,072 tokens. prompt extraction" in sentence
    assert "(lower score.extraction_chunk_tokens)" in sentence


async def test_dimensions_scored_once_then_served_from_ledger(judge_url: str, tmp_path: Path) -> None:
    scored, metrics = await score(judge_config(judge_url), tmp_path / "ledger.sqlite")
    for response in scored.responses:
        assert set(response.verdicts) == set(DIMENSIONS)
        for verdict in response.verdicts.values():
            assert (verdict.score is None) == (verdict.reason is not None)
            assert verdict.score is None or 0 <= verdict.score <= 10
            assert all(statement.support in (0.0, 0.5, 1.0, None) for statement in verdict.statements)
            assert "\n[Question]" not in (verdict.analysis or "")  # no invented example after the verdict
    scores = [verdict.score for response in scored.responses for verdict in response.verdicts.values()]
    assert sum(value is not None for value in scores) >= 6  # of 8; faithfulness may have no statement
    assert metrics["calls"] >= 8
    assert metrics["failed"] == 0
    again, repeated = await score(judge_config(judge_url), tmp_path / "ledger.sqlite")
    assert (again, repeated["calls"]) == (scored, 0)


async def test_killed_scoring_resumes_from_ledger(judge_url: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    script = Path(__file__).with_name("score_child.py")
    process = await asyncio.create_subprocess_exec(sys.executable, script, judge_url, MODEL, path)
    try:
        while count_exchanges(path) < 3:
            assert process.returncode is None
            await asyncio.sleep(0.2)
    finally:
        process.kill()
        await process.wait()
    recorded = count_exchanges(path)
    scored, metrics = await score(judge_config(judge_url, max_concurrency=1), path)
    assert metrics["calls"] + recorded == count_exchanges(path)
    assert metrics["ledger_hits"] >= 1
    assert len(scored.responses) == len(RESPONSES)


def count_exchanges(path: Path) -> int:
    if not path.exists():
        return 0
    with Ledger(path) as ledger:
        return ledger.totals().exchanges


async def test_pairwise_verdicts(judge_url: str) -> None:
    async with open_judge(judge_config(judge_url), ledger=None) as judge:
        result = await pairwise_pair(judge, PairConfig(method="pairwise", min_scored=2), EXAMPLE, RESPONSES)
        metrics = judge.metrics()
    (comparison,) = result.comparisons
    assert all(verdict in ("A", "B", "C", None) for verdict in comparison.verdicts)
    assert (None in comparison.verdicts) == (comparison.reason is not None)
    assert metrics["calls"] == comparison.calls >= 2


def answer(case_id: str, *turns: str) -> Answer:
    return Answer.from_completions(case_id, [Completion(turn, 5, "stop", prompt_tokens=50) for turn in turns])


async def test_benchmark_prompts(judge_url: str) -> None:
    """Their requests have neither reminders nor stop sequences, which their protocols do not know."""
    chat, bench = LongBenchChat(), MtBench()
    case, question = chat.cases[0], bench.cases[0]
    async with open_judge(judge_config(judge_url, max_attempts=1), ledger=None) as judge:
        verdicts = await chat.judge_answer(judge, case, answer(case.id, "It was built in 1861."))
        verdicts += await bench.judge_answer(judge, question, answer(question.id, "Yes, it is.", "No, it is not."))
        assert judge.metrics()["reminders"] == 0
    assert len(verdicts) == 3
    for verdict in verdicts:
        assert verdict.judgment
        assert (verdict.value is None) == (verdict.reason is not None)


async def test_reasons_of_unscored_replies(judge_url: str) -> None:
    """A reply that is cut off, and a prompt above the window of a slot."""
    template = load_prompts().template("extraction", "en")
    long = template.request({"context": "The mill burned down. " * 1000, "question": "What burned down?"})
    rating = load_prompts().template("helpfulness", "en").request({"question": EXAMPLE.query, "answer": "In 1931."})
    config = judge_config(judge_url, max_attempts=1, extra_body={"max_tokens": 2})
    async with open_judge(config, ledger=None) as judge:
        cut = await judge.query(rating, parse_rating)
        too_long = await judge.query(long, lambda text: text)
    assert cut.value is None
    assert "the answer was cut after 2 of at most " in (cut.reason or "")
    assert too_long.value is None
    assert "3072 tokens" in (too_long.reason or "").replace(",", "")
    assert "lower score.extraction_chunk_tokens, or give the server a larger context window" in (too_long.reason or "")


async def test_reminder_makes_real_reply_readable(judge_url: str) -> None:
    """The judge is asked for an opinion without a word on the format, so its first reply has no rating."""
    form = load_prompts().template("helpfulness", "en").reply_format
    prompt = f"Question: {EXAMPLE.query}\nAnswer: In 1931.\n\nIs this a helpful answer? Reply in one short sentence."
    request = ChatRequest("helpfulness", {}, prompt, "hash", 64, reply_format=form)
    async with open_judge(judge_config(judge_url), ledger=None) as judge:
        reply = await judge.query(request, parse_rating)
        metrics = judge.metrics()
    assert metrics["reminders"] >= 1
    assert reply.value is not None, reply.text


async def test_overloaded_server_gets_fewer_requests_at_once(judge_url: str) -> None:
    """With the default of 32 requests in flight at 4 slots, every request gets its reply in the end."""
    prompt = "Write the numbers from {} on, up to 40 of them, separated by commas."

    def request(number: int) -> ChatRequest:
        return ChatRequest("helpfulness", {}, prompt.format(number), "hash", 32)

    async with open_judge(judge_config(judge_url, max_concurrency=SLOTS), ledger=None) as judge:
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(judge.query(request(number), lambda text: text or None) for number in range(SLOTS)))
        latency_s = asyncio.get_running_loop().time() - started
    # Of 32 requests, those of the last rounds wait about 8 times as long.
    config = judge_config(judge_url, max_concurrency=32, timeout_s=3 * latency_s, max_retries=30)
    async with open_judge(config, ledger=None) as judge:
        numbers = range(100, 148)
        replies = await asyncio.gather(*(judge.query(request(number), lambda text: text or None) for number in numbers))
        metrics = judge.metrics()
    assert all(reply.value for reply in replies)
    assert metrics["timeouts"] > 0
    assert metrics["requests"] == metrics["calls"] + metrics["timeouts"] + metrics["disconnects"]
    assert is_overloaded(metrics)
    assert metrics["concurrency"] < 32
    summary = request_summary(MODEL, metrics)
    assert "lower judge.max_concurrency" in summary
    assert f"{metrics['timeouts']:.0f} timed out" in summary
