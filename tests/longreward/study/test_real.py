"""A study of a real policy from its documents to its results, with the tiny base model in the place of a real one."""

import json
from pathlib import Path

import pytest

from longreward.builtin.corpus import write_corpus
from longreward.errors import ConfigError
from longreward.records import Example
from longreward.study.real import parse_options, run_study
from longreward.study.seed_run import split_examples

MODEL = Path(__file__).parents[3] / "models" / "tiny-base"
SETTINGS = {
    "sample.n": 5,
    "sample.temperature": 1.0,
    "sample.max_new_tokens": 32,
    "train.epochs": 1,
    "train.bf16": "false",
    "train.lora.r": 4,
    "evaluate.temperatures": "[0.0]",
    "evaluate.short.count": 2,
    "pair.choose_truncated": "true",
}


def documents(*names: str, questions: int = 2) -> list[Example]:
    return [
        Example(id=f"{name}{n}", document_id=name, context=f"text {name}", query="q")
        for name in names
        for n in range(questions)
    ]


def test_no_document_is_trained_on_and_held_out() -> None:
    examples = documents(*"abcdefgh")
    train, heldout = split_examples(examples, seed=0, train=5, heldout=3, per_document=1)
    assert len(train) == 5
    assert len(heldout) == 3
    assert not {one.document_id for one in train} & {one.document_id for one in heldout}
    fewer, same = split_examples(examples, seed=0, train=2, heldout=3, per_document=1)
    assert same == heldout
    assert fewer == train[:2]
    assert split_examples(examples, seed=1, train=5, heldout=3, per_document=1)[1] != heldout
    assert len(split_examples(examples, seed=0, train=5, heldout=3, per_document=9)[0]) == 10
    with pytest.raises(ConfigError, match=r"8 documents, 0 of them reserved as held out; 7 to train on and 2"):
        split_examples(examples, seed=0, train=7, heldout=2, per_document=1)


def test_reserved_documents_are_held_out() -> None:
    examples = documents("heldout-a", "b", "heldout-c", "d")
    train, heldout = split_examples(examples, seed=0, train=2, heldout=1, per_document=1)
    assert {one.document_id for one in train} == {"b", "d"}
    assert {one.document_id for one in heldout} < {"heldout-a", "heldout-c"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of a finished study with two arms."""
    folder = tmp_path_factory.mktemp("real")
    write_corpus(folder / "corpus", documents=8)
    command = ["--preset", "laptop", "--model", str(MODEL), "--out", str(folder / "out"), "--seeds", "0"]
    command += ["--data", str(folder / "corpus"), "--documents", "4", "--heldout", "3", "--arms", "gold", "longreward"]
    for key, value in SETTINGS.items():
        command += ["-S", f"{key}={value}"]
    run_study(parse_options(command))
    return command


def test_results_of_study(study: list[str]) -> None:
    out = parse_options(study).out
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert {(row["arm"], row["decoding"]) for row in results["means"]} == {
        (arm, "greedy") for arm in ("sft", "gold", "longreward")
    }
    assert all(row["exact"]["documents"] == 3 for row in results["means"])
    pairs = {row["arm"]: row["pairs"] for row in results["arms"]}
    assert pairs["gold"]["gold_agrees"] == 1
    assert pairs["gold"]["chosen/recall"] >= pairs["gold"]["rejected/recall"]
    assert "| gold − sft | greedy | recall |" in (out / "results.md").read_text(encoding="utf-8")
    assert not (out / "seed-0/gold/model").exists()
    assert (out / "study-greedy.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_study_continues_after_kill(study: list[str]) -> None:
    out = parse_options(study).out
    kept = [out / "seed-0/sample/0000.jsonl", out / "seed-0/gold/measures.json", out / "seed-0/longreward/pairs.jsonl"]
    before = [file.stat().st_mtime_ns for file in kept]
    lost = out / "seed-0/longreward/measures.json"
    measures = lost.read_bytes()
    lost.unlink()
    run_study(parse_options(study))
    assert lost.read_bytes() == measures
    assert [file.stat().st_mtime_ns for file in kept] == before


def test_other_settings_need_another_folder(study: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"seed-0 was computed with other settings of sample"):
        run_study(parse_options([*study, "-S", "sample.n=6"]))
    with pytest.raises(ConfigError, match=r"gold was computed with other settings of train"):
        run_study(parse_options([*study, "-S", "train.beta=0.5"]))
