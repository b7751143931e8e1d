"""The default: flow matching with the compact U-Net, sized for the data and the time."""

from __future__ import annotations

from steerable.core.types import Spec
from steerable.recipes.conditioning import conditioned
from steerable.recipes.part import Part, find
from steerable.recipes.recipe import Budget, Recipe, Sampling, Training
from steerable.recipes.sizing import IMAGES_WANTED, SIZES, affordable, images, size_of

__all__ = ["flow"]


def flow(spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto") -> Recipe:
    """Flow matching with logit-normal times, AdamW with cooldown, DPM-Solver++(2M), light guidance.

    Pictures with prompts get the U-Net with cross-attention, all others the compact one.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.
    """
    planned = Budget.parse(budget)
    kind = "transformer_unet" if spec.tokens else "unet"
    widths = tuple(SIZES.values())
    base = size_of(size) if size != "auto" else affordable(kind, spec, planned, widths, SIZES["s"])
    lr = 2e-3 * min(1.0, (48 / base) ** 1.2)
    conditions, guidance = conditioned(spec, kind)
    # The preconditioner of `edm` passes the noise of a pixel on by itself, so that the samples of a
    # run too short to learn it are not noisy; given time, `flow` ends better. Measured on both
    # sides, in benchmarks/results.md.
    short = images(kind, spec, base, planned) < IMAGES_WANTED / 2
    return Recipe(
        preset="flow",
        data=data,
        process=Part(kind="flow", options={"target": "edm" if short else "flow"}),
        backbone=Part(kind=kind, options=find("backbone", kind).sized(spec.shape, base)),
        conditions=conditions,
        training=Training(budget=budget, lr=round(lr, 6), flip=spec.flip),
        sampler=Sampling(kind="dpmpp_2m", steps=12, grid=Part(kind="uniform")),
        guidance=guidance,
    )
