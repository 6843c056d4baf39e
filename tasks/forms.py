"""What a trigger asks for, and the form in which the Prefect UI asks for it, made from the config classes themselves.

Every setting is optional and has no default: what is left empty is as params.yaml says when the run comes. Meanings,
bounds and choices are those of the classes, and the server holds a trigger to them before anything runs.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import WithJsonSchema

from longreward.params import Params, preset_names, preset_path, stage_names
from tasks.experiments import Settings

Schema = dict[str, Any]
AS_IS = "params.yaml"
YES_OR_NO = {"yes": True, "no": False}  # a switch of the UI knows no third position: "as params.yaml says"


@dataclass(frozen=True)
class Chosen:
    """What a trigger asks for."""

    stages: tuple[str, ...] | None  # all where None
    force: bool
    settings: Settings


def signature(stage: str | None) -> inspect.Signature:
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


def read(stage: str | None, given: Mapping[str, Any]) -> Chosen:
    """What was filled in; ConfigError where it names no preset. Settings themselves are not checked here."""
    settings = {name: value for name, value in given.items() if name in Params.model_fields}
    written = tuple(f"{key}={json.dumps(value)}" for key, value in (given.get("overrides") or {}).items())
    preset = given.get("preset") or AS_IS
    return Chosen(
        stages=(stage,) if stage else tuple(given.get("stages") or ()) or None,
        force=bool(given.get("force")),
        settings=Settings(None if preset == AS_IS else preset_path(preset), (*_filled_in(settings), *written)),
    )


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
        inner = {name: _plain(field, definitions) for name, field in plain["properties"].items()}
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
        "description": 'Any setting, for this run alone: {"train.beta": 0.3, "train.lora": null}.',
        "default": {},
    },
}
