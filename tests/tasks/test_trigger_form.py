"""The form of a trigger, and the settings that a trigger may change."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.flows.pipeline import create_flow
from longreward.params import Params
from longreward.tasks.trigger_form import (
    FILES_ONLY,
    HEADLINE_SETTINGS,
    check_trigger,
    parse_trigger,
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{policy: {base_model: models/tiny-base}, judge: {}, train: {beta: 0.3}}\n")
    return tmp_path


def check(**values: Any) -> None:
    check_trigger(parse_trigger(None, values).settings)


REJECTED = {
    "a program": "server.command=[touch, pwned]",
    "its arguments": "server.arguments=[--middleware, evil.Middleware]",
    "no arguments": "server.arguments=[]",
    "a model's own code": "policy.trust_remote_code=true",
    "no model's own code": "policy.trust_remote_code=false",
    "a retriever's own code": "score.retriever.trust_remote_code=true",
    "a launcher's file": "train.launcher_config=mine.yaml",
    "a cluster": "workers.address=tcp://evil.example:8786",
    "a server": "judge.base_url=http://evil.example/v1",
    "the server of one dimension": "judge.dimensions={helpfulness: {base_url: http://e/v1}}",
    "the benchmarks' judge": "benchmark.judge={api_key_env: AWS_SECRET_ACCESS_KEY}",
    "a writer's key": "synthesize.writer.api_key_env=AWS_SECRET_ACCESS_KEY",
    "null": "server.command=null",
    "a whole section": "score.retriever={kind: local, model: m, trust_remote_code: true}",
    "the second line": "train.beta=0.2\n  server.command=[touch, pwned]",
    "documents elsewhere": "synthesize.documents=/etc",
    "documents above": "synthesize.documents=data/../../secrets",
    "documents at home": "prepare.source=~/mail/*.jsonl",
    "documents behind hub:": "prepare.source=hub:/etc",
    "documents of the web": "prepare.source=https://evil.example/data.jsonl",
    "a model elsewhere": "policy.base_model=/tmp/model",
    "one of several": "train.lora={target_modules: [q_proj, /etc/passwd]}",
    "a template's file": "policy.chat_template=/etc/passwd",
}


@pytest.mark.parametrize("overrides", REJECTED.values(), ids=REJECTED)
def test_check_trigger_rejects_programs_servers_and_outside_paths(overrides: str, project: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\S+\.\S+ .*so a trigger cannot set it: set it in params.yaml"):
        check(overrides=overrides)


def test_check_trigger_checks_headline_settings(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy.base_model \('/tmp/model'\) is outside the project"):
        check(policy_base_model="/tmp/model")


def test_check_trigger_accepts_other_settings(project: Path) -> None:
    check(
        stages=["pair"],
        train_beta=0.3,
        policy_base_model="org/name@main",
        overrides="""
            train.lora={r: 8}
            policy.prompt_template="/no_think {context}\\n\\n{query}"
            prepare.source=hub:org/data

            score.retriever.query_prefix='/q: '
            train.lora=null
        """,
    )


def test_check_trigger_rejects_other_model_if_code_trusted(project: Path) -> None:
    (project / "params.yaml").write_text("policy: {base_model: org/mine, trust_remote_code: true}\njudge: {}\n")
    for name in ("policy.base_model", "policy.sft_model", "policy.revision"):
        with pytest.raises(ConfigError, match=f"so a trigger cannot set {name}"):
            check(overrides=f"{name}=other")
    check(overrides="policy.window=4096")


def test_empty_form_keeps_params_yaml(project: Path) -> None:
    defaults = create_flow().validate_parameters({})
    trigger = parse_trigger(None, defaults)
    assert (trigger.stages, trigger.force, bool(trigger.settings)) == (None, False, False)


def test_headline_settings_and_lines_become_overrides(project: Path) -> None:
    trigger = parse_trigger("pair", {"pair_min_margin": "0.5", "overrides": "pair.seed=1\n\npair.method=random\n"})
    assert trigger.stages == ("pair",)
    assert trigger.settings.overrides == ("pair.min_margin=0.5", "pair.seed=1", "pair.method=random")


def test_values_of_fields_become_settings_of_their_types(project: Path) -> None:
    values = {"train_learning_rate": "1e-5", "sample_n": "6", "pair_method": "random", "judge_model": "judge-1"}
    params = parse_trigger(None, create_flow().validate_parameters(values)).settings.check()
    assert (params.train.learning_rate, params.sample.n) == (1e-5, 6)
    assert (params.pair.method, params.judge.model) == ("random", "judge-1")


@pytest.mark.parametrize("number", ["three", "0,3", "1 2", "0.3]\npair.seed=[1"])
def test_form_rejects_other_text_than_numbers(project: Path, number: str) -> None:
    with pytest.raises(ParameterTypeError, match="train_beta"):
        create_flow().validate_parameters({"train_beta": number})


def test_form_has_headline_settings_with_values_and_bounds(project: Path) -> None:
    fields = parameter_schema(create_flow()).properties
    assert list(fields) == [
        "stages", "force", "name", "preset", *(key.replace(".", "_") for key in HEADLINE_SETTINGS), "overrides",
    ]  # fmt: skip
    beta = fields["train_beta"]
    assert beta["description"].startswith("Now 0.3 in params.yaml. ")
    assert (beta["title"], beta["type"], beta["default"]) == ("train.beta", "string", "")
    assert fields["pair_method"]["enum"][:2] == ["params.yaml", "longreward"]
    assert fields["policy_sft_model"]["description"].startswith("Not set in params.yaml. ")
    of_train = [name for name in parameter_schema(create_flow("train")).properties if name.startswith("train")]
    assert of_train == ["train_beta", "train_learning_rate", "train_epochs"]
    assert not [name for name in FILES_ONLY if f'"{name}"' in json.dumps(fields)]


def leaf_names(config: type[Config]) -> Iterator[str]:
    for name, field in config.model_fields.items():
        yield name
        for annotation in _nested_types(field.annotation):
            if isinstance(annotation, type) and issubclass(annotation, Config):
                yield from leaf_names(annotation)


def _nested_types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _nested_types(inner)


def test_settings_with_dangerous_names_listed() -> None:
    dangerous = re.compile(r"command|argument|trust|url|env$|address|endpoint|launcher_|plugin|script|exec")
    assert {name for name in leaf_names(Params) if dangerous.search(name)} == FILES_ONLY.keys()
