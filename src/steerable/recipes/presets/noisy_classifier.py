"""A classifier of noised pictures, which guides a model that was trained without labels."""

from __future__ import annotations

from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.recipes.part import Part
from steerable.recipes.recipe import Recipe
from steerable.recipes.sizing import Published, scaled

__all__ = ["noisy_classifier"]

PUBLISHED = Published(
    base=128,
    batch=256,
    iterations=300_000,
    lr=3e-4,
    ema=0.999,
    room="classifier",
)


def noisy_classifier(spec: Spec, *, data: Part, budget: str = "10m", size: str = "auto") -> Recipe:
    """Half a U-Net that names the label of x_t at every noise level, for classifier guidance.

    It must see the noise that the guided model sees: give both the same process. Crops move the
    training pictures by up to an eighth of the side. Weights are averaged, which the paper does
    not do; with a learning rate that falls to zero there is little between the two.

    Source: Dhariwal and Nichol, arXiv 2105.05233, section 4 and appendix I.

    Args:
        spec: What is known of the data.
        data: The part that makes it.
        budget: Time, iterations or images; what it does not pay for is scaled down and noted.
        size: `xs`, `s`, `m`, `l`, `xl`, or `auto` to choose by the budget.

    Raises:
        UserError: E-DATA if nothing in the data is a label.
    """
    if not spec.labels:
        do = "one sub-folder a class, or --set data.columns='{NAME: label}'"
        raise UserError("E-DATA", where=spec.name, got="no label", takes="labelled data", do=do)
    made = scaled("half_unet", spec, budget, size, PUBLISHED)
    settings = {
        "schedule": "linear",
        "weight_decay": 0.05,
        "augment": 1.0,
        "augmentations": ("translate",),
    }
    return Recipe(
        preset="noisy-classifier",
        data=data,
        process=Part(kind="flow"),
        backbone=made.backbone,
        classifies="label" if "label" in spec.labels else next(iter(spec.labels)),
        training=made.training.model_copy(update=settings),
        notes=(*made.notes, "ema none -> 0.999"),
    )
