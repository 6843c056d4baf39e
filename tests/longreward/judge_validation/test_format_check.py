"""The doctor's question to a judge: do its replies to the real prompts have the form that they ask for?"""

from collections.abc import Callable
from typing import Any

import pytest

from longreward.judge import JudgeConfig
from longreward.judge.prompts import load_prompts
from longreward.judge_validation.format_check import check_formats
from longreward.offline_judge_server import reply_text
from longreward.params import Params
from longreward.tasks.doctor.finding import Finding, Level
from longreward.tasks.doctor.servers import check_judge

PROMPTS = load_prompts()


def answering(spoil: Callable[[str, str], str]) -> Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]:
    """The offline judge's replies, spoilt: of (prompt, reply)."""

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        prompt = body["messages"][-1]["content"]
        message = {"role": "assistant", "content": spoil(prompt, reply_text(PROMPTS, prompt))}
        usage = {"prompt_tokens": 900, "completion_tokens": 10}
        return 200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    return answer


async def test_readable_judge(serve_chat: Any) -> None:
    with serve_chat(answering(lambda prompt, reply: reply)) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m")
        report = await check_formats(config, PROMPTS, limit_s=30)
    assert [check.dimension for check in report.checks] == [
        "helpfulness", "logicality", "faithfulness", "completeness",
    ]  # fmt: skip
    assert report.unreadable == ()
    assert report.calls == len(server.bodies) <= 8
    assert report.tokens == 910 * report.calls


async def test_unreadable_dimensions_reported(serve_chat: Any) -> None:
    def spoil(prompt: str, reply: str) -> str:
        return "It is a very logical answer." if "[[" in reply and "logic" in prompt.lower() else reply

    with serve_chat(answering(spoil)) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m", dimensions={"logicality": {"system": "Hm."}})
        report = await check_formats(config, PROMPTS, limit_s=30)
    names = [check.dimension for check in report.unreadable]
    assert "logicality" in names
    assert "helpfulness" not in names
    (logicality,) = [check for check in report.unreadable if check.dimension == "logicality"]
    assert "It is a very logical answer." in (logicality.problem or "")
    assert "Rating: [[7]]" in logicality.expected
    texts = [body["messages"][-1]["content"] for body in server.bodies]
    assert len(set(texts)) == len(texts)


def by_level(findings: list[Finding]) -> dict[Level, list[str]]:
    result: dict[Level, list[str]] = {}
    for finding in findings:
        result.setdefault(finding.level, []).append(f"{finding.subject}: {finding.message} {finding.advice}")
    return result


async def test_doctor_reports_unreadable_judge(serve_chat: Any) -> None:
    """Its tiny question is answered well, the real prompts are not."""
    chatty = answering(lambda prompt, reply: "[[3]]" if "Which number is larger" in prompt else "What a good answer!")
    with serve_chat(chatty) as server:
        result = by_level(await check_judge(Params(judge={"kind": "http", "base_url": server.url, "model": "m"})))
    bad = "\n".join(result[Level.FAILURE])
    for dimension in ("helpfulness", "logicality", "faithfulness", "completeness"):
        assert f"judge prompts: {dimension}, m: " in bad
    assert "What a good answer!" in bad
    assert "<statement>one fact</statement>" in bad
    assert any(said.startswith("judge: judge 'm' at") for said in result[Level.OK])


async def test_slow_judge_is_note(serve_chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.tasks.doctor.servers.PROMPTS_TIMEOUT_S", 0.0)
    with serve_chat(answering(lambda prompt, reply: reply)) as server:
        result = by_level(await check_judge(Params(judge={"kind": "http", "base_url": server.url, "model": "m"})))
    assert Level.FAILURE not in result
    assert len([said for said in result[Level.NOTE] if "no reply to its prompts within 0 s" in said]) == 4


async def test_unreachable_server_gets_no_prompts() -> None:
    result = by_level(
        await check_judge(Params(judge={"kind": "http", "base_url": "http://127.0.0.1:9/v1", "model": "m"}))
    )
    assert len(result[Level.FAILURE]) == 1


async def test_offline_judge_not_tested() -> None:
    assert [finding.subject for finding in await check_judge(Params())] == ["judge"]
