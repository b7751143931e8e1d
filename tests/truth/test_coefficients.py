"""Step coefficients at the ends of the table, where one index off shows least in the samples."""

from __future__ import annotations

import pytest
import torch

from steerable.core.noise import Noise
from steerable.core.schedule import Tabulated
from steerable.core.types import Estimate
from steerable.samplers.ancestral import Ancestral
from steerable.samplers.ddim import Ddim

from .worlds import F64, reference_abar


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("levels", [4, 20, 1000])
def test_every_ancestral_step_of_the_chain_is_the_posterior(kind, levels):
    """All steps at once: x0, x_t and z of one item each, against eq. 7 of DDPM."""
    abar = reference_abar(kind, levels)
    schedule = Tabulated(kind, levels)
    units = torch.eye(2, 3, dtype=F64)
    for i in range(1, levels):
        a, b = abar[i], abar[i - 1]
        beta = 1 - a / b
        t, s = (torch.tensor((j + 1) / levels, dtype=F64) for j in (i, i - 1))
        x0, x_t = units[0][:, None], units[1][:, None]
        x_s, _ = Ancestral().step(
            lambda x, u, x0=x0: Estimate(x0, x, *schedule(u)),
            x_t,
            t,
            s,
            schedule,
            None,
            Noise(torch.arange(3)),
        )
        z = Noise(torch.arange(3)).normal(x_t)
        want = (
            b.sqrt() * beta / (1 - a) * x0
            + (1 - beta).sqrt() * (1 - b) / (1 - a) * x_t
            + (beta * (1 - b) / (1 - a)).sqrt() * z
        )
        assert float((x_s - want).abs().max()) < 1e-6, f"level {i}"


def test_eta_zero_is_ddim_bit_for_bit_in_law():
    schedule = Tabulated("cosine", 1000)
    x_t = torch.linspace(-2, 2, 8, dtype=F64)[:, None]

    def ask(x, t):
        return Estimate(x.tanh(), x, *schedule(t))

    for t, s in ((0.9, 0.5), (0.5, 0.499), (0.01, 0.001)):
        t, s = torch.tensor(t, dtype=F64), torch.tensor(s, dtype=F64)
        first, _ = Ancestral(0.0).step(ask, x_t, t, s, schedule, None, Noise(torch.arange(8)))
        second, _ = Ddim().step(ask, x_t, t, s, schedule, None, Noise(torch.arange(8)))
        assert torch.allclose(first, second, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_eta_keeps_the_marginals(eta):
    """Data that is N(m, d^2) and a known x0: the step leads from the law at t to the law at s."""
    schedule = Tabulated("linear", 1000)
    n = 40_000
    noise = Noise(torch.arange(n))
    x0 = torch.full((n, 1), 0.7, dtype=F64)
    t, s = torch.tensor(0.6, dtype=F64), torch.tensor(0.3, dtype=F64)
    (a_t, g_t), (a_s, g_s) = schedule(t), schedule(s)
    x_t = a_t * x0 + g_t * noise.normal(x0)

    def ask(x, u):
        return Estimate(x0, x, *schedule(u))

    x_s, _ = Ancestral(eta).step(ask, x_t, t, s, schedule, None, noise)
    assert abs(float(x_s.mean() - 0.7 * a_s)) < 4 * float(g_s) / n**0.5
    assert abs(float(x_s.var() / g_s**2) - 1) < 4 * (2 / n) ** 0.5
