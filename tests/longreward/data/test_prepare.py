import json
from pathlib import Path
from typing import Any

import pytest

from longreward.data.prepare import PrepareConfig, PrepareReport, assign_split, prepare, prepare_responses
from longreward.errors import ConfigError, DataError, PolicyError


def row(idx: int, *, document: str = "", query: str = "Who?", **fields: Any) -> dict[str, Any]:
    return {"idx": idx, "query": query, "answer": "Me.", "context": f"Text {document or idx}.", **fields}


def run(root: Path, rows: list[dict[str, Any] | str], **settings: Any) -> PrepareReport:
    source = root / "data" / "raw" / "x.jsonl"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    config = PrepareConfig.parse({"source": "data/raw/x.jsonl", **settings}, source="test")
    return prepare(config, lambda context, query: len(f"{context} {query}".split()), root=root, out=root / "out")


def rows_of(root: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "out" / f"{name}.jsonl").read_text().splitlines()]


def test_every_record_is_in_one_output_file(tmp_path: Path) -> None:
    report = run(tmp_path, [row(n) for n in range(200)])
    assert report.records == 200
    outputs = [rows_of(tmp_path, name) for name in ("sft", "preference", "heldout", "rejected")]
    assert sum(map(len, outputs)) == 200
    assert len(outputs[1]) > 60  # 0.45 of the documents, by hash
    assert sorted(r["idx"] for output in outputs for r in output) == list(range(200))


def test_no_document_is_in_two_splits(tmp_path: Path) -> None:
    rows = [row(n, document=str(n % 50), query=f"Who {n}?") for n in range(200)]
    rows += [row(300 + n, document=str(n), query=f"Which {n}?") | {"document": f"other name {n}"} for n in range(50)]
    run(tmp_path, rows)
    splits = [{r["context"] for r in rows_of(tmp_path, name)} for name in ("sft", "preference", "heldout")]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 50


def test_assign_split_depends_on_document_and_seed_only() -> None:
    config = PrepareConfig()
    assert [assign_split(config, f"doc{n}") for n in range(5)] == [
        assign_split(PrepareConfig(), f"doc{n}") for n in range(5)
    ]
    assert {assign_split(config, f"doc{n}") for n in range(100)} == {"sft", "preference", "heldout"}


def test_bad_records_are_listed_with_line_and_reason(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [row(n) for n in range(100)]
    rows[3] = '{"idx": 3, "query": '
    rows[5] = row(5) | {"context": "  "}
    rows[7] = row(6, document="other")
    report = run(tmp_path, rows, max_bad_share=0.03)
    assert report.bad == 3
    assert [(r["line"], r["idx"], r["reason"].split(" (")[0]) for r in rows_of(tmp_path, "rejected")] == [
        (4, None, "not JSON"),
        (6, "5", "context is empty"),
        (8, "6", "idx 6 is used in line 7 already, with other content"),
    ]


def test_too_many_bad_records_fail_without_output(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [row(n) for n in range(10)]
    rows[4] = "nonsense"
    with pytest.raises(DataError, match=r"1 of 10 records .* bad \(10\.0%") as caught:
        run(tmp_path, rows, max_bad_share=0.05)
    assert "line 5: not JSON" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_duplicates_are_not_bad(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [row(n) for n in range(40)]
    rows.append(row(99, document="3", query="Who? ") | {"context": "Text  3."})
    report = run(tmp_path, rows, max_bad_share=0)
    assert (report.duplicates, report.bad) == (1, 0)
    assert rows_of(tmp_path, "rejected")[0]["reason"] == "the same query on the same text as line 4"


def test_max_preference(tmp_path: Path) -> None:
    report = run(tmp_path, [row(n) for n in range(200)], max_preference=10)
    assert len(rows_of(tmp_path, "preference")) == 10
    assert report.over_limit == len(rows_of(tmp_path, "rejected")) > 40


def test_prompt_lengths(tmp_path: Path) -> None:
    report = run(tmp_path, [row(n) for n in range(100)])
    assert report.metrics()["prompt_tokens/median"] == 3.0  # "Text", "<n>.", "Who?"
    assert rows_of(tmp_path, "sft")[0]["prompt_tokens"] == 3


def test_tokenizer_error_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "data" / "raw" / "x.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row(0)) + "\n" + json.dumps(row(1)) + "\n")

    def count(context: str, query: str) -> int:
        if context == "Text 1.":
            raise PolicyError("the tokenizer keeps 0 tokens")
        return 3

    with pytest.raises(PolicyError, match=r"^data/raw/x\.jsonl, line 2: the tokenizer keeps 0 tokens"):
        prepare(PrepareConfig(source="data/raw/x.jsonl"), count, root=tmp_path, out=tmp_path / "out")


def test_source_outside_data_raw_needs_a_checksum(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("abc")
    with pytest.raises(ConfigError, match="put it under data/raw, or pin") as caught:
        run(tmp_path, [row(1)], source="data/../x.jsonl")
    # The checksum is that of FIPS 180-2's first example.
    pin = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert f"prepare.checksum: sha256:{pin}" in str(caught.value)


def test_empty_split_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no record .* is in the split"):
        run(tmp_path, [row(1)])


def test_empty_split_error_suggests_a_seed(tmp_path: Path) -> None:
    rows = [row(n, document=str(n % 3), query=f"Who {n}?") | {"document": f"text {n % 3}"} for n in range(9)]
    shares = {"preference_share": 0.4, "heldout_share": 0.3}
    seed = next(
        seed
        for seed in range(100)
        if len({assign_split(PrepareConfig(seed=seed, **shares), f"text {n}") for n in range(3)}) == 3
    )
    with pytest.raises(DataError, match=f"set prepare.seed to {seed}, which fills every split"):
        run(tmp_path, rows, seed=seed - 1, **shares)
    report = run(tmp_path, rows, seed=seed, **shares)
    assert {name: len(documents) for name, documents in report.documents.items()} == {
        "sft": 1,
        "preference": 1,
        "heldout": 1,
    }


def test_suggested_seed_ignores_an_unused_sft_split(tmp_path: Path) -> None:
    shares = {"preference_share": 0.6, "heldout_share": 0.4}
    rows = [row(n) | {"document": f"text {n}"} for n in range(2)]
    splits = [{assign_split(PrepareConfig(seed=seed, **shares), f"text {n}") for n in range(2)} for seed in range(100)]
    one_split_seed = next(seed for seed, used in enumerate(splits) if len(used) == 1)
    two_splits_seed = next(seed for seed, used in enumerate(splits) if len(used) == 2)
    with pytest.raises(DataError, match=f"set prepare.seed to {two_splits_seed},"):
        run(tmp_path, rows, seed=one_split_seed, **shares)
    with pytest.raises(DataError, match="add documents"):
        run(tmp_path, rows[:1], **shares)


def test_responses_must_belong_to_their_prompts(tmp_path: Path) -> None:
    run(tmp_path, [row(n) for n in range(100)])
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
