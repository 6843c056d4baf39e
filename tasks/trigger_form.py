"""The parameters of a triggered run: the form of the Prefect UI, and what the API may set.

A form has the stages, the run's name, about a dozen headline settings, and a text field for other overrides. Whoever
can call Prefect's API must not be able to do more than the pipeline itself does: `check_trigger` rejects settings that
start programs, run code of a model, name a server or leave the project.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field

from longreward.errors import ConfigError
from longreward.params import Params, parse_override, preset_names, preset_path, read_params, stage_names
from longreward.tasks.experiments import Settings

NO_PRESET = "params.yaml"
NUMBER = r"^([+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?)?$"
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


def add_form(function: Callable[..., Any], stage: str | None) -> None:
    """Give a flow's function the form's fields as parameters, and their descriptions as its docstring.

    Prefect generates the form from both. The form is for the whole pipeline, or for one stage. An empty setting keeps
    the value of params.yaml. The current values are in the descriptions instead of the defaults: Prefect stores the
    defaults of a deployment, and would send them after params.yaml has changed.
    """
    try:
        current = read_params()
    except ConfigError:  # outside a project, or params.yaml has an error, which the run reports
        current = Params()
    parameters: list[inspect.Parameter] = []
    descriptions: list[str] = []

    def add_field(name: str, annotation: Any, default: Any, description: str) -> None:
        keyword_only = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, keyword_only, default=default, annotation=annotation))
        descriptions.append(f"    {name}: {description}")

    if stage is None:
        stage_name: Any = Literal[stage_names()]
        stages: Any = list[stage_name]
        add_field("stages", stages, [], "The stages to run if they are not up to date; all if none is selected.")
    add_field("force", bool, False, "Run the stages even if they are up to date.")
    about_name = (
        "The name of the run in Prefect, MLflow and DVC, in place of the Run Name above. If it is empty, and the Run "
        "Name is a generated one, the name is what runs and the time."
    )
    add_field("name", str, "", about_name)
    presets: Any = Literal[(NO_PRESET, *preset_names())]
    add_field("preset", presets, NO_PRESET, "A file of configs/ whose settings replace params.yaml for this run.")
    for key in HEADLINE_SETTINGS:
        section, name = key.split(".")
        if stage in (None, section):
            config: BaseModel = getattr(current, section)
            setting = type(config).model_fields[name]
            summary = " ".join((setting.description or "").split())
            description = f"{_current_value(getattr(config, name))} {summary}"
            add_field(_field_name(key), *_form_field(key), description)
    about_overrides = (
        "Other settings for this run, one `section.key=value` a line, such as `train.lora={r: 8}`. Settings that "
        "start programs, name servers or leave the project can only be set in params.yaml."
    )
    add_field("overrides", str, "", about_overrides)
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__doc__ = "\n".join(["The form of a run.", "", "Args:", *descriptions])


def parse_trigger(stage: str | None, values: Mapping[str, Any]) -> TriggerParams:
    """Parse the values of a form; raises ConfigError for an unknown preset. Settings are not validated here."""
    overrides = [
        f"{key}={value if _is_number(key) else json.dumps(value)}"
        for key in HEADLINE_SETTINGS
        if (value := values.get(_field_name(key))) not in (None, "", NO_PRESET)
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


def _form_field(key: str) -> tuple[Any, str]:
    """Return the type and the default of a setting's field; its label is its key.

    Numbers are text with a pattern. An optional number would be none of the form's fields, but a switch between "None"
    and the number; and for an empty field of a required number, the form sends a null that the server refuses.
    """
    label = Field(json_schema_extra={"title": key})
    if get_origin(_annotation(key)) is Literal:
        options: Any = Literal[(NO_PRESET, *get_args(_annotation(key)))]
        return Annotated[options, label], NO_PRESET
    if _is_number(key):
        return Annotated[str, Field(pattern=NUMBER), label], ""
    return Annotated[str, label], ""


def _annotation(key: str) -> Any:
    section, name = key.split(".")
    config: Any = Params.model_fields[section].annotation
    return config.model_fields[name].annotation


def _is_number(key: str) -> bool:
    return bool({int, float} & {_annotation(key), *get_args(_annotation(key))})


def _current_value(value: object) -> str:
    return "Not set in params.yaml." if value is None else f"Now {json.dumps(value)} in params.yaml."


def _field_name(key: str) -> str:
    return key.replace(".", "_")


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
