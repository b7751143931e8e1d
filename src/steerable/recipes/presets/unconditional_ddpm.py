"""Unconditional DDPM: the baseline and prior that knows no labels."""

from __future__ import annotations

from steerable.core.types import Spec
from steerable.recipes.part import Part
from steerable.recipes.recipe import Recipe, Sampling
from steerable.recipes.sizing import Published, scaled

__all__ = ["unconditional_ddpm"]

PUBLISHED = Published(
    base=128,
    batch=128,
    iterations=800_000,
    lr=2e-4,
    ema=0.9999,
    dropout=0.1,
    options={"channels": (128, 256, 256, 256), "attention": 16},
    target="noise",
    schedule="linear",
    short_iterations=10_000,
    sampling="1000 ancestral steps -> 30 of DPM-Solver++ (2M, SDE); "
    "the published: --sampler ancestral --steps 1000 --grid ddpm",
)


def unconditional_ddpm(
    spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto"
) -> Recipe:
    """DDPM of 1000 levels without any condition, even where the data has labels.

    Source: Ho et al., arXiv 2006.11239.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images; what it does not pay for is scaled down and noted.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.
    """
    made = scaled("conditional_unet", spec, budget, size, PUBLISHED)
    return Recipe(
        preset="unconditional-ddpm",
        data=data,
        process=Part(kind="ddpm", options={"schedule": made.schedule, "target": made.target}),
        backbone=made.backbone,
        training=made.training,
        sampler=Sampling(kind="dpmpp_2m_sde", steps=30, grid=Part(kind="log_snr")),
        guidance=(Part(kind="threshold"),),
        notes=made.notes,
    )
