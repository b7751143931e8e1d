"""From a published design and a budget to one that fits: width, batch, learning rate, averaging.

Nothing is shrunk in silence: every value that differs from the published one becomes a note of the
recipe, which is printed before the run and kept with the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from steerable.core.errors import UserError
from steerable.core.types import Slots, Spec

from .part import Part, find
from .recipe import Budget, Training

__all__ = [
    "SIZES",
    "Published",
    "Scaled",
    "affordable",
    "cost",
    "images",
    "scaled",
    "size_of",
]

SIZES = {"xs": 32, "s": 48, "m": 64, "l": 96, "xl": 128}

# What two cores of a current CPU sustain in training, and the images that a size wants to see
# before the next larger one pays. Source: measured, 138 GFLOP/s on two cores; 300 s are better
# spent on 48 channels than on 32.
FLOPS_PER_SECOND = 1.4e11
IMAGES_WANTED = 90_000

# Fewer iterations than this, and fewer images than the paper saw, are too few for its settings.
SHORT = 50_000


@dataclass(frozen=True)
class Published:
    """What a paper trained with, as far as a budget changes it.

    Attributes:
        base: Base width of the network.
        batch: Batch size.
        iterations: Number of training iterations.
        lr: Learning rate.
        ema: Decay of the weight average.
        dropout: Dropout inside the network.
        options: Further options of the backbone, which hold at its own width.
        sizes: Base widths below `base` that a shorter run may take.
        target: What the network answers, if a short run should rather take `edm`. A network that
            names the noise must cancel it to many digits where there is little else; a short run
            does not learn to, and a wash lies over its samples. The preconditioner does.
        schedule: The curve of the signal power, if a short run should rather take `cosine`. Half
            of the levels of a linear one leave of a small picture hardly more than noise.
        short_lr: Learning rate of a short run of up to 48 channels; above, it falls with them.
        short_iterations: A short run rather has this many than a larger batch.
        sampling: How the preset samples otherwise, as a note.
        room: Room of the network: `backbone`, or `classifier`.
    """

    base: int
    batch: int
    iterations: int
    lr: float
    ema: float
    dropout: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = (16, 24, 32, 48, 64, 96)
    target: str = ""
    schedule: str = ""
    short_lr: float = 1e-3
    short_iterations: int = 2000
    sampling: str = ""
    room: str = "backbone"


@dataclass(frozen=True)
class Scaled:
    """The backbone and the training that a budget pays for, and what was changed."""

    backbone: Part
    training: Training
    notes: tuple[str, ...]
    target: str
    schedule: str


@lru_cache(maxsize=256)
def cost(kind: str, shape: tuple[int, ...], base: int, *, room: str = "backbone") -> dict[str, Any]:
    """Options, parameters and FLOP of a forward pass for one item of a network at a base width.

    Counted on shapes alone, so it takes no memory and no time; without conditions, and for two
    classes.
    """
    cls = find(room, kind)
    options = cls.sized(shape, base)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        x, level = torch.zeros(1, *shape), torch.zeros(1)
        if room == "classifier":
            net = cls(shape, 2, **options)
            net(x, level)
        else:
            net = cls(*((shape, 0) if "planes" in cls.accepts else (shape,)), **options)
            vector = torch.zeros(1, net.width) if "vector" in cls.accepts else None
            net(x, Slots(level, vector=vector))
    parameters = sum(p.numel() for p in net.parameters())
    return {"options": options, "parameters": parameters, "flop": counter.get_total_flops()}


def images(kind: str, spec: Spec, base: int, budget: Budget, *, room: str = "backbone") -> float:
    """Training images that the budget pays for, at the assumed speed."""
    if budget.seconds is not None:
        flop = cost(kind, spec.shape, base, room=room)["flop"]
        return budget.seconds * FLOPS_PER_SECOND / (3 * flop)
    return budget.images or 128 * (budget.iterations or 0)


def affordable(
    kind: str,
    spec: Spec,
    budget: Budget,
    widths: tuple[int, ...],
    usual: int,
    *,
    room: str = "backbone",
) -> int:
    """The largest width that sees enough images in the budget; `usual` if that is no time."""
    if budget.seconds is None:
        return usual
    for base in sorted(widths, reverse=True):
        if images(kind, spec, base, budget, room=room) >= IMAGES_WANTED:
            return base
    return min(widths)


def size_of(name: str) -> int:
    """The base width of a size.

    Raises:
        UserError: E-CONFIG for a size that there is not.
    """
    if name not in SIZES:
        takes = ", ".join([*SIZES, "auto"])
        raise UserError("E-CONFIG", where="size", got=repr(name), takes=takes)
    return SIZES[name]


def scaled(kind: str, spec: Spec, budget: str, size: str, published: Published) -> Scaled:
    """The published design, scaled to the budget.

    Args:
        kind: Kind of network.
        spec: What is known of the data.
        budget: Time, iterations or images.
        size: `xs` to `xl`, or `auto` to choose by the budget.
        published: What the paper used.

    Raises:
        UserError: E-CONFIG for a size or budget that cannot be read.
    """
    planned = Budget.parse(budget)
    widths = (*published.sizes, published.base)
    usual, room = min(SIZES["s"], published.base), published.room
    auto = affordable(kind, spec, planned, widths, usual, room=room) if size == "auto" else 0
    base = auto or size_of(size)
    seen = images(kind, spec, base, planned, room=room)
    batch = published.batch
    while batch > 32 and seen / batch < published.short_iterations:
        batch //= 2
    iterations = planned.iterations or round(seen / batch)
    short = iterations < SHORT and seen < published.iterations * published.batch
    quick = round(published.short_lr * min(1.0, 48 / base), 6)
    lr = max(published.lr, quick) if short else published.lr
    ema = min(published.ema, 0.999) if short else published.ema
    dropout = 0.0 if short else published.dropout
    target = "edm" if short and published.target else published.target
    schedule = "cosine" if short and published.schedule else published.schedule
    options = find(room, kind).sized(spec.shape, base)
    if base == published.base:
        options = {**options, **published.options}
    changes = [
        ("iterations", f"{published.iterations:,}", f"about {iterations:,}"),
        ("base width", published.base, base),
        ("batch", published.batch, batch),
        ("lr", f"{published.lr:g}", f"{lr:g}"),
        ("ema", published.ema, ema),
        ("dropout", published.dropout, dropout),
        ("target", published.target, target),
        ("schedule", published.schedule, schedule),
    ]
    notes = tuple(f"{name} {old} -> {new}" for name, old, new in changes if str(old) != str(new))
    notes += (f"sampling: {published.sampling}",) if published.sampling else ()
    training = Training(budget=budget, batch=batch, lr=lr, ema=ema, flip=spec.flip)
    if published.dropout:
        options = {**options, "dropout": dropout}
    return Scaled(Part(kind=kind, options=options), training, notes, target, schedule)
