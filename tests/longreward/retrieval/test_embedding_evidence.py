"""The reward with evidence found by embeddings, from a real server, judged by the offline judge."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from longreward import LongReward
from longreward.errors import ConfigError, JudgeUnavailable
from longreward.judge import JudgeConfig, open_judge
from longreward.records import Example, Response
from longreward.retrieval import RetrieverConfig
from longreward.reward import ScoreConfig, Scorer, open_scorer, score_examples
from longreward.reward.score_files import score_files

# Six simple tokens a sentence, the full stop among them: each is a chunk.
CONTEXT = "The lamp was first lit. The keeper kept seven bees. The sea froze in winter. The mill burned down."
EXAMPLE = Example(id="1", document_id="1", context=CONTEXT, query="What did the keeper keep?")
TEXTS = ["The keeper kept seven bees.", "The sea froze in winter.", "The keeper kept seven bees."]


def config(url: str, **fields: Any) -> ScoreConfig:
    retriever = RetrieverConfig(kind="http", base_url=url, model="words", max_retries=0, **fields)
    return ScoreConfig(evidence_chunk_tokens=6, evidence_chunks=1, retriever=retriever)


def responses(*texts: str) -> list[Response]:
    return [Response(id=f"1-{n}", example_id="1", query=EXAMPLE.query, text=text) for n, text in enumerate(texts)]


async def test_evidence_is_most_similar_chunk(embedding_server: Any) -> None:
    async with open_judge(JudgeConfig(), ledger=None) as judge, Scorer(config(embedding_server.url)) as scorer:
        scored = await scorer.score(judge, EXAMPLE, responses(*TEXTS))
        assert scorer.settings["retriever_model"] == "words"
        assert scorer.metrics()["embeddings/texts"] == len(set(embedding_server.texts))
    for card in scored.responses:
        (statement,) = card.verdicts["faithfulness"].statements
        assert [shown.text.strip() for shown in statement.evidence] == [statement.text]
        assert card.verdicts["faithfulness"].score == 10.0
    assert len(embedding_server.texts) == len(set(embedding_server.texts))


async def test_repeated_run_embeds_nothing(embedding_server: Any, tmp_path: Path) -> None:
    data, sampled = tmp_path / "sft.jsonl", tmp_path / "sampled.jsonl"
    data.write_text(json.dumps({"idx": "1", "query": EXAMPLE.query, "context": CONTEXT, "answer": ""}) + "\n")
    rows = [{"idx": f"1-{n}", "query": EXAMPLE.query, "answer": text} for n, text in enumerate(TEXTS)]
    sampled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ledger = tmp_path / "ledger.sqlite"
    outputs = []
    for name in ("first", "second"):
        out = tmp_path / f"{name}.jsonl"
        async with open_judge(JudgeConfig(), ledger=ledger) as judge:
            settings = config(embedding_server.url)
            await score_files(judge, settings, data=data, responses=sampled, out=out, ledger=ledger)
        outputs.append(out.read_text())
        embedding_server.respond = lambda request: (500, "asked again")
    assert outputs[0] == outputs[1]
    assert '"retriever": "http"' in outputs[0]


async def test_refused_text_leaves_faithfulness_unscored_with_reason(
    embedding_server: Any,
) -> None:
    def respond(request: dict[str, Any]) -> tuple[int, Any] | None:
        refused = any("school" in text for text in request["input"])
        return (400, {"error": {"code": "content_filter", "message": "no schools"}}) if refused else None

    embedding_server.respond = respond
    async with open_judge(JudgeConfig(), ledger=None) as judge, Scorer(config(embedding_server.url)) as scorer:
        good, bad = (await scorer.score(judge, EXAMPLE, responses(TEXTS[0], "There was a school."))).responses
    assert good.complete
    assert bad.verdicts["faithfulness"].score is None
    assert "no schools" in (bad.verdicts["faithfulness"].reason or "")
    assert bad.verdicts["helpfulness"].score is not None


async def test_unavailable_server_stops_scoring_with_retryable_error(embedding_server: Any) -> None:
    embedding_server.respond = lambda request: (503, "")
    settings = config(embedding_server.url)
    async with open_judge(JudgeConfig(), ledger=None) as judge, open_scorer(settings) as scorer:
        with pytest.raises(JudgeUnavailable, match="embeddings of 'words'"):
            async for _ in score_examples(judge, scorer, [(EXAMPLE, responses(*TEXTS))]):
                pass


def test_long_reward_works_in_several_event_loops(embedding_server: Any, tmp_path: Path) -> None:
    rewarding = LongReward(config=config(embedding_server.url), ledger=tmp_path / "ledger.sqlite")
    cards = [rewarding.score(context=CONTEXT, query=EXAMPLE.query, response=TEXTS[0]) for _ in range(2)]
    assert cards[0] == cards[1]
    assert cards[0].verdicts["faithfulness"].score == 10.0
    assert len(embedding_server.texts) == len(set(embedding_server.texts))


def test_long_reward_reports_missing_key_before_any_request() -> None:
    with pytest.raises(ConfigError, match="VECTORS_KEY"):
        LongReward(config=config("http://127.0.0.1:9/v1", api_key_env="VECTORS_KEY"))


@pytest.mark.skipif("LONGREWARD_REFERENCE" not in os.environ, reason="LONGREWARD_REFERENCE is not set")
async def test_published_example_embeds_each_text_once(embedding_server: Any) -> None:
    folder = Path(os.environ["LONGREWARD_REFERENCE"]) / "longreward"
    row = json.loads((folder / "sft.jsonl").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (folder / "sampled_responses.jsonl").read_text(encoding="utf-8").splitlines()]
    example = Example(id="11", document_id="11", context=row["context"], query=row["query"])
    sampled = [Response(id=r["idx"], example_id="11", query=r["query"], text=r["answer"]) for r in rows]
    retriever = RetrieverConfig(kind="http", base_url=embedding_server.url, model="words")
    async with open_judge(JudgeConfig(), ledger=None) as judge, Scorer(ScoreConfig(retriever=retriever)) as scorer:
        scored = await scorer.score(judge, example, sampled)
    statements = [s.text for card in scored.responses for s in card.verdicts["faithfulness"].statements]
    # 79 chunks and each statement once; the published code embeds 79 chunks a response, and every statement
    assert len(embedding_server.texts) == len(set(embedding_server.texts)) == 79 + len(set(statements))
    assert len(set(statements)) < len(statements)
