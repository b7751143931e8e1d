"""From what a user says of data, preset, budget and size to a recipe and a run that can begin."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from steerable.core.errors import UserError
from steerable.core.types import Spec, Splits
from steerable.recipes.origin import OWN, artefact
from steerable.recipes.part import Part, find
from steerable.recipes.presets import find_preset
from steerable.recipes.recipe import Recipe, checked, from_yaml
from steerable.recipes.sizing import size_of

from .data import data_part, part_again, reader_of
from .prepare import Prepared, known_of, prepare
from .reading import READER, Reading, finished, reading
from .run import Run
from .start import Start

__all__ = [
    "Request", "prepared_with", "reading_for", "recipe", "with_own_settings",
]  # fmt: skip


def recipe(
    data: str,
    *,
    preset: str = "flow",
    budget: str = "10m",
    size: str = "auto",
    settings: Sequence[str] = (),
) -> Recipe:
    """A recipe for some data, with every size computed.

    Args:
        data: A folder, a file, or the name of a built-in data set.
        preset: Name of a preset.
        budget: `10m`, `5000 iterations` or `200000 images`.
        size: `xs`, `s`, `m`, `l`, `xl` or `auto`.
        settings: `path=value` changes.

    Raises:
        UserError: What is wrong with the data or a setting.
    """
    part, rest = with_own_settings(data, settings)
    return _recipe(part, finished(reading(part)).train.spec, preset, budget, size, rest)


def with_own_settings(data: str, settings: Sequence[str]) -> tuple[Part, list[str]]:
    """The data part with the settings `data.…` in it, and the other settings.

    The data is read before a preset can size anything, so its own settings come first.
    """
    part, own = data_part(data), [s for s in settings if s.strip().startswith("data.")]
    bare = Recipe(data=part, process=Part(kind="flow"), backbone=Part(kind="unet"))
    return bare.with_set(own).data, [s for s in settings if s not in own]


def _recipe(
    part: Part, spec: Spec, preset: str, budget: str, size: str, settings: Sequence[str]
) -> Recipe:
    made = checked(find_preset(preset)(spec, data=part, budget=budget, size=size).plain(), OWN)
    kind = made.with_set(settings).backbone.kind
    if kind != made.backbone.kind:  # another network has another meaning of the size
        options = find(made.room, kind).sized(spec.shape, size_of("s" if size == "auto" else size))
        made = checked({**made.plain(), "backbone": {"kind": kind, **options}}, OWN)
    return made.with_set(settings)


@dataclass(frozen=True)
class Request:
    """What is asked of a training run.

    A run folder that exists already gives the recipe: only the budget and `settings` are changed.

    Attributes:
        data: A folder, a file, or a built-in data set; optional with `config`.
        run: The run folder.
        preset: Name of a preset, `flow` by default.
        budget: How long, `10m` by default.
        size: Size of the network, `auto` by default.
        settings: `path=value` changes.
        config: A recipe file to start from.
        allow_code: Modules of your own whose parts the recipe of a run folder may name, beside
            those that `settings` and `config` name.
        start: Weights that a new run begins with.
        began: When the work began, by the monotonic clock: a budget of time counts from then on.
    """

    data: str | None
    run: str | Path
    preset: str | None = None
    budget: str | None = None
    size: str | None = None
    settings: Sequence[str] = ()
    config: str | Path | None = None
    allow_code: str | Collection[str] = ()
    start: Start | None = None
    began: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Check what needs no data to be checked.

        Raises:
            UserError: E-CONFIG for a preset or a size that there is not, or with a recipe file or a
                model, which have their own.
        """
        given = [name for name in ("config", "start") if getattr(self, name) is not None]
        sized = self.preset is not None or self.size is not None
        if len(given) > 1 or (given and sized):
            what = {"config": "a recipe file", "start": "a model, which has its own,"}[given[0]]
            got = "both of them" if len(given) > 1 else f"{what} with a preset or a size"
            where = "--config and --from" if len(given) > 1 else given[0]
            raise UserError("E-CONFIG", where=where, got=got, takes="one of them")
        if self.preset is not None:
            find_preset(self.preset)
        if self.size is not None and self.size != "auto":
            size_of(self.size)

    def base(self) -> tuple[Recipe | None, Part, Sequence[str]]:
        """The recipe to start from, if there is one, the data to read, and the other settings.

        Raises:
            UserError: E-CONFIG for settings that are wrong, or without any data.
        """
        old = self.folder().recipe()
        base = self._own() or old
        if self.start is not None:
            if old is not None:
                self.start.check_same(old, Path(self.run))
            base = old or self.start.base(self.data, self.budget)
        if base is None:
            if self.data is None:
                takes = "DATA or a recipe file"
                raise UserError("E-CONFIG", where="data", got="nothing", takes=takes)
            return None, *with_own_settings(self.data, self.settings)
        if self.data is not None:
            base = base.model_copy(update={"data": part_again(base.data, self.data)})
        return base, base.with_set(self.settings).data, self.settings

    def folder(self) -> Run:
        """The run folder, whose recipe may name the code that is named or allowed here.

        Raises:
            UserError: E-CONFIG for a recipe file that cannot be read.
        """
        own = self._own()
        return Run(Path(self.run), own.trusted if own else self._modules())

    def _modules(self) -> frozenset[str]:
        return artefact("", self.allow_code).naming(*self.settings).modules or frozenset()

    def _own(self) -> Recipe | None:
        """The recipe file to start from, which may name what the run folder may: both are one."""
        if not self.config:
            return None
        file = Path(self.config)
        own = from_yaml(file, OWN)
        return checked(own.plain(), artefact(file.name, self._modules() | own.code))


def reading_for(request: Request) -> Iterator[Reading]:
    """Read the data of a training run step by step; the last step holds it.

    Raises:
        UserError: What is wrong with the data, a setting or the folder.
    """
    request.check()
    _, part, _ = request.base()
    old = request.folder()
    began = old.recipe() is not None  # then it goes on as it began
    yield from reading(part, reader=reader_of(known_of(old)) if began else READER)


def prepared_with(request: Request, splits: Splits) -> Prepared:
    """Everything for a training run, with its plan; nothing is written yet.

    Args:
        request: What is asked.
        splits: The data that `reading_for` has read for it.

    Raises:
        UserError: What is wrong with the data, a setting or the folder.
    """
    request.check()
    base, part, rest = request.base()
    preset, budget, size = request.preset, request.budget, request.size
    if base is None:
        spec = splits.train.spec
        made = _recipe(part, spec, preset or "flow", budget or "10m", size or "auto", rest)
        return prepare(made, request.run, splits=splits, began=request.began)
    changes = [f"training.budget={budget}"] if budget else []
    made = base.with_set([*changes, *rest])
    _asked_again(made, splits.train.spec, preset, size, rest, str(request.run))
    more = {"start": request.start, "began": request.began}
    return prepare(made, request.run, splits=splits, **more)


def _asked_again(
    made: Recipe,
    spec: Spec,
    preset: str | None,
    size: str | None,
    settings: Sequence[str],
    run: str,
) -> None:
    """Check a preset or size that is typed again for a run that has them already."""
    wanted = {"preset": (made.preset, preset or made.preset)}
    if size is not None and size != "auto":
        own = [s for s in settings if not s.strip().startswith("data.")]
        fresh = _recipe(made.data, spec, made.preset, "10m", size, own).backbone
        wanted["backbone"] = (made.backbone.kind, fresh.kind)
        sized = find(made.room, fresh.kind).sized(spec.shape, size_of(size))
        for name in sized if made.backbone.kind == fresh.kind else ():
            now, new = made.backbone.options[name], fresh.options[name]
            wanted[name] = (repr(now), repr(new))
    for name, (now, new) in wanted.items():
        if now != new:
            do = "choose another --run folder, or repeat the first command"
            got = f"{name}: {now} -> {new}"
            raise UserError("E-CONFIG-DIFF", where=run, got=got, kept="the run as it is", do=do)
