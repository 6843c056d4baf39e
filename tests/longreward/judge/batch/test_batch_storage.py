"""Result files are indexed by request id, and batches on disk are resumed by the next process."""

import json
from pathlib import Path

import pytest

from longreward.errors import StateError
from longreward.judge.batch.storage import BatchFolder, read_results


def result_line(request_id: str, text: str | None, status: int = 200) -> str:
    response = None if text is None else {"status_code": status, "body": {"text": text}}
    error = None if response else {"message": "expired"}
    return json.dumps({"custom_id": request_id, "response": response, "error": error})


def test_success_counts_before_failure_and_last_success_counts(tmp_path: Path) -> None:
    """Two programs may process parts of one file."""
    one, two = tmp_path / "results-1.jsonl", tmp_path / "results-2.jsonl"
    one.write_text(
        "\n".join(
            [
                result_line("a", "first"),
                result_line("b", None),
                result_line("c", "stays"),
                result_line("d", "busy", 503),
                result_line("a", "second"),
                '{"custom_id": "e", "resp',
            ]
        )
    )
    two.write_text(
        "\n".join(
            [result_line("c", None), result_line("b", "late"), result_line("d", None), result_line("c", "no", 500)]
        )
    )
    results = read_results([one, two])
    assert {name: (result.status, json.loads(result.body).get("text")) for name, result in results.items()} == {
        "a": (200, "second"),
        "b": (200, "late"),
        "c": (200, "stays"),
        "d": (503, "busy"),  # the first of several failures
    }


def test_batches_split_and_read_by_next_process(tmp_path: Path) -> None:
    folder = BatchFolder(tmp_path / "l.sqlite", address="a", model="org/m")
    folder.write([(f"q{n}", b"x" * 9 + b"\n") for n in range(7)], max_requests=4, max_bytes=30)
    assert [sorted(record.open_ids) for record in folder.records.values()] == [
        ["q0", "q1", "q2"],
        ["q3", "q4", "q5"],
        ["q6"],
    ]
    folder.close()
    other = BatchFolder(tmp_path / "l.sqlite", address="a", model="org/m")
    record = other.find("q4")
    assert record is not None
    assert record.requests.read_bytes() == (b"x" * 9 + b"\n") * 3
    for name in ("q3", "q4", "q5"):
        record.mark_done(name)
    other.close()
    last = BatchFolder(tmp_path / "l.sqlite", address="a", model="org/m")
    assert last.find("q4") is None
    assert last.find("q6") is not None


def test_damaged_state_is_error_with_advice(tmp_path: Path) -> None:
    folder = BatchFolder(tmp_path / "l.sqlite", address="a", model="m")
    folder.write([("q", b"{}\n")], max_requests=1, max_bytes=100)
    (record,) = folder.records.values()
    (record.folder / "batch.json").write_text("{")
    folder.close()
    with pytest.raises(StateError, match=r"batch\.json is damaged; remove"):
        BatchFolder(tmp_path / "l.sqlite", address="a", model="m")
