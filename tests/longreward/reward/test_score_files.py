"""Examples with their responses, read by the indices of their lines."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

from longreward.data.formats import write_examples, write_responses, write_scored
from longreward.errors import DataError
from longreward.records import DIMENSIONS, Example, Response, ScoredResponse, Verdict
from longreward.reward.score_files import ScoredResponses, read_scoring_items


def example(name: str, context: str = "Keld, 1905. 鹭") -> Example:
    return Example(id=name, document_id=name, context=context, query=f"What of {name}?", answer="1905")


def answer(name: str, text: str) -> Response:
    return Response(id=name, example_id=name.rpartition("-")[0], query=f"What of {name.rpartition('-')[0]}?", text=text)


def files(folder: Path, responses: list[Response], suffix: str = "") -> tuple[Path, Path]:
    data, answers = folder / f"data.jsonl{suffix}", folder / f"answers.jsonl{suffix}"
    write_examples(folder / "data.jsonl", [example("1"), example("2"), example("3")])
    write_responses(folder / "answers.jsonl", responses)
    for name in ("data", "answers"):
        plain = folder / f"{name}.jsonl"
        plain.write_text("\n" + plain.read_text(encoding="utf-8").replace("\n", "\n \n"), encoding="utf-8")  # blanks
        if suffix:
            (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    return data, answers


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_items_have_responses_in_order(tmp_path: Path, suffix: str) -> None:
    mixed = [answer("3-0", "c"), answer("1-1", "b 鹭\nb"), answer("3-1", "d"), answer("1-0", "a")]
    items = read_scoring_items(*files(tmp_path, mixed, suffix))
    assert len(items) == 2  # the second has no response
    assert [(e.id, e.context, [r.text for r in result]) for e, result in items] == [
        ("1", "Keld, 1905. 鹭", ["b 鹭\nb", "a"]),
        ("3", "Keld, 1905. 鹭", ["c", "d"]),
    ]
    assert [e.id for e, _ in items[1:]] == ["3"]
    assert items[-1][0].id == "3"
    assert [response.text for response in items.responses_to("3")] == ["c", "d"]
    assert items.responses_to("2") == []


def test_scored_responses_read_by_example(tmp_path: Path) -> None:
    def scored(name: str, score: float) -> ScoredResponse:
        return ScoredResponse(response=answer(name, "a"), verdicts={d: Verdict(score=score) for d in DIMENSIONS})

    complete, unscored = tmp_path / "complete.jsonl", tmp_path / "unscored.jsonl"
    first = [scored("2-0", 1), scored("1-1", 2), scored("2-2", 3)]
    write_scored(complete, first)
    write_scored(unscored, [scored("2-1", 4)])
    responses = ScoredResponses([complete, unscored])
    assert responses.to("2") == [first[0], first[2], scored("2-1", 4)]
    assert responses.to("1") == [first[1]]
    assert responses.to("3") == []
    # A bad verdict is found when it is read, a bad response at once.
    lines = complete.read_text(encoding="utf-8").splitlines(keepends=True)
    complete.write_text("".join([lines[0], "\n", lines[1].replace('"completeness": 2', '"completeness": 11')]))
    responses = ScoredResponses([complete])
    with pytest.raises(DataError, match=r"complete.jsonl, line 3: score: .* less than or equal to 10"):
        responses.to("1")
    complete.write_text(lines[0] + lines[1].replace('"1-1"', '"1"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"complete.jsonl, line 2: idx '1' is not of the form"):
        ScoredResponses([complete])


def test_inconsistent_files_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="duplicate idx 1-0"):
        read_scoring_items(*files(tmp_path, [answer("1-0", "a"), answer("1-0", "b")]))
    with pytest.raises(DataError, match=r"1 example.* not in .*data.jsonl, such as '9'"):
        read_scoring_items(*files(tmp_path, [answer("9-0", "a")]))
    other = answer("1-0", "a").model_copy(update={"query": "Else?"})
    with pytest.raises(DataError, match="the query of 1-0 differs from that of example 1"):
        read_scoring_items(*files(tmp_path, [other]))


def test_changed_file_is_error(tmp_path: Path) -> None:
    data, answers = files(tmp_path, [answer("1-0", "a"), answer("3-0", "b")])
    items = read_scoring_items(data, answers)
    data.write_text("x" + data.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(DataError, match="changed while it was read"):
        list(items)


def test_documents_not_held_in_memory(tmp_path: Path) -> None:
    """Forty documents of a megabyte take the memory of a few."""
    write_examples(tmp_path / "d.jsonl", (example(str(n), f"{n} " + "x" * 1_000_000) for n in range(40)))
    write_responses(tmp_path / "r.jsonl", (answer(f"{n}-0", "a") for n in range(40)))
    tracemalloc.start()
    try:
        items = read_scoring_items(tmp_path / "d.jsonl", tmp_path / "r.jsonl")
        assert sum(len(e.context) for e, _ in items) > 40_000_000
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()
