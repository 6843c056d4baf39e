"""Strict, frozen configuration: an unknown key fails at once with a suggestion."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from longreward.errors import ConfigError

# The presets. In a checkout `longreward/configs` is a symbolic link to the folder at the top.
CONFIGS = Path(__file__).parent / "configs"


SECRET_INPUT = "secret_input"  # the type of errors about values that may be secrets, which no message shows


class Config(BaseModel):
    """A section of `params.yaml`. Subclasses sit beside the code that they configure and import nothing heavy."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, source: str) -> Self:
        """Validate `values`; raises ConfigError with one line an error under `source` (a file, a section)."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            lines = [f"{source}: not valid"]
            for detail in error.errors():
                path = [str(part) for part in detail["loc"]]
                key = ".".join(path)
                if detail["type"] == "extra_forbidden":
                    lines.append(f"  {key}: unknown key; {_suggestion(cls, path)}")
                    continue
                value = "" if detail["type"] in ("missing", SECRET_INPUT) else f" (is {detail['input']!r})"
                lines.append(f"  {key}: {detail['msg']}{value}")
            raise ConfigError("\n".join(lines)) from None


def _suggestion(model: type[BaseModel], path: list[str]) -> str:
    """Suggest a key of the same section, a section of that name, or list the keys of the section."""
    *section, name = path
    keys = _field_names(model, section)
    if matches := difflib.get_close_matches(name, keys, n=3):
        transposed = [key for key in matches if sorted(key) == sorted(name)]  # "modle" is "model" rather than "mode"
        return f"did you mean {'.'.join([*section, *(transposed or matches)[:1]])}?"
    listing = f"known here: {', '.join(keys)}"
    if section and (matches := difflib.get_close_matches(name, model.model_fields, n=1, cutoff=0.8)):
        first_key = next(iter(getattr(model.model_fields[matches[0]].annotation, "model_fields", ())), None)
        if first_key is not None:
            return f"did you mean the section {matches[0]} ({matches[0]}.{first_key}, …)? {listing}"
    return listing


def _field_names(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the field names of the section at `path`; empty where there is none."""
    for name in path:
        field = model.model_fields.get(name)
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
        model = section
    return sorted(model.model_fields)
