"""Look up keys of `params.yaml`."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from longreward.params import Params


def setting_exists(key: str) -> bool:
    """Return whether `section.key` is a setting; in a mapping, such as `prices.models`, every key is one."""
    types: list[Any] = [Params]
    for part in key.split("."):
        types = [child for parent in types for child in _children(parent, part)]
    return bool(types)


def _children(annotation: Any, key: str) -> Iterator[Any]:
    """Yield the types of the value that a setting of this type has at `key`."""
    if annotation is Any:
        yield Any
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if key in annotation.model_fields:
            yield annotation.model_fields[key].annotation
    elif get_origin(annotation) in (dict, Mapping):
        yield get_args(annotation)[1]
    else:  # a union, or a type with metadata
        for argument in get_args(annotation):
            yield from _children(argument, key)
