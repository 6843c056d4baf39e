"""`prepare`: splits, rejected records and prompt lengths, from sources of all kinds."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pytest
from pyarrow import parquet

from longreward.data.file_source import find_files
from longreward.data.formats import read_examples
from longreward.data.prepare import PrepareConfig, PrepareReport, assign_split, prepare, prepare_responses
from longreward.errors import ConfigError, DataError, PolicyError

QUESTIONS = [{"question": f"Who is {n}?", "text": f"Text {n} says it.", "gold": "Me."} for n in range(60)]
COLUMNS = {"idx": None, "query": "question", "context": "text", "answer": "gold"}


def row(idx: int, *, document: str = "", query: str = "Who?", **fields: Any) -> dict[str, Any]:
    return {"idx": idx, "query": query, "answer": "Me.", "context": f"Text {document or idx}.", **fields}


def run(root: Path, source: str, *, window: int | None = None, **settings: Any) -> PrepareReport:
    config = PrepareConfig.parse({"source": source, **settings}, source="test")
    count = lambda context, query: len(f"{context} {query}".split())  # noqa: E731
    return prepare(config, count, root=root, out=root / "out", window=window)


def run_rows(root: Path, rows: list[dict[str, Any] | str], **settings: Any) -> PrepareReport:
    """Write rows, or lines, to a file and prepare it."""
    source = root / "data" / "raw" / "x.jsonl"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return run(root, "data/raw/x.jsonl", **settings)


def rows_of(root: Path, *names: str) -> list[dict[str, Any]]:
    return [json.loads(line) for name in names for line in (root / "out" / f"{name}.jsonl").read_text().splitlines()]


def examples(root: Path) -> dict[int, dict[str, Any]]:
    return {row["idx"]: row for row in rows_of(root, "sft", "preference", "heldout")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    return tmp_path


def test_every_record_is_in_one_output_file(tmp_path: Path) -> None:
    report = run_rows(tmp_path, [row(n) for n in range(200)])
    assert report.records == 200
    outputs = [rows_of(tmp_path, name) for name in ("sft", "preference", "heldout", "rejected")]
    assert sum(map(len, outputs)) == 200
    assert len(outputs[1]) > 60  # 0.45 of the documents, by hash
    assert sorted(r["idx"] for output in outputs for r in output) == list(range(200))


def test_no_document_is_in_two_splits(tmp_path: Path) -> None:
    rows = [row(n, document=str(n % 50), query=f"Who {n}?") for n in range(200)]
    rows += [row(300 + n, document=str(n), query=f"Which {n}?") | {"document": f"other name {n}"} for n in range(50)]
    run_rows(tmp_path, rows)
    splits = [{r["context"] for r in rows_of(tmp_path, name)} for name in ("sft", "preference", "heldout")]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 50


def test_assign_split_depends_on_document_and_seed_only() -> None:
    config = PrepareConfig()
    assert [assign_split(config, f"doc{n}") for n in range(5)] == [
        assign_split(PrepareConfig(), f"doc{n}") for n in range(5)
    ]
    assert {assign_split(config, f"doc{n}") for n in range(100)} == {"sft", "preference", "heldout"}


def test_named_documents_are_held_out(tmp_path: Path) -> None:
    rows = [row(n, document=str(n)) | {"document": f"{'heldout' if n < 10 else 'train'}-{n}"} for n in range(60)]
    settings = {"heldout_documents": "heldout-*", "heldout_share": 0.0, "preference_share": 0.5}
    report = run_rows(tmp_path, rows, **settings)
    assert report.documents["heldout"] == {f"heldout-{n}" for n in range(10)}
    assert min(len(report.documents[split]) for split in ("sft", "preference")) > 10
    with pytest.raises(DataError, match=r"matches prepare.heldout_documents \('test-\*'\)"):
        run_rows(tmp_path, rows, **settings | {"heldout_documents": "test-*"})
    with pytest.raises(ValueError, match="set heldout_share to 0"):
        PrepareConfig(heldout_documents="heldout-*")


def test_bad_records_listed_with_line_and_reason(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [row(n) for n in range(100)]
    rows[3] = '{"idx": 3, "query": '
    rows[5] = row(5) | {"context": "  "}
    rows[7] = row(6, document="other")
    report = run_rows(tmp_path, rows, max_bad_share=0.03)
    assert report.rejected["bad"] == 3
    assert [(r["line"], r["idx"], r["reason"].split(" (")[0]) for r in rows_of(tmp_path, "rejected")] == [
        (4, None, "not JSON"),
        (6, "5", "context is empty"),
        (8, "6", "idx 6 is used in line 7 already, with other content"),
    ]


def test_too_many_bad_records_fail_without_output(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [row(n) for n in range(10)]
    rows[4] = "nonsense"
    with pytest.raises(DataError, match=r"1 of 10 records .* bad \(10\.0%") as caught:
        run_rows(tmp_path, rows, max_bad_share=0.05)
    assert "line 5: not JSON" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_duplicates_are_not_bad(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [row(n) for n in range(40)]
    rows.append(row(99, document="3", query="Who? ") | {"context": "Text  3."})
    report = run_rows(tmp_path, rows, max_bad_share=0)
    assert (report.rejected["duplicate"], report.rejected["bad"]) == (1, 0)
    assert rows_of(tmp_path, "rejected")[0]["reason"] == "the same query on the same text as line 4"


def test_max_preference(tmp_path: Path) -> None:
    report = run_rows(tmp_path, [row(n) for n in range(200)], max_preference=10)
    assert len(rows_of(tmp_path, "preference")) == 10
    assert report.rejected["over_limit"] == len(rows_of(tmp_path, "rejected")) > 40


def test_prompt_lengths(tmp_path: Path) -> None:
    report = run_rows(tmp_path, [row(n) for n in range(100)])
    assert report.metrics()["prompt_tokens/median"] == 3.0  # "Text", "<n>.", "Who?"
    assert rows_of(tmp_path, "sft")[0]["prompt_tokens"] == 3


def test_tokenizer_error_reported_with_line(tmp_path: Path) -> None:
    path = tmp_path / "data" / "raw" / "x.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row(0)) + "\n" + json.dumps(row(1)) + "\n")

    def count(context: str, query: str) -> int:
        if context == "Text 1.":
            raise PolicyError("the tokenizer keeps 0 tokens")
        return 3

    with pytest.raises(PolicyError, match=r"^data/raw/x\.jsonl, line 2: the tokenizer keeps 0 tokens"):
        prepare(PrepareConfig(source="data/raw/x.jsonl"), count, root=tmp_path, out=tmp_path / "out")


def test_split_without_share_is_blank_line_and_read_as_empty(tmp_path: Path) -> None:
    run_rows(tmp_path, [row(n) for n in range(20)], preference_share=0.6, heldout_share=0.4)
    assert (tmp_path / "out" / "sft.jsonl").read_bytes() == b"\n"  # DVC warns about 0 bytes
    with pytest.raises(DataError, match=r"sft\.jsonl is empty"):
        next(read_examples(tmp_path / "out" / "sft.jsonl"))


def test_empty_split_is_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no record .* is in the split"):
        run_rows(tmp_path, [row(1)])


def test_empty_split_error_suggests_seed(tmp_path: Path) -> None:
    rows = [row(n, document=str(n % 3), query=f"Who {n}?") | {"document": f"text {n % 3}"} for n in range(9)]
    shares = {"preference_share": 0.4, "heldout_share": 0.3}
    seed = next(
        seed
        for seed in range(100)
        if len({assign_split(PrepareConfig(seed=seed, **shares), f"text {n}") for n in range(3)}) == 3
    )
    with pytest.raises(DataError, match=f"set prepare.seed to {seed}, which fills every split"):
        run_rows(tmp_path, rows, seed=seed - 1, **shares)
    report = run_rows(tmp_path, rows, seed=seed, **shares)
    assert {name: len(documents) for name, documents in report.documents.items()} == {
        "sft": 1,
        "preference": 1,
        "heldout": 1,
    }


def test_suggested_seed_ignores_unused_sft_split(tmp_path: Path) -> None:
    shares = {"preference_share": 0.6, "heldout_share": 0.4}
    rows = [row(n) | {"document": f"text {n}"} for n in range(2)]
    splits = [{assign_split(PrepareConfig(seed=seed, **shares), f"text {n}") for n in range(2)} for seed in range(100)]
    one_split_seed = next(seed for seed, used in enumerate(splits) if len(used) == 1)
    two_splits_seed = next(seed for seed, used in enumerate(splits) if len(used) == 2)
    with pytest.raises(DataError, match=f"set prepare.seed to {two_splits_seed},"):
        run_rows(tmp_path, rows, seed=one_split_seed, **shares)
    with pytest.raises(DataError, match="add documents"):
        run_rows(tmp_path, rows[:1], **shares)


def test_responses_must_belong_to_prompts(tmp_path: Path) -> None:
    run_rows(tmp_path, [row(n) for n in range(100)])
    chosen = rows_of(tmp_path, "preference")[0]
    path = tmp_path / "data" / "raw" / "sampled.jsonl"
    config = PrepareConfig(responses="data/raw/sampled.jsonl")
    good = {"idx": f"{chosen['idx']}-0", "query": "Who?", "answer": "I."}
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"idx": "100000-1"}) + "\n")
    assert prepare_responses(config, root=tmp_path, out=tmp_path / "out") == 1
    other = good | {"idx": f"{chosen['idx']}-1", "answer": "You."}
    path.write_text("".join(json.dumps(item) + "\n" for item in (good, other, good | {"answer": "We."})))
    with pytest.raises(DataError, match=rf"line 3: idx {good['idx']} is repeated"):
        prepare_responses(config, root=tmp_path, out=tmp_path / "out")
    path.write_text(json.dumps(good | {"query": "What?"}) + "\n")
    with pytest.raises(DataError, match="line 1: the query of"):
        prepare_responses(config, root=tmp_path, out=tmp_path / "out")
    path.write_text(json.dumps(good | {"idx": "100000-1"}) + "\n")
    with pytest.raises(DataError, match="do the idx agree"):
        prepare_responses(config, root=tmp_path, out=tmp_path / "out")


def test_records_numbered_across_shards_including_bad_ones(root: Path) -> None:
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


def test_ambiguous_rows_listed_and_resolved_by_setting(root: Path) -> None:
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


def test_unusable_values_listed_and_counted(root: Path) -> None:
    lines = [json.dumps({"idx": float(n), "query": f"Who is {n}?", "context": f"Text {n}."}) for n in range(100)]
    lines[4] = r'{"idx": 4, "query": "q", "context": "half \ud83d"}'
    lines[7] = f'{{"idx": {"7" * 5000}, "query": "q", "context": "c"}}'
    lines[9] = json.dumps({"idx": "9" * 5000, "query": "q", "context": "A name of 5,000 digits."})
    lines[12] = json.dumps({"idx": 12, "query": "q", "context": "long " * 300_000})
    (root / "data/raw/bad.jsonl").write_text("\n".join(lines))
    report = run(root, "data/raw/bad.jsonl", max_bad_share=0.03, max_record_mib=1)
    assert (report.records, report.rejected["bad"]) == (100, 3)
    assert [(row["line"], row["reason"]) for row in rows_of(root, "rejected")] == [
        (5, "'context' has half of a surrogate pair (U+D83D at character 5), which UTF-8 cannot hold; remove it"),
        (8, "a whole number of more than 4,300 digits; write it as text"),
        (13, "the line has 1.4 MiB, more than prepare.max_record_mib (1)"),
    ]
    kept = examples(root)
    assert kept[11]["query"] == "Who is 11?"
    assert "9" * 5000 in {str(name) for name in kept}


def test_csv_and_parquet_files_with_configured_columns(root: Path) -> None:
    pandas.DataFrame(QUESTIONS).to_csv(root / "data/raw/mine.csv", index=False)
    parquet.write_table(pa.Table.from_pylist(QUESTIONS), root / "data/raw/mine.parquet", row_group_size=25)
    for name in ("mine.csv", "mine.parquet"):
        run(root, f"data/raw/{name}", columns=COLUMNS)
        assert sorted(examples(root)) == list(range(60))
        seven = examples(root)[7]
        assert (seven["query"], seven["context"], seven["answer"]) == ("Who is 7?", "Text 7 says it.", "Me.")


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


def test_responses_outside_data_raw_need_checksum(root: Path) -> None:
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


def test_prompts_over_window_rejected(long_prompts: Path) -> None:
    with pytest.raises(
        PolicyError, match=r"2 of 60 prompts of .* longer than 18 tokens, the policy's window of 19"
    ) as caught:
        run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=19)
    assert "line 11: the prompt has 20 tokens" in str(caught.value)
    assert list((long_prompts / "out").iterdir()) == []
    with pytest.raises(PolicyError, match="60 of 60 prompts"):
        run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=21, answer_room=15)


def test_prompt_may_fill_window_except_answer_room(long_prompts: Path) -> None:
    report = run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=21)
    assert report.metrics()["over_window"] == 0
    assert report.metrics()["prompt_tokens/max"] == 20
    assert run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS).rejected["over_window"] == 0  # no window, no limit


def test_prompts_over_window_can_be_dropped_or_kept(long_prompts: Path) -> None:
    report = run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=10, over_window="drop")
    assert (report.rejected["over_window"], report.rejected["bad"], len(examples(long_prompts))) == (2, 0, 58)
    assert [row["line"] for row in rows_of(long_prompts, "rejected")] == [11, 51]
    report = run(long_prompts, "data/raw/mine.jsonl", columns=COLUMNS, window=10, over_window="keep_ends")
    assert (report.rejected["over_window"], len(examples(long_prompts))) == (2, 60)
    assert examples(long_prompts)[10]["context"] == "long " * 17


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.parquet"])
def test_memory_does_not_grow_with_file(root: Path, name: str) -> None:
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
