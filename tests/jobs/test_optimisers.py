"""The optimisers: what Muon moves, that it moves it by an orthogonal factor, and exact resume."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steerable.conditions.tokens import Tokens
from steerable.core.types import Batch
from steerable.jobs import checkpoint
from steerable.jobs.optimisers import Optimiser, as_matrix, newton_schulz_share, paying
from steerable.jobs.prepare import prepare
from steerable.jobs.state import fresh
from steerable.jobs.train import train
from steerable.recipes.store import open_model
from steerable.recipes.training import Training

from ..mutants import altered
from .tiny import finish, tiny

MUON = ["training.optimiser=muon", "training.batch=64"]


@pytest.mark.parametrize(
    ("rows", "kernel", "places", "published"),
    [(64, 576, 256, 0.007), (128, 1152, 64, 0.05), (256, 2304, 16, 0.42)],
)
def test_the_share_of_newton_schulz_is_the_published_estimate(rows, kernel, places, published):
    """16x16 maps with 64 channels, 8x8 with 128, 4x4 with 256; 3x3 kernels, batch 128."""
    assert newton_schulz_share(rows, kernel, places, 128) == pytest.approx(published, rel=0.12)
    assert newton_schulz_share(kernel, rows, places, 128) == newton_schulz_share(
        rows, kernel, places, 128
    )


def _chosen(tmp_path, *more):
    job = prepare(tiny(4, *MUON, *more), tmp_path / "run")
    batch = job.splits.train.batch(torch.arange(2))
    return job, paying(job.denoiser, batch, job.recipe.training.batch)


def test_muon_moves_hidden_kernels_and_nothing_else(tmp_path):
    job, chosen = _chosen(tmp_path)
    assert "backbone.down.0.0.first.weight" in chosen and "backbone.up.1.0.second.weight" in chosen
    barred = ("enter", "leave", "level", "norm", "bias", "film", "conditions", "null", "table")
    assert not [name for name in chosen if any(word in name for word in barred)]
    parameters = dict(job.denoiser.named_parameters())
    assert all(parameters[name] is p and p.ndim >= 2 for name, p in chosen.items())
    groups = fresh(job).optimiser.param_groups
    assert sum(len(g["params"]) for g in groups) == len(parameters)
    assert len(groups[-1]["params"]) == len(chosen)


def test_a_layer_whose_update_would_cost_too_much_stays_with_adamw(tmp_path):
    """Eight channels on an 8x8 map and sixteen on a 4x4 map: the shares differ eightfold."""
    job, _ = _chosen(tmp_path)
    batch = job.splits.train.batch(torch.arange(2))
    wide, deep = "backbone.down.0.0.first.weight", "backbone.down.1.0.first.weight"
    places = {wide: 64, deep: 16}
    net = job.denoiser
    parameters = dict(net.named_parameters())
    for size in (1, 2, 4, 8, 16, 64):
        chosen = paying(net, batch, size)
        for name, count in places.items():
            rows, columns = as_matrix(parameters[name], like=parameters[name]).shape
            assert (name in chosen) == (newton_schulz_share(rows, columns, count, size) < 0.1)
    assert wide in paying(net, batch, 8) and deep not in paying(net, batch, 8)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_as_a_matrix_is_the_same_memory(layout):
    kernel = torch.randn(6, 4, 3, 3).to(memory_format=layout)
    flat = as_matrix(kernel, like=kernel)
    assert flat.shape == (6, 36) and flat.data_ptr() == kernel.data_ptr()
    other = torch.randn(6, 4, 3, 3)  # a gradient in whatever layout
    flat.copy_(as_matrix(other, like=kernel))
    assert torch.equal(kernel, other)


class _Net(nn.Module):
    """One layer in front, one to look at, one behind."""

    def __init__(self, layout):
        super().__init__()
        self.backbone = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)))
        self.backbone.to(memory_format=layout)

    def forward(self, x, t, cond):
        return self.backbone(x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_muon_step_is_the_orthogonal_factor_of_the_gradient(layout):
    """The update of the first step against the SVD; Newton-Schulz leaves singular values near 1."""
    torch.manual_seed(0)
    net = _Net(layout)
    training = Training(optimiser="muon", batch=64, lr=0.01, weight_decay=0.0)
    optimiser = Optimiser(net, training, Batch(torch.randn(1, 16, 16, 16)))
    assert list(optimiser.flat) == ["backbone.1.weight"]
    weight = net.backbone[1].weight
    before = weight.detach().clone()
    net(torch.randn(4, 16, 16, 16).to(memory_format=layout), None, {}).square().sum().backward()
    gradient = as_matrix(weight.grad, like=weight).double()
    optimiser.step()
    moved = as_matrix(before - weight.detach(), like=weight).double()
    moved /= 0.01 * 0.2 * 144**0.5  # lr x 0.2 sqrt(longer side), arXiv 2502.16982
    u, values, vh = torch.linalg.svd(gradient, full_matrices=False)
    pressed = values / values.norm()
    for _ in range(5):  # the quintic of Newton-Schulz acts on each singular value by itself
        pressed = 3.4445 * pressed - 4.7750 * pressed**3 + 2.0315 * pressed**5
    exact = u @ (pressed[:, None] * vh)
    assert float((moved - exact).norm() / exact.norm()) < 0.02, "half precision has 8 bits"
    assert float(values.max() / values.min()) > 3.0
    assert float(torch.linalg.svdvals(moved).min()) > 0.65, "near 1, as the polynomial leaves them"
    assert float(torch.linalg.svdvals(moved).max()) < 1.25


@pytest.mark.slow
def test_interrupted_and_resumed_with_muon_equals_unbroken(tmp_path):
    recipe = tiny(14, *MUON, "training.schedule=cosine", "training.uncertainty=true")
    recipe = recipe.with_set(["training.augment=0.5", "training.ema_kind=power"])
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    finish(prepare(recipe, whole))
    for stop in (3, 9):
        steps = train(prepare(recipe, parted))
        next(step for step in steps if step.i == stop)
        steps.close()
    finish(prepare(recipe, parted))
    ends = [checkpoint.newest(run)[0] for run in (whole, parted)]
    assert set(ends[0].parts) == {"model", "ema", "optimiser", "narrow", "uncertainty"}
    assert any("momentum_buffer" in name for name in ends[0].parts["optimiser"])
    assert any(name.startswith("uncertainty.") for name in ends[0].parts["optimiser"])
    for part, tensors in ends[0].parts.items():
        assert tensors.keys() == ends[1].parts[part].keys()
        assert all(torch.equal(v, ends[1].parts[part][k]) for k, v in tensors.items()), part
    assert (whole / "metrics.jsonl").read_bytes() == (parted / "metrics.jsonl").read_bytes()
    names = sorted(p.name for p in (whole / "snapshots").iterdir())
    assert names == sorted(p.name for p in (parted / "snapshots").iterdir())
    for name in names:
        same = (whole / "snapshots" / name).read_bytes() == (
            parted / "snapshots" / name
        ).read_bytes()
        assert same, name
    assert open_model(whole / "model.safetensors")[0].keys() == ends[0].parts["ema"].keys()


def test_what_a_condition_owns_is_not_decayed():
    from steerable.jobs import optimisers

    decayed, rest = optimisers._groups(Tokens(8, 3), 0.1)
    assert decayed["params"] == [] and len(rest["params"]) == 3


def test_mutant_weight_decay_on_norms_is_seen(tmp_path, monkeypatch):
    from steerable.jobs import optimisers

    def spared():
        run = tmp_path / "run"
        decayed = fresh(prepare(tiny(2), run)).optimiser.param_groups[0]["params"]
        return all(p.ndim >= 2 for p in decayed)

    assert spared()
    copy = altered("jobs.optimisers", "p.ndim >= 2", "p.ndim >= 1")
    monkeypatch.setattr(optimisers, "_groups", copy._groups)
    assert not spared()


@pytest.mark.parametrize(
    "line",
    [
        'fit(state.ema.module, found.parts["ema"], where)',
        'state.optimiser.load(found.parts["optimiser"])',
        'track.n_averaged.fill_(int(plain["averaged"]))',
    ],
)
def test_mutant_resume_without_a_part_of_the_state_is_seen(tmp_path, monkeypatch, line):
    from steerable.jobs import train as training

    whole, parted = tmp_path / "whole", tmp_path / "parted"
    finish(prepare(tiny(8), whole))
    steps = train(prepare(tiny(8), parted))
    next(step for step in steps if step.i == 4)
    steps.close()
    monkeypatch.setattr(training, "restore", altered("jobs.state", line, "pass").restore)
    finish(prepare(tiny(8), parted))
    ends = [open_model(run / "model.safetensors")[0] for run in (whole, parted)]
    assert any(not torch.equal(v, ends[1][k]) for k, v in ends[0].items())


def test_muon_learns(tmp_path):
    """Below the best constant answer within 40 iterations, as AdamW does."""
    steps = finish(prepare(tiny(40, *MUON), tmp_path / "run"))
    assert sum(s.loss for s in steps[-5:]) < 0.8 * sum(s.loss for s in steps[:5])
