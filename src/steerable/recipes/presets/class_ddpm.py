"""Class-conditional DDPM: the picture of the class that was asked for."""

from __future__ import annotations

from steerable.core.types import Spec
from steerable.recipes.conditioning import conditioned
from steerable.recipes.part import Part
from steerable.recipes.recipe import Recipe, Sampling
from steerable.recipes.sizing import Published, scaled

__all__ = ["class_ddpm"]

PUBLISHED = Published(
    base=64,
    batch=128,
    iterations=800_000,
    lr=2e-4,
    ema=0.9999,
    dropout=0.1,
    target="noise",
    schedule="linear",
    short_iterations=10_000,
    sampling="1000 ancestral steps -> 20 of DPM-Solver++; "
    "the published: --sampler ancestral --steps 1000 --grid ddpm",
)


def class_ddpm(spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto") -> Recipe:
    """DDPM of 1000 levels that predicts the noise, with a class-conditional U-Net and guidance.

    Source: Ho et al., arXiv 2006.11239; Ho and Salimans, arXiv 2207.12598.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images; what it does not pay for is scaled down and noted.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.
    """
    made = scaled("conditional_unet", spec, budget, size, PUBLISHED)
    conditions, guidance = conditioned(spec, "conditional_unet")
    return Recipe(
        preset="class-ddpm",
        data=data,
        process=Part(kind="ddpm", options={"schedule": made.schedule, "target": made.target}),
        backbone=made.backbone,
        conditions=conditions,
        training=made.training,
        sampler=Sampling(kind="dpmpp_2m", steps=20, grid=Part(kind="log_snr")),
        guidance=(*guidance, Part(kind="threshold")),
        notes=made.notes,
    )
