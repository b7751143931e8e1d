"""No boolean where a number is wanted: Python takes `true` for 1, and YAML reads `on` as true."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationInfo, field_validator

__all__ = ["no_boolean"]


def _leaves(hint: Any) -> set[Any]:
    """The types at the ends of an annotation."""
    if typing.get_origin(hint) is typing.Literal:
        return {type(value) for value in typing.get_args(hint)}
    parts = typing.get_args(hint)
    return {hint} if not parts else set().union(*map(_leaves, parts))


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_boolean, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_boolean, value))
    return isinstance(value, bool)


def _check(cls: Any, value: Any, info: ValidationInfo) -> Any:
    leaves = _leaves(cls.model_fields[info.field_name].annotation)
    numbers = bool(leaves & {int, float}) and not leaves & {bool, Any, object}
    if numbers and _holds_boolean(value):
        raise ValueError("a number, which true and false are not")
    return value


no_boolean = field_validator("*", mode="before")(_check)  # of a pydantic model, for all its fields
