"""Parts by name: the folder is the registry and the constructor's signature is the schema.

`find("sampler", "heun")` imports `steerable.samplers.heun`. Parameters without a default are
context, filled in by the builder from the data; parameters with a default are options, and their
annotation, default and docstring line feed the command line, validation and documents.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from torch import Tensor, nn

from steerable.core.condition import Condition
from steerable.core.denoise import Backbone
from steerable.core.errors import UserError
from steerable.core.process import Process
from steerable.core.sample import Sampler
from steerable.core.steer import Constraint, Guidance, Operator
from steerable.core.types import Range, Splits

from .booleans import no_boolean

__all__ = ["ROOMS", "Part", "build", "check", "describe", "find", "kinds"]

ROOMS: dict[str, str] = {
    "process": "processes",
    "backbone": "backbones",
    "classifier": "classifiers",
    "condition": "conditions",
    "guidance": "guidance",
    "constraint": "constraints",
    "operator": "operators",
    "sampler": "samplers",
    "grid": "grids",
    "data": "datasets",
    "extractor": "extractors",
}


# What a kind of the user's own must be: a class that is made from one of these ...
_CLASSES: dict[str, type] = {
    "backbone": Backbone,
    "classifier": nn.Module,
    "condition": Condition,
    "guidance": Guidance,
    "constraint": Constraint,
    "operator": Operator,
    "sampler": Sampler,
}
_MEMBERS = {"classifier": ("sized",), "extractor": ("features",)}  # ... and has these,
_RETURNS: dict[str, type] = {"process": Process, "grid": Tensor, "data": Splits}  # or a function
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_GIVEN = ("guidance", "constraint", "operator")  # whose context may come from the user


class Part(BaseModel):
    """A part of a recipe: its kind and its options, written flat as {kind: heun, option: value}."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, Mapping) and "options" not in value:
            return {
                "kind": value.get("kind"),
                "options": {k: v for k, v in value.items() if k != "kind"},
            }
        return value

    def flat(self) -> dict[str, Any]:
        """The form on disk."""
        return {"kind": self.kind, **self.options}


def kinds(room: str) -> list[str]:
    """The kinds that a room holds, sorted."""
    package = importlib.import_module(f"steerable.{ROOMS[room]}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_")


def find(room: str, kind: str) -> Any:
    """The constructor of a kind; `my_lab.samplers:Spiral` names a class of the user's own.

    Whether a recipe may name one was decided when it was read, see `recipes.origin`.

    Raises:
        UserError: E-CONFIG if there is no such kind.
    """
    if ":" in kind:
        return _own(room, kind)
    known = kinds(room)
    if kind not in known:
        near = difflib.get_close_matches(kind, known, 1)
        do = f"Did you mean '{near[0]}'?" if near else ""
        takes = ", ".join(known)
        raise UserError(
            "E-CONFIG", where=room, got=f"'{kind[:120]}' does not exist", takes=takes, do=do
        )
    module = importlib.import_module(f"steerable.{ROOMS[room]}.{kind}")
    return getattr(module, module.__all__[0])


def _own(room: str, kind: str) -> Any:
    """A constructor of the user's own, which must be what the room holds: never any callable.

    Raises:
        UserError: E-CONFIG if it cannot be imported or is something else.
    """
    shown = repr(kind[:120])
    if _DOTTED.fullmatch(kind) is None:
        takes = "a kind, or a class of your own as package.module:Name"
        raise UserError("E-CONFIG", where=room, got=shown, takes=takes)
    module, _, name = kind.partition(":")
    if "" not in sys.path:
        sys.path.append("")  # it may lie in the current folder, behind all that is installed
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # the module is the user's own and may fail in any way
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError("E-CONFIG", where=room, got=f"{shown}: {told}") from error
    if room in _RETURNS:
        takes = f"a function that is annotated to return {_RETURNS[room].__name__}"
        fits = inspect.isfunction(found) and _returns(found) is _RETURNS[room]
    else:
        base, members = _CLASSES.get(room, object), _MEMBERS.get(room, ())
        takes = f"a class made from {base.__module__}.{base.__name__}"
        takes += "".join(f", with {member}" for member in members)
        fits = inspect.isclass(found) and issubclass(found, base) and not inspect.isabstract(found)
        fits = fits and all(callable(getattr(found, member, None)) for member in members)
    if not fits:
        got = f"{shown}, which is no {room}"
        raise UserError("E-CONFIG", where=room, got=got, takes=takes)
    return found


def _returns(function: Callable[..., Any]) -> Any:
    """What a function is annotated to return, None where that cannot be told."""
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):
        return None


def _doc(constructor: Callable[..., Any]) -> str:
    return inspect.getdoc(constructor) or ""


def _help(constructor: Callable[..., Any]) -> dict[str, str]:
    """Help of each option, from the `Args` of the docstring."""
    _, _, after = _doc(constructor).partition("Args:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {6,}.*)*)", after, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _parameters(constructor: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """(name, annotation with extras, default or Parameter.empty) of a constructor."""
    signature = inspect.signature(constructor)
    target = constructor.__init__ if inspect.isclass(constructor) else constructor
    owner = vars(inspect.getmodule(constructor))
    if inspect.isclass(constructor) and "__dataclass_fields__" in vars(constructor):
        hints = typing.get_type_hints(constructor, include_extras=True)
    else:
        hints = typing.get_type_hints(target, globalns=owner, include_extras=True)
    made = {
        f.name: f.default_factory()
        for f in vars(constructor).get("__dataclass_fields__", {}).values()
        if f.default_factory is not dataclasses.MISSING
    }
    return [
        (p.name, hints[p.name], made.get(p.name, p.default)) for p in signature.parameters.values()
    ]


def _options(room: str, constructor: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    options = [p for p in _parameters(constructor) if p[2] is not inspect.Parameter.empty]
    if room == "data":  # a data set has no context: its path is an option that must be given
        options = _parameters(constructor)
    return options


@functools.lru_cache(maxsize=256)
def _schema(room: str, kind: str) -> type[BaseModel]:
    """A pydantic model of the options, made from the signature."""
    fields: dict[str, Any] = {}
    constructor = find(room, kind)
    for name, hint, default in _options(room, constructor):
        limits = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Range)]
        bounds: dict[str, Any] = {"ge": limits[0].low, "le": limits[0].high} if limits else {}
        bare = hint.__origin__ if hasattr(hint, "__metadata__") else hint
        missing = default is inspect.Parameter.empty
        fields[name] = (bare, Field(... if missing else default, **bounds))
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    name = kind.replace(":", "_").replace(".", "_")
    return create_model(
        name, __config__=config, __validators__={"no_boolean": no_boolean}, **fields
    )


def explained(error: ValidationError, where: str, known: list[str]) -> UserError:
    """The first fault of a validation as a UserError."""
    first = error.errors()[0]
    path = ".".join([where, *(str(p) for p in first["loc"])]).strip(".")
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, UserError):  # that says it better
        path = ".".join([path, inner.where])
        return UserError("E-CONFIG", where=path, got=inner.got, takes=inner.takes, do=inner.do)
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        near = difflib.get_close_matches(name, known, 1)
        do = f"Did you mean '{near[0]}'?" if near else ""
        return UserError(
            "E-CONFIG", where=path, got="unknown setting", takes=", ".join(known), do=do
        )
    if first["type"] == "missing":
        return UserError("E-CONFIG", where=path, got="nothing", takes="a value: it has no default")
    takes = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return UserError("E-CONFIG", where=path, got=repr(first["input"])[:80], takes=takes)


def check(room: str, part: Part, where: str = "") -> Part:
    """The part with every option validated and every default written out.

    Raises:
        UserError: E-CONFIG for an unknown kind or option, or a value of the wrong type or range.
    """
    schema = _schema(room, part.kind)
    try:
        values = schema.model_validate(part.options)
    except ValidationError as error:
        raise explained(
            error, where or f"{room} '{part.kind}'", list(schema.model_fields)
        ) from None
    return Part(kind=part.kind, options=values.model_dump())


def build(room: str, part: Part, **context: Any) -> Any:
    """Construct a part; context is passed for the parameters that have no default."""
    constructor = find(room, part.kind)
    options = check(room, part).options
    needed = {n for n, _, d in _parameters(constructor) if d is inspect.Parameter.empty}
    missing = sorted(needed - context.keys()) if room in _GIVEN else []
    if missing:
        where, takes = f"{room} '{part.kind}'", ", ".join(sorted(needed))
        raise UserError("E-CONFIG", where=where, got=f"no {missing[0]}", takes=takes)
    return constructor(**{k: v for k, v in context.items() if k in needed}, **options)


def _type_name(hint: Any) -> str:
    bare = hint.__origin__ if hasattr(hint, "__metadata__") else hint
    if typing.get_origin(bare) is typing.Literal:
        return " | ".join(str(a) for a in typing.get_args(bare))
    return getattr(bare, "__name__", str(bare)) if not typing.get_args(bare) else str(bare)


def describe(room: str, kind: str) -> dict[str, Any]:
    """Kind, summary, docstring and options of a part, as plain data."""
    constructor = find(room, kind)
    helps = _help(constructor)
    options = []
    for name, hint, default in _options(room, constructor):
        limits = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Range)]
        options.append(
            {
                "name": name,
                "type": _type_name(hint),
                "default": None if default is inspect.Parameter.empty else default,
                "range": [limits[0].low, limits[0].high] if limits else None,
                "help": helps.get(name, ""),
            }
        )
    doc = _doc(constructor)
    facts = {k: getattr(constructor, k) for k in ("order", "stochastic") if hasattr(constructor, k)}
    return {"kind": kind, "summary": doc.split("\n")[0], "doc": doc, **facts, "options": options}
