"""The default: flow matching with the compact U-Net, sized for the data and the time."""

from __future__ import annotations

import math

from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.nn.resampling import stem_for
from steerable.recipes.part import Part
from steerable.recipes.recipe import Budget, Recipe, Sampling, Training

__all__ = ["flow"]

SIZES = {"xs": 32, "s": 48, "m": 64, "l": 96, "xl": 128}

# What two cores of a current CPU sustain in training, and the images that a size wants to see
# before the next larger one pays. Source: measured, 138 GFLOP/s on two cores; 300 s are better
# spent on 48 channels than on 32.
FLOPS_PER_SECOND = 1.4e11
IMAGES_WANTED = 90_000

# Guidance at high noise costs diversity and buys no accuracy: measured, in benchmarks/results.md.
GUIDANCE = {"weight": 2.0, "start": 0.8}


def flow(spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto") -> Recipe:
    """Flow matching with logit-normal times, AdamW with cooldown, DPM-Solver++(2M), light guidance.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.
    """
    planned = Budget.parse(budget)
    if size != "auto" and size not in SIZES:
        takes = ", ".join([*SIZES, "auto"])
        raise UserError("E-CONFIG", where="size", got=repr(size), takes=takes)
    base = _affordable(spec, planned) if size == "auto" else SIZES[size]
    channels = _channels(spec, base)
    lr = 2e-3 * min(1.0, (48 / base) ** 1.2)
    conditions = {name: Part(kind="label") for name in spec.labels}
    guidance = (Part(kind="cfg", options=GUIDANCE),) if conditions else ()
    return Recipe(
        preset="flow",
        data=data,
        process=Part(kind="flow", options={"target": _target(spec, base, planned)}),
        backbone=Part(
            kind="unet",
            options={
                "channels": channels,
                "width": 4 * base,
                "stem": stem_for(spec.shape, base),
            },
        ),
        conditions=conditions,
        training=Training(budget=budget, lr=round(lr, 6), flip=spec.flip),
        sampler=Sampling(kind="dpmpp_2m", steps=12, grid=Part(kind="uniform")),
        guidance=guidance,
    )


def _images(spec: Spec, base: int, budget: Budget) -> float:
    """Training images that the budget pays for, at the assumed speed."""
    if budget.seconds is not None:
        return budget.seconds * FLOPS_PER_SECOND / (3 * _forward_flop(spec, base))
    return budget.images or 128 * (budget.iterations or 0)


def _target(spec: Spec, base: int, budget: Budget) -> str:
    """`flow`, but `edm` for a run too short to learn how to pass the noise of a pixel on.

    The preconditioner of `edm` passes it by itself, so early samples are not noisy; given time,
    `flow` ends better. Measured on both sides, in benchmarks/results.md.
    """
    return "edm" if _images(spec, base, budget) < IMAGES_WANTED / 2 else "flow"


def _channels(spec: Spec, base: int) -> tuple[int, ...]:
    """Levels until the map is at most 8 wide, at least two: the base width, then twice that."""
    side = max(spec.shape[1:]) / stem_for(spec.shape, base)
    levels = max(2, 1 + math.ceil(math.log2(side / 8)))
    return (base, *[2 * base] * (levels - 1))


def _forward_flop(spec: Spec, base: int) -> float:
    """FLOP of the 3x3 convolutions of one forward pass: four a level and one between levels."""
    channels, positions = _channels(spec, base), math.prod(spec.shape[1:])
    positions /= stem_for(spec.shape, base) ** 2
    flop = 0.0
    for i, width in enumerate(channels):
        flop += 4 * 18 * width**2 * positions / 4**i
        flop += 18 * width * channels[i - 1] * positions / 4**i if i else 0.0
    return flop


def _affordable(spec: Spec, budget: Budget) -> int:
    """The largest base width that sees enough images in the budget."""
    if budget.seconds is None:
        return SIZES["s"]
    for base in sorted(SIZES.values(), reverse=True):
        if _images(spec, base, budget) >= IMAGES_WANTED:
            return base
    return SIZES["xs"]
