"""The strategy `adaptive` with the offline judge: the same pairs as the full strategy, and the savings."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from longreward.builtin.offline_judge.judge import OfflineJudge
from longreward.data.formats import read_examples, read_responses, read_scored
from longreward.flows.cli.main import main
from longreward.judge import Judge
from longreward.pairs.methods import PairConfig
from longreward.pairs.selection import make_pairs
from longreward.records import Example, PreferencePair, Response, ScoredResponse, Verdict
from longreward.reward import ScoreConfig, open_scorer, score_examples
from longreward.reward.adaptive import count_saved_requests
from longreward.reward.score_files import ScoreReport

WithResponses = tuple[Example, list[Response]]
CORPUS = Path(__file__).parents[3] / "data/raw/builtin/corpus.jsonl"
MARGIN = PairConfig(min_margin=0.25)
SMALL = {"evidence_chunk_tokens": 24, "extraction_chunk_tokens": 128}


def builtin(prompts: int) -> list[WithResponses]:
    """Questions of the built-in corpus with ten answers each, made of the sentences of all answers to its document."""
    rng = random.Random(0)
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()[: prompts * 4]]
    pairs = []
    for row in rows[::4]:
        sentences = [s for other in rows if other["document"] == row["document"] for s in other["answer"].split(". ")]
        example = Example(id=str(row["idx"]), document_id=row["document"], context=row["context"], query=row["query"])
        texts = [". ".join(rng.sample(sentences, rng.randint(1, min(6, len(sentences))))) for _ in range(10)]
        pairs.append((example, [response(example, n, text) for n, text in enumerate(texts)]))
    return pairs


def response(example: Example, number: int, text: str) -> Response:
    return Response(id=f"{example.id}-{number}", example_id=example.id, query=example.query, text=text)


async def pairs_and_report(
    items: list[WithResponses], config: ScoreConfig, pairing: PairConfig = MARGIN
) -> tuple[list[object], ScoreReport, float]:
    report = ScoreReport()
    scored: list[ScoredResponse] = []
    async with Judge.from_model(OfflineJudge()) as judge:
        async for scored_example in score_examples(judge, open_scorer(config), items):
            report.add(scored_example)
            scored += scored_example.responses
        pairs = make_pairs(pairing, [example for example, _ in items], scored)
        return list(pairs), report, judge.metrics()["calls"]


@pytest.mark.skipif(not CORPUS.exists(), reason="the built-in corpus is not there; dvc pull brings it")
async def test_builtin_corpus_same_pairs_with_fewer_calls() -> None:
    items = builtin(12)
    full, _, all_calls = await pairs_and_report(items, ScoreConfig(**SMALL))
    adaptive, report, calls = await pairs_and_report(items, ScoreConfig(**SMALL, strategy="adaptive"))
    assert adaptive == full
    assert sum(isinstance(outcome, PreferencePair) for outcome in full) >= 10
    assert calls < 0.9 * all_calls  # much is shared here: the answers are made of the same sentences
    figures = report.metrics()
    assert 0 < figures["saved/requests"] <= all_calls - calls
    assert figures["complete"] + figures["not_needed"] == 120
    assert "reward" not in figures  # of bests and worsts alone it would mislead


@pytest.mark.skipif(not CORPUS.exists(), reason="the built-in corpus is not there; dvc pull brings it")
@pytest.mark.parametrize("choose_truncated", [False, True])
async def test_same_pairs_if_best_response_is_truncated(choose_truncated: bool) -> None:
    def truncate(response: Response) -> Response:
        return response.model_copy(update={"finish_reason": "length" if len(response.text) % 3 else "stop"})

    items = [(example, [truncate(response) for response in responses]) for example, responses in builtin(12)]
    config = PairConfig(min_margin=0.25, choose_truncated=choose_truncated)
    full, _, all_calls = await pairs_and_report(items, ScoreConfig(**SMALL), config)
    adaptive, _, calls = await pairs_and_report(items, ScoreConfig(**SMALL, strategy="adaptive"), config)
    assert adaptive == full
    assert calls < all_calls
    pairs = [outcome for outcome in full if isinstance(outcome, PreferencePair)]
    assert any(outcome.chosen.truncated for outcome in pairs) == choose_truncated
    assert len(pairs) >= 10


@pytest.mark.skipif("LONGREWARD_REFERENCE" not in os.environ, reason="LONGREWARD_REFERENCE is not set")
async def test_published_example_same_pair() -> None:
    folder = Path(os.environ["LONGREWARD_REFERENCE"]) / "longreward"
    (example,) = read_examples(folder / "sft.jsonl")
    items = [(example, list(read_responses(folder / "sampled_responses.jsonl")))]
    full, _, all_calls = await pairs_and_report(items, ScoreConfig())
    adaptive, _, calls = await pairs_and_report(items, ScoreConfig(strategy="adaptive"))
    assert adaptive == full
    assert calls < all_calls


def test_saved_requests_are_counted() -> None:
    def verdict(score: float | None, **bounds_fields: object) -> Verdict:
        bounds = None if score is not None else (0.0, 10.0)
        return Verdict(score=score, bounds=bounds, calls=int(score is not None), prompt_tokens=100, **bounds_fields)

    example = Example(id="1", document_id="d", context="c", query="q")
    facts = [{"text": text, "support": None, "reason": "not needed: …"} for text in ("a", "b")]
    listed = {"reason": "not needed: …", "statements": [{"text": "c", "support": 1.0}, *facts]}
    scored = {"helpfulness": verdict(5.0), "logicality": verdict(5.0)}
    responses = [
        ScoredResponse(
            response=response(example, n, text),
            verdicts={**scored, "completeness": verdict(complete), "faithfulness": verdict(None, **bounds_fields)},
        )
        for n, (text, complete, bounds_fields) in enumerate(
            [("x", 5.0, listed), ("x", 5.0, listed), ("y", None, {})]  # equal texts count once
        )
    ]
    # Two supports of x; completeness and the list of y.
    assert count_saved_requests(responses) == 4


def test_score_command_with_adaptive_strategy(
    tmp_path: Path, write_lines: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Keld was founded in 1905 by Ann Lee. The lake froze in May 1929. Bees were kept by old Tom Ray."
    query = "Who founded Keld and when?"
    sentences = ["Ann Lee founded Keld in 1905.", "Ann Lee founded Keld.", "In 1905.", "Bees froze the lake in 1700."]
    data = write_lines(tmp_path / "sft.jsonl", [{"idx": 1, "query": query, "context": text}])
    rows = [{"idx": f"1-{n}", "query": query, "answer": answer} for n, answer in enumerate(sentences)]
    responses, out = write_lines(tmp_path / "responses.jsonl", rows), tmp_path / "scored.jsonl"
    arguments = ["--data", str(data), "--responses", str(responses), "--out", str(out)]
    ledger = ["--ledger", str(tmp_path / "ledger.sqlite")]
    assert main(["score", *arguments, *ledger, "-S", "score.strategy=adaptive"]) == 0
    printed = capsys.readouterr().out
    assert "not needed for pairs" in printed
    scored = list(read_scored(out))
    bounded = list(read_scored(tmp_path / "scored.unscored.jsonl"))
    assert len(scored) + len(bounded) == 4
    assert all(response.reward is not None for response in scored)
    assert all(response.reward is None and response.reward_bounds() is not None for response in bounded)
