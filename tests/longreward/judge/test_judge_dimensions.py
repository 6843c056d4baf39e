"""Another judge for a dimension: what it takes over, who is asked, who is named, what is counted and limited."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from longreward import LongReward
from longreward.builtin.offline_judge.judge import NAME
from longreward.errors import ConfigError
from longreward.judge import ChatRequest, JudgeConfig, open_judge
from longreward.judge.ledger import Ledger, request_id

pytestmark = pytest.mark.usefixtures("no_keys")


def config(**settings: Any) -> JudgeConfig:
    return JudgeConfig.parse(settings, source="params.yaml")


def question(template: str, text: str = "q") -> ChatRequest:
    return ChatRequest(template, {}, text, "h", 64)


def test_a_dimension_takes_over_what_it_does_not_set() -> None:
    judge = config(kind="zhipu", model="glm-4-plus", system="Be strict.", extra_body={"top_p": 0.7}, max_concurrency=8)
    judge = judge.model_copy(update={"dimensions": {"completeness": {"model": "glm-4-long"}}})
    own = judge.judge_for("completeness")
    assert (own.kind, own.model, own.system, own.max_concurrency) == ("zhipu", "glm-4-long", "Be strict.", 8)
    assert own.extra_body == {"top_p": 0.7}
    assert judge.judge_for("logicality").model == "glm-4-plus"


def test_one_on_another_server_takes_over_nothing_of_the_first_server() -> None:
    judge = config(
        kind="http",
        base_url="https://a.example/v1",
        model="a",
        api_key_env="A_KEY",
        revision="2",
        requests_per_minute=10,
        tokens_per_minute=1000,
        extra_body={"top_p": 0.7},
        length_field="max_completion_tokens",
        system="Be strict.",
        max_attempts=3,
        dimensions={
            "faithfulness": {"kind": "vllm", "model": "b"},
            "logicality": {"base_url": "https://c.example/v1", "model": "c"},
        },
    )
    for dimension, kind, address in (
        ("faithfulness", "vllm", "http://localhost:8000/v1"),
        ("logicality", "http", "https://c.example/v1"),
    ):
        own = judge.judge_for(dimension)  # type: ignore[arg-type]
        assert (own.kind, own.address, own.api_key_env, own.revision) == (kind, address, None, "")
        assert (own.requests_per_minute, own.tokens_per_minute, own.length_field) == (None, None, None)
        assert own.extra_body == {}
        assert (own.system, own.max_attempts) == ("Be strict.", 3)


def test_equal_judges_are_one() -> None:
    judge = config(
        kind="vllm",
        model="a",
        dimensions={"faithfulness": {"model": "b"}, "completeness": {"model": "b"}, "logicality": {"model": "a"}},
    )
    assert [(each.model, own) for each, own in judge.judges()] == [
        ("a", ("helpfulness", "logicality")),
        ("b", ("faithfulness", "completeness")),
    ]
    assert len(config().judges()) == 1


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({"faithfulnes": {}}, "dimensions.faithfulnes"),
        (
            {"faithfulness": {"modle": "b"}},
            r"judge\.dimensions\.faithfulness: not valid\n  modle: .*did you mean model",
        ),
        ({"faithfulness": {"kind": "openai"}}, "must name the model"),
        ({"faithfulness": {"kind": "openai", "model": "b", "base_url": "http://x/v1"}}, "OPENAI_API_KEY is sent to"),
        ({"faithfulness": {"max_attempts": 0}}, "max_attempts"),
        ({"faithfulness": {"dimensions": {}}}, "no dimensions of its own"),
        ({"faithfulness": {"model": "b"}}, "its kind is offline"),
    ],
)
def test_a_mistake_in_a_dimension_names_it(dimensions: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(dimensions=dimensions)


def test_a_secret_in_a_dimension_is_not_shown() -> None:
    for differs in ({"api_key_env": "sk-very-secret"}, {"base_url": "https://me:sk-very-secret@host/v1"}):
        with pytest.raises(ConfigError) as caught:
            config(kind="vllm", model="m", dimensions={"logicality": differs})
        assert "very-secret" not in str(caught.value)


async def test_each_question_goes_to_its_dimension_s_judge_on_one_ledger(serve_chat: Any, tmp_path: Path) -> None:
    with serve_chat("from a") as a, serve_chat("from b") as b:
        judges = config(
            kind="vllm",
            model="a",
            base_url=a.url,
            dimensions={"faithfulness": {"model": "b", "base_url": b.url, "system": "Be strict."}},
        )
        for run in range(2):
            async with open_judge(judges, ledger=tmp_path / "l.sqlite") as judge:
                said = {
                    name: await judge.query(question(name), lambda text: text)
                    for name in ("helpfulness", "statements", "support", "extraction", "other")
                }
                assert judge.name == "a (helpfulness, logicality, completeness), b (faithfulness)"
                assert judge.name_for("support") == "b"
                figures = judge.metrics()
            assert {name: (reading.text, reading.judge) for name, reading in said.items()} == {
                "helpfulness": ("from a", "a"),
                "statements": ("from b", "b"),
                "support": ("from b", "b"),
                "extraction": ("from a", "a"),
                "other": ("from a", "a"),
            }
            if run == 0:  # equal texts at one judge are one question, so that each is asked once
                assert (figures["calls"], figures["judges/a/calls"], figures["judges/b/calls"]) == (2, 1, 1)
                assert (figures["prompt_tokens"], figures["judges/b/prompt_tokens"]) == (200, 100)
            else:
                assert (figures["calls"], figures["ledger_hits"], figures["judges/a/ledger_hits"]) == (0, 5, 3)
    assert (len(a.bodies), len(b.bodies)) == (1, 1)
    assert [message["role"] for message in b.bodies[0]["messages"]] == ["system", "user"]


async def test_a_model_named_by_its_path_makes_figures_that_mlflow_takes(serve_chat: Any) -> None:
    with serve_chat("yes") as server:
        judges = config(dimensions={"logicality": {"kind": "vllm", "model": "/models/q@1", "base_url": server.url}})
        async with open_judge(judges, ledger=None) as judge:
            await judge.query(question("logicality"), lambda text: text)
            assert judge.metrics()["judges/_models_q_1/calls"] == 1


async def test_one_model_on_one_server_is_limited_once_for_all_its_dimensions(serve_chat: Any, completion: Any) -> None:
    running, peak, lock = 0, 0, threading.Lock()
    three = threading.Barrier(3)  # fewer at once would never be answered

    def slow(_: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        three.wait(60)
        with lock:
            running -= 1
        return 200, completion("yes")

    with serve_chat(slow) as server:
        judges = config(
            kind="vllm",
            model="a",
            base_url=server.url,
            max_concurrency=8,
            dimensions={"logicality": {"system": "Be strict.", "max_concurrency": 3}},
        )
        async with open_judge(judges, ledger=None) as judge:
            names = ("helpfulness", "logicality") * 9
            asked = [judge.query(question(name, str(n)), lambda text: text) for n, name in enumerate(names)]
            await asyncio.gather(*asked)
            assert judge.name == "a"
            assert judge.metrics() == {name: float(value) for name, value in judge.metrics().items() if "/" not in name}
    assert peak == 3


def test_every_score_names_the_judge_that_gave_it(serve_chat: Any) -> None:
    with serve_chat("All is well. [[8]]") as server:
        judges = config(dimensions={"helpfulness": {"kind": "vllm", "model": "big", "base_url": server.url}})
        card = LongReward(judges).score(
            context="Keld was founded in 1905 by Ann Lee.", query="Who founded Keld?", response="Ann Lee founded Keld."
        )
    assert {name: verdict.judge for name, verdict in card.verdicts.items()} == {
        "helpfulness": "big",
        "logicality": NAME,
        "faithfulness": NAME,
        "completeness": NAME,
    }
    assert card.verdicts["helpfulness"].score == 8
    assert card.complete


async def test_answers_kept_before_there_were_system_prompts_are_still_found(serve_chat: Any, tmp_path: Path) -> None:
    with serve_chat("yes") as server:
        judge_config = config(kind="http", model="m", base_url=server.url, extra_body={"top_p": 0.5})
        async with open_judge(judge_config, ledger=tmp_path / "l.sqlite") as judge:
            await judge.query(question("helpfulness"), lambda text: text)
    identity = request_id(question("helpfulness"), judge="m", revision="", extra={"top_p": 0.5})
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert [exchange.reply.text for exchange in ledger.find(identity)] == ["yes"]
