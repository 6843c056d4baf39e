"""Notes and settings that are longer than MLflow's limits, in a real store."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from own_store import own_store

from longreward.tasks.tracking import Run, parent_run
from longreward.tasks.tracking.run import MAX_NOTE, MAX_PARAM, shorten_note
from longreward.tasks.tracking.store import client


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with own_store(tmp_path_factory.mktemp("store")):
        yield client()


def note_of(store: MlflowClient, run: str) -> str:
    return str(store.get_run(run).data.tags["mlflow.note.content"])


def file_of(store: MlflowClient, run: str, name: str) -> str:
    return Path(store.download_artifacts(run, name)).read_text()


def test_the_limits_are_those_of_this_mlflow(store: MlflowClient) -> None:
    with parent_run("limits", {}) as run:
        for length in (MAX_NOTE, MAX_NOTE + 1):
            store.set_tag(run, str(length), "x" * length)
        for length in (MAX_PARAM, MAX_PARAM + 1):
            store.log_param(run, str(length), "x" * length)
    data = store.get_run(run).data
    assert [len(data.tags[str(length)]) for length in (MAX_NOTE, MAX_NOTE + 1)] == [MAX_NOTE] * 2
    assert [len(data.params[str(length)]) for length in (MAX_PARAM, MAX_PARAM + 1)] == [MAX_PARAM] * 2


def test_a_long_report_is_cut_at_a_section_and_kept_whole(store: MlflowClient) -> None:
    sections = [f"## Part {number}\n\n" + f"row {number}\n" * 300 for number in range(9)]
    whole = "\n".join(sections)
    with parent_run("report", {}) as parent:
        run = Run(parent)
        run.log_report("report.md", whole)
        assert file_of(store, parent, "report.md") == whole
        shown, _, rest = note_of(store, parent).partition("\n\n… ")
        assert rest == "The note is too long for MLflow: `report.md`, among the run's artifacts, has all of it."
        assert shown == "\n".join(sections[:4]).rstrip()  # 1,812 characters each

        run.set_note("short")
        assert note_of(store, parent) == "short"
        assert [file.path for file in store.list_artifacts(parent)] == ["report.md"]
        run.set_note(whole)
        assert file_of(store, parent, "note.md") == whole
        assert "`note.md`" in note_of(store, parent)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("a\n\n" * 3 + "b" * 20_000, "b"),  # no border but far above
        ("intro\n\n" + "| row |\n" * 3000, "| row |"),
        ("# Title\n" + "word word.\n\n" * 1500, "word word."),
        ("```\n" + "line\n" * 4000 + "```", "line\n```"),
    ],
)
def test_a_text_without_sections_is_cut_where_it_can_be(text: str, end: str) -> None:
    note = shorten_note(text, "note.md")
    shown = note.partition("\n\n… ")[0]
    assert MAX_NOTE - 150 < len(note) <= MAX_NOTE
    assert shown.endswith(end)
    assert text.startswith(shown.removesuffix("\n```"))


def test_a_note_of_just_the_limit_stays(store: MlflowClient) -> None:
    assert shorten_note("x" * MAX_NOTE, "note.md") == "x" * MAX_NOTE


def test_settings_that_are_too_long_are_kept_in_a_file(store: MlflowClient) -> None:
    settings = {"prepare": {"sources": ["a" * 40] * 200}, "train": {"beta": 0.15}}
    with parent_run("settings", settings) as run:
        assert json.loads(file_of(store, run, "settings.json")) == settings
        assert store.get_run(run).data.params["train.beta"] == "0.15"
