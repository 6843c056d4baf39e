"""The evidence page of a project's files, and `longreward view`."""

import base64
import gzip
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from recorded_run import RecordedRun

from longreward.data.formats import (
    scored_to_row,
    write_chunk_info,
    write_examples,
    write_pairs,
    write_responses,
    write_scored,
)
from longreward.flows.cli.main import main
from longreward.params import Params
from longreward.records import (
    DIMENSIONS,
    Example,
    Extract,
    Extraction,
    PreferencePair,
    Response,
    ScoredResponse,
    Verdict,
)
from longreward.tasks import evidence_pages
from longreward.tasks.evidence_pages import ARTIFACT, log_evidence_page, project_page
from longreward.utils.jsonl import write_rows


def example(name: str) -> Example:
    return Example(id=name, document_id=f"doc-{name}", context=f"Rain fell in {name}.", query=f"What fell in {name}?")


def scored(name: str, number: int, score: float) -> ScoredResponse:
    response = Response(id=f"{name}-{number}", example_id=name, query=f"What fell in {name}?", text=f"Text {number}.")
    return ScoredResponse(response=response, verdicts={d: Verdict(score=score) for d in DIMENSIONS})


def extraction(name: str) -> Extraction:
    extract = Extract(start=0, end=4, first_percent=0, last_percent=100, text=f"Extract of {name}.")
    return Extraction(example_id=name, query=f"What fell in {name}?", extracts=(extract,))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five training prompts of two responses, of which the last has no pair, and two held-out prompts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGREWARD_STATE", str(tmp_path / "state"))
    names = [str(number) for number in range(5)]
    responses = [scored(name, number, 9.0 - 4 * number) for name in names for number in range(2)]
    write_examples(Path("data/prepared/preference.jsonl"), [example(name) for name in [*names, "unanswered"]])
    write_responses(Path("data/sampled/sampled_responses.jsonl"), [one.response for one in responses])
    write_scored(Path("data/scored/scored_responses.jsonl"), responses)
    Path("data/scored/unscored_responses.jsonl").touch()
    write_chunk_info(Path("data/scored/chunk_info.jsonl"), map(extraction, names))
    pairs = [
        PreferencePair(
            id=name,
            context=f"Rain fell in {name}.",
            query=f"What fell in {name}?",
            chosen=scored(name, 0, 9.0).response,
            rejected=scored(name, 1, 5.0).response,
            chosen_reward=9.0,
            rejected_reward=5.0,
        )
        for name in names[:-1]
    ]
    write_pairs(Path("data/pairs/preference_pairs.jsonl"), pairs)
    write_rows(Path("data/pairs/without_pair.jsonl"), [{"example_id": "4", "reason": "excluded"}])
    return tmp_path


def add_evaluation() -> None:
    write_examples(Path("data/prepared/heldout.jsonl"), [example("8"), example("9")])
    verdicts = [
        {"model": role, "decoding": "greedy", **scored_to_row(scored(name, 0, score))}
        for role, name, score in [("sft", "8", 3.0), ("dpo", "8", 4.0), ("sft", "9", 8.0), ("dpo", "9", 2.0)]
    ]
    write_rows(Path("data/evaluation/verdicts.jsonl"), verdicts)
    write_rows(
        Path("data/evaluation/answers.jsonl"),
        [{"model": "dpo", "decoding": "greedy", "idx": "9-0", "measures": {"recall": 0.25}}],
    )
    write_chunk_info(Path("data/evaluation/chunk_info.jsonl"), [extraction("9")])


def collections(html: str) -> dict[str, Any]:
    match = re.search(r'<script id="index" type="application/octet-stream">([^<]*)<', html)
    assert match is not None
    index = json.loads(gzip.decompress(base64.b64decode(match[1])))
    return {collection["name"]: collection for collection in index["collections"]}


def block(html: str, name: str) -> Any:
    match = re.search(rf'<script id="{name}" type="application/octet-stream">([^<]*)<', html)
    assert match is not None
    return json.loads(gzip.decompress(base64.b64decode(match[1])))


@pytest.mark.usefixtures("project")
def test_training_prompts_with_pairs_extracts_and_reasons() -> None:
    html = project_page(Params(), title="t").render()
    (name, collection), *others = collections(html).items()
    assert (name, others) == ("pairs", [])
    rows = collection["rows"]
    assert [(row["id"], row["margin"], row["noPair"]) for row in rows] == [
        *((str(number), 4.0, None) for number in range(4)),
        ("4", None, "excluded"),
    ]
    entry = block(html, rows[1]["block"])
    assert entry["extracts"][0]["text"] == "Extract of 1."
    assert block(html, entry["document"]) == "Rain fell in 1."


@pytest.mark.usefixtures("project")
def test_rewards_of_a_reward_model_are_shown_for_all_responses() -> None:
    rewards = [("4-0", 1.5), ("4-1", None), ("3-1", -2.0)]  # prompt 4 has no pair
    write_rows(Path("data/pairs/scores.jsonl"), [{"idx": idx, "reward": reward} for idx, reward in rewards])
    html = project_page(Params(), title="t").render()
    entries = [block(html, row["block"]) for row in collections(html)["pairs"]["rows"]]
    assert {response["id"]: response["measures"] for entry in entries[3:] for response in entry["responses"]} == {
        "3-0": {},
        "3-1": {"reward of srm": -2.0},
        "4-0": {"reward of srm": 1.5},
        "4-1": {},
    }


@pytest.mark.usefixtures("project")
def test_a_limit_selects_evenly_spaced_prompts_and_names_the_total() -> None:
    collection = collections(project_page(Params(), title="t", limit=2).render())["pairs"]
    assert [row["id"] for row in collection["rows"]] == ["0", "2"]
    assert collection["total"] == 5


@pytest.mark.usefixtures("project")
def test_evaluation_with_measures_extracts_and_largest_difference_first() -> None:
    add_evaluation()
    html = project_page(Params(), title="t", limit=1).render()
    collection = collections(html)["evaluation"]
    assert [(row["key"], row["margin"]) for row in collection["rows"]] == [("evaluation/9@greedy", -6.0)]
    assert collection["total"] == 2
    entry = block(html, collection["rows"][0]["block"])
    assert entry["responses"][1]["measures"] == {"recall": 0.25}
    assert entry["extracts"][0]["text"] == "Extract of 9."


@pytest.mark.usefixtures("project")
def test_given_pairs_are_shown_without_sampled_responses() -> None:
    for file in (Path("data/prepared/preference.jsonl"), Path("data/sampled/sampled_responses.jsonl")):
        file.write_text("", encoding="utf-8")
    rows = collections(project_page(Params(), title="t").render())["pairs"]["rows"]
    assert [(row["id"], row["left"], row["right"]) for row in rows] == [
        (str(number), f"{number}-0", f"{number}-1") for number in range(4)
    ]


@pytest.mark.usefixtures("project")
def test_run_gets_the_page_of_its_stages() -> None:
    add_evaluation()
    run: Any = RecordedRun()
    assert log_evidence_page(run, Params(), title="run", stages=["score", "pair"])
    assert list(collections(run.texts[ARTIFACT])) == ["pairs"]
    nothing: Any = RecordedRun()
    assert not log_evidence_page(nothing, Params(), title="run", stages=["train"])
    assert nothing.texts == {}


@pytest.mark.usefixtures("project")
def test_a_page_that_cannot_be_made_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("data/scored/chunk_info.jsonl").write_text("no json\n", encoding="utf-8")
    run: Any = RecordedRun()
    with caplog.at_level(logging.WARNING, logger=evidence_pages.__name__):
        log_evidence_page(run, Params(), title="run", stages=["score"])
    assert run.texts == {}
    assert "chunk_info.jsonl, line 1: not JSON" in caplog.text


def test_view_writes_the_page_of_the_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "params.yaml").write_text("pair: {min_scored: 2}\n", encoding="utf-8")
    out = project / "page.html"
    assert main(["view", "--no-open", "--limit", "3", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert len(collections(out.read_text(encoding="utf-8"))["pairs"]["rows"]) == 3


def test_view_without_data_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGREWARD_STATE", str(tmp_path / "state"))
    (tmp_path / "params.yaml").write_text("pair: {}\n", encoding="utf-8")
    assert main(["view", "--no-open"]) == 1
    assert "there is nothing to view in data/ yet: run `longreward run`" in capsys.readouterr().err
