"""Strict, frozen configuration: an unknown key stops at once and names the nearest one it could be."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from longreward.errors import ConfigError

# The presets. In a checkout `longreward/configs` is a symbolic link to the folder at the top.
CONFIGS = Path(__file__).parent / "configs"


class Config(BaseModel):
    """A section of `params.yaml`. Subclasses sit beside the code that they configure and import nothing heavy."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, source: str) -> Self:
        """Checks `values`; raises ConfigError with one line a mistake, each under `source` (a file, a section)."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            lines = "\n".join(f"  {_explain(cls, detail)}" for detail in error.errors())
            raise ConfigError(f"{source}: not valid\n{lines}") from None


def _explain(model: type[BaseModel], detail: ErrorDetails) -> str:
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path)
    if detail["type"] != "extra_forbidden":
        shown = "" if detail["type"] == "missing" else f" (is {detail['input']!r})"
        return f"{key}: {detail['msg']}{shown}"
    return f"{key}: unknown key; {_hint(model, path)}"


def _hint(model: type[BaseModel], path: list[str]) -> str:
    """What an unknown key could have been: one of its section, a section of its own, or any that is known there."""
    *section, name = path
    known = _fields_at(model, section)
    if near := difflib.get_close_matches(name, known, n=3):
        swapped = [each for each in near if sorted(each) == sorted(name)]  # modle is model rather than mode
        return f"did you mean {'.'.join([*section, *(swapped or near)[:1]])}?"
    listed = f"known here: {', '.join(known)}"
    if section and (near := difflib.get_close_matches(name, model.model_fields, n=1, cutoff=0.8)):
        first = next(iter(getattr(model.model_fields[near[0]].annotation, "model_fields", ())), None)
        if first is not None:
            return f"did you mean the section {near[0]} ({near[0]}.{first}, …)? {listed}"
    return listed


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The field names of the model found by walking `path` down from `model`."""
    for name in path:
        field = model.model_fields.get(name)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return sorted(model.model_fields)
