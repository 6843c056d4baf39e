from pathlib import Path

import pytest

from longreward.data.formats import write_examples, write_scored
from longreward.errors import DataError
from longreward.records import DIMENSIONS, EQUAL_WEIGHTS, Example, Response, ScoredResponse, Verdict
from longreward.training.score_pairs import (
    ScorePair,
    label_by_gold,
    read_scored_prompts,
    select_pairs,
    split_by_document,
)


def scored(id_: str, text: str, *scores: float | tuple[float, float] | None) -> ScoredResponse:
    """Return a response with one score for all dimensions, or four; a tuple is the bounds of an open score."""
    values = scores if len(scores) == 4 else scores * 4
    verdicts = {
        dimension: Verdict(score=None, bounds=value) if isinstance(value, tuple) else Verdict(score=value)
        for dimension, value in zip(DIMENSIONS, values, strict=True)
    }
    example_id = id_.rpartition("-")[0]
    return ScoredResponse(response=Response(id=id_, example_id=example_id, query="who ?", text=text), verdicts=verdicts)


@pytest.fixture
def write(tmp_path: Path):
    def write_files(responses, documents=("a", "b")) -> tuple[Path, list[Path]]:
        data, scores = tmp_path / "data.jsonl", tmp_path / "scores.jsonl"
        write_examples(
            data,
            [
                Example(id=str(n), document_id=document, context=f"text {document}", query="who ?")
                for n, document in enumerate(documents)
            ],
        )
        write_scored(scores, responses)
        return data, [scores]

    return write_files


def test_prompts_with_different_scored_responses(write) -> None:
    data, files = write(
        [
            scored("0-0", "anna", 8.0),
            scored("0-1", "ben", 4.0, 4.0, 8.0, 4.0),
            scored("0-2", "anna", 8.0),  # the same text again
            scored("0-3", "cara", None),
            scored("0-4", "it", (2.0, 3.0)),
            scored("1-0", "north", 5.0),  # a single response
        ]
    )
    [prompt] = read_scored_prompts(data, files, EQUAL_WEIGHTS)
    assert prompt.example.context == "text a"
    assert [response.id for response in prompt.responses] == ["0-0", "0-1", "0-4"]
    assert prompt.bounds == ((8.0, 8.0), (5.0, 5.0), (2.0, 3.0))
    [weighted] = read_scored_prompts(data, files, {**dict.fromkeys(DIMENSIONS, 0.0), "faithfulness": 1.0})
    assert weighted.bounds[1] == (8.0, 8.0)


def test_gold_facts_replace_scores(write) -> None:
    [prompt] = read_scored_prompts(*write([scored("0-0", "anna", 8.0), scored("0-1", "ben", 2.0)]), EQUAL_WEIGHTS)

    def gold(example_id: str, text: str) -> dict[str, float] | None:
        return {"recall": 0.5 if text == "anna" else 1.0, "unsupported": 0.2} if example_id == "0" else None

    [labelled] = label_by_gold([prompt], gold)  # type: ignore[arg-type]
    assert labelled.bounds == ((4.0, 4.0), (8.0, 8.0))
    assert select_pairs(labelled, min_margin=0.25, most=None, seed=0) == [ScorePair(1, 0, 4.0)]
    with pytest.raises(DataError, match="example 0 has no gold facts"):
        label_by_gold([prompt], lambda example_id, text: None)


def test_pairs_differ_by_margin(write) -> None:
    responses = [scored(f"0-{n}", str(n), value) for n, value in enumerate((8.0, 5.0, (4.0, 5.5), 8.0))]
    [prompt] = read_scored_prompts(*write(responses), EQUAL_WEIGHTS)
    pairs = select_pairs(prompt, min_margin=0.0, most=None, seed=0)
    assert pairs == [ScorePair(0, 1, 3.0), ScorePair(0, 2, 2.5), ScorePair(3, 1, 3.0), ScorePair(3, 2, 2.5)]
    assert select_pairs(prompt, min_margin=2.75, most=None, seed=0) == [ScorePair(0, 1, 3.0), ScorePair(3, 1, 3.0)]
    few = select_pairs(prompt, min_margin=0.0, most=2, seed=0)
    assert len(few) == 2
    assert set(few) <= set(pairs)
    assert few == select_pairs(prompt, min_margin=0.0, most=2, seed=0)


def test_split_shares_no_document(write) -> None:
    documents = [f"doc{n // 2}" for n in range(20)]  # two prompts about each
    responses = [scored(f"{n}-{k}", str(k), float(k)) for n in range(20) for k in range(2)]
    prompts = read_scored_prompts(*write(responses, documents), EQUAL_WEIGHTS)
    training, heldout = split_by_document(prompts, heldout_share=0.2, seed=0)
    assert (len(training), len(heldout)) == (16, 4)
    assert not {p.example.document_id for p in training} & {p.example.document_id for p in heldout}
    again = split_by_document(reversed(prompts), heldout_share=0.2, seed=0)
    assert {p.example.id for p in again[1]} == {p.example.id for p in heldout}
    assert {p.example.id for p in split_by_document(prompts, heldout_share=0.2, seed=1)[1]} != {
        p.example.id for p in heldout
    }
    training, heldout = split_by_document(prompts, heldout_share=0.99, seed=0)
    assert len(training) == 2  # one document is left


def test_unusable_files_reported(write) -> None:
    with pytest.raises(DataError, match=r"1 prompts, such as 7, are not in .*data.jsonl"):
        read_scored_prompts(*write([scored("7-0", "anna", 8.0), scored("7-1", "ben", 4.0)]), EQUAL_WEIGHTS)
    with pytest.raises(DataError, match="no prompt has two different responses with scores"):
        read_scored_prompts(*write([scored("0-0", "anna", 8.0), scored("0-1", "anna", 4.0)]), EQUAL_WEIGHTS)
    prompts = read_scored_prompts(*write([scored("0-0", "anna", 8.0), scored("0-1", "ben", 4.0)]), EQUAL_WEIGHTS)
    with pytest.raises(DataError, match="the scores are about 1 document"):
        split_by_document(prompts, heldout_share=0.2, seed=0)
