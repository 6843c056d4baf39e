"""The stage `benchmark` without examples for SFT, for which `prepare` writes a blank line."""

import json
from pathlib import Path

import pytest

from longreward.benchmarks.suite import open_benchmark
from longreward.flows.benchmark import TRAINING, find_training_overlap
from longreward.params import read_params


def test_overlap_without_examples_for_sft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    benchmark = open_benchmark("infinitebench", read_params(None, []).benchmark)
    first, *others = benchmark.cases
    sft, preference = TRAINING
    sft.parent.mkdir(parents=True)
    sft.write_text("\n")
    row = {"idx": 7, "context": benchmark.case_text(first), "query": "Where?", "answer": "Here."}
    preference.write_text(json.dumps(row) + "\n")
    overlaps = find_training_overlap([benchmark])["infinitebench"]
    assert (overlaps[0].case_id, overlaps[0].share) == (first.id, 1.0)
    assert len(overlaps) == 1 + len(others)
