"""What is done with a trained model: in eval mode, from the right noise, with the right density."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
import torch

F64 = torch.float64
SHAPE = (1, 4, 4)


def exact(kit, kind, d, shape=SHAPE):
    """A model whose data is N(0, d^2), a process of that std, and a network that knows it."""
    core = kit("core.denoise")

    class Linear(core.Backbone):
        accepts: ClassVar[frozenset[str]] = frozenset({"vector"})
        width = 1

        def __init__(self, process):
            super().__init__()
            self.process = process
            self.one = torch.nn.Parameter(torch.ones(()))

        @staticmethod
        def sized(shape, base):
            return {}

        def forward(self, x, slots):
            level = slots.level.double()
            t = self.process.schedule.time_at(level)
            alpha, sigma = self.process.schedule(t)
            c_in, c_skip, c_out = self.process.target(alpha, sigma)
            gain = alpha * d**2 / (alpha**2 * d**2 + sigma**2)
            factor = (gain - c_skip) / c_out / c_in
            return (self.one * factor.reshape(-1, *[1] * (x.ndim - 1))).to(x) * x

    process = kit.part(f"processes.{kind}")(d)
    net = core.Denoiser(process, Linear(process), {}).eval()
    spec = kit("core.types").Spec("exact", shape, std=d)
    tree = {"data": {"kind": "digits"}, "process": kind, "backbone": "unet"}
    recipe = kit("recipes.recipe").checked(tree)
    return kit("jobs.model").Model(net, recipe, spec, {"sha256": "0" * 64}, Path("exact"))


PROCESSES = ("ddpm", "edm", "flow", "score")


def check_density(kit) -> None:
    """The exact density of Gaussian data of any std, from any level up, under every process.

    With data that is N(0, d^2) the law at the top is N(0, sigma^2 + alpha^2 d^2) exactly, however
    little noise there is, so the prior must have the variance of the data.
    """
    pytest.importorskip("torchdiffeq")
    density = kit("jobs.density")
    g = torch.Generator().manual_seed(0)

    def found(kind, d, x, **options):
        schedule = kit.part(f"processes.{kind}")(d).schedule

        def ask(x_t, t):
            alpha, sigma = schedule(t)
            gain = alpha * d**2 / (alpha**2 * d**2 + sigma**2)
            return kit("core.types").Estimate(gain * x_t, x_t, alpha, sigma)

        how = density.Integral(**options)
        noise = kit("core.noise").Noise(torch.arange(len(x)))
        return density.log_p(ask, x, schedule=schedule, data_std=d, integral=how, noise=noise)

    for kind in PROCESSES:
        for d in (0.3, 2.2):
            x = d * torch.randn(6, 2, generator=g, dtype=F64)
            options = {"high": 1.2, "low": 0.1, "tolerance": 2e-4}
            if kind in ("edm", "flow"):
                options |= {"trace": "hutchinson", "probes": 3}
            got = found(kind, d, x, **options).log_p
            law = torch.distributions.Normal(0.0, math.hypot(d, 0.1))
            off = float((got - law.log_prob(x).sum(1)).abs().max())
            assert off < 5e-3, f"{kind} {d}: off by {off:.1e} nats"
    calls = [found("score", 1.0, x, high=1.2, low=0.1, tolerance=v).calls for v in (1e-2, 1e-6)]
    assert calls[1] > 2 * calls[0], f"the tolerance is not heard: {calls}"
    how = density.Integral()
    assert (how.high, how.low, how.tolerance) == (160.0, 0.004, 1e-5)
    with pytest.raises(kit("core.errors").UserError, match="hutchinson"):
        found("flow", 1.0, torch.zeros(2, 65), high=1.2, low=0.1)


def check_likelihood(kit) -> None:
    """The bits per dimension of a whole model, from the std of its own data."""
    pytest.importorskip("torchdiffeq")
    job, density = kit("jobs.likelihood"), kit("jobs.density")
    for kind, d in (("flow", 0.3), ("edm", 0.9)):
        model = exact(kit, kind, d)
        g = torch.Generator().manual_seed(4)
        x = (127.5 * (1 + d * torch.randn(7, *SHAPE, generator=g))).round().clamp(0, 255)
        data = kit("core.types").Dataset(model.spec, x.to(torch.uint8), {})
        how = density.Integral(high=1.2, low=0.02, tolerance=1e-4)
        *_, last = job.likelihood(model, data, n=5, integral=how)
        seed = 2_000_000
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))[:5]
        z = kit("core.noise").Noise(seed + torch.arange(5)).normal(x[order].double())
        u = torch.special.ndtr(z)
        dense = ((x[order].double() + u - 0.5) / 127.5 - 1).flatten(1)
        law = torch.distributions.Normal(0.0, math.hypot(d, 0.02))
        nats = law.log_prob(dense).sum(1) + 16 * math.log(2 / 255)
        noise = kit("core.noise").Noise(seed + torch.arange(5))
        spread_out = job.dequantised(x[order].to(torch.uint8), noise).flatten(1)
        assert torch.allclose(spread_out, dense.float(), atol=1e-6), "each in its own bin"
        bits = -nats / (16 * math.log(2))
        assert abs(last.result["bpd"] - float(bits.mean())) < 3e-3, f"{kind} {d}"
        assert abs(last.result["bpd_error"] - float(bits.std()) / 5**0.5) < 3e-3
        assert last.result["n"] == 5 and last.result["dims"] == 16
    how = job.integral_for(model.spec, "hutchinson", probes=3, tolerance=1e-3)
    assert (how.trace, how.probes, how.tolerance) == ("hutchinson", 3, 1e-3)
    assert job.integral_for(model.spec).trace == "exact"
    wide = kit("core.types").Spec("wide", (1, 4, 5))
    assert job.integral_for(wide).trace == "hutchinson"


def trained(kit, folder, dropout=0.6, *, classifies=""):
    """A model file of a network with dropout, which was never trained."""
    network = "half_unet" if classifies else "unet"
    backbone = {"kind": network, "channels": [12, 20], "width": 16, "dropout": dropout}
    tree = {"data": {"kind": "digits"}, "process": "flow", "backbone": backbone}
    tree |= {"classifies": classifies} if classifies else {"conditions": {"label": "label"}}
    tree["sampler"] = {"kind": "ddim", "steps": 4, "grid": "log_snr"}
    recipe = kit("recipes.recipe").checked(tree)
    spec = kit("core.types").Spec("some", (1, 8, 8), {"label": ("a", "b")}, std=0.4)
    torch.manual_seed(0)
    net = kit("recipes.assembly").network(recipe, spec)
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                p.copy_(0.2 * torch.randn(p.shape))
    data = kit("jobs.model").pack_model(net.state_dict(), recipe, spec, {})
    path = Path(folder) / f"{classifies or 'model'}-{dropout}.safetensors"
    path.write_bytes(data)
    return path


def listened(kit, paths):
    """The modes in which dropout layers ran, of all networks built while the list is open."""
    model = kit("jobs.model").Model.load(paths)
    modes = []
    for module in model.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda m, a, out: modes.append(m.training))
    return model, modes


def check_eval_mode(kit) -> None:
    """A loaded model has no layer in training mode, whatever is done with it, and no dropout."""
    jobs, wish = kit("jobs.sample"), kit("jobs.wish").Wish
    encode, between = kit("jobs.encode"), kit("jobs.interpolate")
    likelihood, density = kit("jobs.likelihood"), kit("jobs.density")
    pictures = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for dropout in (0.6, 0.0):
            model, modes = listened(kit, trained(kit, folder, dropout))
            assert not any(m.training for m in model.network.modules())
            wishes = [wish({"label": name}, seed) for seed, name in enumerate("aba")]
            *_, made = jobs.sample(model, model.recipe, wishes)
            how = encode.walking(model.recipe, steps=3, sampler="ddim")
            noise = encode.encoded(model, pictures, recipe=how)
            back = encode.decoded(model, noise, recipe=how)
            strip = between.interpolated(model, *pictures[:2], 3, recipe=how)
            data = kit("core.types").Dataset(model.spec, pictures, {"label": torch.arange(3) % 2})
            integral = density.Integral("hutchinson", high=0.3, low=0.1, tolerance=0.1)
            *_, found = likelihood.likelihood(model, data, n=3, integral=integral)
            results.append([made.sample.x, noise, back, strip, torch.tensor(found.result["bpd"])])
            assert modes and not any(modes), "dropout was at work"
            again = kit("jobs.steering").other(str(model.path), model.denoiser, model.recipe)
            assert not any(m.training for m in again.network.modules())
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b), "a model with dropout answers otherwise"
        model, modes = listened(kit, trained(kit, folder, classifies="label"))
        classified = kit("jobs.classified")
        data = kit("core.types").Dataset(model.spec, pictures, {"label": torch.arange(3) % 2})
        model.network.train()
        classified.by_level(model.network, data, items=3)
        assert modes and not any(modes) and model.network.training, "and back to training"


def check_judge(kit) -> None:
    """What a judge sees of a picture depends on no other picture, and it learns nothing of it."""
    torch.manual_seed(1)
    net = kit("nn.classifier").Classifier(1, 3)
    fitting = kit("jobs.fitting")
    x = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    for _ in range(2):
        net.train()
        state = {n: v.clone() for n, v in net.state_dict().items()}
        features, outputs = fitting.seen(net, x)
        alone = [fitting.seen(net.train(), x[i : i + 1]) for i in range(6)]
        for i, (f, o) in enumerate(alone):
            assert torch.allclose(features[i], f[0], atol=1e-5), "features"
            assert torch.allclose(outputs[i], o[0], atol=1e-5), "outputs"
        assert all(torch.equal(v, state[n]) for n, v in net.state_dict().items())
    assert not any(m.training for m in fitting.frozen(net.train()).modules())
    assert not any(p.requires_grad for p in net.parameters())


def check_times(kit) -> None:
    """Below strength 1 the grid begins at that time, and stands still nowhere."""
    model = exact(kit, "flow", 0.5)
    for strength, grid, want in (
        (1.0, "uniform", [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
        (0.7, "uniform", [0.7, 0.6, 0.4, 0.2, 0.0]),
        (0.6, "uniform", [0.6, 0.4, 0.2, 0.0]),
        (0.3, {"kind": "repaint", "base": "uniform", "jump": 2, "repeats": 2}, [0.3, 0.2, 0.0]),
        (0.5, {"kind": "repaint", "base": "uniform", "jump": 2, "repeats": 2},
         [0.5, 0.4, 0.2, 0.4, 0.2, 0.0]),
    ):  # fmt: skip
        tree = model.recipe.plain()
        tree["sampler"] = {"kind": "ancestral", "steps": 5, "grid": grid, "strength": strength}
        recipe = kit("recipes.recipe").checked(tree)
        got = kit("jobs.steering").times_of(model.denoiser, recipe).tolist()
        assert len(got) == len(want), f"{strength} {grid}: {got}"
        assert torch.allclose(torch.tensor(got), torch.tensor(want), atol=1e-6), f"{grid}: {got}"


def check_start(kit) -> None:
    """Samples begin with the noise of their own seeds at the first time, of the data's std."""
    jobs, wish = kit("jobs.sample"), kit("jobs.wish").Wish
    for kind, d in (("flow", 0.3), ("score", 0.8)):
        model = exact(kit, kind, d)
        net = model.denoiser
        tree = model.recipe.plain()
        tree["sampler"] = {"kind": "ancestral", "steps": 6, "grid": {"kind": "log_snr", "high": 2}}
        recipe = kit("recipes.recipe").checked(tree)
        wishes = [wish({}, seed) for seed in (7, 3, 7)]
        path = [m.x for m, _ in jobs.moments(net, recipe, model.spec, wishes)]
        noise = kit("core.noise").Noise(torch.tensor([7, 3, 7]))
        times = kit.part("grids.log_snr")(net.process.schedule, 6, high=2.0)
        alpha, sigma = net.process.schedule(times[0])
        z = noise.normal(torch.empty(3, *SHAPE))
        x = z * math.sqrt(float(sigma) ** 2 + float(alpha * d) ** 2)
        for i, (t, s) in enumerate(itertools.pairwise(times)):
            (a_t, g_t), (a_s, g_s) = net.process.schedule(t), net.process.schedule(s)
            x0 = float(a_t * d**2 / (a_t**2 * d**2 + g_t**2)) * x
            if i < 5:
                v_t, v_s = (g_t / a_t) ** 2, (g_s / a_s) ** 2
                mean = x0 + float(v_s / v_t) * (x / float(a_t) - x0)
                std = float(torch.sqrt(v_s * (v_t - v_s) / v_t))
                x = float(a_s) * (mean + std * noise.normal(x))
            else:
                x = x0
            assert torch.allclose(path[i], x, atol=2e-5), f"{kind}: step {i}"
        assert torch.equal(path[-1][0], path[-1][2]), "equal seeds, equal samples"


CHECKS = (
    check_density,
    check_likelihood,
    check_eval_mode,
    check_judge,
    check_times,
    check_start,
)

DENSITY, LIKELIHOOD, STEERING = "jobs.density", "jobs.likelihood", "jobs.steering"
MUTANTS = {
    ("likelihood", "", "data_std"): [
        (check_density, DENSITY, "math.exp(2.0 * float(high)) + data_std**2",
         "math.exp(2.0 * float(high))"),
        (check_density, DENSITY, "+ data_std**2", "+ 1.0"),
        (check_density, DENSITY, "+ data_std**2", "+ data_std"),
        (check_likelihood, LIKELIHOOD, "data_std=net.process.target.data_std", "data_std=0.5"),
    ],
    ("likelihood", "", "high"): [
        (check_density, DENSITY, "(schedule, integral.high, integral.low)",
         "(schedule, 160.0, integral.low)", "math.exp(2.0 * float(high))", "integral.high**2"),
        (check_density, DENSITY, "torch.stack([low, high])", "torch.stack([high, low])"),
    ],
    ("likelihood", "", "low"): [
        (check_density, DENSITY, "(schedule, integral.high, integral.low)",
         "(schedule, integral.high, 0.004)"),
    ],
    ("likelihood", "", "tolerance"): [
        (check_density, DENSITY, '"rtol": integral.tolerance, "atol": integral.tolerance',
         '"rtol": 1e-5, "atol": 1e-5'),
    ],
    ("likelihood", "", "trace"): [
        (check_density, DENSITY, "total / many", "total"),
        (check_density, DENSITY, 'if integral.trace == "exact":', 'if integral.trace != "exact":'),
        (check_likelihood, LIKELIHOOD, "Integral(kind, probes=probes,", "Integral(kind, probes=1,"),
        (check_likelihood, LIKELIHOOD, 'trace if trace != "auto" else', '"exact" if False else'),
    ],
    ("likelihood", "", "bits"): [
        (check_likelihood, LIKELIHOOD, "+ dims * math.log(WIDTH)", ""),
        (check_likelihood, LIKELIHOOD, "+ u - 0.5) / 127.5", "+ u) / 127.5"),
    ],
    ("sampling", "", "eval mode"): [
        (check_eval_mode, "jobs.model", "net.to(device).eval()", "net.to(device)"),
        (check_eval_mode, "jobs.model", "net.to(device).eval()", "net.to(device).eval().train()"),
        (check_eval_mode, "jobs.classified", "    net.eval()\n", ""),
        (check_eval_mode, "jobs.classified", "    net.train(was_training)\n", ""),
        (check_judge, "jobs.fitting", "    net.eval()\n    for start", "    for start"),
        (check_judge, "jobs.fitting", "net.eval().requires_grad_(False)",
         "net.requires_grad_(False)"),
    ],
    ("sampling", "", "strength"): [
        (check_times, STEERING, "times[times < first]", "times[times <= first]",
         "return torch.cat([times[:1], times[1:][times.diff() != 0]])", "return times"),
        (check_times, STEERING, "torch.tensor([first], dtype=times.dtype), ", ""),
        (check_times, STEERING, "return torch.cat([times[:1], times[1:][times.diff() != 0]])",
         "return times"),
    ],
    ("sampling", "", "start"): [
        (check_start, "jobs.sample", "[wish.seed for wish in wanted]",
         "[wanted[0].seed for wish in wanted]"),
        (check_start, "jobs.sample", "return net.process.start(t, noise, like)",
         "return noise.normal(like)"),
        (check_start, "jobs.sample", "t=steer.times[0]", "t=steer.times[1]"),
        (check_start, "core.process", "float(alpha) * self.target.data_std", "float(alpha)"),
    ],
}  # fmt: skip
