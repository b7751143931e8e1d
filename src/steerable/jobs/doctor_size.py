"""How often a run shows each picture, and from when on copying is to be expected.

Copying begins after a number of training images that grows in proportion to the number of
pictures, so it is counted in views of a picture. Source: Bonnaire et al., arXiv 2505.17638.
How many views depends on the network and the data; the two numbers here are what runs of this
library showed (docs/results.md), a rule of thumb and no law.
"""

from __future__ import annotations

from typing import Any

from steerable.core.types import Spec
from steerable.recipes.recipe import Budget
from steerable.recipes.sizing import SIZES, affordable, images

__all__ = ["BATCH", "COPIED", "FEW", "verdict", "views"]

COPIED = 200  # views after which plain runs on 300 digits copied: distance ratio 0.68 to 0.72
FEW = 100  # views below which no run copied; the most without copying was 133, on MNIST
BATCH = 128  # the default of training.batch


def views(spec: Spec, budget: str) -> float:
    """Training images of a run of the default preset in the budget, at the assumed speed."""
    kind = "transformer_unet" if spec.tokens else "unet"
    planned = Budget.parse(budget)
    base = affordable(kind, spec, planned, tuple(SIZES.values()), SIZES["s"])
    return images(kind, spec, base, planned)


def verdict(different: int, seen: float, budget: str) -> dict[str, Any]:
    """Severity, sentence and advice for a number of different training pictures.

    Args:
        different: Training pictures, copies counted once.
        seen: Training images of the planned run.
        budget: The planned run, in the user's words.
    """
    each = seen / max(1, different)
    onset = different * COPIED
    iterations = -(-onset // BATCH)
    told = f"a run of {budget} with the default preset shows each about {_round(each):,} times"
    rule = f"{COPIED} views of each, where plain runs on 300 digits copied"
    if each < FEW:
        sentence = (
            f"{different:,} different training pictures: {told}, fewer than the {FEW} below which "
            f"no measured run copied; expect copying after about {_round(iterations):,} "
            f"iterations of {BATCH} ({rule})"
        )
        return {"severity": "note", "sentence": sentence, "advice": "nothing"}
    when = f"expect copying after about {_round(iterations):,} iterations of {BATCH} ({rule})"
    advice = (
        "--set training.augment=0.5 --set training.weight_decay=0.05, dropout where the network "
        "has it (--preset mlp-diffusion --set backbone.dropout=0.2), a smaller --size, or "
        f'--budget "{_round(different * FEW)} images"; then look at the distance to the training '
        "pictures in steerable evaluate; more pictures are better than all of these"
    )
    severity = "warning" if each >= COPIED else "note"
    sentence = f"{different:,} different training pictures: {told}; {when}"
    return {"severity": severity, "sentence": sentence, "advice": advice}


def _round(value: float) -> int:
    """Two digits that count: more would claim to be known."""
    return int(float(f"{value:.2g}"))
