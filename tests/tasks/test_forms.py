"""What a trigger may set."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.params import Params
from longreward.tasks import trigger_form
from longreward.tasks.trigger_form import FILES_ONLY, check_trigger

TINY = "{policy: {base_model: models/tiny-base}, judge: {}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(TINY)
    return tmp_path


def check(**given: Any) -> None:
    check_trigger(trigger_form.parse_trigger(None, given).settings)


REFUSED = {
    "a program": {"server": {"command": ["touch", "pwned"]}},
    "its arguments": {"server": {"arguments": ["--middleware", "evil.Middleware"]}},
    "no arguments": {"overrides": {"server.arguments": []}},
    "a model's own code": {"policy": {"trust_remote_code": True}},
    "a model's own code, as the form says it": {"policy": {"trust_remote_code": "yes"}},
    "a retriever's own code": {"overrides": {"score.retriever.trust_remote_code": True}},
    "an srm's own code": {"pair": {"srm": {"trust_remote_code": "yes"}}},
    "a launcher's file": {"train": {"launcher_config": "mine.yaml"}},
    "a cluster": {"workers": {"kind": "dask", "address": "tcp://evil.example:8786"}},
    "a server": {"judge": {"base_url": "http://evil.example/v1"}},
    "the server of one dimension": {"overrides": {"judge.dimensions": {"helpfulness": {"base_url": "http://e/v1"}}}},
    "the benchmarks' judge": {"overrides": {"benchmark.judge": {"api_key_env": "AWS_SECRET_ACCESS_KEY"}}},
    "a writer's key": {"overrides": {"synthesize.writer.api_key_env": "AWS_SECRET_ACCESS_KEY"}},
    "null": {"overrides": {"server.command": None}},
    "a key that is YAML": {"overrides": {"server.command=[touch, pwned] #": 1}},
    "a key of a form that is YAML": {"server": {"command=[touch, pwned] #": 1}},
    "a whole section": {"overrides": {"score.retriever": {"kind": "local", "model": "m", "trust_remote_code": True}}},
    "documents elsewhere": {"overrides": {"synthesize.documents": "/etc"}},
    "documents above": {"synthesize": {"documents": "data/../../secrets"}},
    "documents at home": {"overrides": {"prepare.source": "~/mail/*.jsonl"}},
    "documents behind hub:": {"prepare": {"source": "hub:/etc"}},
    "documents of the web": {"prepare": {"source": "https://evil.example/data.jsonl"}},
    "a model elsewhere": {"overrides": {"policy.base_model": "/tmp/model"}},
    "one of several": {"overrides": {"train.lora": {"target_modules": ["q_proj", "/etc/passwd"]}}},
    "a template's file": {"policy": {"chat_template": "/etc/passwd"}},
}


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED)
def test_what_starts_programs_names_servers_or_leaves_the_project_is_refused(
    given: dict[str, Any], project: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^\S+\.\S+ .*so a trigger cannot set it: set it in params.yaml"):
        check(**given)


def test_all_else_is_taken(project: Path) -> None:
    check(
        stages=["pair"],
        train={"beta": 0.3, "lora": {"rank": 8}},
        policy={"prompt_template": "/no_think {context}\n\n{query}", "base_model": "org/name@main"},
        prepare={"source": "hub:org/data"},
        overrides={"score.retriever.query_prefix": "/q: ", "prepare.columns.query": "question", "train.lora": None},
    )


def test_a_model_is_not_changed_where_its_code_is_trusted(project: Path) -> None:
    (project / "params.yaml").write_text("policy: {base_model: org/mine, trust_remote_code: true}\njudge: {}\n")
    for name in ("policy.base_model", "policy.sft_model", "policy.revision"):
        with pytest.raises(ConfigError, match=f"so a trigger cannot set {name}"):
            check(overrides={name: "other"})
    check(overrides={"policy.window": 4096})


def leaf_names(config: type[Config]) -> Iterator[str]:
    for name, field in config.model_fields.items():
        inner = [found for found in _types(field.annotation) if isinstance(found, type) and issubclass(found, Config)]
        yield name
        for one in inner:
            yield from leaf_names(one)


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _types(inner)


def test_a_new_setting_that_sounds_dangerous_has_to_be_refused_too() -> None:
    dangerous = re.compile(r"command|argument|trust|url|env$|address|endpoint|launcher_|plugin|script|exec")
    assert {name for name in leaf_names(Params) if dangerous.search(name)} == FILES_ONLY.keys()


def test_the_forms_do_not_show_what_they_would_refuse() -> None:
    for stage in (None, "score", "train", "pair"):
        parameters = trigger_form.form_signature(stage).parameters.values()
        shown = json.dumps([parameter.annotation.__metadata__[0].json_schema for parameter in parameters])
        assert '"beta"' in shown or stage not in (None, "train")
        for name in FILES_ONLY:
            assert f'"{name}"' not in shown
