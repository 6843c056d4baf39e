"""Routing of requests to the judges of their dimensions: names, metrics, shared limits, one ledger."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from longreward import LongReward
from longreward.builtin.offline_judge.judge import NAME
from longreward.errors import JudgeRefused
from longreward.judge import ChatRequest, JudgeConfig, is_overloaded, open_judge, request_summary
from longreward.judge.ledger import Ledger, request_id

pytestmark = pytest.mark.usefixtures("no_keys")


def make_config(**settings: Any) -> JudgeConfig:
    return JudgeConfig.parse(settings, source="params.yaml")


def make_request(template: str, text: str = "q") -> ChatRequest:
    return ChatRequest(template, {}, text, "h", 64)


async def test_each_request_goes_to_judge_of_dimension(serve_chat: Any, tmp_path: Path) -> None:
    with serve_chat("from a") as a, serve_chat("from b") as b:
        config = make_config(
            kind="vllm",
            model="a",
            base_url=a.url,
            dimensions={"faithfulness": {"model": "b", "base_url": b.url, "system": "Be strict."}},
        )
        for run in range(2):
            async with open_judge(config, ledger=tmp_path / "l.sqlite") as judge:
                replies = {
                    template: await judge.query(make_request(template), lambda text: text)
                    for template in ("helpfulness", "statements", "support", "extraction", "other")
                }
                assert judge.name == "a (helpfulness, logicality, completeness), b (faithfulness)"
                assert judge.name_for("support") == "b"
                metrics = judge.metrics()
            assert {template: (reply.text, reply.judge) for template, reply in replies.items()} == {
                "helpfulness": ("from a", "a"),
                "statements": ("from b", "b"),
                "support": ("from b", "b"),
                "extraction": ("from a", "a"),
                "other": ("from a", "a"),
            }
            if run == 0:  # equal texts to one judge are one request, whatever their template
                assert (metrics["calls"], metrics["judges/a/calls"], metrics["judges/b/calls"]) == (2, 1, 1)
                assert (metrics["prompt_tokens"], metrics["judges/b/prompt_tokens"]) == (200, 100)
            else:
                assert (metrics["calls"], metrics["ledger_hits"], metrics["judges/a/ledger_hits"]) == (0, 5, 3)
    assert (len(a.bodies), len(b.bodies)) == (1, 1)
    assert [message["role"] for message in b.bodies[0]["messages"]] == ["system", "user"]


async def test_metric_names_contain_only_characters_that_mlflow_accepts(serve_chat: Any) -> None:
    with serve_chat("yes") as server:
        dimensions = {"logicality": {"kind": "vllm", "model": "/models/q@1", "base_url": server.url}}
        async with open_judge(make_config(dimensions=dimensions), ledger=None) as judge:
            await judge.query(make_request("logicality"), lambda text: text)
            assert judge.metrics()["judges/_models_q_1/calls"] == 1


async def test_dimensions_of_one_model_on_one_server_share_lowest_limit(serve_chat: Any, completion: Any) -> None:
    running, peak, lock = 0, 0, threading.Lock()
    barrier = threading.Barrier(3)  # fewer than 3 concurrent requests would never get a reply

    def reply(_: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        barrier.wait(60)
        with lock:
            running -= 1
        return 200, completion("yes")

    with serve_chat(reply) as server:
        config = make_config(
            kind="vllm",
            model="a",
            base_url=server.url,
            max_concurrency=8,
            dimensions={"logicality": {"system": "Be strict.", "max_concurrency": 3}},
        )
        async with open_judge(config, ledger=None) as judge:
            templates = ("helpfulness", "logicality") * 9
            queries = [judge.query(make_request(name, str(n)), lambda text: text) for n, name in enumerate(templates)]
            await asyncio.gather(*queries)
            assert judge.name == "a"
            assert not [name for name in judge.metrics() if "/" in name]
    assert peak == 3


def test_every_score_records_judge_of_dimension(serve_chat: Any) -> None:
    with serve_chat("All is well. [[8]]") as server:
        config = make_config(dimensions={"helpfulness": {"kind": "vllm", "model": "big", "base_url": server.url}})
        score = LongReward(config).score(
            context="Keld was founded in 1905 by Ann Lee.", query="Who founded Keld?", response="Ann Lee founded Keld."
        )
    assert {dimension: verdict.judge for dimension, verdict in score.verdicts.items()} == {
        "helpfulness": "big",
        "logicality": NAME,
        "faithfulness": NAME,
        "completeness": NAME,
    }
    assert score.verdicts["helpfulness"].score == 8
    assert score.complete


async def test_ledger_keys_of_judge_without_system_prompt_are_stable(serve_chat: Any, tmp_path: Path) -> None:
    with serve_chat("yes") as server:
        config = make_config(kind="http", model="m", base_url=server.url, extra_body={"top_p": 0.5})
        async with open_judge(config, ledger=tmp_path / "l.sqlite") as judge:
            await judge.query(make_request("helpfulness"), lambda text: text)
    key = request_id(make_request("helpfulness"), judge="m", revision="", extra={"top_p": 0.5})
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert [exchange.reply.text for exchange in ledger.find(key)] == ["yes"]


async def test_offline_judge_refuses_unknown_template() -> None:
    async with open_judge(JudgeConfig(), ledger=None) as judge:
        assert judge.name == "offline-lexical-5"
        with pytest.raises(JudgeRefused, match="'poetry'"):
            await judge.query(ChatRequest("poetry", {}, "", "", 10), lambda text: text)


def test_request_summary() -> None:
    metrics = {"calls": 1200.0, "failed": 2.0, "ledger_hits": 30.0, "requests": 1300.0, "retries": 100.0}
    metrics |= {"unreadable": 7.0, "truncated": 5.0, "timeouts": 0.0, "disconnects": 0.0, "throttled": 9.0}
    metrics["concurrency"] = 31.6
    assert request_summary("m", metrics) == (
        "judge m: 1,198 replies, 30 from the ledger, 1,300 requests, 100 retries (9 were turned away); 7 unreadable "
        "and 5 truncated replies"
    )
    assert request_summary("m", {"calls": 3.0}) == "judge m: 3 replies, 0 from the ledger"
    once = {"calls": 1.0, "requests": 1.0, "retries": 1.0, "unreadable": 0.0, "truncated": 1.0}
    assert request_summary("m", once) == (
        "judge m: 1 reply, 0 from the ledger, 1 request, 1 retry; 0 unreadable and 1 truncated reply"
    )
    overloaded = metrics | {"timeouts": 57.0}
    assert (is_overloaded(metrics), is_overloaded(overloaded)) == (False, True)
    assert "lower judge.max_concurrency (32 were in flight on average)" in request_summary("m", overloaded)
