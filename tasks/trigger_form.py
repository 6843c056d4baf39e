"""What a trigger asks for, and the form in which the Prefect UI asks for it, made from the config classes themselves.

Every setting is optional and has no default: what is left empty is as params.yaml says when the run comes. Meanings,
bounds and choices are those of the classes, and the server holds a trigger to them before anything runs.

Settings that start programs, run a model's own code, name a server or reach outside the project are not in the forms,
and are refused in a trigger (`check_trigger`): whoever can call the API must gain no more than the pipeline's own runs.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import WithJsonSchema

from longreward.errors import ConfigError
from longreward.params import Params, parse_override, preset_names, preset_path, stage_names
from longreward.tasks.experiments import Settings

Schema = dict[str, Any]
AS_IS = "params.yaml"
FILES_ONLY = {  # by the last part of a key, since the settings of a judge nest in other sections
    "command": "starts a program",
    "arguments": "changes how a program is started",
    "launcher_config": "changes how a program is started",
    "trust_remote_code": "runs code that comes with a model",
    "address": "names a cluster, which exchanges pickled code",
    "base_url": "says where documents and keys are sent",
    "trained_base_url": "says where documents and keys are sent",
    "endpoint": "says where documents and keys are sent",
    "api_key_env": "says which key is sent",
}
MODEL_NAMES = frozenset({"base_model", "sft_model", "model", "revision"})
PLAIN_TEXT = frozenset({"prompt_template", "system", "query_prefix", "passage_prefix", "extra_body"})  # never a path
YES_OR_NO = {"yes": True, "no": False}  # a switch of the UI knows no third position: "as params.yaml says"


@dataclass(frozen=True)
class TriggerParams:
    """What a trigger asks for."""

    stages: tuple[str, ...] | None  # all where None
    force: bool
    settings: Settings


def form_signature(stage: str | None) -> inspect.Signature:
    """The form's fields as a function's parameters: every section of params.yaml, or that of one stage.

    No field of a form may be null by default: the UI sends that, and the server refuses it.
    """
    sections = [stage] if stage else list(Params.model_fields)
    form = ({} if stage else _STAGES) | _OWN | {name: _section(name) for name in sections}
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=schema.get("default", {}),
                annotation=Annotated[Any, WithJsonSchema(schema)],
            )
            for name, schema in form.items()
        ]
    )


def parse_trigger(stage: str | None, given: Mapping[str, Any]) -> TriggerParams:
    """What was filled in; ConfigError where it names no preset. Settings themselves are not checked here."""
    settings = {name: value for name, value in given.items() if name in Params.model_fields}
    written = tuple(f"{key}={json.dumps(value)}" for key, value in (given.get("overrides") or {}).items())
    preset = given.get("preset") or AS_IS
    return TriggerParams(
        stages=(stage,) if stage else tuple(given.get("stages") or ()) or None,
        force=bool(given.get("force")),
        settings=Settings(None if preset == AS_IS else preset_path(preset), (*_filled_in(settings), *written)),
    )


def check_trigger(settings: Settings) -> None:
    """Raise ConfigError where a setting of a run that was triggered through the API may come from files alone."""
    for override in settings.overrides:
        # The key as it will be applied: a name in the request can itself hold "=" and YAML.
        key, value = parse_override(override)
        for path, text in _leaves(tuple(key.split(".")), value):
            if reason := _reason_against(path, text):
                raise ConfigError(
                    f"{'.'.join(path)} {reason}, so a trigger cannot set it: set it in params.yaml, or start the run "
                    "in a shell with `longreward run -S`"
                )
    params = settings.check()
    for override in settings.overrides:
        *sections, name = parse_override(override)[0].split(".")
        if name in MODEL_NAMES and _trusts_remote_code(params, sections):
            raise ConfigError(
                f"{'.'.join(sections)}.trust_remote_code is true, so a trigger cannot set {'.'.join(sections)}.{name}: "
                "the code of that model would run here. Set it in params.yaml, or start the run in a shell with "
                "`longreward run -S`"
            )


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key below `path`, with its value where that is not a mapping."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves((*path, str(name)), inner)
        if not value:
            yield path, None
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(path, inner)
        if not value:
            yield path, None
    else:
        yield path, value


def _reason_against(path: tuple[str, ...], value: Any) -> str | None:
    for name in path[1:]:
        if name in FILES_ONLY:
            return FILES_ONLY[name]
    if isinstance(value, str) and not PLAIN_TEXT & set(path) and _leaves_project(value.removeprefix("hub:")):
        return f"({value!r}) is outside the project"
    return None


def _leaves_project(text: str) -> bool:
    path = PurePath(text)
    return path.is_absolute() or ".." in path.parts or text.startswith("~") or "://" in text


def _trusts_remote_code(params: Params, sections: list[str]) -> bool:
    config: Any = params
    for section in sections:
        config = getattr(config, section, None)
    return bool(getattr(config, "trust_remote_code", False))


def _filled_in(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _filled_in(value, f"{prefix}{name}.")
        elif value not in (None, {}):
            yield f"{prefix}{name}={json.dumps(YES_OR_NO.get(value, value) if isinstance(value, str) else value)}"


@cache
def _schema() -> Schema:
    return Params.model_json_schema()


def _section(name: str) -> Schema:
    schema = _schema()
    return _plain(schema["properties"][name], schema["$defs"])


def _plain(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Without references, defaults and null as a choice, which a form has no use for."""
    if "$ref" in schema:
        own = {key: value for key, value in schema.items() if key != "$ref"}
        return _plain({**definitions[schema["$ref"].rpartition("/")[2]], **own}, definitions)
    plain = {key: value for key, value in schema.items() if key not in ("default", "required", "additionalProperties")}
    choices = [choice for choice in plain.pop("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        return _plain({**choices[0], **plain}, definitions)
    if choices:
        plain["anyOf"] = [_plain(choice, definitions) for choice in choices]
    if "description" in plain:
        plain["description"] = " ".join(plain["description"].split())
    if isinstance(plain.get("items"), dict):
        plain["items"] = _plain(plain["items"], definitions)
    if "properties" in plain:
        open_ = {name: field for name, field in plain["properties"].items() if name not in FILES_ONLY}
        inner = {name: _plain(field, definitions) for name, field in open_.items()}
        plain["properties"] = {name: field for name, field in inner.items() if not _is_free(field)}
    if plain.get("type") == "boolean":
        plain |= {"type": "string", "enum": list(YES_OR_NO)}
    return plain


def _is_free(schema: Schema) -> bool:
    """An object of any keys, which the UI sends half empty where it was not touched; `overrides` takes it."""
    return schema.get("type") == "object" and not schema.get("properties")


_STAGES: dict[str, Schema] = {
    "stages": {
        "type": "array",
        "title": "Stages",
        "description": "Which stages to bring up to date; all where none is named.",
        "items": {"type": "string", "enum": list(stage_names())},
        "uniqueItems": True,
        "default": [],
    }
}
_OWN: dict[str, Schema] = {
    "force": {
        "type": "boolean",
        "title": "Force",
        "description": "Run even where nothing changed.",
        "default": False,
    },
    "preset": {
        "type": "string",
        "title": "Preset",
        "description": "The settings that hold: params.yaml, or for this run alone a file of configs/.",
        "enum": [AS_IS, *preset_names()],
        "default": AS_IS,
    },
    "overrides": {
        "type": "object",
        "title": "Overrides",
        "description": 'Any setting, for this run alone: {"train.beta": 0.3, "train.lora": null}. Those that start '
        "programs, name servers or reach outside the project are taken from params.yaml alone.",
        "default": {},
    },
}
