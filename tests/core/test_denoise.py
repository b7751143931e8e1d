"""The denoiser: what the network is shown and told, and which conditions it takes."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from steerable.conditions.label import Label
from steerable.core.denoise import Backbone, Denoiser
from steerable.core.errors import UserError
from steerable.core.process import Process
from steerable.core.schedule import VP, Edm, Flow, Tabulated, VePower
from steerable.core.target import TARGETS, Target

F64 = torch.float64
SCHEDULES = (VP(), VePower(), Edm(), Flow(), Tabulated("cosine", 100))


class _Witness(Backbone):
    """Answers a fixed function of what it is shown, and keeps what it was told."""

    accepts: ClassVar[frozenset[str]] = frozenset({"vector"})
    width = 4

    @staticmethod
    def sized(shape, base):
        return {}

    def forward(self, x, slots):
        self.x, self.slots = x, slots
        extra = 0 if slots.vector is None else slots.vector.sum(1)
        return x.cos() + (0.1 * slots.level + extra).reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_estimate_is_the_preconditioned_answer(schedule, kind):
    process = Process(schedule, Target(kind, 0.5))
    denoiser = Denoiser(process, _Witness(), {})
    x_t = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    t = torch.linspace(0.05, 0.95, 6, dtype=F64)
    got = denoiser(x_t, t, {})
    alpha, sigma = schedule(t)
    c_in, c_skip, c_out = (c[:, None, None] for c in process.target(alpha, sigma))
    level = torch.log(sigma / alpha)
    assert torch.allclose(denoiser.backbone.slots.level, level, atol=1e-12)
    assert torch.allclose(denoiser.backbone.x, c_in * x_t, atol=1e-12)
    want = c_skip * x_t + c_out * ((c_in * x_t).cos() + 0.1 * level[:, None, None])
    assert torch.allclose(got.x0, want, rtol=1e-10)
    assert got.x_t is x_t and torch.equal(got.alpha, alpha) and torch.equal(got.sigma, sigma)


def test_one_time_for_all_equals_the_same_time_for_each():
    denoiser = Denoiser(Process(VP(), Target("v", 0.5)), _Witness(), {})
    x_t = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    one = denoiser(x_t, torch.tensor(0.3, dtype=F64), {})
    each = denoiser(x_t, torch.full((4,), 0.3, dtype=F64), {})
    assert torch.equal(one.x0, each.x0) and one.x0.dtype == torch.float32


def test_a_missing_an_absent_and_a_present_label():
    denoiser = Denoiser(Process(VP(), Target("v", 0.5)), _Witness(), {"label": Label(4, 3)})
    torch.nn.init.constant_(denoiser.conditions["label"].null, 0.7)
    x_t, t = torch.zeros(2, 3), torch.tensor(0.3)
    missing = denoiser(x_t, t, {}).x0
    absent = denoiser(x_t, t, {"label": torch.tensor([-1, -1])}).x0
    present = denoiser(x_t, t, {"label": torch.tensor([0, -1])}).x0
    assert torch.equal(missing, absent) and torch.equal(present[1], absent[1])
    assert not torch.equal(present[0], absent[0])


def test_two_vector_conditions_add_up():
    conditions = {"shape": Label(4, 3), "colour": Label(4, 5)}
    denoiser = Denoiser(Process(VP(), Target("v", 0.5)), _Witness(), conditions)
    cond = {"shape": torch.tensor([2, 0]), "colour": torch.tensor([4, -1])}
    denoiser(torch.zeros(2, 3), torch.tensor(0.3), cond)
    first = conditions["shape"].table.weight[2] + conditions["colour"].table.weight[4]
    assert torch.allclose(denoiser.backbone.slots.vector[0], first)
    second = conditions["shape"].table.weight[0] + conditions["colour"].null
    assert torch.allclose(denoiser.backbone.slots.vector[1], second)


def test_an_unknown_condition_is_refused_with_the_known_ones():
    denoiser = Denoiser(Process(VP(), Target("v", 0.5)), _Witness(), {"label": Label(4, 3)})
    with pytest.raises(UserError, match="'labl' · label"):
        denoiser(torch.zeros(2, 3), torch.tensor(0.3), {"labl": torch.tensor([0, 0])})


def test_a_condition_that_the_backbone_cannot_read_is_refused_when_it_is_built():
    class Deaf(_Witness):
        accepts: ClassVar[frozenset[str]] = frozenset({"tokens"})

    with pytest.raises(UserError, match="writes the slot 'vector'"):
        Denoiser(Process(VP(), Target("v", 0.5)), Deaf(), {"label": Label(4, 3)})
