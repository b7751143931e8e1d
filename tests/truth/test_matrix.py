"""Every guidance with every sampler on every process: it does what it is there for.

The worlds are exact mixtures, and each cell is held against the same cell without guidance. What a
guidance is there for is one row of `AIMS`. A new file of either room is in the matrix at once.
"""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch

from steerable.core.noise import Noise
from steerable.core.schedule import VP, Edm, Flow, VeGeometric

from ..conformance.rooms import built, files, options_at_work, part, world_context
from .worlds import F64, Kit, random_mixture, spread_of

KIT = Kit()
KINDS, SAMPLERS = files("guidance"), files("samplers")
PROCESSES = {"vp": VP(), "ve": VeGeometric(), "edm": Edm(), "flow": Flow()}
N, STEPS, LABEL = 100, 16, 1
# The adaptive solver chooses its own steps between these; the weights of particles are those of
# short steps: with 16 they are worse than none, from 32 on the law is reached.
STEPS_OF = {"ode": 4, "smc": 48}
ITEMS_OF = {"smc": 400}  # particles that share ancestors tell less than as many items
SE = math.sqrt(0.25 / N)  # of a share, at most


class Cell:
    """A world with its grid, and everything that a guidance may ask for."""

    def __init__(self, process, sampler):
        self.world = random_mixture(31, PROCESSES[process])
        steps = STEPS_OF.get(sampler, STEPS)
        self.times = KIT.part("grids.log_snr")(self.world.schedule, steps)
        self.n = ITEMS_OF.get(sampler, N)
        self.context = world_context(self.world, self.times, self.n)
        self.sampler = KIT.sampler(sampler)()

    def sampled(self, ask, wished):
        cond = {"label": torch.full((self.n,), LABEL)} if wished else {}
        alpha, sigma = self.world.schedule(self.times[0])
        start = math.hypot(float(sigma), float(alpha) * spread_of(self.world))
        noise = Noise(torch.arange(self.n) + 7)
        with torch.no_grad():
            return KIT.run(
                lambda x_t, t: ask(x_t, t, cond),
                start * noise.normal(torch.zeros(self.n, 2, dtype=F64)),
                schedule=self.world.schedule,
                sampler=self.sampler,
                times=self.times,
                noise=noise,
            )


def _unconditional(world):
    return lambda x_t, t, cond: world(x_t, t, {})


def obedience(cell, x):
    """Share of the items that are nearest to a mode of the class that was asked for."""
    nearest = (x[:, None] - cell.world.means).square().sum(-1).argmin(1)
    return float((cell.world.labels[nearest] == LABEL).to(F64).mean())


def _no_worse(cell, x, plain):
    assert obedience(cell, x) >= obedience(cell, plain) - 3 * SE


def _sharpens(cell, x, plain):
    """Within the class, and nearer to its modes in their own stds; the weaker model's are twice."""
    own = cell.world.labels == LABEL
    means, stds = cell.world.means[own], cell.world.stds[own]
    far, before = (
        float(((v[:, None] - means).norm(dim=2) / stds).amin(1).median()) for v in (x, plain)
    )
    _no_worse(cell, x, plain)
    assert far < before, f"{far:.2f} stds from the modes, {before:.2f} without guidance"


def _leads(cell, x, plain):
    assert obedience(cell, plain) < 0.8 and obedience(cell, x) > 0.9


def _within(cell, x, plain):
    assert float(plain.abs().max()) > 1.05 and float(x.abs().max()) <= 1.0 + 1e-12


def _agrees(cell, x, plain):
    off, before = (float((v[:, :1] - cell.context["measured"]).abs().mean()) for v in (x, plain))
    assert off < 0.5 * before, f"{off:.3f} from the measurement, {before:.3f} without guidance"


def _scores(cell, x, plain):
    better, before = (float(cell.context["score"](v).mean()) for v in (x, plain))
    assert better > before + 0.1


# kind: the aim, whether the batch wishes for the label, whether the model knows it, options
AIMS = {
    "apg": (_no_worse, True, True, {}),
    "autoguidance": (_sharpens, True, True, {}),
    "cfg": (_no_worse, True, True, {}),
    "cfg_pp": (_no_worse, True, True, {}),
    "cfg_zero": (_no_worse, True, True, {}),
    "classifier": (_leads, True, False, {}),
    "compose": (_leads, False, True, {"terms": [{"cond": {"label": LABEL}, "weight": 1.5}]}),
    "diffpir": (_agrees, False, True, {}),
    "dps": (_agrees, False, True, {}),
    "posterior": (_agrees, False, True, {}),
    "threshold": (_within, False, True, {}),
    "universal": (_scores, False, True, {}),
}
# One process for every pair of the most used samplers, one sampler for every process; else slow.
QUICK = {("flow", s) for s in ("ancestral", "dpmpp_2m", "heun", "smc")}
QUICK |= {(p, "ddim") for p in PROCESSES}


@lru_cache(maxsize=256)
def _plain(process, sampler, conditional, wished):
    """The cell, and what it samples without guidance."""
    cell = Cell(process, sampler)
    model = cell.world if conditional else _unconditional(cell.world)
    return cell, cell.sampled(model, wished)


def _guided(kind, process, sampler):
    _, wished, conditional, options = AIMS[kind]
    cell, plain = _plain(process, sampler, conditional, wished)
    options = options_at_work("guidance", kind) | options
    guidance = built("guidance", kind, cell.context, **options)
    model = cell.world if conditional else _unconditional(cell.world)
    return cell, cell.sampled(guidance(model), wished), plain


def test_every_guidance_has_an_aim_and_nothing_else_has():
    assert sorted(AIMS) == KINDS


@pytest.mark.parametrize(
    ("kind", "process", "sampler"),
    [
        pytest.param(k, p, s, marks=() if (p, s) in QUICK else pytest.mark.slow)
        for k in KINDS
        for p in PROCESSES
        for s in SAMPLERS
    ],
)
def test_cell(kind, process, sampler):
    cell, x, plain = _guided(kind, process, sampler)
    assert bool(x.isfinite().all())
    AIMS[kind][0](cell, x, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_that_is_turned_round_misses_its_aim(kind):
    """The aims are not blind: x0-hat moved the other way by as much fails each of them."""
    if kind not in AIMS:
        pytest.fail("no aim")
    aim, wished, conditional, options = AIMS[kind]
    cell, plain = _plain("flow", "ddim", conditional, wished)
    options = options_at_work("guidance", kind) | options
    guidance = built("guidance", kind, cell.context, **options)
    model = cell.world if conditional else _unconditional(cell.world)
    guided = guidance(model)
    strength = 10.0 if aim is _no_worse else 1.0  # a class that is met exactly has room to lose

    def turned(x_t, t, given):
        own, moved = model(x_t, t, given), guided(x_t, t, given)
        return own.with_x0(own.x0 - strength * (moved.x0 - own.x0))

    with pytest.raises(AssertionError):
        aim(cell, cell.sampled(turned, wished), plain)


def test_the_options_of_the_aims_are_options():
    for kind, (*_, options) in AIMS.items():
        assert set(options) <= set(part("guidance", kind).__dataclass_fields__), kind
