"""Diffusion of small flat pictures with a network that has no convolution."""

from __future__ import annotations

from steerable.core.types import Spec
from steerable.recipes.conditioning import conditioned
from steerable.recipes.part import Part
from steerable.recipes.recipe import Recipe, Sampling
from steerable.recipes.sizing import Published, scaled

__all__ = ["mlp_diffusion"]

PUBLISHED = Published(
    base=16, batch=64, iterations=4_700, lr=1e-3, ema=0.999, sizes=(16, 24, 32, 48)
)


def mlp_diffusion(spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto") -> Recipe:
    """A residual network over all pixels at once, on the cosine schedule; for 8x8 to 28x28.

    Source: Ho et al., arXiv 2006.11239; schedule: Nichol and Dhariwal, arXiv 2102.09672.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images; what it does not pay for is scaled down and noted.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.
    """
    made = scaled("mlp", spec, budget, size, PUBLISHED)
    conditions, guidance = conditioned(spec, "mlp")
    return Recipe(
        preset="mlp-diffusion",
        data=data,
        process=Part(kind="ddpm", options={"schedule": "cosine", "target": "v"}),
        backbone=made.backbone,
        conditions=conditions,
        training=made.training,
        sampler=Sampling(kind="dpmpp_2m", steps=20, grid=Part(kind="log_snr")),
        guidance=guidance,
        notes=made.notes,
    )
