"""Score-based SDE: variance-exploding noise, Langevin or ODE sampling."""

from __future__ import annotations

from steerable.core.types import Spec
from steerable.recipes.conditioning import conditioned
from steerable.recipes.part import Part
from steerable.recipes.recipe import Recipe, Sampling
from steerable.recipes.sizing import Published, scaled

__all__ = ["score_sde"]

PUBLISHED = Published(
    base=48,
    batch=1024,
    iterations=4_400,
    lr=1e-3,
    ema=0.999,
    target="noise",
    short_lr=3e-3,
    short_iterations=5000,
    sampling="500 steps of Euler-Maruyama -> 30 of DPM-Solver++ (2M, SDE); "
    "the published: --sampler euler_maruyama --steps 500",
)


def score_sde(spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto") -> Recipe:
    """Denoising score matching for dx = 25^t dw with the U-Net of Song's tutorial.

    The noise levels are drawn evenly in their logarithm: uniform times hardly ever train the low
    ones. Source: Song et al., arXiv 2011.13456.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images; what it does not pay for is scaled down and noted.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.
    """
    made = scaled("score_unet", spec, budget, size, PUBLISHED)
    conditions, guidance = conditioned(spec, "score_unet")
    return Recipe(
        preset="score-sde",
        data=data,
        process=Part(
            kind="score",
            options={"law": "logit_normal", "target": made.target},
        ),
        backbone=made.backbone,
        conditions=conditions,
        training=made.training,
        sampler=Sampling(kind="dpmpp_2m_sde", steps=30, grid=Part(kind="karras")),
        guidance=(*guidance, Part(kind="threshold")),
        notes=made.notes,
    )
