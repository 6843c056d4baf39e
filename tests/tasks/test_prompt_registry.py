"""The judge's prompts in a real MLflow registry."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_store import mlflow_store

from longreward.judge.prompt_manifest import BUNDLED
from longreward.judge.prompts import load_prompts
from longreward.tasks.tracking.prompt_registry import judge_prompts, log_judge_prompts, register_prompt
from longreward.tasks.tracking.run_hierarchy import PARENT, parent_run, stage_run
from longreward.tasks.tracking.store import client, experiment_id

NAMES = ["completeness", "extraction", "helpfulness", "logicality", "statements", "support"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with mlflow_store(tmp_path_factory.mktemp("store")):
        yield


def linked(run_id: str) -> list[tuple[str, str]]:
    links = json.loads(client().get_run(run_id).data.tags["mlflow.linkedPrompts"])
    return [(link["name"], link["version"]) for link in links]


def test_judge_prompts_are_named_after_template_and_language() -> None:
    prompts = load_prompts()
    english = judge_prompts(prompts, ["en"])
    assert [prompt.name for prompt in english] == [f"longreward.judge.{name}.en" for name in NAMES]
    assert len(judge_prompts(prompts, ["zh", "en", "zh"])) == 12
    text = next(prompt.text for prompt in english if prompt.name.endswith("helpfulness.en"))
    assert "[Question]\n{{question}}\n\n[Answer]\n{{answer}}" in text
    assert "<<" not in text


def test_runs_link_prompts_and_unchanged_ones_get_no_new_version(store: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with parent_run("prompts", {}) as parent:
        monkeypatch.setenv(PARENT, parent)
        for _ in range(2):
            with stage_run("score", params={}, all_params={}, tags={}) as run:
                log_judge_prompts(run, load_prompts(), ["en"])
    assert linked(run.id) == linked(parent) == [(f"longreward.judge.{name}.en", "1") for name in NAMES]
    prompt = client().load_prompt("prompts:/longreward.judge.support.en/1")
    assert prompt.template == judge_prompts(load_prompts(), ["en"])[-1].text
    assert prompt.model_config == {"max_tokens": 512}
    assert prompt.variables == {"context", "statement"}
    # The page of the experiment lists it.
    listed = client().search_prompts(f'experiment_id = "{experiment_id()}"')
    assert {one.name for one in listed} == {f"longreward.judge.{name}.en" for name in NAMES}


def test_changed_prompt_gets_a_version_and_the_earlier_text_its_own_again(store: None, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    shutil.copytree(BUNDLED, folder)
    file = folder / "zh/helpfulness.txt"
    file.write_text(file.read_text(encoding="utf-8").replace("<<question>>", "<<question>>\n"), encoding="utf-8")
    manifest = folder / "manifest.yaml"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("max_tokens: 1024", "max_tokens: 1000"))
    versions = {
        name: [register_prompt(prompt) for prompt in judge_prompts(prompts, ["zh"])]
        for name, prompts in (("first", load_prompts()), ("changed", load_prompts(folder)), ("again", load_prompts()))
    }
    assert versions["first"] == versions["again"] == ["1"] * 6
    assert versions["changed"] == [
        "1",
        "2",
        "2",
        "1",
        "1",
        "1",
    ]  # extraction has another limit, helpfulness another text
