"""The parameters of a triggered run: the form of the Prefect UI, and what the API may set.

A form has the stages, the run's name, about a dozen headline settings, and a text field for other overrides. Whoever
can call Prefect's API must not be able to do more than the pipeline itself does: `check_trigger` rejects settings that
start programs, run code of a model, name a server or leave the project.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from longreward.errors import ConfigError
from longreward.params import Params, parse_override, preset_names, preset_path, read_params, stage_names
from longreward.tasks.experiments import Settings

NO_PRESET = "params.yaml"
HEADLINE_SETTINGS = (
    "policy.base_model",
    "policy.sft_model",
    "judge.model",
    "sft.learning_rate",
    "sample.n",
    "sample.temperature",
    "sample.max_new_tokens",
    "score.strategy",
    "pair.method",
    "pair.min_scored",
    "pair.min_margin",
    "train.beta",
    "train.learning_rate",
    "train.epochs",
    "evaluate.samples",
)
FILES_ONLY = {  # by the last part of a key, since a judge's settings are nested in other sections
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
NOT_PATHS = frozenset({"prompt_template", "system", "query_prefix", "passage_prefix", "extra_body"})


@dataclass(frozen=True)
class TriggerParams:
    """The parameters of a triggered run."""

    stages: tuple[str, ...] | None
    """None: all stages."""
    force: bool
    settings: Settings


def form_signature(stage: str | None) -> inspect.Signature:
    """Return the form's fields as a function signature: for the whole pipeline, or for one stage.

    An empty setting keeps the value of params.yaml. The current values are shown in the descriptions and not as
    defaults: Prefect stores defaults when a deployment is created, and would send them after params.yaml has changed.
    """
    fields: dict[str, tuple[Any, Any]] = {}
    if stage is None:
        about_stages = Field(description="The stages to run if they are not up to date; all if none is selected.")
        fields["stages"] = (Annotated[list[Literal[*stage_names()]], about_stages], [])  # type: ignore[valid-type]
    fields["force"] = (Annotated[bool, Field(description="Run the stages even if they are up to date.")], False)
    about_name = Field(description="The name of the run and, with settings of its own, of its DVC experiment.")
    fields["name"] = (Annotated[str, about_name], "")
    about_preset = Field(description="A file of configs/ whose settings replace params.yaml for this run.")
    fields["preset"] = (Annotated[Literal[NO_PRESET, *preset_names()], about_preset], NO_PRESET)  # type: ignore[valid-type]
    try:
        current = read_params()
    except ConfigError:  # outside a project, or params.yaml has an error, which the run reports
        current = Params()
    for key in HEADLINE_SETTINGS:
        if stage in (None, key.partition(".")[0]):
            fields[_field_name(key)] = (_setting_annotation(key, current), None)
    about_overrides = Field(
        description="Other settings for this run, one `section.key=value` a line, such as `train.lora={rank: 8}`. "
        "Settings that start programs, name servers or leave the project can only be set in params.yaml."
    )
    fields["overrides"] = (Annotated[str, about_overrides], "")
    return inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in fields.items()
        ]
    )


def parse_trigger(stage: str | None, values: Mapping[str, Any]) -> TriggerParams:
    """Parse the values of a form; raises ConfigError for an unknown preset. Settings are not validated here."""
    overrides = [
        f"{key}={json.dumps(value)}"
        for key in HEADLINE_SETTINGS
        if (value := values.get(_field_name(key))) not in (None, "")
    ]
    overrides += [line.strip() for line in values.get("overrides", "").splitlines() if line.strip()]
    preset = values.get("preset") or NO_PRESET
    return TriggerParams(
        stages=(stage,) if stage else tuple(values.get("stages") or ()) or None,
        force=bool(values.get("force")),
        settings=Settings(None if preset == NO_PRESET else preset_path(preset), tuple(overrides)),
    )


def check_trigger(settings: Settings) -> None:
    """Raise ConfigError for a setting that a run triggered through the API must not change."""
    for override in settings.overrides:
        key, value = parse_override(override)
        for path, leaf in _leaves(tuple(key.split(".")), value):
            if reason := _rejection(path, leaf):
                raise ConfigError(
                    f"{'.'.join(path)} {reason}, so a trigger cannot set it: set it in params.yaml, or start the run "
                    "in a shell with `longreward run -S`"
                )
    params = settings.check()
    for override in settings.overrides:
        *sections, name = parse_override(override)[0].split(".")
        config: Any = params
        for section in sections:
            config = getattr(config, section, None)
        if name in MODEL_NAMES and getattr(config, "trust_remote_code", False):
            section = ".".join(sections)
            raise ConfigError(
                f"{section}.trust_remote_code is true, so a trigger cannot set {section}.{name}: the code of that "
                "model would run here. Set it in params.yaml, or start the run in a shell with `longreward run -S`"
            )


def _field_name(key: str) -> str:
    return key.replace(".", "_")


def _setting_annotation(key: str, current: Params) -> Any:
    """Return the type of a setting, with the constraints of its config class, or None."""
    section, name = key.split(".")
    config: BaseModel = getattr(current, section)
    field: FieldInfo = type(config).model_fields[name]
    summary = " ".join((field.description or "").split())
    description = f"params.yaml: {json.dumps(getattr(config, name))}. {summary}"
    constrained = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return Annotated[constrained | None, Field(title=key, description=description)]


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the value of every key below `path`, and every item of a list."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves((*path, str(name)), inner)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _leaves(path, inner)
    else:
        yield path, value


def _rejection(path: tuple[str, ...], value: Any) -> str | None:
    """Return why a trigger must not set this value; None if it may."""
    for name in path[1:]:
        if name in FILES_ONLY:
            return FILES_ONLY[name]
    if isinstance(value, str) and not NOT_PATHS & set(path):
        text = value.removeprefix("hub:")
        location = PurePath(text)
        if location.is_absolute() or ".." in location.parts or text.startswith("~") or "://" in text:
            return f"({value!r}) is outside the project"
    return None
