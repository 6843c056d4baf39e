import json
from collections import Counter
from pathlib import Path

import pytest

from longreward.data.formats import scored_to_row
from longreward.errors import DataError
from longreward.human_labels.sampling import sample_items
from longreward.records import DIMENSIONS, Evidence, Response, ScoredResponse, Statement, Verdict

CONTEXT = "Keld was founded in 1905 by Ann Lee."
EVIDENCE = (Evidence(start=0, end=len(CONTEXT), text=CONTEXT),)


def scored_response(prompt: int, number: int) -> ScoredResponse:
    """Return a response whose scores differ from those of the prompt's others by 0.5, 2, 4, …"""
    score = (0.0, 0.5, 2.5, 7.0)[number]
    supports = (1.0, 0.5, 0.0)
    statements = tuple(Statement(text=f"s{n}", support=supports[n], evidence=EVIDENCE) for n in range(3))
    return ScoredResponse(
        response=Response(id=f"{prompt}-{number}", example_id=str(prompt), query=f"q{prompt}", text=f"answer {number}"),
        verdicts={
            name: Verdict(score=score, judge="j", statements=statements if name == "faithfulness" else ())
            for name in DIMENSIONS
        },
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    scored, examples = tmp_path / "scored.jsonl", tmp_path / "examples.jsonl"
    rows = [scored_to_row(scored_response(prompt, number)) for prompt in range(20) for number in range(4)]
    scored.write_text("".join(json.dumps(row) + "\n" for row in rows))
    contexts = [{"idx": n, "query": f"q{n}", "context": CONTEXT, "document": f"d{n}"} for n in range(20)]
    examples.write_text("".join(json.dumps(row) + "\n" for row in contexts))
    return scored, examples


def test_strata_get_equal_numbers(files: tuple[Path, Path]) -> None:
    items = sample_items(*files, count=90, seed=0)
    assert Counter(item.kind for item in items) == {"support": 30, "preference": 30, "score": 30}
    supports = Counter(item.stratum for item in items if item.kind == "support")
    assert supports == {"judge: full": 10, "judge: partial": 10, "judge: none": 10}
    preferences = Counter((item.aspect, item.stratum) for item in items if item.kind == "preference")
    assert set(preferences.values()) == {2}
    assert len(preferences) == 5 * 3
    scores = Counter((item.aspect, item.stratum) for item in items if item.kind == "score")
    assert sum(scores.values()) == 30
    # No response has a score from 4 to 7: the other two strata share its number.
    assert {stratum for _, stratum in scores} == {"score 7 and more", "score below 4"}
    assert max(scores.values()) - min(scores.values()) <= 1


def test_sample_is_the_same_each_time_and_grows(files: tuple[Path, Path]) -> None:
    small = [item.id for item in sample_items(*files, count=30, seed=0)]
    assert small == [item.id for item in sample_items(*files, count=30, seed=0)]
    assert set(small) < {item.id for item in sample_items(*files, count=60, seed=0)}
    other = {item.id for item in sample_items(*files, count=30, seed=1)}
    assert len(other & set(small)) < 10
    scored, examples = files
    lines = scored.read_text().splitlines(keepends=True)
    blocks = ["".join(lines[start : start + 4]) for start in range(0, len(lines), 4)]
    scored.write_text("".join(reversed(blocks)))
    assert small == [item.id for item in sample_items(scored, examples, count=30, seed=0)]


def test_verdicts_are_those_of_the_judge(files: tuple[Path, Path]) -> None:
    for item in sample_items(*files, count=60, seed=0):
        scores = [(0.0, 0.5, 2.5, 7.0)[int(id.rpartition("-")[2])] for id in item.response_ids]
        if item.kind == "preference":
            assert item.verdict == (1.0 if scores[0] > scores[1] else -1.0)
            assert item.responses == tuple(f"answer {id[-1]}" for id in item.response_ids)
        elif item.kind == "score":
            assert item.verdict == scores[0]
        else:
            assert item.verdict == {"s0": 1.0, "s1": 0.5, "s2": 0.0}[str(item.statement)]
            assert item.evidence == EVIDENCE
        assert (item.judge, item.context) == ("j", CONTEXT)
        assert item.document_id == f"d{item.response_ids[0].partition('-')[0]}"


def test_better_response_is_a_or_b_by_chance(files: tuple[Path, Path]) -> None:
    items = sample_items(*files, count=60, seed=0, kinds=("preference",))
    first = sum(item.verdict == 1.0 for item in items)
    assert 18 <= first <= 42


def test_one_kind_only(files: tuple[Path, Path]) -> None:
    assert {item.kind for item in sample_items(*files, count=5, seed=0, kinds=("score",))} == {"score"}


def test_small_stage_gives_all_it_has(files: tuple[Path, Path]) -> None:
    items = sample_items(*files, count=1000, seed=0, kinds=("support",))
    assert len(items) == 60  # one statement of each level a prompt
    assert len({item.id for item in items}) == 60


def test_identical_responses_make_no_pair(tmp_path: Path, files: tuple[Path, Path]) -> None:
    scored = tmp_path / "equal.jsonl"
    rows = [scored_to_row(scored_response(0, number)) | {"answer": "the same"} for number in range(4)]
    scored.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="no response has a score or a statement to label"):
        sample_items(scored, files[1], count=10, seed=0, kinds=("preference",))


def test_missing_example(tmp_path: Path, files: tuple[Path, Path]) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"idx": 99, "query": "q", "context": "c"}) + "\n")
    with pytest.raises(DataError, match=r"other\.jsonl has no such example"):
        sample_items(files[0], other, count=10, seed=0)


def test_fewer_items_than_strata_have_all_aspects_and_margins(files: tuple[Path, Path]) -> None:
    items = sample_items(*files, count=5, seed=0, kinds=("preference",))
    assert len({item.aspect for item in items}) == 5
    assert set(Counter(item.stratum for item in items).values()) <= {1, 2}
    assert len({item.stratum for item in items}) == 3
