"""Check the format of a judge's replies to the real prompts, in the library and in `longreward doctor`."""

from collections.abc import Callable
from typing import Any

import pytest

from longreward.judge import JudgeConfig
from longreward.judge.prompts import load_prompts
from longreward.judge_validation.format_check import check_formats
from longreward.judge_validation.window_check import longest_prompts
from longreward.offline_judge_server import reply_text
from longreward.params import Params
from longreward.reward.config import ScoreConfig
from longreward.tasks.doctor.finding import Finding, Level
from longreward.tasks.doctor.servers import check_judge

PROMPTS = load_prompts()
LIST_PROMPTS = load_prompts(statements_per_call=4)


def respond(change: Callable[[str, str], str]) -> Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]:
    """Return a handler with the replies of the offline judge, changed by `change(prompt, reply)`."""

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        prompt = next(message["content"] for message in body["messages"] if message["role"] == "user")
        message = {"role": "assistant", "content": change(prompt, reply_text(LIST_PROMPTS, prompt))}
        usage = {"prompt_tokens": 900, "completion_tokens": 10}
        return 200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    return answer


async def test_readable_judge(serve_chat: Any) -> None:
    with serve_chat(respond(lambda prompt, reply: reply)) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m")
        report = await check_formats(config, PROMPTS, limit_s=30)
    assert [check.subject for check in report.checks] == [
        "helpfulness", "logicality", "faithfulness", "completeness",
    ]  # fmt: skip
    assert report.unreadable == ()
    assert report.calls == len(server.bodies) <= 8
    assert report.tokens == 910 * report.calls


async def test_unreadable_dimensions_reported(serve_chat: Any) -> None:
    def change(prompt: str, reply: str) -> str:
        return "It is a very logical answer." if "[[" in reply and "logic" in prompt.lower() else reply

    with serve_chat(respond(change)) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m", dimensions={"logicality": {"system": "Hm."}})
        report = await check_formats(config, PROMPTS, limit_s=30)
    names = [check.subject for check in report.unreadable]
    assert "logicality" in names
    assert "helpfulness" not in names
    (logicality,) = [check for check in report.unreadable if check.subject == "logicality"]
    assert "It is a very logical answer." in (logicality.problem or "")
    assert "Rating: [[7]]" in logicality.expected
    # Each prompt is sent once, and a reminder follows its unreadable reply.
    texts = [str(body["messages"]) for body in server.bodies]
    assert len(set(texts)) == len(texts)
    # Only logicality has a system prompt: its request has 2 messages, and 4 with the reply and the reminder.
    assert {len(body["messages"]) for body in server.bodies} == {1, 2, 4}


def by_level(findings: list[Finding]) -> dict[Level, list[str]]:
    result: dict[Level, list[str]] = {}
    for finding in findings:
        result.setdefault(finding.level, []).append(f"{finding.subject}: {finding.message} {finding.advice}")
    return result


async def test_doctor_reports_unreadable_judge(serve_chat: Any) -> None:
    """The judge answers the short probe well, but not the real prompts."""
    unreadable = respond(lambda prompt, reply: "[[3]]" if "Which number is larger" in prompt else "What a good answer!")
    with serve_chat(unreadable) as server:
        result = by_level(await check_judge(Params(judge={"kind": "http", "base_url": server.url, "model": "m"})))
    bad = "\n".join(result[Level.FAILURE])
    for dimension in ("helpfulness", "logicality", "faithfulness", "completeness"):
        assert f"judge prompts: {dimension}, m: " in bad
    assert "What a good answer!" in bad
    assert "<statement>one fact</statement>" in bad
    assert any(line.startswith("judge: judge 'm' at") for line in result[Level.OK])


def is_list(prompt: str) -> bool:
    return "check whether a document bears out each of several statements" in prompt


async def test_several_statements_cost_one_more_request(serve_chat: Any) -> None:
    with serve_chat(respond(lambda prompt, reply: reply)) as server:
        config = JudgeConfig(kind="http", base_url=server.url, model="m")
        await check_formats(config, PROMPTS, limit_s=30)
        single = len(server.bodies)
        report = await check_formats(config, LIST_PROMPTS, statements_per_call=3, limit_s=30)
    assert (report.unreadable, report.calls) == ((), single + 1)
    assert [(check.subject, check.missing_lines) for check in report.checks][4:] == [
        ("several statements per request", 0)
    ]
    (text,) = [text for body in server.bodies if is_list(text := body["messages"][0]["content"])]
    assert "3. The stone bridge replaced a ferry." in text
    assert "4. Most of the people" not in text  # as many as a request of the run has


@pytest.mark.parametrize(
    ("reply", "level", "messages"),
    [
        (
            "All of them are true.",
            Level.FAILURE,
            ("several statements per request, m: no readable answer", "or set score.statements_per_call to 1"),
        ),
        (
            "1. [[Fully supported]]\n3. [[Fully supported]]",
            Level.NOTE,
            ("several statements per request, m: 2 statements have no readable line", "score.statements_per_call: 1"),
        ),
    ],
    ids=["unreadable", "lines missing"],
)
async def test_doctor_reports_judge_that_cannot_verify_several_statements(
    serve_chat: Any, reply: str, level: Level, messages: tuple[str, str]
) -> None:
    with serve_chat(respond(lambda prompt, usual: reply if is_list(prompt) else usual)) as server:
        judge = {"kind": "http", "base_url": server.url, "model": "m"}
        findings = by_level(await check_judge(Params(judge=judge, score={"statements_per_call": 8})))
        single = by_level(await check_judge(Params(judge=judge)))
    (finding,) = [line for line in findings[level] if line.startswith("judge prompts")]
    assert all(message in finding for message in messages)
    assert not {Level.FAILURE, Level.NOTE} & single.keys()


async def test_doctor_tests_prompts_of_a_panel_with_the_offline_judge(serve_chat: Any) -> None:
    with serve_chat(respond(lambda prompt, reply: reply if "larger" in prompt else "Good!")) as server:
        panel = [{"kind": "http", "base_url": server.url, "model": "m"}]
        findings = by_level(await check_judge(Params(judge={"panel": panel}, score={"statements_per_call": 2})))
    subjects = [line.partition(", offline-lexical-")[0] for line in findings[Level.FAILURE]]
    dimensions = ("helpfulness", "logicality", "faithfulness", "completeness", "several statements per request")
    assert subjects == [f"judge prompts: {subject}" for subject in dimensions]
    assert all(" + m: m: no readable answer" in line or "; the first: m: " in line for line in findings[Level.FAILURE])


async def test_slow_judge_is_note(serve_chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.tasks.doctor.servers.PROMPTS_TIMEOUT_S", 0.0)
    with serve_chat(respond(lambda prompt, reply: reply)) as server:
        result = by_level(await check_judge(Params(judge={"kind": "http", "base_url": server.url, "model": "m"})))
    assert Level.FAILURE not in result
    assert len([line for line in result[Level.NOTE] if "no verdict within 0 s, the limit of this check" in line]) == 4


async def test_unreachable_server_gets_no_prompts() -> None:
    result = by_level(
        await check_judge(Params(judge={"kind": "http", "base_url": "http://127.0.0.1:9/v1", "model": "m"}))
    )
    assert len(result[Level.FAILURE]) == 1


async def test_offline_judge_not_tested() -> None:
    assert [finding.subject for finding in await check_judge(Params())] == ["judge"]


async def test_doctor_separates_unsuitable_models_from_wrong_settings(serve_chat: Any, completion: Any) -> None:
    """A model that cannot follow the formats needs another name; a server that refuses needs other settings."""

    def refuse_prompts(body: dict[str, Any]) -> tuple[int, Any]:
        if "Which number is larger" in body["messages"][0]["content"]:
            return 200, completion("[[3]]")
        return 400, {"error": {"message": "this server takes no system prompts"}}

    advice = {}
    for name, reply in {"chatty": "I like both numbers.", "refusing": refuse_prompts}.items():
        with serve_chat(reply) as server:
            findings = await check_judge(Params(judge={"kind": "http", "base_url": server.url, "model": "m"}))
        advice[name] = [finding.advice for finding in findings if finding.level is Level.FAILURE]
    assert "the server and its settings work" in advice["chatty"][0]
    assert all("the model does not follow the format" in sentence for sentence in advice["chatty"][1:])
    assert len(advice["chatty"]) > 1  # the real prompts were tried as well
    assert advice["refusing"]
    assert all("correct what the message names" in sentence for sentence in advice["refusing"])
    down = await check_judge(Params(judge={"kind": "http", "base_url": "http://127.0.0.1:9/v1", "model": "m"}))
    assert [finding.advice for finding in down] == ["correct `judge` in params.yaml, or start the server"]


async def test_doctor_counts_reminders(serve_chat: Any) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        is_first = len(body["messages"]) == 1 and "[Passage 1]" in body["messages"][0]["content"]
        return respond(lambda prompt, reply: "It is all there." if is_first else reply)(body)

    with serve_chat(answer) as server:
        findings = by_level(await check_judge(Params(judge={"kind": "http", "base_url": server.url, "model": "m"})))
    assert Level.FAILURE not in findings
    assert "replies were unreadable until a reminder of the format" in "".join(findings[Level.NOTE])


PROPERTIES = {"/props": {"total_slots": 1, "default_generation_settings": {"n_ctx": 4096}}}
MODELS = {"/v1/models": {"data": [{"id": "other", "max_model_len": 8}, {"id": "m", "max_model_len": 4096}]}}
LOADED = {"/api/ps": {"models": [{"name": "m:latest", "context_length": 4096}]}}


@pytest.mark.parametrize(("kind", "pages"), [("http", PROPERTIES), ("vllm", MODELS), ("ollama", LOADED)])
async def test_doctor_compares_context_window(serve_chat: Any, kind: str, pages: dict[str, Any]) -> None:
    with serve_chat(respond(lambda prompt, reply: reply), pages=pages) as server:
        judge = {"kind": kind, "base_url": server.url, "model": "m", "max_concurrency": 1}
        notes = "".join(by_level(await check_judge(Params(judge=judge))).get(Level.NOTE, []))
        fitting = Params(judge=judge, score={"extraction_chunk_tokens": 1024})
        assert "context window" not in "".join(by_level(await check_judge(fitting)).get(Level.NOTE, []))
    assert "has a context window of 4,096 tokens. prompt extraction with its reply may need about 5,7" in notes
    assert "(lower score.extraction_chunk_tokens)" in notes
    assert "prompt support" not in notes
    assert ("OLLAMA_CONTEXT_LENGTH=8192" in notes) == (kind == "ollama")


def test_longest_prompts_follow_settings() -> None:
    def tokens(**settings: int) -> dict[str, int]:
        config = ScoreConfig(**settings)
        return {prompt.template: prompt.tokens for prompt in longest_prompts(PROMPTS, config, response_tokens=100)}

    default = tokens()
    changed = tokens(extraction_chunk_tokens=1096, evidence_chunks=7)
    assert {name for name in default if default[name] != changed[name]} == {"extraction", "support"}
    assert default["extraction"] - changed["extraction"] == 3000
    assert changed["support"] - default["support"] == 2 * 128
    longer = longest_prompts(PROMPTS, ScoreConfig(), response_tokens=600)
    assert {prompt.template: prompt.tokens - default[prompt.template] for prompt in longer} == {
        "helpfulness": 500, "logicality": 500, "statements": 500, "completeness": 500, "support": 0, "extraction": 0,
    }  # fmt: skip
