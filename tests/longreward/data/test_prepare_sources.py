"""`prepare` with sources of all kinds, from the settings to the splits."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from longreward.data.file_source import find_files
from longreward.data.prepare import PrepareConfig, PrepareReport, prepare, prepare_responses
from longreward.errors import ConfigError, DataError, PolicyError

QUESTIONS = [{"question": f"Who is {n}?", "text": f"Text {n} says it.", "gold": "Me."} for n in range(60)]
COLUMNS = {"idx": None, "query": "question", "context": "text", "answer": "gold"}


def run(root: Path, source: str, *, window: int | None = None, **settings: Any) -> PrepareReport:
    config = PrepareConfig.parse({"source": source, **settings}, source="test")
    count = lambda context, query: len(f"{context} {query}".split())  # noqa: E731
    return prepare(config, count, root=root, out=root / "out", window=window)


def rows_of(root: Path, *names: str) -> list[dict[str, Any]]:
    return [json.loads(line) for name in names for line in (root / "out" / f"{name}.jsonl").read_text().splitlines()]


def examples(root: Path) -> dict[int, dict[str, Any]]:
    return {row["idx"]: row for row in rows_of(root, "sft", "preference", "heldout")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    return tmp_path


def test_parquet_file_with_configured_columns(root: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(QUESTIONS), root / "data/raw/mine.parquet", row_group_size=25)
    run(root, "data/raw/mine.parquet", columns=COLUMNS)
    assert sorted(examples(root)) == list(range(60))
    seven = examples(root)[7]
    assert (seven["query"], seven["context"], seven["answer"]) == ("Who is 7?", "Text 7 says it.", "Me.")


def test_records_are_numbered_across_shards_including_bad_ones(root: Path) -> None:
    shards = root / "data/raw/shards"
    shards.mkdir()
    lines = [json.dumps(row) for row in QUESTIONS]
    lines[40] = "nonsense"
    (shards / "a.jsonl").write_text("\n".join(lines[:30]))
    (shards / "b.jsonl").write_text("\n".join([*lines[30:], lines[3]]))
    run(root, "data/raw/shards", columns=COLUMNS, max_bad_share=0.02)
    assert sorted(examples(root)) == [n for n in range(60) if n != 40]
    assert examples(root)[41]["query"] == "Who is 41?"
    bad, duplicate = rows_of(root, "rejected")
    assert (bad["file"], bad["line"], bad["idx"]) == ("data/raw/shards/b.jsonl", 11, "40")
    assert duplicate["reason"] == "the same query on the same text as line 4 of data/raw/shards/a.jsonl"


def test_ambiguous_rows_are_listed_and_resolved_by_a_setting(root: Path) -> None:
    rows = [
        {"idx": n, "query": f"Who is {n}?", "context": f"Text {n}.", "answer": "Me.", "input": "in", "answers": ["out"]}
        for n in range(60)
    ]
    (root / "data/raw/both.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"(?s)60 of 60 records .*  line 1: the row fits two forms") as caught:
        run(root, "data/raw/both.jsonl")
    assert "set prepare.columns.format to longbench or columns" in str(caught.value)
    run(root, "data/raw/both.jsonl", columns={"format": "columns"})
    assert (examples(root)[7]["query"], examples(root)[7]["answer"]) == ("Who is 7?", "Me.")


def test_unusable_values_are_listed_and_counted(root: Path) -> None:
    lines = [json.dumps({"idx": float(n), "query": f"Who is {n}?", "context": f"Text {n}."}) for n in range(100)]
    lines[4] = r'{"idx": 4, "query": "q", "context": "half \ud83d"}'
    lines[7] = f'{{"idx": {"7" * 5000}, "query": "q", "context": "c"}}'
    lines[9] = json.dumps({"idx": "9" * 5000, "query": "q", "context": "A name of 5,000 digits."})
    lines[12] = json.dumps({"idx": 12, "query": "q", "context": "long " * 300_000})
    (root / "data/raw/bad.jsonl").write_text("\n".join(lines))
    report = run(root, "data/raw/bad.jsonl", max_bad_share=0.03, max_record_mib=1)
    assert (report.records, report.bad) == (100, 3)
    assert [(row["line"], row["reason"]) for row in rows_of(root, "rejected")] == [
        (5, "'context' has half of a surrogate pair (U+D83D at character 5), which UTF-8 cannot hold; remove it"),
        (8, "a whole number of more than 4,300 digits; write it as text"),
        (13, "the line has 1.4 MiB, more than prepare.max_record_mib (1)"),
    ]
    kept = examples(root)
    assert kept[11]["query"] == "Who is 11?"
    assert "9" * 5000 in {str(name) for name in kept}


def test_csv_file(root: Path) -> None:
    import pandas

    pandas.DataFrame(QUESTIONS).to_csv(root / "data/raw/mine.csv", index=False)
    run(root, "data/raw/mine.csv", columns=COLUMNS)
    assert sorted(examples(root)) == list(range(60))
    assert examples(root)[7]["answer"] == "Me."


def test_files_exported_by_datasets(root: Path) -> None:
    from datasets import Dataset

    chats = [
        [
            {"from": "human", "value": f"Text {n}.\n\nSo long a text.\n\nWho is {n}?"},
            {"from": "gpt", "value": f"Number {n}."},
        ]
        for n in range(60)
    ]
    exported = Dataset.from_dict({"conversations": chats, "id": [f"c{n}" for n in range(60)]})
    exported.to_json(root / "data/raw/a.jsonl")
    exported.to_parquet(root / "data/raw/b.parquet")
    for name in ("a.jsonl", "b.parquet"):
        run(root, f"data/raw/{name}", columns={"idx": "id", "messages": "conversations"})
        rows = {row["idx"]: row for row in rows_of(root, "sft", "preference", "heldout")}
        assert (rows["c5"]["query"], rows["c5"]["answer"]) == ("Who is 5?", "Number 5.")


def test_json_file_with_chats(root: Path) -> None:
    chats = [
        {"length": 9, "messages": [{"role": "user", "content": f"Text {n}.\n\nSo long a text.\n\nWho is {n}?"}]}
        for n in range(60)
    ]
    (root / "data/raw/long.json").write_text(json.dumps(chats))
    run(root, "data/raw/long.json", columns={"idx": None, "messages": "messages"})
    assert examples(root)[5]["context"] == "Text 5.\n\nSo long a text."
    assert examples(root)[5]["query"] == "Who is 5?"


def test_downloaded_hub_data_set(root: Path) -> None:
    folder = root / "data/raw/set/data"
    folder.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(QUESTIONS), folder / "train-00000-of-00001.parquet")
    report = run(root, "hub:data/raw/set", columns=COLUMNS)
    assert report.records == 60
    assert examples(root)[59]["query"] == "Who is 59?"


def test_missing_column_fails_without_output(root: Path) -> None:
    (root / "data/raw/mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    with pytest.raises(ConfigError, match="has no column 'txt'; it has question, text, gold; did you mean 'text'"):
        run(root, "data/raw/mine.jsonl", columns=COLUMNS | {"context": "txt"})
    assert not (root / "out").exists()


def test_wrong_checksum_fails_without_output(root: Path) -> None:
    (root / "data/raw/mine.jsonl").write_text(json.dumps(QUESTIONS[0]))
    with pytest.raises(DataError, match=r"differs from prepare\.checksum"):
        run(root, "data/raw/mine.jsonl", columns=COLUMNS, checksum="sha256:" + "0" * 64)
    assert not (root / "out").exists()
    with pytest.raises(ConfigError, match="checksum: String should match"):
        run(root, "data/raw/mine.jsonl", checksum="d41d8cd98f00b204e9800998ecf8427e")


def test_responses_outside_data_raw_need_a_checksum(root: Path) -> None:
    (root / "data/raw/mine.json").write_text(json.dumps(QUESTIONS))
    run(root, "data/raw/mine.json", columns=COLUMNS)
    chosen = rows_of(root, "preference")[0]
    external = root / "external.jsonl"
    external.write_text(json.dumps({"idx": f"{chosen['idx']}-0", "query": chosen["query"], "answer": "I."}))
    with pytest.raises(ConfigError, match=r"prepare\.responses_checksum: sha256:") as caught:
        prepare_responses(PrepareConfig(responses=str(external)), root=root, out=root / "out")
    pin = str(caught.value).rsplit(maxsplit=1)[-1]
    config = PrepareConfig(responses=str(external), responses_checksum=pin)
    assert prepare_responses(config, root=root, out=root / "out") == 1


@pytest.fixture
def long_prompts(root: Path) -> Path:
    """Prompts of 7 tokens, except two of 20."""
    rows = [row | ({"text": "long " * 17} if n in (10, 50) else {}) for n, row in enumerate(QUESTIONS)]
    (root / "data/raw/mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def test_prompts_over_the_window_are_rejected(long_prompts: Path) -> None:
    with pytest.raises(
        PolicyError, match=r"2 of 60 prompts of .* longer than 18 tokens, the policy's window of 19"
    ) as caught:
        run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=19)
    assert "line 11: the prompt has 20 tokens" in str(caught.value)
    assert list((long_prompts / "out").iterdir()) == []
    with pytest.raises(PolicyError, match="60 of 60 prompts"):
        run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=21, answer_room=15)


def test_prompt_may_fill_the_window_except_answer_room(long_prompts: Path) -> None:
    report = run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=21)
    assert report.metrics()["over_window"] == 0
    assert report.metrics()["prompt_tokens/max"] == 20
    assert run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS).over_window == 0  # no window, no limit


def test_prompts_over_the_window_can_be_dropped_or_kept(long_prompts: Path) -> None:
    report = run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=10, over_window="drop")
    assert (report.over_window, report.bad, len(examples(long_prompts))) == (2, 0, 58)
    assert [row["line"] for row in rows_of(long_prompts, "rejected")] == [11, 51]
    report = run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=10, over_window="keep_ends")
    assert (report.over_window, len(examples(long_prompts))) == (2, 60)
    assert examples(long_prompts)[10]["context"] == "long " * 17


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.parquet"])
def test_memory_does_not_grow_with_the_file(root: Path, name: str) -> None:
    """20 MB of text pass with 3 MB of Python's memory, and each record retains less than a kilobyte."""
    path = root / "data/raw" / name
    records = [{"idx": n, "query": "Who?", "context": f"{n} {'long' * 5000}"} for n in range(1000)]
    if name == "mine.jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        parquet.write_table(pa.Table.from_pylist(records), path, row_group_size=50)
    del records
    assert find_files(root, f"data/raw/{name}").columns() == ["idx", "query", "context"]  # imports are not counted
    tracemalloc.start()
    try:
        report = run(root, f"data/raw/{name}")
        retained, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.records == 1000
    assert peak < 3e6
    assert retained < 1e6
