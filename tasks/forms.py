"""What a trigger asks for, and the form in which the Prefect UI asks for it, made from the config classes themselves.

Every setting is optional and has no default: what is left empty is as params.yaml says when the run comes. Meanings,
bounds and choices are those of the classes, and the server holds a trigger to them before anything runs.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import WithJsonSchema

from longreward.params import Params, preset_names, preset_path, stage_names

Schema = dict[str, Any]


@dataclass(frozen=True)
class Chosen:
    """What a trigger asks for; `overrides` are of the form "section.key=value"."""

    stages: tuple[str, ...] | None = None  # all where None
    force: bool = False
    preset: Path | None = None
    overrides: tuple[str, ...] = ()


def signature(stage: str | None) -> inspect.Signature:
    """The form's fields as a function's parameters: of all sections, or of one stage's settings, without a section."""
    if stage is None:
        settings = {name: _section(name) for name in Params.model_fields}
    else:
        settings = _section(stage)["properties"]
    form = (_STAGES if stage is None else {}) | _OWN | settings
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if schema["type"] == "boolean" and name in _OWN else None,
                annotation=Annotated[Any, WithJsonSchema(schema)],
            )
            for name, schema in form.items()
        ]
    )


def read(stage: str | None, given: Mapping[str, Any]) -> Chosen:
    """What was filled in; ConfigError where it names no preset. Settings themselves are not checked here."""
    settings = {name: value for name, value in given.items() if name not in (*_STAGES, *_OWN)}
    written = tuple(f"{key}={json.dumps(value)}" for key, value in (given.get("overrides") or {}).items())
    return Chosen(
        stages=(stage,) if stage else tuple(given.get("stages") or ()) or None,
        force=bool(given.get("force")),
        preset=preset_path(given["preset"]) if given.get("preset") else None,
        overrides=(*_filled_in(settings, f"{stage}." if stage else ""), *written),
    )


def _filled_in(settings: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _filled_in(value, f"{prefix}{name}.")
        elif value not in (None, {}):
            yield f"{prefix}{name}={json.dumps(value)}"


def _section(name: str) -> Schema:
    schema = Params.model_json_schema()
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
        plain["properties"] = {name: _plain(inner, definitions) for name, inner in plain["properties"].items()}
    return plain


_STAGES: dict[str, Schema] = {
    "stages": {
        "type": "array",
        "title": "Stages",
        "description": "Which stages to bring up to date; all where none is named.",
        "items": {"type": "string", "enum": list(stage_names())},
        "uniqueItems": True,
    }
}
_OWN: dict[str, Schema] = {
    "force": {"type": "boolean", "title": "Force", "description": "Run them even where nothing changed."},
    "preset": {
        "type": "string",
        "title": "Preset",
        "description": "A file of configs/ in place of params.yaml, for this run alone.",
        "enum": list(preset_names()),
    },
    "overrides": {
        "type": "object",
        "title": "Overrides",
        "description": 'Any setting, for this run alone: {"train.beta": 0.3, "train.lora": null}.',
    },
}
