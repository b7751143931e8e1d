"""A model that is never wrong: two classes of pictures, each a Gaussian about its own mean."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from steerable.conditions.label import Label
from steerable.core.denoise import Backbone, Denoiser
from steerable.core.types import Spec
from steerable.jobs.model import Model
from steerable.oracles.mixture import Mixture
from steerable.recipes.part import Part, build
from steerable.recipes.recipe import checked

STDS = (0.1, 0.2)
NAMES = ("left", "right")


class Told(Backbone):
    """A network that answers the exact F* of a mixture, of the class in its vector slot."""

    accepts: ClassVar[frozenset[str]] = frozenset({"vector"})
    width = 1

    def __init__(self, process, oracle):
        super().__init__()
        self.process, self.oracle = process, oracle

    @staticmethod
    def sized(shape, base):
        return {}

    def forward(self, x, slots):
        level = slots.level[0].double()
        t = self.process.schedule.time_at(level)
        alpha, sigma = self.process.schedule(t)
        c_in, c_skip, c_out = (c.to(x) for c in self.process.target(alpha, sigma))
        x_t = x / c_in
        label = slots.vector[:, 0].round().long()
        x0 = self.oracle(x_t.flatten(1).double(), t, {"label": label}).x0
        return (x0.reshape(x.shape).to(x) - c_skip * x_t) / c_out


def means(shape):
    """The mean picture of each class, (2,*S): bright on its side, and a ramp downwards."""
    channels, height, width = shape
    ramp = torch.linspace(-0.15, 0.15, height, dtype=torch.float64)[:, None].expand(height, width)
    side = torch.linspace(0.2, -0.2, width, dtype=torch.float64)
    tint = torch.linspace(0.8, 1.2, channels, dtype=torch.float64)[:, None, None]
    return torch.stack([(ramp + side) * tint, (ramp - side) * tint])


def exact(shape=(1, 8, 8), *, weights=(0.5, 0.5)):
    """The model; its default sampler is heun with 32 steps, without guidance."""
    spec = Spec("exact", shape, {"label": NAMES})
    data = {"kind": "digits"}
    tree = {
        "data": data,
        "process": {"kind": "flow"},
        "backbone": {"kind": "unet"},
        "conditions": {"label": {"kind": "label"}},
        "sampler": {"kind": "heun", "steps": 32, "grid": "log_snr"},
    }
    recipe = checked(tree)
    process = build("process", Part(kind="flow"), data_std=0.5)
    share = torch.tensor(weights, dtype=torch.float64)
    stds = torch.tensor(STDS, dtype=torch.float64)
    world = Mixture(process.schedule, share, means(shape).flatten(1), stds, torch.arange(2))
    label = Label(1, 2)
    with torch.no_grad():
        label.null.fill_(-1.0)
        label.table.weight.copy_(torch.tensor([[0.0], [1.0]]))
    net = Denoiser(process, Told(process, world), {"label": label}).eval()
    return Model(net, recipe, spec, {"sha256": "0" * 64}, Path("exact/model.safetensors"))


def drawn(n, label, shape=(1, 8, 8), seed=0):
    """Pictures (n,*S) of a class, floats, hardly any of them clipped."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, *shape, generator=g, dtype=torch.float64)
    return (means(shape)[label] + STDS[label] * z).float().clamp(-1, 1)
