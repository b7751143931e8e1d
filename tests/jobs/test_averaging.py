"""The power-function average, its tracks, and other widths made of snapshots afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steerable.core.errors import UserError
from steerable.jobs import averaging
from steerable.jobs.averaging import NARROW, WIDE, coefficients, due, gamma_of, profile
from steerable.jobs.model import Model
from steerable.jobs.prepare import prepare
from steerable.jobs.sample import drawn
from steerable.jobs.train import train
from steerable.jobs.wish import wishes
from steerable.recipes import store
from steerable.recipes.recipe import checked
from steerable.recipes.training import Training

from .tiny import finish, tiny

F64 = torch.float64
POWER = "training.ema_kind=power"


def test_gamma_of_the_published_widths():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)
    for width in (0.03, 0.07, 0.2, 0.25):
        g = gamma_of(width)
        k = torch.linspace(0, 1, 200_001, dtype=F64)[1:]
        density = k**g / (k**g).sum()  # the std of the average's place in the run is its width
        mean = (density * k).sum()
        assert float((density * (k - mean) ** 2).sum().sqrt()) == pytest.approx(width, rel=1e-3)


class _Walk(nn.Module):
    """A trajectory of weights: a falling curve with a random walk on it."""

    def __init__(self, count, size=50):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        steps = torch.randn(count, size, generator=g, dtype=F64).cumsum(0) / count**0.5
        place = torch.linspace(0, 1, count, dtype=F64)[:, None]
        self.path = steps + 3 * torch.exp(-4 * place) + 1.0
        self.weight = nn.Parameter(self.path[0].float().clone())

    def at(self, i):
        with torch.no_grad():
            self.weight.copy_(self.path[i])


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_a_track_equals_the_explicit_weighted_sum(width):
    """Decays of (1 - 1/k)^(gamma + 1) in a loop, and their closed form as weights."""
    walk = _Walk(60)
    track = averaging.averages(walk, Training(ema_kind="power"))[0 if width == WIDE else 1]
    recursion = torch.zeros_like(walk.path[0])
    for k in range(1, 61):
        walk.at(k - 1)
        track.update_parameters(walk)
        beta = (1 - 1 / k) ** (gamma_of(width) + 1)
        recursion = beta * recursion + (1 - beta) * walk.path[k - 1]
    weights = profile(1, 60, 60, gamma_of(width))
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(weights @ walk.path, recursion, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(track.module.weight.double(), recursion, rtol=1e-5, atol=1e-6)


def test_mutant_the_wrong_power_is_seen():
    exact = profile(1, 60, 60, gamma_of(WIDE))
    for gamma in (gamma_of(WIDE) + 1, gamma_of(NARROW)):
        assert float((profile(1, 60, 60, gamma) - exact).norm() / exact.norm()) > 0.05


def test_snapshots_stay_between_8_and_16_whatever_the_length():
    for length in (8, 15, 16, 100, 4095, 4096, 70_000):
        gap = averaging._gap(length)
        kept = list(range(gap, length + 1, gap))
        assert 8 <= len(kept) < 16
        # every one of them was due when it was reached
        assert all(due(i, last=False) for i in kept)
    assert due(77, last=True) and not due(77, last=False)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Snapshots of a walk of 1,000 updates, written as training writes them."""
    run, walk = tmp_path_factory.mktemp("walk"), _Walk(1000)
    wide, narrow = averaging.averages(walk, Training(ema_kind="power"))
    for i in range(1, 1001):
        walk.at(i - 1)
        wide.update_parameters(walk)
        narrow.update_parameters(walk)
        if due(i, last=i == 1000):
            averaging.keep(run, i, i, {WIDE: wide.module, NARROW: narrow.module})
    return run, walk


def test_old_snapshots_are_thinned_out(walked):
    run, _ = walked
    kept = sorted({int(p.name[:8]) for p in (run / "snapshots").iterdir()})
    assert kept == [*range(64, 1000, 64), 1000]


@pytest.mark.parametrize("width", [0.03, 0.04, 0.07, 0.13, 0.16, 0.2])
def test_any_width_is_recombined_from_the_snapshots(walked, width):
    """Against the exact average over every update, and against the nearest track."""
    run, walk = walked
    exact = profile(1, 1000, 1000, gamma_of(width)) @ walk.path
    got, facts = averaging.recombined(run, width)
    tracks = [profile(1, 1000, 1000, gamma_of(w)) @ walk.path for w in (NARROW, WIDE)]
    nearest = min(float((t - exact).norm()) for t in tracks)
    error = float((got["weight"].double() - exact).norm())
    # Half precision alone is off by up to 2^-12 of a weight, times the sizes of the factors.
    assert error < 0.15 * nearest and error < 0.01 * float(exact.norm())
    assert facts["updates"] == 1000 and facts["ema_width"] == width


@pytest.mark.parametrize(("at", "moment"), [(0.3, 320), (0.5, 512), (0.01, 64), (1.0, 1000)])
def test_an_early_moment_is_the_average_of_the_updates_until_then(walked, at, moment):
    """The nearest moment with snapshots; nothing later is in it."""
    run, walk = walked
    for width, room in ((0.10, 1e-3), (0.05, 1e-3), (0.07, 2e-2)):
        got, facts = averaging.recombined(run, width, at=at)
        exact = profile(1, moment, moment, gamma_of(width)) @ walk.path[:moment]
        assert facts["iterations"] == facts["updates"] == moment
        assert float((got["weight"].double() - exact).norm() / exact.norm()) < room
    late = averaging.recombined(run, 0.10)[0]["weight"].double()
    early = averaging.recombined(run, 0.10, at=at)[0]["weight"].double()
    assert (float((late - early).norm() / late.norm()) > 0.05) == (moment < 1000)


def test_a_stored_track_gives_itself_and_the_factors_sum_to_one():
    tracks = [(k, gamma_of(w)) for w in (NARROW, WIDE) for k in range(64, 1001, 64)]
    for width in (0.03, 0.1, 0.25):
        factors = coefficients([*tracks, (1000, gamma_of(0.1))], 1000, gamma_of(width))
        assert float(factors.sum()) == pytest.approx(1.0, abs=1e-9)
    want = torch.zeros(len(tracks) + 1, dtype=F64)
    want[-1] = 1.0
    got = coefficients([*tracks, (1000, gamma_of(0.1))], 1000, gamma_of(0.1))
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_the_sum_over_updates_is_that_of_the_paper_in_the_limit():
    """Inner products of profiles against the integral of algorithm 3."""
    n, a, b = 20_000, gamma_of(0.05), gamma_of(0.2)
    for ka, kb in ((n, n), (n // 2, n), (n, n // 3)):
        got = float(profile(1, n, ka, a) @ profile(1, n, kb, b))
        ratio, power = ka / kb, b if ka < kb else -a
        want = (a + 1) * (b + 1) * ratio**power / ((a + b + 1) * max(ka, kb))
        assert got == pytest.approx(want, rel=2e-3)


def test_chunks_do_not_change_the_factors(monkeypatch):
    tracks = [(k, gamma_of(w)) for w in (NARROW, WIDE) for k in (300, 600, 1000)]
    whole = coefficients(tracks, 1000, gamma_of(0.07))
    monkeypatch.setattr(averaging, "_CHUNK", 77)
    torch.testing.assert_close(
        coefficients(tracks, 1000, gamma_of(0.07)), whole, rtol=1e-7, atol=1e-9
    )


def test_a_run_keeps_snapshots_and_writes_a_model_of_any_width(tmp_path):
    run = tmp_path / "run"
    finish(prepare(tiny(24, POWER), run))
    out = averaging.write_averaged(run, 0.15, tmp_path / "made" / "averaged.safetensors")
    model, own = Model.load(out), Model.load(run)
    assert model.about["training"]["ema_width"] == 0.15
    assert model.recipe == own.recipe and model.spec == own.spec
    weights, own_weights = (store.open_model(f)[0] for f in (out, run / "model.safetensors"))
    assert weights.keys() == own_weights.keys()
    same, _ = averaging.recombined(run, 0.10)
    for name, value in same.items():  # the file holds the wide track
        torch.testing.assert_close(value, own_weights[name], rtol=2e-3, atol=2e-5)
    moved = [n for n in weights if not torch.allclose(weights[n], own_weights[n], rtol=1e-2)]
    assert moved, "another width is another model"
    early = averaging.write_averaged(run, 0.1, tmp_path / "early.safetensors", at=0.4)
    assert Model.load(early).about["training"]["iterations"] == 10  # every second one is kept
    _guided_away_from(own, early)


def _guided_away_from(model, early):
    """Autoguidance with the file of an early moment, in the way that a user asks for it."""
    wanted = wishes(model.spec, ["3"], 2, 0)
    pictures = []
    for weight in (None, 1.0, 3.0):
        part = {"kind": "autoguidance", "model": str(early), "weight": weight}
        guidance = [part] if weight else []
        steps = {"kind": "heun", "steps": 4}
        recipe = checked({**model.recipe.plain(), "guidance": guidance, "sampler": steps})
        pictures.append(drawn(model.denoiser, recipe, model.spec, wanted))
    assert torch.equal(pictures[0], pictures[1]), "weight 1 is off"
    assert float((pictures[2] - pictures[0]).abs().max()) > 1e-3


def test_snapshots_of_iterations_that_are_trained_again_go(tmp_path):
    run = tmp_path / "run"
    steps = train(prepare(tiny(40, POWER, "training.checkpoint_seconds=1000"), run))
    next(s for s in steps if s.i == 8)
    steps.close()  # a checkpoint at 8
    averaging.keep(run, 12, 12, {WIDE: nn.Linear(2, 2)})  # what a kill after 12 leaves behind
    steps = train(prepare(tiny(40, POWER), run))
    next(steps)
    names = {int(p.name[:8]) for p in (run / "snapshots").iterdir()}
    steps.close()
    assert 12 not in names and 8 in names


def test_what_cannot_be_recombined_is_refused(walked, tmp_path):
    run, _ = walked
    for width in (0.01, 0.3, float("nan")):
        with pytest.raises(UserError) as caught:
            averaging.recombined(run, width)
        assert caught.value.code == "E-LIMIT"
    for at in (0.0, -0.5, 1.1, float("nan")):
        with pytest.raises(UserError) as caught:
            averaging.recombined(run, 0.1, at=at)
        assert caught.value.code == "E-LIMIT"
    with pytest.raises(UserError, match="ema_kind=power"):
        averaging.recombined(tmp_path, 0.1)
