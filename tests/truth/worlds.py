"""Small worlds whose every answer is known: tables, mixtures, a backbone that is never wrong."""

from __future__ import annotations

import importlib
import math
import pkgutil
from typing import ClassVar

import torch

from steerable.core.denoise import Backbone
from steerable.core.noise import Noise
from steerable.oracles.mixture import Mixture

from ..mutants import altered

F64 = torch.float64
SHARED = {  # what the samplers import by name
    "nn.multistep": ("adams", "extended", "lagrange_integrals"),
    "nn.trapezium": ("trapezium",),
}


class Kit:
    """The modules of the library by name, some of them exchanged for altered copies."""

    def __init__(self, **changed):
        self.changed = changed

    def __call__(self, name):
        """The module `steerable.<name>`, or its altered copy."""
        return self.changed.get(name) or importlib.import_module(f"steerable.{name}")

    def part(self, name):
        """The one public name of a part's file."""
        module = self(name)
        return getattr(module, module.__all__[0])

    def sampler(self, kind):
        """The class of a sampler."""
        return self.part(f"samplers.{kind}")

    def run(self, ask, x, *, schedule, sampler, times, noise=None):
        """The last sample of a trajectory."""
        noise = noise or Noise(torch.arange(len(x)))
        moments = self("core.sample").trajectory(
            ask, x, schedule=schedule, sampler=sampler, times=times, noise=noise
        )
        return list(moments)[-1].x


def kit_with(name, *edits):
    """A kit with the altered module, and copies of the modules that are built on it."""
    changed = {name: altered(name, *edits)}
    if name in SHARED:
        for path in pkgutil.iter_modules(importlib.import_module("steerable.samplers").__path__):
            module = importlib.import_module(f"steerable.samplers.{path.name}")
            shared = [n for n in SHARED[name] if hasattr(module, n)]
            if shared:
                copy = altered(f"samplers.{path.name}")
                vars(copy).update({n: getattr(changed[name], n) for n in shared})
                changed[f"samplers.{path.name}"] = copy
    if name == "core.steer":  # the guidance inherits from it
        guidance = altered("guidance.cfg")
        guidance.Cfg.active = changed[name].Guidance.active
        changed["guidance.cfg"] = guidance
    return Kit(**changed)


def reference_abar(kind, levels):
    """abar of levels 0..T-1, written down a second time and from the papers alone."""
    i = torch.arange(levels + 1, dtype=F64)
    if kind == "linear":
        assert 1000 % levels == 0, "the reference knows the published 1000 levels only"
        betas = 1e-4 + (0.02 - 1e-4) * torch.arange(1000, dtype=F64) / 999
        return torch.cumprod(1 - betas, 0)[1000 // levels - 1 :: 1000 // levels]
    assert kind == "cosine"
    curve = torch.cos((i / levels + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1 - curve[1:] / curve[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - betas, 0)


def random_mixture(seed, schedule, *, modes=5, dtype=F64):
    """Two classes of unequal, separate modes on two lines: x tells the mode, y the class."""
    g = torch.Generator().manual_seed(seed)
    means, weights = [], []
    for label in range(2):
        gaps = 0.6 + 0.3 * torch.rand(modes, generator=g, dtype=dtype)
        x = gaps.cumsum(0)
        y = (1.2 * label - 0.6) + 0.2 * (torch.rand(modes, generator=g, dtype=dtype) - 0.5)
        w = torch.rand(modes, generator=g, dtype=dtype).square() + 0.15
        weights.append(w / w.sum())
        means.append(torch.stack([x - (weights[-1] * x).sum(), y], 1))
    stds = 0.04 + 0.04 * torch.rand(2 * modes, generator=g, dtype=dtype)
    labels = torch.arange(2).repeat_interleave(modes)
    share = torch.tensor([0.4, 0.6], dtype=dtype).repeat_interleave(modes)
    return Mixture(schedule, share * torch.cat(weights), torch.cat(means), stds, labels)


def spread_of(mixture):
    """Standard deviation of one coordinate of a mixture, pooled over the coordinates."""
    mean = (mixture.weights[:, None] * mixture.means).sum(0)
    inner = (mixture.means - mean).square().mean(1) + mixture.stds**2
    return float((mixture.weights * inner).sum().sqrt())


def one_point(schedule, point):
    """The exact denoiser of data that is one point (D,)."""
    one = torch.ones(1, dtype=F64)
    return Mixture(schedule, one, point[None], 0.0 * one)


def sliced_w2(a, b, *, directions=32):
    """Sliced 2-Wasserstein distance of two samples (N,D) of the same size."""
    angle = torch.arange(directions, dtype=F64) * math.pi / directions
    axes = torch.stack([angle.cos(), angle.sin()])
    rows = [(v.to(F64) @ axes).sort(0).values for v in (a, b)]
    return float((rows[0] - rows[1]).square().mean().sqrt())


def floor_w2(mixture, n, *, label=None):
    """Median distance of two exact samples: what a perfect sampler scores."""
    g = torch.Generator().manual_seed(99)
    pairs = [sliced_w2(mixture.draw(n, g, label), mixture.draw(n, g, label)) for _ in range(7)]
    return sorted(pairs)[3]


class Exact(Backbone):
    """A network that answers the exact F* of an oracle, whatever the target asks.

    It is told no more than a network is: c_in * x_t and log(sigma / alpha).
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"vector"})
    width = 1

    def __init__(self, process, oracle):
        super().__init__()
        self.process, self.oracle = process, oracle

    @staticmethod
    def sized(shape, base):
        return {}

    def forward(self, x, slots):
        """F* (B,*S) for items that share one noise level."""
        level = slots.level[0]
        assert bool((slots.level == level).all())
        t = self.process.schedule.time_at(level)
        alpha, sigma = self.process.schedule(t)
        c_in, c_skip, c_out = (c.to(x) for c in self.process.target(alpha, sigma))
        x_t = x / c_in
        return (self.oracle(x_t, t, {}).x0 - c_skip * x_t) / c_out


def randomised(module, seed=0, scale=0.1):
    """The module with weights that are zero at the start replaced, so that nothing is hidden."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not bool(parameter.any()):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=g))
    return module
