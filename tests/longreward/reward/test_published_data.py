"""The published example and records of LongBench, through the offline judge."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from longreward.builtin.offline_judge.judge import OfflineJudge
from longreward.judge import ChatReply, ChatRequest, Judge
from longreward.records import DIMENSIONS, Example, Response
from longreward.retrieval import Bm25Retriever, Index
from longreward.reward import ScoreConfig, ScoredExample, Scorer, score_examples

pytestmark = pytest.mark.skipif("LONGREWARD_REFERENCE" not in os.environ, reason="LONGREWARD_REFERENCE is not set")
REFERENCE = Path(os.environ.get("LONGREWARD_REFERENCE", "."))


class RecordingJudge(OfflineJudge):
    """The offline judge, which records its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ChatRequest] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests.append(request)
        return await super().complete(request, temperature=temperature)


class RecordingRetriever(Bm25Retriever):
    """BM25, which records the indexed texts."""

    def __init__(self) -> None:
        super().__init__()
        self.indexed: list[str] = []

    def index(self, chunks: Sequence[str]) -> Index:
        self.indexed += chunks
        return super().index(chunks)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (REFERENCE / name).read_text(encoding="utf-8").splitlines()]


def published_example() -> tuple[Example, list[Response]]:
    (row,) = rows("longreward/sft.jsonl")
    example = Example(id="11", document_id="11", context=row["context"], query=row["query"])
    sampled = sorted(rows("longreward/sampled_responses.jsonl"), key=lambda result: result["idx"])
    return example, [Response(id=r["idx"], example_id="11", query=r["query"], text=r["answer"]) for r in sampled]


async def score(
    config: ScoreConfig, work: list[tuple[Example, list[Response]]]
) -> tuple[list[ScoredExample], RecordingJudge, RecordingRetriever]:
    model, retriever = RecordingJudge(), RecordingRetriever()
    async with Judge.from_model(model) as judge:
        scorer = Scorer(config, retriever=retriever)
        return [scored_example async for scored_example in score_examples(judge, scorer, work)], model, retriever


@pytest.mark.parametrize("prompts", [None, REFERENCE / "longreward" / "prompts"], ids=["ours", "published"])
async def test_published_responses_with_both_prompt_sets(prompts: Path | None) -> None:
    example, responses = published_example()
    (scored,), model, retriever = await score(ScoreConfig(prompts_dir=prompts), [(example, responses)])
    assert [scored_response.response.id for scored_response in scored.responses] == [f"11-{n}" for n in range(10)]
    assert all(scored_response.complete for scored_response in scored.responses)
    assert all(set(scored_response.verdicts) == set(DIMENSIONS) for scored_response in scored.responses)

    requests = Counter(question.template for question in model.requests)
    assert max(Counter(question.text for question in model.requests).values()) == 1
    # 10,071 simple tokens are three parts of 4,096 and 79 chunks of 128
    assert requests["extraction"] == len(scored.extraction.extracts) == 3
    assert requests["completeness"] == 10
    assert len(retriever.indexed) == 79
    assert "".join(retriever.indexed) == example.context

    for scored_response in scored.responses:
        for statement in scored_response.verdicts["faithfulness"].statements:
            assert len(statement.evidence) == 5
            assert all(example.context[e.start : e.end] == e.text for e in statement.evidence)


async def test_longbench_records_in_english_and_chinese() -> None:
    work = []
    for name in ("multi_news", "multifieldqa_zh"):
        for n, row in enumerate(rows(f"longbench/{name}.jsonl")[:4]):
            example = Example(
                id=f"{name}-{n}",
                document_id=row["_id"],
                context=row["context"],
                query=row["input"] or "Summarise the news in one page.",
            )
            texts = (row["answers"][0], row["context"][:200])
            work.append(
                (
                    example,
                    [
                        Response(id=f"{example.id}-{i}", example_id=example.id, query=example.query, text=text)
                        for i, text in enumerate(texts)
                    ],
                )
            )
    scored, model, retriever = await score(ScoreConfig(), work)
    assert [scored_example.extraction.example_id for scored_example in scored] == [example.id for example, _ in work]
    assert len(retriever.indexed) == len(set(retriever.indexed))
    for scored_example, (example, _) in zip(scored, work, strict=True):
        spans = [(extract.start, extract.end) for extract in scored_example.extraction.extracts]
        assert spans[0][0] == 0
        assert spans[-1][1] == len(example.context)
        assert all(extract.reason is None for extract in scored_example.extraction.extracts)
        for scored_response in scored_example.responses:
            assert all(
                v.score is not None or "no factual statement" in (v.reason or "")
                for v in scored_response.verdicts.values()
            )
    chinese = [question for question in model.requests if question.slots.get("question", "").endswith("？")]
    assert chinese
    assert all("[问题]" in question.text for question in chinese)
