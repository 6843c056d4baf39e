"""Scoring in batches against a real server of files and batches: what comes out is what live calls would bring."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_server import Line, Provider, output_line, provider

from longreward.errors import BatchPending, BudgetExceeded, ConfigError, JudgeRefused
from longreward.judge import JudgeConfig, open_judge
from longreward.judge.budget import Budget, BudgetConfig
from longreward.judge.server_probe import probe
from longreward.params import read_params
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, ScoredExample, score_examples

CONFIG = ScoreConfig(evidence_chunk_tokens=12, evidence_chunks=2, extraction_chunk_tokens=24, prompts_in_flight=1)
FAST = {"settle_s": 0.15, "poll_s": 0.02}
EXAMPLES = [
    (
        Example(
            id=str(n),
            document_id=str(n),
            context=f"Keld {n} was founded by Ann Lee in 190{n}. The mill burned down. Bo Ek owned the inn of Osten.",
            query=f"Who founded Keld {n}, and when?",
        ),
        [
            Response(id=f"{n}-{k}", example_id=str(n), query=f"Who founded Keld {n}, and when?", text=text)
            for k, text in enumerate(
                [f"Ann Lee founded Keld {n} in 190{n}.", "Bo Ek founded it. The mill burned down."]
            )
        ],
    )
    for n in range(3)
]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def settings(url: str, mode: str = "batch", batch: dict[str, Any] | None = None, **more: Any) -> JudgeConfig:
    return JudgeConfig(kind="http", base_url=url, model="m", mode=mode, batch=FAST | (batch or {}), **more)


async def score(config: JudgeConfig, ledger: Path) -> tuple[list[ScoredExample], dict[str, float]]:
    async with open_judge(config, ledger=ledger) as judge:
        return [scored async for scored in score_examples(judge, CONFIG, EXAMPLES)], judge.metrics()


def exchanges(ledger: Path) -> list[tuple[Any, ...]]:
    columns = (
        "question, attempt, temperature, template, prompt_hash, judge, revision, text, finish_reason, outcome, reason"
    )
    with sqlite3.connect(ledger) as connection:
        return sorted(connection.execute(f"SELECT {columns} FROM exchanges"), key=str)


def left(ledger: Path) -> list[Path]:
    return sorted(ledger.with_name(f"{ledger.stem}.batches").glob("*/*/batch.json"))


async def test_two_rounds_bring_what_live_calls_bring_and_a_live_run_afterwards_makes_none(tmp_path: Path) -> None:
    with provider() as server:
        live, _ = await score(settings(server.url, "live"), tmp_path / "live.sqlite")
        asked_live, server.live = server.live, []
        found, figures = await score(settings(server.url), tmp_path / "batch.sqlite")
        again, after = await score(settings(server.url, "live"), tmp_path / "batch.sqlite")
    assert found == live == again
    assert exchanges(tmp_path / "batch.sqlite") == exchanges(tmp_path / "live.sqlite")
    assert (figures["calls"], after["calls"], server.live) == (len(asked_live), 0, [])
    first, second = server.made
    assert {len(first), len(second)} == {len(first), len(asked_live) - len(first)}
    assert [json.dumps(line["body"], sort_keys=True) for line in sorted(first + second, key=_text)] == [
        json.dumps(body, sort_keys=True) for body in sorted(asked_live, key=lambda body: str(body["messages"]))
    ]
    assert {(line["method"], line["url"]) for line in first} == {("POST", "/v1/chat/completions")}
    assert len({line["custom_id"] for line in first + second}) == len(asked_live)
    assert left(tmp_path / "batch.sqlite") == []


async def test_the_requests_carry_what_the_settings_add(tmp_path: Path) -> None:
    more = {"system": "Be strict.", "thinking_tokens": 100, "extra_body": {"top_p": 0.5, "temperature": None}}
    with provider() as server:
        await score(settings(server.url, length_field="max_completion_tokens", **more), tmp_path / "l.sqlite")
    body = server.made[0][0]["body"]
    assert body["messages"][0] == {"role": "system", "content": "Be strict."}
    assert (body["top_p"], "temperature" in body, body["max_completion_tokens"] > 600) == (0.5, False, True)


async def test_a_round_is_split_by_the_number_of_requests_and_by_size(tmp_path: Path) -> None:
    with provider() as server:
        await score(settings(server.url, batch={"requests_per_file": 10}), tmp_path / "n.sqlite")
        by_number = [len(batch) for batch in server.made]
        server.made.clear()
        await score(settings(server.url, batch={"megabytes_per_file": 0.02}), tmp_path / "s.sqlite")
        sizes = [len(server.files[batch["input_file_id"]]) for batch in server.batches.values()][-len(server.made) :]
    assert max(by_number) == 10
    assert sum(by_number) == len(server.requests())
    assert max(sizes) <= 20_000 < sum(sizes)


async def test_what_failed_goes_into_further_rounds_and_what_is_refused_ends_there(tmp_path: Path) -> None:
    refused: list[str] = []

    def spoil(number: int, line: Line) -> Line | str | None:
        place = [each["custom_id"] for each in server.made[number]].index(line["custom_id"])
        if number == 0 and place == 0:
            return None  # neither in the output nor among the errors
        if number == 0 and place in (1, 2):
            status = (429, 503)[place - 1]
            return line | {"response": {"status_code": status, "body": {"error": {"message": "busy"}}}}
        if number == 0 and place == 3:
            return json.dumps(line)[:-40]  # cut off
        if number == 0 and place == 4:
            refused.append(line["custom_id"])
            error = {"error": {"code": "content_filter", "message": "no"}}
            return line | {"response": {"status_code": 400, "body": error}}
        if number <= 1 and place == 5:
            line["response"]["body"]["choices"][0]["message"]["content"] = "I would rather not rate."
        return line

    with provider(spoil=spoil) as server:
        _, figures = await score(settings(server.url), tmp_path / "l.sqlite")
    times = [line["custom_id"] for line in server.requests()]
    first = [line["custom_id"] for line in server.made[0]]
    assert [times.count(each) for each in first[:6]] == [2, 2, 2, 2, 1, 1]
    assert {line["custom_id"] for line in server.made[1]} > set(first[:4])
    hot = [line["body"] for line in server.requests() if line["body"]["temperature"] == 0.95]
    assert server.made[0][5]["body"]["messages"] in [body["messages"] for body in hot]
    kept = exchanges(tmp_path / "l.sqlite")
    assert [row[9] for row in kept].count("refused") == len(refused) == figures["refused"] == 1
    assert {row[1] for row in kept if row[9] == "unreadable"} == {1}
    assert figures["retries"] == 4


async def test_a_cut_reply_is_asked_for_again_with_more_room_in_the_next_round(tmp_path: Path) -> None:
    cut: list[str] = []

    def spoil(number: int, line: Line) -> Line:
        asked = next(each for each in server.made[number] if each["custom_id"] == line["custom_id"])["body"]
        if asked["max_tokens"] == 2048:  # the lists of statements
            cut.append(str(asked["messages"]))
            choice = line["response"]["body"]["choices"][0]
            choice["finish_reason"] = "length"
            choice["message"]["content"] = choice["message"]["content"][:30]
        return line

    with provider(spoil=spoil) as server:
        found, figures = await score(settings(server.url), tmp_path / "l.sqlite")
        again, second = await score(settings(server.url), tmp_path / "l.sqlite")
    live_like = [one.complete for example in found for one in example.responses]
    assert (all(live_like), figures["truncated"], second["calls"]) == (True, len(cut), 0)
    assert again == found
    more = [line["body"] for line in server.requests() if line["body"]["max_tokens"] == 4096]
    assert sorted(str(body["messages"]) for body in more) == sorted(cut)
    assert {body["temperature"] for body in more} == {0.01}
    assert left(tmp_path / "l.sqlite") == []


@pytest.mark.parametrize("status", [400, 422])
async def test_a_provider_that_takes_no_larger_limit_ends_no_batch_run(tmp_path: Path, status: int) -> None:
    def spoil(number: int, line: Line) -> Line:
        asked = next(each for each in server.made[number] if each["custom_id"] == line["custom_id"])["body"]
        if asked["max_tokens"] > 2048:
            error = {"error": {"message": f"max_tokens is too large: {asked['max_tokens']}"}}
            return line | {"response": {"status_code": status, "body": error}}
        if asked["max_tokens"] == 2048:
            line["response"]["body"]["choices"][0]["finish_reason"] = "length"
        return line

    with provider(spoil=spoil) as server:
        config = settings(server.url, max_attempts=2, truncated_replies="complete_part")
        found, figures = await score(config, tmp_path / "l.sqlite")
    verdicts = [one.verdicts["faithfulness"] for example in found for one in example.responses]
    assert all(verdict.truncated and verdict.score is not None for verdict in verdicts)
    assert figures["refused"] == 0
    assert left(tmp_path / "l.sqlite") == []


async def test_an_expired_batch_is_gone_on_with_and_one_that_never_answers_is_not_asked_forever(tmp_path: Path) -> None:
    with provider(ends=["expired"]) as server:
        found, _ = await score(settings(server.url), tmp_path / "e.sqlite")
        assert all(one.complete for example in found for one in example.responses)
        asked = [line["custom_id"] for line in server.requests()]
        assert len(asked) - len(set(asked)) == len(server.made[0]) // 2

    never = "helpfulness"

    def spoil(number: int, line: Line) -> Line | None:
        asked = {each["custom_id"]: str(each["body"]["messages"]) for each in server.made[number]}
        return None if "Who founded Keld 1" in asked[line["custom_id"]] else line

    with provider(spoil=spoil) as server:
        found, figures = await score(settings(server.url, max_retries=2), tmp_path / "n.sqlite")
    ids = [line["custom_id"] for line in server.requests()]
    assert max(ids.count(each) for each in ids) == 3
    assert found[1].responses[0].verdicts[never].reason is not None  # type: ignore[index]
    assert all(one.complete for one in found[0].responses)
    assert figures["failed"] > 0


async def test_a_run_stopped_while_it_waits_takes_up_the_same_batches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with provider(looks=10**9) as server:
        task = asyncio.create_task(score(settings(server.url), tmp_path / "l.sqlite"))
        await until(lambda: any("GET /v1/batches/" in path for path in server.paths))
        with caplog.at_level(logging.WARNING):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert "batch_0" in caplog.text
        for batch in server.batches.values():
            batch["_looks"] = 1
        server.looks = 1
        found, _ = await score(settings(server.url), tmp_path / "l.sqlite")
        live, _ = await score(settings(server.url, "live"), tmp_path / "live.sqlite")
    assert found == live
    assert len(server.made) == 2
    assert exchanges(tmp_path / "l.sqlite") == exchanges(tmp_path / "live.sqlite")


async def test_a_batch_whose_making_was_not_confirmed_is_found_and_not_made_again(
    tmp_path: Path,
) -> None:
    with provider(hide_made=True) as server:
        task = asyncio.create_task(score(settings(server.url), tmp_path / "l.sqlite"))
        await until(lambda: bool(server.made))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.hide_made = False
        found, _ = await score(settings(server.url), tmp_path / "l.sqlite")
    assert all(one.complete for example in found for one in example.responses)
    assert len(server.made) == 2


async def test_results_that_lie_there_are_taken_in_once(tmp_path: Path) -> None:
    ledger = tmp_path / "l.sqlite"
    with provider(looks=10**9) as server:
        task = asyncio.create_task(score(settings(server.url), ledger))
        await until(lambda: bool(server.made))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.looks = 0
        server.batches["batch_0"]["_looks"] = 0
        two = await asyncio.gather(*(score(settings(server.url), ledger) for _ in range(2)))
    assert two[0][0] == two[1][0]
    ids = [line["custom_id"] for line in server.requests()]
    assert len(ids) == len(set(ids))
    assert left(ledger) == []


async def test_a_refused_batch_is_an_error_with_its_reason_and_is_forgotten(tmp_path: Path) -> None:
    with provider(ends=["failed"]) as server:
        with pytest.raises(JudgeRefused, match="refused the batch batch_0: wanted by the test"):
            await score(settings(server.url), tmp_path / "l.sqlite")
        assert left(tmp_path / "l.sqlite") == []
        found, _ = await score(settings(server.url), tmp_path / "l.sqlite")
    assert found[0].responses[0].complete


async def test_a_batch_for_which_the_queue_has_no_room_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Provider.make

    with provider(ends=["failed"]) as server:
        monkeypatch.setattr(Provider, "make", lambda self, asked: _with_code(made(self, asked)))
        found, _ = await score(settings(server.url), tmp_path / "l.sqlite")
    assert found[0].responses[0].complete
    assert len(server.made) == 3
    assert server.made[0] == server.made[1]


async def test_at_a_budgets_limit_what_found_room_is_answered_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    ledger, purse = tmp_path / "l.sqlite", tmp_path / "spent.json"

    async def scored(calls: int) -> list[ScoredExample]:
        with Budget(BudgetConfig(calls=calls), file=purse) as budget:
            async with open_judge(settings(server.url), ledger=ledger, budget=budget) as judge:
                return [one async for one in score_examples(judge, CONFIG, EXAMPLES)]

    with provider() as server:
        with pytest.raises(BudgetExceeded, match="10 calls"):
            await scored(10)
        assert len(exchanges(ledger)) == len(server.requests()) == 10
        found = await scored(1000)
    asked = [line["custom_id"] for line in server.requests()]
    assert len(asked) == len(set(asked)) == len(exchanges(ledger)) > 10
    assert all(one.complete for example in found for one in example.responses)


async def test_a_server_without_batches_and_a_judge_without_a_ledger_say_what_to_do(tmp_path: Path) -> None:
    with provider() as server:
        address = server.url.removesuffix("/v1") + "/elsewhere"
        with pytest.raises(JudgeRefused, match=r"has no batches \(404 at /elsewhere/files\)"):
            await score(settings(address), tmp_path / "l.sqlite")
        with pytest.raises(ConfigError, match="needs a ledger"):
            open_judge(settings(server.url), ledger=None)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": "batch"}, "the offline judge has no batches"),
        ({"mode": "batch", "kind": "vllm", "model": "m"}, "vllm has no batch interface"),
        ({"mode": "batch", "kind": "anthropic", "model": "m"}, "anthropic has no batch interface"),
        ({"mode": "batches"}, "mode"),
    ],
)
def test_who_has_no_batches_is_told_before_anything_starts(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        JudgeConfig.parse(fields, source="params.yaml")


async def test_batches_and_the_strategy_extremes_exclude_each_other(tmp_path: Path) -> None:
    overrides = ["judge.kind=http", "judge.model=m", "judge.mode=batch", "score.strategy=extremes"]
    with pytest.raises(ConfigError, match=r"set score\.strategy to full, or judge\.mode to live"):
        read_params(None, overrides)
    extremes = CONFIG.model_copy(update={"strategy": "extremes"})
    async with open_judge(settings("http://127.0.0.1:9/v1"), ledger=tmp_path / "l.sqlite") as judge:
        with pytest.raises(ConfigError, match="set it to full"):
            await anext(score_examples(judge, extremes, EXAMPLES))


async def test_the_doctor_asks_no_server_where_files_are_left_for_another_program() -> None:
    (found,) = await probe(settings("http://127.0.0.1:9/v1", "batch_files"))
    assert found.ok
    assert "no server" in found.message


def test_a_dimension_on_another_server_is_asked_live_unless_it_says_otherwise() -> None:
    other = {"faithfulness": {"kind": "vllm", "model": "q"}, "completeness": {"model": "n"}}
    config = JudgeConfig(kind="http", base_url="http://h/v1", model="m", mode="batch", dimensions=other)
    modes = {name: config.judge_for(name).mode for name in ("helpfulness", "faithfulness", "completeness")}
    assert modes == {"helpfulness": "batch", "faithfulness": "live", "completeness": "batch"}


async def test_zhipu_gets_its_own_path_and_its_own_limit_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    monkeypatch.setattr("longreward.judge.batch.client.ZHIPU_MB", 0.02)
    with provider() as server:
        config = JudgeConfig(
            kind="zhipu", base_url=server.url, api_key_env="MY_KEY", model="m", mode="batch", batch=dict(FAST)
        )
        await score(config, tmp_path / "l.sqlite")
    assert {line["url"] for line in server.requests()} == {"/v4/chat/completions"}
    assert {batch["endpoint"] for batch in server.batches.values()} == {"/v4/chat/completions"}
    assert max(len(server.files[batch["input_file_id"]]) for batch in server.batches.values()) <= 20_000


async def test_each_model_gets_batches_of_its_own(tmp_path: Path) -> None:
    dimensions = {"faithfulness": {"model": "n"}, "logicality": {"system": "Be strict."}}
    with provider() as server:
        await score(settings(server.url, dimensions=dimensions), tmp_path / "l.sqlite")
    models = [{line["body"]["model"] for line in batch} for batch in server.made]
    assert sorted(map(sorted, models)) == [["m"], ["m"], ["n"], ["n"]]


async def test_files_are_left_for_another_program_and_taken_in_by_the_next_run(tmp_path: Path) -> None:
    ledger = tmp_path / "l.sqlite"
    config = settings("http://127.0.0.1:9/v1", "batch_files", {"requests_per_file": 8})
    stops: list[int] = []
    while (awaited := await asyncio.create_task(stopped(config, ledger))) is not None:
        files = [place.with_name("requests.jsonl") for place in left(ledger)]
        waiting = [file for file in files if not file.with_name("results.jsonl").exists()]
        assert f"wait in {len(waiting)} file(s)" in awaited
        assert all(f"cd {file.parent} && vllm run-batch -i requests.jsonl" in awaited for file in waiting)
        for file in waiting[:2]:
            run_batch(file)
        stops.append(len(waiting))
    found, figures = await score(config, ledger)
    with provider() as server:
        live, _ = await score(settings(server.url, "live"), tmp_path / "live.sqlite")
    assert found == live
    assert exchanges(ledger) == exchanges(tmp_path / "live.sqlite")
    assert len(stops) > 2
    assert figures["calls"] == 0
    assert left(ledger) == []


async def stopped(config: JudgeConfig, ledger: Path) -> str | None:
    """What a run that waits for files says; None for one that came to its end."""
    try:
        await score(config, ledger)
    except BatchPending as awaited:
        return str(awaited)
    return None


def run_batch(requests: Path) -> None:
    """What `vllm run-batch` does: all lines in order; a failed one has an error beside a response without a body."""
    said = [output_line(json.loads(line)) for line in requests.read_text(encoding="utf-8").splitlines()]
    if not (marker := requests.parents[1] / "failed-once").exists():
        marker.touch()
        error = {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}
        said[0] |= {"response": {"status_code": 500, "request_id": "r", "body": None}, "error": error}
    requests.with_name("results.jsonl").write_text("\n".join(map(json.dumps, said)), encoding="utf-8")


async def until(there: Callable[[], bool]) -> None:
    for _ in range(6000):
        if there():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def _with_code(batch: dict[str, Any]) -> dict[str, Any]:
    batch["_code"] = "token_limit_exceeded"
    return batch


def _text(line: Line) -> str:
    return str(line["body"]["messages"])
