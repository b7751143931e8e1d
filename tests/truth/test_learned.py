"""A small network, trained for seconds with the library's loss, finds the score of a mixture."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import nn

from steerable.core.denoise import Backbone, Denoiser
from steerable.core.noise import Noise
from steerable.core.types import Batch
from steerable.nn.embeddings import LevelEmbedding
from steerable.oracles.mixture import Mixture
from steerable.processes.edm import edm
from steerable.processes.flow import flow

from .worlds import F64, spread_of


class _Mlp(Backbone):
    """Two hidden layers that see the item and the embedded level."""

    accepts: ClassVar[frozenset[str]] = frozenset({"vector"})

    def __init__(self, width=64):
        super().__init__()
        self.width = width
        self.level = LevelEmbedding(width)
        self.enter = nn.Linear(1, width)
        self.middle = nn.Sequential(
            nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.leave = nn.Linear(width, 1)

    @staticmethod
    def sized(shape, base):
        return {"width": base}

    def forward(self, x, slots):
        """The answer (B,1)."""
        return self.leave(self.middle(self.enter(x) + self.level(slots.level)))


def _world(schedule):
    return Mixture(
        schedule,
        torch.tensor([0.7, 0.2, 0.1]),
        torch.tensor([[-0.6], [0.4], [1.2]]),
        torch.tensor([0.2, 0.15, 0.1]),
    )


@torch.no_grad()
def _error(denoiser, world):
    """Relative error of the score, weighted with p_t and sigma^2, over the middle of the path."""
    schedule = denoiser.process.schedule
    off = size = 0.0
    for ratio in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        t = schedule.time_at(torch.tensor(ratio, dtype=F64).log())
        g = torch.Generator().manual_seed(int(100 * ratio))
        x0 = world.draw(4000, g)
        x_t = denoiser.process.noised(x0, t, torch.randn(x0.shape, generator=g))
        got, exact = denoiser(x_t, t, {}), world(x_t, t, {})
        sigma = float(schedule(t)[1])
        off += float((sigma * (got.score - exact.score)).square().mean())
        size += float((sigma * exact.score).square().mean())
    return math.sqrt(off / size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "iterations", "size"),
    [(edm, 1500, 512), pytest.param(flow, 3000, 1024, marks=pytest.mark.slow)],
)
def test_the_learned_score_is_within_a_tenth_of_the_exact_one(make, iterations, size):
    process = make(spread_of(_world(None)))
    world = _world(process.schedule)
    torch.manual_seed(1)
    denoiser = Denoiser(process, _Mlp(), {})
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    g = torch.Generator().manual_seed(2)
    untrained = _error(denoiser, world)
    for i in range(iterations):
        x = world.draw(size, g)
        noise = Noise.of(0, iteration=i, items=torch.arange(size))
        loss = process.loss(denoiser, Batch(x), noise).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    trained = _error(denoiser, world)
    assert untrained > 0.3
    assert trained < 0.1, f"relative error {trained:.3f}, before {untrained:.3f}"
