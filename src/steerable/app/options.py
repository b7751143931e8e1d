"""Options that several commands share: each is named, described and given its default here, once.

A single option is a type that a command gives to a parameter of that name. Options that belong
together are a dataclass, which the command line takes apart and puts together again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token, convert

from steerable.core.errors import UserError

from .examples import BUILT_IN

if TYPE_CHECKING:
    from steerable.jobs.output import Place

__all__ = [
    "REAL", "AllowCode", "Cond", "Count", "Data", "Flag", "Force", "Grid", "Guiding", "Json", "Out",
    "Real", "Run",
    "Sampling", "Walk", "Whole", "Words", "interval_of", "place", "told",
]  # fmt: skip


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """A whole number; the parser itself would round 2.7 without a word."""
    text = tokens[0].value
    if "." in text and not text.rstrip("0").endswith("."):
        raise ValueError(f'unable to convert "{text}" into int.')
    return convert(int, tokens)


def _path(_: Any, tokens: Sequence[Token]) -> Path:
    """A path; an empty one would mean the current folder without a word."""
    if not tokens[0].value.strip():
        raise ValueError("an empty path")
    return Path(tokens[0].value)


def _real(_: Any, tokens: Sequence[Token]) -> float:
    """A finite number: `nan`, `inf` and 1e400 are numbers to Python, and no setting."""
    number = convert(float, tokens)
    if not math.isfinite(number):
        raise ValueError(f'"{tokens[0].value}" is not a finite number.')
    return number


Whole = Annotated[int, Parameter(converter=_whole)]
Real = Annotated[float, Parameter(converter=_real)]
Count = Annotated[Whole, Parameter(name=["-n", "--n"])]
Flag = Annotated[bool, Parameter(negative=())]
Words = Annotated[list[str] | None, Parameter(negative=())]

REAL = f"Real pictures: a folder, a file or {BUILT_IN}; the data of the run by default."
FORCE = "Write where files lie that this command has not made, and over those of the same name."
OTHER = "Another condition as NAME=VALUE: a class name, numbers or words; may be repeated."
CODE = "Module of your own whose parts a model file or run may name; may be repeated."

Run = Annotated[str, Parameter(help="A run folder or a model file.")]
Data = Annotated[str | None, Parameter(help=REAL)]
Cond = Annotated[Words, Parameter(help=OTHER)]
Grid = Annotated[str | None, Parameter(help="Kind of time grid; see steerable parts grids.")]
AllowCode = Annotated[Words, Parameter(help=CODE)]
Out = Annotated[Path | None, Parameter(converter=_path)]
Force = Annotated[Flag, Parameter(help=FORCE)]
Json = Annotated[Flag, Parameter(help="Print the result as one JSON object.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample.

    Parameters
    ----------
    guidance
        Weight of classifier-free guidance: 1 is off, above 1 exaggerates the label.
    interval
        Times LOW:HIGH between which guidance is at work; 0 is data, 1 is noise.
    steps
        Sampling steps.
    sampler
        Kind of sampler; see steerable parts samplers.
    """

    guidance: Real | None = None
    interval: str | None = None
    steps: Whole | None = None
    sampler: str | None = None
    grid: Grid = None

    def chosen(self) -> dict[str, Any]:
        """The settings by the names that the library has for them.

        Raises:
            UserError: E-CONFIG if the interval is none.
        """
        found = {name: getattr(self, name) for name in ("guidance", "steps", "sampler")}
        return {**found, "interval": interval_of(self.interval), "grid_kind": self.grid}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Guiding:
    """How to sample, with a classifier if one guides, and any other setting.

    Parameters
    ----------
    classifier
        A run of the preset noisy-classifier that guides; its labels may be asked for as well.
    classifier_scale
        Scale of its guidance: 1 is the law of the class, 0 is off.
    set_
        Change another setting: --set sampler.eta=0.5. May be repeated.
    """

    sampling: Sampling = field(default_factory=Sampling)
    classifier: str | None = None
    classifier_scale: Real | None = None
    set_: Annotated[Words, Parameter(name="--set")] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Walk:
    """How pictures walk up to their noise and down again.

    Parameters
    ----------
    label
        Class of the pictures; none by default.
    guidance
        Weight of classifier-free guidance; 1, off, is what gives Gaussian noise.
    steps
        Steps in each direction.
    """

    label: str | None = None
    cond: Cond = None
    guidance: Real = 1.0
    steps: Whole | None = None


def told(label: str | None, cond: list[str] | None) -> dict[str, str]:
    """Every condition by its name, the label among them.

    Raises:
        UserError: E-CONFIG for a condition that is not NAME=VALUE, or is said in two ways.
    """
    from steerable.jobs.wish import agree, parsed

    found = parsed(cond or [])
    agree("label", label, found.get("label"))
    return {**found, **({} if label is None else {"label": label})}


def interval_of(text: str | None) -> tuple[float, float] | None:
    """`0.2:0.8` as (low, high).

    Raises:
        UserError: E-CONFIG if it is not two times in order.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0.0 <= low < high <= 1.0:
        takes = "LOW:HIGH with 0 <= LOW < HIGH <= 1, 0 is data"
        raise UserError("E-CONFIG", where="interval", got=repr(text), takes=takes)
    return low, high


def place(out: Path | None, run: str, *inputs: Path | str | None, force: bool = False) -> Place:
    """Where results may go: --out, or the next free samples/NAME-NNN of the run, or of here.

    Args:
        out: What was said of it.
        run: The run folder or model file that is read.
        inputs: What else is read, files and folders.
        force: Whether other files may lie there.
    """
    from steerable.jobs.output import Place
    from steerable.jobs.run import data_folder

    path, others = Path(run), [Path(given) for given in inputs if given is not None]
    folder = path if path.is_dir() else path.parent
    data = data_folder(folder)
    return Place(
        out,
        base=path if path.is_dir() else Path(),
        force=force,
        inputs=(path / "model.safetensors" if path.is_dir() else path, *others),
        data=() if data is None else (data,),
    )
