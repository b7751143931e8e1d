"""Where a network looks: its attention maps along the way of one sample, as small pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerable.core.condition import Condition
from steerable.core.denoise import Denoiser
from steerable.nn.attention import Weighing, maps
from steerable.recipes.recipe import Recipe

from .model import Model
from .pictures import bytes_of
from .sample import moments
from .self_conditioning import names_of
from .wish import Wish, conditioned

__all__ = ["Attended", "Layer", "attended", "has_attention", "side_of"]

TIMES = 4  # of the trajectory, the first and the last among them
LAYERS = 8  # at most, evenly chosen
PLACES = ((0.15, 0.15), (0.5, 0.25), (0.5, 0.5), (0.5, 0.75))  # queries as shares of height, width


@dataclass(frozen=True)
class Layer:
    """The maps of one attention, averaged over its heads.

    Attributes:
        name: Its place in the network.
        words: How much each position heeds each token, (times, tokens, h, w), or None. Sums to 1
            over the tokens, unless tokens stand `among` the positions: the rest then goes to those.
        among: Whether they do.
        queries: Positions (row, column) whose own maps are shown.
        places: How much each of them heeds every position, (times, queries, h, w), or None.
    """

    name: str
    words: Tensor | None
    among: bool
    queries: tuple[tuple[int, int], ...]
    places: Tensor | None


@dataclass(frozen=True)
class Attended:
    """One sample with what every attention heeded while it was made.

    Attributes:
        wish: What was asked for.
        picture: The finished sample, (C,H,W) uint8.
        times: Times that are shown, from noise to data.
        levels: Their log(sigma / alpha).
        estimates: x0-hat at these times, (times,C,H,W) uint8.
        words: The tokens; empty without.
        layers: One entry an attention.
        left_out: Names of attentions that are not shown.
    """

    wish: Wish
    picture: Tensor
    times: tuple[float, ...]
    levels: tuple[float, ...]
    estimates: Tensor
    words: tuple[str, ...]
    layers: tuple[Layer, ...]
    left_out: tuple[str, ...]


def has_attention(net: Denoiser) -> bool:
    """Whether any layer of the network attends."""
    return any(isinstance(module, Weighing) for module in net.modules())


def side_of(shape: tuple[int, ...], positions: int) -> tuple[int, int] | None:
    """Height and width of a map of items (C,H,W) that has so many positions, if there is one."""
    for shrink in range(1, max(shape[1:]) + 1):
        height, width = (-(-side // shrink) for side in shape[1:])
        if height * width == positions:
            return height, width
    return None


def attended(model: Model, recipe: Recipe, wish: Wish) -> Attended:
    """Draw one sample, then ask the same questions again, without guidance, and keep the maps.

    Args:
        model: A model of pictures whose network has attention.
        recipe: Its recipe with the sampling settings to use.
        wish: The sample.
    """
    net, spec = model.denoiser, model.spec
    questions, x = _drawn(model, recipe, wish)
    chosen = torch.linspace(0, len(questions) - 1, min(TIMES, len(questions))).round().int()
    questions = [questions[i] for i in chosen.tolist()]
    estimates = []
    with maps(net) as recorded, torch.inference_mode():
        for x_t, t, cond in questions:
            estimates.append(net(x_t, t, cond).x0[0])
    words = _words(net, wish)
    every = {name: torch.cat(found).mean(1) for name, found in recorded.items()}
    assert all(len(found) == len(questions) for found in every.values())
    read = any(_reads_tokens(name) for name in every)
    layers = [
        _layer(name, found.cpu(), spec.shape, 0 if read else len(words))
        for name, found in every.items()
    ]
    known = [layer for layer in layers if layer is not None]
    some = torch.linspace(0, len(known) - 1, min(LAYERS, len(known))).round().int().tolist()
    shown = tuple(known[i] for i in some)
    times = tuple(float(t.flatten()[0]) for _, t, _ in questions)
    return Attended(
        wish=wish,
        picture=bytes_of(x),
        times=times,
        levels=tuple(net.process.schedule.level(torch.tensor(times, dtype=torch.float64)).tolist()),
        estimates=bytes_of(torch.stack(estimates)),
        words=words,
        layers=shown,
        left_out=tuple(name for name in every if name not in {layer.name for layer in shown}),
    )


def _drawn(
    model: Model, recipe: Recipe, wish: Wish
) -> tuple[list[tuple[Tensor, Tensor, Mapping[str, Tensor]]], Tensor]:
    """Every question of the way of one sample, conditions as wished, and the sample (C,H,W)."""
    net = model.denoiser
    own = conditioned(model.spec, [wish], next(net.parameters()).device)
    questions: dict[float, tuple[Tensor, Tensor, Mapping[str, Tensor]]] = {}

    def keep(_: Any, asked: tuple[Any, ...]) -> None:
        x_t, t, cond = asked
        told = {name: cond[name][:1] for name in names_of(net) if name in cond}
        time = t.flatten()[:1]
        questions.setdefault(float(time), (x_t[:1], time, {**told, **own}))

    handle = net.register_forward_pre_hook(keep)
    try:
        *_, (last, _) = moments(net, recipe, model.spec, [wish])
    finally:
        handle.remove()
    return list(questions.values()), last.x[0]


def _words(net: Denoiser, wish: Wish) -> tuple[str, ...]:
    """A word for every token that the network is told, in order."""
    words: list[str] = []
    for name, owner in net.conditions.items():
        assert isinstance(owner, Condition)
        if owner.slot == "tokens":
            nothing = (f"no {name}",) * len(owner.null)
            words += wish.cond.get(name, nothing)
    return tuple(words)


def _reads_tokens(name: str) -> bool:
    return name.endswith("cross_attention")


def _layer(name: str, found: Tensor, shape: tuple[int, ...], behind: int) -> Layer | None:
    """The maps (times,N,L) of one attention; `behind` tokens stand after the positions, if any."""
    positions = found.shape[1] - behind
    side = side_of(shape, positions)
    if side is None:
        return None
    if _reads_tokens(name):
        return Layer(name, found.mT.unflatten(2, side), False, (), None)
    among = found[:, :positions, positions:].mT.unflatten(2, side) if behind else None
    height, width = side
    queries = tuple(dict.fromkeys((int(y * height), int(x * width)) for y, x in PLACES))
    rows = torch.tensor([y * width + x for y, x in queries])
    places = found[:, rows, :positions].unflatten(2, side)
    return Layer(name, among, behind > 0, queries, places)
