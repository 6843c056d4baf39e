from pathlib import Path

import pytest

from longreward.errors import DataError
from longreward.pairs.exclusions import exclude_prompts, read_exclusions, require_dependency
from longreward.pairs.methods import pair_metrics
from longreward.pairs.outcomes import NoPair, make_pair
from longreward.records import Example, Response

EXAMPLE = Example(id="1", document_id="1", context="Rain fell.", query="What fell?")
CHOSEN, REJECTED = (Response(id=f"1-{n}", example_id="1", query="What fell?", text=text) for n, text in enumerate("ab"))


def test_excluded_prompts_give_no_pair_and_are_counted() -> None:
    pair = make_pair(EXAMPLE, CHOSEN, REJECTED, method="longreward", rewards=(9.0, 4.0))
    other = pair.model_copy(update={"id": "2"})
    tie = NoPair("3", "best and worst tie", 10, 10, 0.0)
    outcomes = list(exclude_prompts([pair, other, tie], {"1", "3"}))
    assert outcomes == [NoPair("1", "excluded", 2, 2, 5.0), other, NoPair("3", "excluded", 10, 10, 0.0)]
    assert pair_metrics(outcomes)["without_pair/excluded"] == 2.0


def test_file_has_ids_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "excluded.jsonl"
    file.write_text('{"idx": 11, "comment": "two answers"}\n\n{"idx": "contract-3"}\n', encoding="utf-8")
    assert read_exclusions(file) == {"11": "two answers", "contract-3": ""}
    for blank in ("", "\n"):
        file.write_text(blank, encoding="utf-8")
        assert read_exclusions(file) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 11}', "line 2: unknown key 'id'; expected idx"),
        ('{"comment": "why"}', "line 2: idx is None, expected a number or a name"),
        ('{"idx": 11, "comment": 3}', "line 2: comment is 3, expected text"),
        ('{"idx": [11]}', r"line 2: idx is \[11\], expected a number or a name"),
        ("11", "line 2: a JSON int, expected an object"),
        ('{"idx": 11', "line 2: not JSON"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "excluded.jsonl"
    file.write_text(f'{{"idx": 1}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match=f"excluded.jsonl, {message}"):
        read_exclusions(file)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl cannot be read"):
        read_exclusions(tmp_path / "absent.jsonl")


def test_file_must_be_a_dependency_of_the_stage() -> None:
    require_dependency(Path("data/excluded.jsonl"), [Path("data/excluded.jsonl")])
    require_dependency(Path("data/labels/a.jsonl"), [Path("data/labels")])
    with pytest.raises(DataError, match=r"pair\.exclude is notes\.jsonl, which is no dependency"):
        require_dependency(Path("notes.jsonl"), [Path("data/excluded.jsonl")])
