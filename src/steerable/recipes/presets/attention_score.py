"""Score model whose pixels attend to the words of a prompt."""

from __future__ import annotations

from steerable.core.types import Spec
from steerable.recipes.conditioning import conditioned
from steerable.recipes.part import Part
from steerable.recipes.recipe import Recipe, Sampling
from steerable.recipes.sizing import Published, scaled

__all__ = ["attention_score"]

PUBLISHED = Published(
    base=48,
    batch=1024,
    iterations=5_900,
    lr=1e-3,
    ema=0.999,
    target="noise",
    sampling="500 steps of Euler-Maruyama -> 30 of DPM-Solver++ (2M, SDE); "
    "the published: --sampler euler_maruyama --steps 500",
)


def attention_score(spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto") -> Recipe:
    """The score model with self- and cross-attention over a sequence of condition tokens.

    Source: Song et al., arXiv 2011.13456; attention: Rombach et al., arXiv 2112.10752.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images; what it does not pay for is scaled down and noted.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.
    """
    made = scaled("transformer_unet", spec, budget, size, PUBLISHED)
    conditions, guidance = conditioned(spec, "transformer_unet")
    return Recipe(
        preset="attention-score",
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
