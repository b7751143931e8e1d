"""Editing: pictures in, pictures out; what is known of them steers, what is asked for is new.

A mask says where to repaint, a reference gives the low band, a strength below 1 begins from the
picture itself, a small or a grey picture is a measurement, and a class to translate to walks the
picture up to its noise and down again. All of it travels with the wishes, so it may be combined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.recipes.aliases import resolve
from steerable.recipes.part import find, kinds
from steerable.recipes.recipe import Recipe, checked

from .conflicts import check_classifier, check_sampling
from .edit_given import Edit, Piece, check_edit, pieces
from .encode import GRID, SAMPLER, STEPS, deterministic, encoded
from .model import Model
from .sample import BATCH, Sample, sample, steered
from .steering import askable, with_classifier
from .wish import Wish, all_asked, asked, conditioned

__all__ = [
    "Edit", "Edited", "Editing", "METHODS", "Task", "edit", "made_of", "perform", "planned",
    "task",
]  # fmt: skip

ZERO_SHOT = ("diffpir", "dps", "posterior")  # guidances by a measurement
METHODS = ("keep", "repaint", *ZERO_SHOT)
NOISY, NOISY_STEPS = "er_sde", 50  # what the model's own 12 steps of an ODE cannot do, measured
JUMP = 10  # steps that RePaint climbs back, where there are enough of them: its published value
_OPEN = ("sampler.", "guidance.", "constraints.", "operator.")  # what a setting may change


@dataclass(frozen=True, eq=False)
class Edited:
    """The results, in the order of the pictures, `wanted.n` of each.

    Attributes:
        sample: The pictures `.x` (n,C,H,W) uint8 with their wishes.
        pieces: The pictures that were edited.
        wanted: What was to be done.
        method: How what is known was kept; empty where nothing is.
    """

    sample: Sample
    pieces: tuple[Piece, ...]
    wanted: Edit
    method: str

    @property
    def x(self) -> Tensor:
        """The results (n,C,H,W) uint8."""
        return self.sample.x


@dataclass(frozen=True)
class Editing:
    """Steps done of all, with what has just been finished.

    Attributes:
        done: Steps done.
        of: Steps of all batches.
        part: The results of a batch, after its last step.
        places: Where in the order of the results they stand.
        edited: All results, on the last item, if they were kept.
    """

    done: int
    of: int
    part: Sample | None = None
    places: tuple[int, ...] = ()
    edited: Edited | None = None


def method_of(wanted: Edit, sees: bool) -> str:
    """How what is known of the pictures is kept; empty where nothing of them is.

    A network that was trained with masks sees what is known and only needs it put back. Of the
    ways to use any other, `posterior` has the smallest error on exact laws, and on trained networks
    none is better at equal time.

    Args:
        wanted: What is to be done.
        sees: Whether the network was trained with masks.

    Raises:
        UserError: E-CONFIG for a method that does not exist or does not fit.
    """
    measured = wanted.upscale is not None or wanted.colourise
    takes = METHODS if wanted.masked and wanted.to_label is None else ()
    takes = ZERO_SHOT if measured else takes
    takes = ("keep",) if wanted.masked and wanted.to_label is not None else takes
    if wanted.method is not None and wanted.method not in takes:
        got = f"'{wanted.method}'"
        known = ", ".join(takes) or "none: there is no mask and no measurement"
        raise UserError("E-CONFIG", where="method", got=got, takes=known)
    if wanted.method is not None or not takes:
        return wanted.method or ""
    return "keep" if "keep" in takes and (sees or len(takes) == 1) else "posterior"


def method_in(recipe: Recipe) -> str:
    """The method that `planned` wrote into a recipe; empty where nothing is known."""
    guiding = [part.kind for part in recipe.guidance if part.kind in ZERO_SHOT]
    keeps = any(part.kind == "keep" for part in recipe.constraints)
    climbs = recipe.sampler.grid.kind == "repaint"
    return next(iter(guiding), "") or ("repaint" if climbs and keeps else "keep" if keeps else "")


def planned(model: Model, wanted: Edit, **chosen: Any) -> Recipe:
    """The model's recipe with the settings to edit with.

    What is not chosen is the model's own, except: a translation takes what encoding takes, without
    guidance on the way up; whatever holds the sample to something known takes 50 steps of a sampler
    that draws noise, and `repaint` goes back and forth over them, about 400 calls of the network.

    Args:
        model: From `load`.
        wanted: What is to be done.
        chosen: Settings as of `steered`: guidance, interval, steps, sampler, grid_kind, settings;
            and as of `with_classifier`: classifier, classifier_scale.

    Raises:
        UserError: E-CONFIG or E-LIMIT for a value that cannot be taken.
    """
    classifier = chosen.pop("classifier", None), chosen.pop("classifier_scale", None)
    own = with_classifier(model, *classifier)
    check_edit(wanted, askable(model, own))
    sees = any(part.kind == "mask" for part in own.conditions.values())
    method = method_of(wanted, sees)
    settings: Sequence[str] = chosen.pop("settings", None) or ()
    chosen = {name: value for name, value in chosen.items() if value is not None}
    idle = [s for s in settings if not s.strip().startswith(_OPEN)]
    if idle:
        takes = ", ".join(f"{room}…" for room in _OPEN) + ": the rest is in the weights"
        raise UserError("E-CONFIG", where=f"--set {idle[0]}", got="no effect here", takes=takes)
    translates = wanted.to_label is not None
    usual: dict[str, Any] = {}
    if translates:
        usual = {"steps": STEPS, "sampler": SAMPLER, "grid_kind": GRID}
    elif wanted.reference is not None or (method and not sees):
        usual = {"steps": NOISY_STEPS}
        if not find("sampler", own.sampler.kind).stochastic:
            usual["sampler"] = "ancestral" if method == "repaint" else NOISY
    typed, chosen = chosen, {**usual, **chosen}
    grid = chosen.pop("grid_kind", None) if method == "repaint" else None
    steer = steered(own, **chosen)
    tree = steer.plain()
    if translates and chosen.get("guidance") == 1.0:
        tree["guidance"] = []  # a threshold too would not be the ODE of any data
    tree["sampler"]["strength"] = wanted.strength
    if method == "repaint":
        _back_and_forth(tree["sampler"], grid)
    _add_parts(tree, wanted, method)
    made = checked(tree, steer.origin.naming(grid)).with_set(settings)
    if made.sampler.strength != wanted.strength:
        takes = "the strength of the edit"
        raise UserError("E-CONFIG", where="--set sampler.strength", got="another", takes=takes)
    if settings:
        _check_conflicts(made, wanted, typed)
        check_classifier(made, *classifier)
    if translates:
        asked(model.spec, "label", wanted.to_label)  # a classifier's would do nothing
        deterministic(made.sampler.sampler(), made.sampler.kind)
    return made


def _check_conflicts(made: Recipe, wanted: Edit, typed: Mapping[str, Any]) -> None:
    """Refuse a setting that contradicts an option; a sampler's name of another program is read.

    Raises:
        UserError: E-CONFIG.
    """
    alias = resolve(typed["sampler"]) if "sampler" in typed else None
    weighed = typed.get("guidance") != 1.0 or any(part.kind == "cfg" for part in made.guidance)
    check_sampling(
        made,
        steps=typed.get("steps"),
        sampler=alias.kind if alias else typed.get("sampler"),
        grid=typed.get("grid_kind"),
        guidance=typed.get("guidance") if weighed else None,
        interval=typed.get("interval"),
        factor=wanted.factor if wanted.factor != Edit.factor else None,
    )


def _back_and_forth(sampling: dict[str, Any], grid: str | None) -> None:
    """Give the sampling settings the grid of RePaint, whose climbs only a stochastic one renoises.

    Raises:
        UserError: E-CONFIG for another sampler.
    """
    kind = sampling["kind"]
    if not find("sampler", kind).stochastic:
        takes = ", ".join(k for k in kinds("sampler") if find("sampler", k).stochastic)
        got = f"'{kind}', which draws no noise: repaint would do nothing with it"
        raise UserError("E-CONFIG", where="sampler", got=got, takes=takes)
    jump = max(1, min(JUMP, (sampling["steps"] - 1) // 2))  # at least two stretches
    sampling["grid"] = {"kind": "repaint", "base": grid or "log_snr", "jump": jump}


def _add_parts(tree: dict[str, Any], wanted: Edit, method: str) -> None:
    """Operator, guidance and constraints of an edit; `keep` last, so that nothing undoes it."""
    if method in ZERO_SHOT:
        parts = tree["guidance"]
        # Those that take gradients need them of all below, where a classifier cuts them off.
        cuts = [i for i, part in enumerate(parts) if part["kind"] == "classifier"]
        parts.insert(cuts[0] if cuts and method != "diffpir" else len(parts), {"kind": method})
        tree["operator"] = {"kind": "inpaint"}
        if wanted.upscale is not None:
            tree["operator"] = {"kind": "downsample", "factor": wanted.upscale}
        elif wanted.colourise:
            tree["operator"] = {"kind": "grey"}
    if wanted.reference is not None:
        tree["constraints"].append({"kind": "ilvr", "factor": wanted.factor})
    if wanted.masked:
        tree["constraints"].append({"kind": "keep"})


def made_of(found: Sequence[Piece], wanted: Edit, spec: Spec) -> list[Wish]:
    """The wishes, `wanted.n` of each picture; wish i has seed + i."""
    told = dict(wanted.cond)
    if wanted.to_label is not None:
        told["label"] = wanted.to_label
    cond = all_asked(spec, told)
    every = [piece for piece in found for _ in range(wanted.n)]
    return [Wish(cond, wanted.seed + i, piece.given) for i, piece in enumerate(every)]


def lifted(model: Model, recipe: Recipe, wanted: Edit, wishes: Sequence[Wish]) -> list[Wish]:
    """The wishes of a translation, which start from the noise of their pictures.

    Source: Su et al., arXiv 2203.08382, algorithm 1.
    """
    plain = {"guidance": (), "constraints": (), "operator": None}
    upwards = recipe.model_copy(update=plain)
    source = {name: value for name, value in wishes[0].cond.items() if name != "label"}
    if wanted.from_label is not None:
        source["label"] = asked(model.spec, "label", wanted.from_label)
    done = []
    for i in range(0, len(wishes), BATCH):
        batch = wishes[i : i + BATCH]
        images = torch.stack([wish.given["image"] for wish in batch])
        rows = conditioned(model.spec, [Wish(source)] * len(batch))
        starts = encoded(model, images, rows, recipe=upwards)
        pairs = zip(batch, starts, strict=True)
        done += [replace(wish, given={**wish.given, "start": start}) for wish, start in pairs]
    return done


@dataclass(frozen=True, eq=False)
class Task:
    """An edit whose pictures were read and checked.

    Attributes:
        model: The model.
        recipe: Settings from `planned`.
        wanted: What is to be done.
        pieces: The pictures.
        wishes: What is asked for, `wanted.n` of each picture.
        method: How what is known is kept; empty where nothing is.
    """

    model: Model
    recipe: Recipe
    wanted: Edit
    pieces: tuple[Piece, ...]
    wishes: tuple[Wish, ...]
    method: str


def task(model: Model, recipe: Recipe, wanted: Edit) -> Task:
    """Read the pictures of an edit.

    Args:
        model: From `load`.
        recipe: Settings from `planned`.
        wanted: What is to be done.

    Raises:
        UserError: What is wrong with the pictures.
    """
    spec = askable(model, recipe)
    found = pieces(wanted, spec)
    wishes = made_of(found, wanted, spec)
    return Task(model, recipe, wanted, tuple(found), tuple(wishes), method_in(recipe))


def edit(model: Model, recipe: Recipe, wanted: Edit) -> Iterator[Editing]:
    """Edit pictures batch by batch; the last item holds what was made.

    Args:
        model: From `load`.
        recipe: Settings from `planned`.
        wanted: What is to be done.

    Raises:
        UserError: What is wrong with the pictures, or E-NUM if numbers do not stay finite.
    """
    yield from perform(task(model, recipe, wanted))


def perform(job: Task, *, keep: bool = True, finished: Set[int] = frozenset()) -> Iterator[Editing]:
    """`edit` whose pictures were read and checked.

    Args:
        job: From `task`.
        keep: Whether the last item holds all results; without, memory does not grow with them.
        finished: Places of results that are made already.

    Raises:
        UserError: E-NUM if numbers do not stay finite.
    """
    wishes: Sequence[Wish] = job.wishes
    if job.wanted.to_label is not None:
        wishes = lifted(job.model, job.recipe, job.wanted, wishes)
    for at in sample(job.model, job.recipe, wishes, keep=keep, finished=finished):
        made = at.sample and Edited(at.sample, job.pieces, job.wanted, job.method)
        yield Editing(at.done, at.of, at.part, at.places, made)
