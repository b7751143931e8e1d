"""DDPM with a ConvNeXt U-Net, as used for tiles of aerial photographs."""

from __future__ import annotations

from steerable.core.types import Spec
from steerable.recipes.conditioning import conditioned
from steerable.recipes.part import Part
from steerable.recipes.recipe import Recipe, Sampling
from steerable.recipes.sizing import Published, scaled

__all__ = ["convnext_ddpm"]

PUBLISHED = Published(
    base=64,
    batch=16,
    iterations=100_000,
    lr=1e-4,
    ema=0.9995,  # published as 0.995 every tenth iteration
    target="noise",
    schedule="linear",
    sampling="1000 ancestral steps -> 12 of DPM-Solver++; "
    "the published: --sampler ancestral --steps 1000 --grid ddpm",
)


def convnext_ddpm(spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto") -> Recipe:
    """DDPM of 1000 levels with depthwise 7x7 blocks; labels are used where the data has them.

    Source: Ho et al., arXiv 2006.11239; blocks: Liu et al., arXiv 2201.03545.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images; what it does not pay for is scaled down and noted.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.
    """
    made = scaled("convnext_unet", spec, budget, size, PUBLISHED)
    conditions, guidance = conditioned(spec, "convnext_unet")
    return Recipe(
        preset="convnext-ddpm",
        data=data,
        process=Part(kind="ddpm", options={"schedule": made.schedule, "target": made.target}),
        backbone=made.backbone,
        conditions=conditions,
        training=made.training,
        sampler=Sampling(kind="dpmpp_2m", steps=12, grid=Part(kind="log_snr")),
        guidance=(*guidance, Part(kind="threshold")),
        notes=made.notes,
    )
