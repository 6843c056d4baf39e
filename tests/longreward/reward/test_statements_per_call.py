"""Several statements verified with one request (`score.statements_per_call`)."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from chat_server import completion_body

from longreward import LongReward
from longreward.chat_model import ChatReply, ChatRequest, TokenUsage
from longreward.errors import ConfigError
from longreward.judge import JudgeConfig
from longreward.judge.prompts import load_prompts
from longreward.judge.usage import PricesConfig
from longreward.planning.estimate import plan_scoring
from longreward.planning.reply_stats import Range
from longreward.records import Example, Response, Verdict
from longreward.reward import ScoreConfig
from longreward.reward.scorer import Scorer
from longreward.reward.statement_groups import SupportCheck, parse_supports

DOCUMENT = "Keld was begun by Ann Lee. A mill was built in 1905. Bees were kept. The lake froze in 1929."
SENTENCES = ("Keld was begun by Ann Lee.", "A mill was built in 1906.", "Bees were kept.")
FULL, NONE = "Fully supported", "No support"
SINGLE = {SENTENCES[0]: FULL, SENTENCES[1]: NONE, SENTENCES[2]: FULL}


class ListJudge:
    """Lists SENTENCES as statements, and replies to several at once with `reply`; each request has 100 tokens."""

    name = "list-judge"

    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.requests: list[ChatRequest] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests.append(request)
        if request.template == "statements":
            text = "\n".join(f"<statement>{sentence}</statement>" for sentence in SENTENCES)
        elif request.template == "support_list":
            text = self.reply
        elif request.template == "support":
            text = f"Single. Support: [[{SINGLE[request.slots['statement']]}]]"
        else:
            text = "No relevant information" if request.template == "extraction" else "Rating: [[8]]"
        return ChatReply(text, usage=TokenUsage(prompt_tokens=100))

    async def close(self) -> None:
        pass


def faithfulness(judge: ListJudge, count: int) -> Verdict:
    config = ScoreConfig(statements_per_call=count, evidence_chunk_tokens=8, evidence_chunks=1)
    scored = LongReward(judge, config=config).score(context=DOCUMENT, query="What was built?", response="Keld.")
    return scored.verdicts["faithfulness"]


def test_one_request_verifies_all_statements_from_the_passages_of_all() -> None:
    judge = ListJudge(
        "1. In passage 1. [[Fully supported]]\n2. The year differs. [[Partially supported]]\n3. [[No support]]"
    )
    verdict = faithfulness(judge, 3)
    assert verdict.score == 5.0  # 10 × (1 + 0.5 + 0) / 3
    assert [(s.text, s.support, s.analysis) for s in verdict.statements] == [
        (SENTENCES[0], 1.0, "In passage 1."),
        (SENTENCES[1], 0.5, "The year differs."),
        (SENTENCES[2], 0.0, None),
    ]
    assert (verdict.calls, verdict.prompt_tokens, len(verdict.prompt_hashes)) == (2, 200, 3)
    (request,) = [request for request in judge.requests if request.template == "support_list"]
    assert request.slots["statement"] == f"1. {SENTENCES[0]}\n2. {SENTENCES[1]}\n3. {SENTENCES[2]}"
    assert request.reply_format.stop[-1] == "\n4."
    # The best chunk of eight tokens for each statement, in document order.
    texts = [[evidence.text for evidence in statement.evidence] for statement in verdict.statements]
    assert texts == 3 * [
        ["Keld was begun by Ann Lee. A ", "mill was built in 1905. Bees ", "were kept. The lake froze in 192"]
    ]
    assert all(text in request.slots["context"] for text in texts[0])


def test_a_single_remaining_statement_has_the_request_of_its_own() -> None:
    judge = ListJudge("1. [[Fully supported]]\n2. [[No support]]")
    assert [s.support for s in faithfulness(judge, 2).statements] == [1.0, 0.0, 1.0]
    assert Counter(request.template for request in judge.requests)["support"] == 1


@pytest.mark.parametrize(
    "reply",
    [
        "1. [[Fully supported]]\n3. [[No support]]",
        "1. [[Fully supported]]\n2. [[Maybe]]\n3. [[No support]]",
        "1. [[Fully supported]]\n2. [[No support]]\n2. [[Fully supported]]\n3. [[No support]]",
    ],
    ids=["missing", "unreadable", "repeated"],
)
def test_statement_without_a_readable_line_is_requested_alone(reply: str) -> None:
    judge = ListJudge(reply)
    verdict = faithfulness(judge, 3)
    assert [s.support for s in verdict.statements] == [1.0, 0.0, 0.0]
    assert [r.slots["statement"] for r in judge.requests if r.template == "support"] == [SENTENCES[1]]
    assert verdict.calls == 3


def test_unreadable_reply_is_repeated_and_then_each_statement_requested_alone() -> None:
    judge = ListJudge("All of them are true.")
    verdict = faithfulness(judge, 3)
    assert [s.support for s in verdict.statements] == [1.0, 0.0, 1.0]
    templates = Counter(request.template for request in judge.requests)
    assert templates["support"] == 3
    assert templates["support_list"] > 1
    assert verdict.calls == 1 + templates["support_list"] + 3


def test_json_replies_are_assigned_by_position() -> None:
    row = {"analysis": "Passage 1.", "support": FULL}
    assert parse_supports(json.dumps({"verdicts": [row, {**row, "support": "?"}]}), count=2) == (
        SupportCheck(1.0, "Passage 1."),
        None,
    )
    assert parse_supports(json.dumps({"verdicts": [row]}), count=2) is None


@pytest.mark.parametrize(("kind", "limits"), [("http", {"minItems": 3, "maxItems": 3}), ("anthropic", {})])
def test_schema_has_the_number_of_statements_where_the_protocol_allows_it(
    serve_chat: Any, monkeypatch: pytest.MonkeyPatch, kind: str, limits: dict[str, int]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    item = {"analysis": "In passage 1.", "support": FULL}

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        prompt = str(body["messages"][0]["content"])
        if "each of several statements" in prompt:
            text = json.dumps({"verdicts": [item] * 3})
        elif "factual statements" in prompt:
            text = json.dumps({"statements": SENTENCES})
        else:
            text = '{"analysis": "Good.", "rating": 8}'
        if kind == "http":
            return 200, completion_body(text)
        return 200, {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": {}}

    config = ScoreConfig(statements_per_call=3)
    with serve_chat(reply) as server:
        judge = {"kind": kind, "base_url": server.url, "model": "m", "api_key_env": "ANTHROPIC_API_KEY"}
        reward = LongReward(JudgeConfig.model_validate({**judge, "reply_format": "json_schema"}), config=config)
        scored = reward.score(context=DOCUMENT, query="What was built?", response="Keld.")
    assert scored.verdicts["faithfulness"].score == 10
    lists = [body for body in server.bodies if "each of several statements" in str(body["messages"])]
    fields = [body.get("response_format", body.get("output_config")) for body in lists]
    verdicts = [(field.get("json_schema") or field["format"])["schema"]["properties"]["verdicts"] for field in fields]
    assert [{name: value for name, value in verdict.items() if name.endswith("Items")} for verdict in verdicts] == [
        limits
    ]


def test_server_that_refuses_a_list_length_gets_the_schema_without_it(serve_chat: Any) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        if "response_format" not in body:
            return 200, completion_body("No relevant information")  # extraction, which is always text
        properties = body["response_format"]["json_schema"]["schema"]["properties"]
        if "maxItems" in properties.get("verdicts", {}):
            return 400, {"error": {"message": "Invalid schema for response_format: 'minItems' is not permitted."}}
        item = {"analysis": "In passage 1.", "support": FULL}
        values = {"verdicts": [item] * 3, "statements": SENTENCES, "analysis": "Good.", "rating": 8}
        return 200, completion_body(json.dumps({name: values[name] for name in properties}))

    with serve_chat(reply) as server:
        judge = JudgeConfig(kind="http", base_url=server.url, model="m", reply_format="json_schema")
        config = ScoreConfig(statements_per_call=3)
        scored = LongReward(judge, config=config).score(context=DOCUMENT, query="What was built?", response="Keld.")
    assert scored.verdicts["faithfulness"].score == 10
    lists = [body for body in server.bodies if "each of several statements" in str(body["messages"])]
    assert ["maxItems" in str(body) for body in lists] == [True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"strategy": "adaptive"}, "strategy is adaptive"), ({"parsing": "published"}, "parsing is published")],
    ids=["adaptive", "published"],
)
def test_combinations_that_cannot_work_are_refused(settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"statements_per_call is 2, but {message}"):
        ScoreConfig.parse({"statements_per_call": 2, **settings}, source="params.yaml: score")


def test_one_statement_per_call_changes_neither_prompts_nor_settings() -> None:
    one, two = (Scorer(ScoreConfig(statements_per_call=count)) for count in (1, 2))
    assert one.prompts.hash == load_prompts().hash != two.prompts.hash
    assert "support_list" not in {name for name, _ in one.prompts.templates}
    assert set(two.settings) - set(one.settings) == {"statements_per_call"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_examples_in_the_prompt_are_readable_and_become_json(language: Any) -> None:
    template = load_prompts(statements_per_call=2).template("support_list", language)
    heading = {"en": "[Levels]\n", "zh": "[等级]\n"}[language]
    replies = [section.partition("\n\n")[0] for section in template.text.split(heading)[1:3]]
    supports = [parse_supports(reply, count=reply.count("\n") + 1) for reply in replies]
    assert [[check and check.support for check in checks or ()] for checks in supports] == [[0.5, 1.0], [1.0, 0.0, 1.0]]
    structured: Any = template.reply_format.structured
    assert structured.text.count('"support": "Fully supported"') == 3
    assert "[[Fully" not in structured.text


def test_offline_judge_verifies_several_statements() -> None:
    response = "Keld was begun by Ann Lee. A mill was built in 1906. Bees were kept."
    for count in (1, 2, 3):
        scorer = LongReward(config=ScoreConfig(statements_per_call=count))  # the document is one chunk
        scored = scorer.score(context=DOCUMENT, query="What was built?", response=response)
        assert [s.support for s in scored.verdicts["faithfulness"].statements] == [1.0, 0.0, 1.0]


def test_plan_counts_requests_for_several_statements() -> None:
    text = "Keld was begun by Ann Lee. A mill was built. Bees were kept. It froze."  # four sentences
    example = Example(id="1", document_id="1", context=DOCUMENT, query="What was built?")
    items = [(example, [Response(id="1-0", example_id="1", query=example.query, text=text)])]
    judge = JudgeConfig(kind="http", base_url="http://127.0.0.1:9/v1", model="m")
    config = ScoreConfig(statements_per_call=3)
    planned = asyncio.run(plan_scoring("score", judge, config, PricesConfig(), items, ledger=None))
    assert "support" not in planned.templates
    assert planned.templates["support_list"].calls == Range(2 / 3, 2, 3)  # two to eight statements
