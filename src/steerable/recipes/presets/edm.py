"""EDM: the preconditioned network of Karras et al., with the ADM backbone."""

from __future__ import annotations

from steerable.core.types import Spec
from steerable.recipes.conditioning import conditioned
from steerable.recipes.part import Part
from steerable.recipes.recipe import Recipe, Sampling
from steerable.recipes.sizing import Published, scaled

__all__ = ["edm"]

PUBLISHED = Published(base=128, batch=512, iterations=400_000, lr=1e-3, ema=0.9993, dropout=0.13)


def edm(spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto") -> Recipe:
    """Log-normal noise levels, preconditioning, Heun's method on the rho = 7 grid.

    Source: Karras et al., arXiv 2206.00364.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images; what it does not pay for is scaled down and noted.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.
    """
    made = scaled("adm", spec, budget, size, PUBLISHED)
    conditions, guidance = conditioned(spec, "adm")
    return Recipe(
        preset="edm",
        data=data,
        process=Part(kind="edm"),
        backbone=made.backbone,
        conditions=conditions,
        training=made.training,
        sampler=Sampling(
            kind="heun", steps=18, grid=Part(kind="karras"), options={"variable": "ratio"}
        ),
        guidance=guidance,
        notes=made.notes,
    )
