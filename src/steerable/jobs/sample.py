"""Sampling to tensors: labels and seeds in, pictures with their settings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import Moment, trajectory
from steerable.core.steer import Guidance
from steerable.core.types import Spec
from steerable.recipes.aliases import resolve
from steerable.recipes.conditioning import INNER, guided
from steerable.recipes.recipe import Recipe, checked

from .conflicts import check_sampling
from .given import check_weighed, given
from .model import Model, versions
from .pictures import bytes_of
from .steering import answering, askable, steering, times_of
from .wish import Wish, batches, conditioned

__all__ = ["Progress", "Sample", "by_title", "drawn", "moments", "sample", "settings_of", "steered"]

_LISTS = ("guidance", "constraints", "operator")  # what a setting may change, beside the sampler
_KEPT = ("steps", "grid", "strength")  # settings that another sampler keeps
BATCH = 64  # pictures in one call of the network: fits caches; the result does not depend on it


@dataclass(frozen=True)
class Sample:
    """Pictures that were made, x (n,C,H,W) uint8, each with its wish.

    `calls` counts the evaluations of the network for one picture.
    """

    x: Tensor
    wishes: tuple[Wish, ...]
    recipe: Recipe
    calls: int


def steered(
    recipe: Recipe,
    *,
    guidance: float | None = None,
    interval: tuple[float, float] | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    grid_kind: str | None = None,
    settings: Sequence[str] = (),
) -> Recipe:
    """The recipe with other sampling settings; what is None stays.

    Args:
        recipe: The model's own recipe.
        guidance: Weight of classifier-free guidance; 1 is off.
        interval: Times (low, high) between which guidance is at work.
        steps: Sampling steps.
        sampler: Kind of sampler, or a name that another program has for it.
        grid_kind: Kind of time grid.
        settings: Further `path=value` settings.

    Raises:
        UserError: E-CONFIG or E-LIMIT for a value that cannot be taken.
    """
    idle = [s for s in settings if not _open(s)]
    if idle:
        takes = "sampler.…, guidance, constraints and operator: the rest is in the weights"
        raise UserError("E-CONFIG", where=f"--set {idle[0]}", got="no effect here", takes=takes)
    tree = recipe.plain()
    conditional = any(part.kind not in INNER for part in recipe.conditions.values())
    classified = any(part.kind == "classifier" for part in recipe.guidance)
    if conditional or (classified and guidance in (None, 1.0)):
        weight = guidance if conditional else None
        tree["guidance"] = guided(tree["guidance"], weight, interval)
    elif interval is not None or guidance not in (None, 1.0):
        takes = "weight 1: this model was trained without a condition"
        raise UserError("E-CONFIG", where="guidance", got=str(guidance or interval), takes=takes)
    asked_grid = grid_kind is not None
    alias = resolve(sampler) if sampler is not None else None
    if alias is not None:
        sampler, grid_kind = alias.kind, grid_kind or alias.grid
    if sampler is not None and sampler != tree["sampler"]["kind"]:
        tree["sampler"] = {k: tree["sampler"][k] for k in _KEPT} | {"kind": sampler}
    tree["sampler"] |= alias.options if alias else {}
    if steps is not None:
        if not 1 <= steps <= 1000:
            raise UserError("E-LIMIT", where="steps", got=str(steps), takes="1 to 1000")
        tree["sampler"]["steps"] = steps
    if grid_kind is not None and grid_kind != tree["sampler"]["grid"]["kind"]:
        tree["sampler"]["grid"] = {"kind": grid_kind}
    changed = checked(tree, recipe.origin.naming(sampler, grid_kind)).with_set(settings)
    if settings and not conditional:
        check_weighed(changed)
    typed = {"guidance": guidance if conditional else None, "interval": interval, "steps": steps}
    check_sampling(changed, **typed, sampler=sampler, grid=grid_kind if asked_grid else None)
    return changed


def _open(setting: str) -> bool:
    """Whether sampling heeds a `path=value` setting; a list of parts may be set as a whole."""
    room, dot, _ = setting.partition("=")[0].strip().partition(".")
    return room in _LISTS or (room == "sampler" and bool(dot))


def moments(
    net: Denoiser,
    recipe: Recipe,
    spec: Spec,
    wanted: Sequence[Wish],
    *,
    guide: Sequence[Guidance] = (),
) -> Iterator[tuple[Moment, int]]:
    """The moments of one batch of wishes, each with the network's evaluations a picture so far.

    Raises:
        UserError: E-CONFIG if the wishes differ and the sampler takes one for all.
    """
    calls = 0
    sampler = recipe.sampler.sampler()
    if len(_batches(recipe, wanted, len(wanted))) > 1:
        where, got = f"sampler '{recipe.sampler.kind}'", "a batch of different wishes"
        raise UserError("E-CONFIG", where=where, got=got, takes="one wish for the whole batch")
    known = given(wanted, spec, next(net.parameters()).device)
    answer = answering(net, known)

    def counted(x_t: Tensor, t: Tensor, cond: Any) -> Any:
        nonlocal calls
        calls += len(x_t) // len(wanted)
        return answer(x_t, t, cond)

    steer = steering(counted, net, recipe, spec, wanted, guide=guide)
    cond = conditioned(spec, wanted, next(net.parameters()).device)
    noise = Noise(torch.tensor([wish.seed for wish in wanted]))
    with torch.no_grad():  # not inference mode: some guidances take gradients
        path = trajectory(
            steer.ask(cond),
            _start(net, recipe, known, spec.shape, t=steer.times[0], noise=noise),
            schedule=net.process.schedule,
            sampler=sampler,
            times=steer.times,
            noise=noise,
            constraints=steer.constraints,
        )
        for moment in path:
            yield moment, calls


def _start(
    net: Denoiser,
    recipe: Recipe,
    known: Mapping[str, Tensor],
    shape: tuple[int, ...],
    *,
    t: Tensor,
    noise: Noise,
) -> Tensor:
    """Noise, the `start` that is given, or below strength 1 the picture with noise of that time.

    Raises:
        UserError: E-CONFIG if there is no picture, or a part of it is hidden.
    """
    if "start" in known:
        return known["start"]
    if recipe.sampler.strength == 1.0:
        like = torch.empty(len(noise.seeds), *shape, device=next(net.parameters()).device)
        return net.process.start(t, noise, like)
    image = known.get("image")
    if image is None or not bool(image.isfinite().all()):
        got = "no picture" if image is None else "a picture with hidden parts"
        takes = "a whole picture to begin with, or strength 1"
        raise UserError("E-CONFIG", where="strength below 1", got=got, takes=takes)
    return net.process.noised(image, t, noise.normal(image))


def drawn(net: Denoiser, recipe: Recipe, spec: Spec, wanted: Sequence[Wish]) -> Tensor:
    """The pictures (n,*S) of some wishes as floats, in one batch if the sampler takes it."""
    groups = _batches(recipe, wanted, len(wanted))
    pictures = []
    for places in groups:
        *_, (last, _) = moments(net, recipe, spec, [wanted[i] for i in places])
        pictures.append(last.x)
    return torch.cat(pictures)[torch.cat([torch.tensor(g) for g in groups]).argsort()]


def _batches(recipe: Recipe, wanted: Sequence[Wish], most: int) -> list[list[int]]:
    """Places of the wishes that are sampled together; some samplers take one wish a batch."""
    alike = getattr(recipe.sampler.sampler(), "one_wish", False)
    return batches(wanted, most, alike=alike)


@dataclass(frozen=True)
class Progress:
    """Sampling steps done of all, with what has just been finished.

    Attributes:
        done: Steps done.
        of: Steps of all batches.
        part: The pictures of a batch, after its last step.
        places: Where in the order of the wishes they stand.
        sample: All pictures, on the last item, if they were kept.
    """

    done: int
    of: int
    part: Sample | None = None
    places: tuple[int, ...] = ()
    sample: Sample | None = None


def sample(
    model: Model,
    recipe: Recipe,
    wanted: Sequence[Wish],
    *,
    frames: list[Tensor] | None = None,
    guide: Sequence[Guidance] = (),
    keep: bool = True,
    finished: Set[int] = frozenset(),
) -> Iterator[Progress]:
    """Make pictures batch by batch; the last item holds them all.

    Args:
        model: The model.
        recipe: Its recipe with the sampling settings to use, from `steered`.
        wanted: The pictures.
        frames: If given, receives x0-hat (n,*S) uint8 of the first batch after every step.
        guide: Further guidances, beside those of the recipe.
        keep: Whether the last item holds all of them; without, memory does not grow with them.
        finished: Places of pictures that are made already: a batch of such ones is passed over.

    Raises:
        UserError: E-NUM if the numbers do not stay finite.
    """
    groups = _batches(recipe, wanted, BATCH)
    steps = len(times_of(model.denoiser, recipe)) - 1
    of, done = len(groups) * steps, 0
    spec = askable(model, recipe)
    parts: list[Sample] = []
    for number, places in enumerate(groups):
        if finished.issuperset(places):
            done += steps
            continue
        calls, x = 0, torch.empty(0)
        batch = [wanted[i] for i in places]
        path = moments(model.denoiser, recipe, spec, batch, guide=guide)
        for at, (moment, calls) in enumerate(path, 1):  # noqa: B007
            x = moment.x
            if frames is not None and number == 0:
                frames.append(bytes_of(moment.x0))
            if at < steps:
                yield Progress(done + at, of)
        done += steps
        part = Sample(bytes_of(x), tuple(batch), recipe, calls)
        last = number == len(groups) - 1
        whole = None
        if keep:
            parts.append(part)
            whole = _joined(parts, groups, wanted) if last else None
        yield Progress(done, of, part, tuple(places), whole)


def _joined(
    parts: Sequence[Sample], groups: Sequence[Sequence[int]], wanted: Sequence[Wish]
) -> Sample:
    """The pictures of all batches in the order of their wishes."""
    order = torch.cat([torch.tensor(group) for group in groups]).argsort()
    x = torch.cat([part.x for part in parts])[order]
    return Sample(x, tuple(wanted), parts[0].recipe, max(part.calls for part in parts))


def settings_of(recipe: Recipe, model: Model, wish: Wish) -> dict[str, Any]:
    """Everything that is needed to make a picture again, as plain data."""
    return {
        "label": wish.label,
        "cond": dict(wish.cond),
        "seed": wish.seed,
        "sampler": recipe.sampler.flat(),
        "guidance": [part.flat() for part in recipe.guidance],
        "constraints": [part.flat() for part in recipe.constraints],
        "operator": recipe.operator and recipe.operator.flat(),
        "size": list(model.spec.shape),
        "model": model.spec.name,
        "model_sha256": model.about.get("sha256"),
        "versions": versions(),
    }


def by_title(made: Sample) -> tuple[list[Tensor], list[str]]:
    """The pictures of each combination of conditions, in the order of the wishes, and titles."""
    order = list(dict.fromkeys(wish.title for wish in made.wishes))
    rows = [made.x[torch.tensor([w.title == title for w in made.wishes])] for title in order]
    return rows, order
