"""Processes: schedules, laws of t, weights, targets, every option against its formula in numpy."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import special

F64 = torch.float64
T = np.linspace(0.0, 1.0, 41)
TARGETS = ("x0", "noise", "v", "flow", "edm")
WEIGHTS = ("unit", "edm", "min_snr", "p2")


def vp(low, high, eps):
    t = eps + (1 - eps) * T
    total = low * t + 0.5 * (high - low) * t**2
    return np.exp(-total / 2), np.sqrt(-np.expm1(-total))


def power(base, eps):
    t = eps + (1 - eps) * T
    return np.ones_like(t), np.sqrt((base ** (2 * t) - 1) / (2 * np.log(base)))


def geometric(low, high):
    return np.ones_like(T), low ** (1 - T) * high**T


def edm(low, high, rho):
    roots = low ** (1 / rho), high ** (1 / rho)
    return np.ones_like(T), (roots[0] + T * (roots[1] - roots[0])) ** rho


def line(eps):
    u = eps + (1 - 2 * eps) * T
    return 1 - u, u


def schedules(kit):
    """Every continuous schedule, with other numbers than its own, and what it must answer."""
    module = kit("core.schedule")
    return [
        (module.VP(), vp(0.1, 20.0, 1e-5)),
        (module.VP(0.3, 12.0, 1e-3), vp(0.3, 12.0, 1e-3)),
        (module.VePower(), power(25.0, 1e-5)),
        (module.VePower(10.0, 1e-3), power(10.0, 1e-3)),
        (module.VeGeometric(), geometric(0.01, 50.0)),
        (module.VeGeometric(0.02, 30.0), geometric(0.02, 30.0)),
        (module.Edm(), edm(0.002, 80.0, 7.0)),
        (module.Edm(0.01, 40.0, 5.0), edm(0.01, 40.0, 5.0)),
        (module.Flow(), line(1e-4)),
        (module.Flow(1e-2), line(1e-2)),
    ]


def check_schedules(kit) -> None:
    """alpha, sigma and the level of every schedule, in the dtype of t, and single times too."""
    for schedule, (alpha, sigma) in schedules(kit):
        t = torch.tensor(T)
        got = schedule(t)
        for value, want in zip(got, (alpha, sigma), strict=True):
            assert np.allclose(value.numpy(), want, rtol=1e-9, atol=0), f"{schedule}"
        assert np.allclose(schedule.level(t).numpy(), np.log(sigma / alpha), rtol=0, atol=1e-9)
        one = schedule(torch.tensor(T[7], dtype=torch.float32))
        assert all(v.shape == () and v.dtype == torch.float32 for v in one)


def check_time_at(kit) -> None:
    """`time_at` undoes `level` to 1e-12, in float64 whatever comes, and stops at both ends."""
    module = kit("core.schedule")
    tables = [
        module.Tabulated(kind, n) for kind in ("linear", "cosine", "sigmoid") for n in (7, 99)
    ]
    for schedule in [s for s, _ in schedules(kit)] + tables:
        t = torch.tensor(T)
        back = schedule.time_at(schedule.level(t))
        assert back.dtype == F64 and back.shape == t.shape
        assert float((back - t).abs().max()) < 1e-10, f"{schedule}"
        low, high = (float(schedule.level(torch.tensor(e, dtype=F64))) for e in (0.0, 1.0))
        outside = torch.tensor([low - 5.0, low, high, high + 5.0])
        assert schedule.time_at(outside.double()).tolist()[::3] == [0.0, 1.0]
        assert schedule.time_at(outside).dtype == F64, "float32 levels have times in float64"
        middle = schedule.time_at(torch.tensor([[0.5 * (low + high)]], dtype=F64))
        assert middle.shape == (1, 1)
        assert abs(float(schedule.level(middle)) - 0.5 * (low + high)) < 1e-9


def abar(kind, u):
    """Signal power of the discrete schedules at the share u of the levels."""
    if kind == "cosine":
        top = np.cos(0.008 / 1.008 * math.pi / 2) ** 2
        return np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 / top
    low, high = special.expit([-3.0, 3.0])
    return (high - special.expit(6 * u - 3)) / (high - low)


def check_tables(kit) -> None:
    """Every curve at its levels; between two of them log(sigma / alpha) is linear."""
    for kind in ("linear", "cosine", "sigmoid"):
        for levels in (10, 100, 1000):
            schedule = kit("core.schedule").Tabulated(kind, levels)
            i = np.arange(1, levels + 1)
            if kind == "linear":
                every = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
                want = every[1000 // levels - 1 :: 1000 // levels]
            else:
                want = abar(kind, i / levels)
                want[-1] = max(want[-1], 1e-3 * want[-2])
            alpha, sigma = (v.numpy() for v in schedule(torch.tensor(i / levels)))
            assert np.allclose(alpha**2, want, rtol=1e-9, atol=1e-15), f"{kind} {levels}"
            assert np.allclose(alpha**2 + sigma**2, 1.0, atol=1e-12)
            level = np.log(sigma / alpha)
            ends = schedule.level(torch.tensor([0.0, 0.5 / levels, 2.25 / levels], dtype=F64))
            between = 0.75 * level[1] + 0.25 * level[2]
            lowest = [level[0] - math.log(10), level[0] - math.log(10) / 2, between]
            assert np.allclose(ends.numpy(), lowest, rtol=0, atol=1e-9), f"{kind} {levels}"


def check_laws(kit) -> None:
    """Every law from the uniform numbers that it draws, one an item or one a share of the law."""
    module, n = kit("core.process"), 500
    noises = kit("core.noise").Noise
    schedule = kit("core.schedule").VeGeometric(1e-4, 1e4)
    for stratified in (True, False):
        one = noises(torch.arange(n) + 3).uniform(n)
        u = (torch.arange(n) + one) / n if stratified else one
        wants = {
            ("uniform", ()): u.numpy(),
            ("levels", (("levels", 7),)): np.ceil(u.numpy() * 7) / 7,
            ("levels", ()): np.ceil(u.numpy() * 1000) / 1000,
        }
        for mean, std in ((0.0, 1.0), (-1.3, 0.4), (0.7, 2.0)):
            level = mean + std * special.ndtri(u.numpy())
            wants["logit_normal", (("mean", mean), ("std", std))] = (level / math.log(1e4) + 1) / 2
        for (kind, options), want in wants.items():
            law = module.Law(kind, stratified=stratified, **dict(options))
            got = law.draw(n, noises(torch.arange(n) + 3), schedule)
            assert got.dtype == F64
            off = float(np.abs(got.numpy() - want).max())
            assert off < 1e-10, f"{kind} {options} stratified={stratified}: off by {off:.1e}"
    assert module.Law() == module.Law("uniform", 0.0, 1.0, 1000, True)


def check_weights(kit) -> None:
    """Every weight in the signal-to-noise ratio, for every target and std of the data."""
    module = kit("core.process")
    g = np.random.default_rng(0)
    alpha, sigma = g.uniform(0.05, 1.0, 60), np.exp(g.uniform(-4, 4, 60))
    snr = (alpha / sigma) ** 2
    for d in (0.3, 0.5, 1.7):
        c_out = {
            "x0": np.ones(60),
            "noise": sigma / alpha,
            "v": sigma / np.hypot(alpha, sigma),
            "flow": sigma / (alpha + sigma),
            "edm": sigma * d / np.sqrt(sigma**2 + alpha**2 * d**2),
        }
        for kind in TARGETS:
            target = kit("core.target").Target(kind, d)
            wants = {
                ("unit", 5.0): 1 / c_out[kind] ** 2,
                ("edm", 5.0): snr + 1 / d**2,
                ("min_snr", 5.0): np.minimum(snr, 5.0),
                ("min_snr", 0.5): np.minimum(snr, 0.5),
                ("p2", 5.0): snr / (1 + snr),
            }
            for (name, gamma), want in wants.items():
                weight = module.Weight(name, gamma)
                got = weight(torch.tensor(alpha), torch.tensor(sigma), target)
                assert np.allclose(got.numpy(), want, rtol=1e-10), f"{name} {kind} {d}"


def check_loss(kit) -> None:
    """The loss of a process is its weight times the mean square, drawn as t first and then z."""
    module, n = kit("core.process"), 6
    schedule = kit("core.schedule").VP()
    g = torch.Generator().manual_seed(3)
    x0 = torch.randn(n, 2, 3, generator=g, dtype=F64)
    for kind in WEIGHTS:
        target = kit("core.target").Target("v", 0.6)
        process = module.Process(schedule, target, module.Law(), module.Weight(kind))
        asked = []

        def denoise(x_t, t, cond, asked=asked):
            asked.append((x_t, t, cond))
            return kit("core.types").Estimate(0.25 * x_t, x_t, *schedule(t))

        batch = kit("core.types").Batch(x0, {"label": torch.arange(n)})
        noise = kit("core.noise").Noise(torch.arange(n) + 9)
        got = process.loss(denoise, batch, noise)
        again = kit("core.noise").Noise(torch.arange(n) + 9)
        t = (torch.arange(n) + again.uniform(n)) / n
        z = again.normal(x0)
        alpha, sigma = (v[:, None, None] for v in schedule(t))
        x_t = alpha * x0 + sigma * z
        weight = process.weight(*schedule(t), target)
        want = weight * (0.25 * x_t - x0).square().mean((1, 2))
        assert torch.allclose(asked[0][0], x_t, atol=1e-12), "noised by t and z"
        assert torch.equal(asked[0][1], t) and asked[0][2] is batch.cond
        assert got.shape == (n,) and torch.allclose(got, want, rtol=1e-12), kind


def check_start(kit) -> None:
    """The start has the std of noised data, for any std of the data, time and schedule."""
    like = torch.zeros(4, 3, dtype=F64)
    for schedule in (kit("core.schedule").VP(), kit("core.schedule").Flow()):
        for d in (0.3, 1.0, 2.5):
            process = kit("core.process").Process(schedule, kit("core.target").Target("v", d))
            for time in (0.0, 0.2, 0.7, 1.0):
                t = torch.tensor(time, dtype=F64)
                alpha, sigma = schedule(t)
                z = kit("core.noise").Noise(torch.arange(4)).normal(like)
                got = process.start(t, kit("core.noise").Noise(torch.arange(4)), like)
                want = z * math.sqrt(float(sigma) ** 2 + (float(alpha) * d) ** 2)
                assert torch.allclose(got, want, rtol=1e-12), f"{schedule} {d} {time}"


OTHERS = ("target", "weight", "stratified")  # options that every process has


def check_processes(kit) -> None:
    """Every option of every process, for data of several stds, is the process it says."""
    p, s = kit("core.process"), kit("core.schedule")

    def want(schedule, law, target, weight, d):
        return p.Process(schedule, kit("core.target").Target(target, d), law, p.Weight(weight))

    for d in (0.5, 0.3, 1.4):
        shift = math.log(d)
        base = {
            "ddpm": (s.Tabulated("linear", 1000), p.Law("levels", levels=1000), "noise", "unit"),
            "edm": (
                s.Edm(0.002 * d / 0.5, 80.0 * d / 0.5),
                p.Law("logit_normal", -1.2 + math.log(d / 0.5), 1.2),
                "edm",
                "edm",
            ),
            "flow": (s.Flow(), p.Law("logit_normal", shift, 1.2), "flow", "unit"),
            "score": (s.VePower(25.0), p.Law("uniform", shift - 0.5, 1.5), "noise", "unit"),
        }
        changed = {
            "ddpm": [
                ({"schedule": "cosine"}, {0: s.Tabulated("cosine", 1000)}),
                ({"schedule": "sigmoid"}, {0: s.Tabulated("sigmoid", 1000)}),
                ({"levels": 40}, {0: s.Tabulated("linear", 40), 1: p.Law("levels", levels=40)}),
            ],
            "edm": [
                ({"sigma_min": 0.01}, {0: s.Edm(0.01 * d / 0.5, 80.0 * d / 0.5)}),
                ({"sigma_max": 20.0}, {0: s.Edm(0.002 * d / 0.5, 20.0 * d / 0.5)}),
                ({"mean": 0.4}, {1: p.Law("logit_normal", 0.4 + math.log(d / 0.5), 1.2)}),
                ({"std": 0.7}, {1: p.Law("logit_normal", -1.2 + math.log(d / 0.5), 0.7)}),
            ],
            "flow": [
                ({"law": "uniform"}, {1: p.Law("uniform", shift, 1.2)}),
                ({"mean": 0.4}, {1: p.Law("logit_normal", 0.4 + shift, 1.2)}),
                ({"std": 0.7}, {1: p.Law("logit_normal", shift, 0.7)}),
            ],
            "score": [
                ({"sde": "ve"}, {0: s.VeGeometric(sigma_max=25.0)}),
                ({"sde": "vp"}, {0: s.VP()}),
                ({"sigma_max": 40.0}, {0: s.VePower(40.0)}),
                ({"sde": "ve", "sigma_max": 40.0}, {0: s.VeGeometric(sigma_max=40.0)}),
                ({"law": "logit_normal"}, {1: p.Law("logit_normal", shift - 0.5, 1.5)}),
            ],
        }
        for kind, parts in base.items():
            make = kit.part(f"processes.{kind}")
            cases = [({}, {}), *changed[kind]]
            cases += [({"target": target}, {2: target}) for target in TARGETS]
            cases += [({"weight": weight}, {3: weight}) for weight in WEIGHTS]
            for options, new in cases:
                schedule, law, target, weight = (new.get(i, v) for i, v in enumerate(parts))
                for stratified in (True, False):
                    own = p.Law(law.kind, law.mean, law.std, law.levels, stratified)
                    got = make(d, stratified=stratified, **options)
                    assert _alike(got, want(schedule, own, target, weight, d)), f"{kind} {options}"


def _alike(a, b):
    """Equal but for the rounding of their numbers."""
    pairs = zip(_leaves(a), _leaves(b), strict=True)
    return all(x == y or (isinstance(x, float) and math.isclose(x, y)) for x, y in pairs)


def _leaves(value):
    if hasattr(value, "__dataclass_fields__"):
        yield type(value).__name__
        for name in value.__dataclass_fields__:
            yield from _leaves(getattr(value, name))
    else:
        yield value


def check_data_std(kit) -> None:
    """A recipe gives the std of the data to the process of the network that it builds."""
    Recipe, assembly = kit("recipes.recipe"), kit("recipes.assembly")  # noqa: N806
    spec = kit("core.types").Spec("some", (1, 8, 8), {"label": ("a", "b")}, std=0.31)
    for kind in ("ddpm", "edm", "flow", "score"):
        for classifies in ("", "label"):
            backbone = "half_unet" if classifies else "unet"
            tree = {"data": {"kind": "digits"}, "process": kind, "backbone": backbone}
            recipe = Recipe.checked({**tree, "classifies": classifies})
            net = assembly.network(recipe, spec)
            assert _alike(net.process, kit.part(f"processes.{kind}")(0.31)), kind


MASK = (1 << 64) - 1


def mixed(word):
    """SplitMix64's finaliser in whole numbers."""
    word &= MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


GAMMA = 0x9E3779B97F4A7C15


def words(seed, draw, count):
    key = mixed(mixed(seed + GAMMA) + mixed((2 * draw + 1) * GAMMA))
    return [mixed(key + (i + 1) * GAMMA) for i in range(count)]


def check_noise(kit) -> None:
    """Every draw from (seed, draw, place) alone, in whole numbers of Python."""
    noises = kit("core.noise").Noise
    seeds = [0, 5, 77, 2**40]
    noise = noises(torch.tensor(seeds))
    got = noise.uniform(4).tolist()
    assert got == [((words(s, 1, 1)[0] >> 12) + 0.5) * 2.0**-52 for s in seeds]
    z = noise.normal(torch.zeros(4, 3, dtype=F64))
    for row, seed in zip(z.tolist(), seeds, strict=True):
        pairs = []
        for word in words(seed, 2, 2):
            radius = math.sqrt(-2 * math.log(((word >> 32) + 1.0) * 2.0**-32))
            angle = 2 * math.pi * (word & 0xFFFFFFFF) * 2.0**-32
            pairs += [radius * math.cos(angle), radius * math.sin(angle)]
        assert np.allclose(row, pairs[:3], rtol=0, atol=1e-12)
    u = [((words(s, 3, 1)[0] >> 12) + 0.5) * 2.0**-52 for s in seeds]
    assert noise.integers(4, 10).tolist() == [int(10 * v) for v in u]
    placed = noises(torch.tensor(seeds), place=torch.tensor([4, 0, 9, 2]), total=20)
    one = [((words(s, 1, 1)[0] >> 12) + 0.5) * 2.0**-52 for s in seeds]
    want = [(p + v) / 20 for p, v in zip([4, 0, 9, 2], one, strict=True)]
    assert np.allclose(placed.stratified(4).tolist(), want, rtol=0, atol=1e-15)
    key = mixed(mixed(7 + GAMMA) ^ ((3 * GAMMA) & MASK))
    own = [mixed(key + i * GAMMA) for i in (0, 4)]
    of = noises.of(7, iteration=3, items=torch.tensor([0, 4])).uniform(2).tolist()
    assert of == [((words(s, 1, 1)[0] >> 12) + 0.5) * 2.0**-52 for s in own]


CHECKS = (
    check_schedules,
    check_time_at,
    check_tables,
    check_laws,
    check_weights,
    check_loss,
    check_start,
    check_processes,
    check_data_std,
    check_noise,
)

SCHEDULE, PROCESS, NOISE = "core.schedule", "core.process", "core.noise"


def _common(kind):
    """Mistakes of the options that every process has."""
    module = f"processes.{kind}"
    return {
        ("process", kind, "target"): [
            (check_processes, module, "Target(target, data_std)", 'Target("v", data_std)'),
            (check_processes, module, "Target(target, data_std)", "Target(target, 1.0)"),
        ],
        ("process", kind, "weight"): [
            (check_processes, module, "Weight(weight)", "Weight()"),
        ],
        ("process", kind, "stratified"): [
            (check_processes, module, "stratified=stratified", "stratified=True"),
        ],
    }


MUTANTS = {
    **_common("ddpm"),
    **_common("edm"),
    **_common("flow"),
    **_common("score"),
    ("process", "ddpm", "schedule"): [
        (check_processes, "processes.ddpm", "Tabulated(schedule,", 'Tabulated("linear",'),
        (check_tables, SCHEDULE, "(high - low)\n    if kind", "(high + low)\n    if kind"),
        (check_tables, SCHEDULE, "-3.0, 3.0], dtype", "-4.0, 4.0], dtype"),
        (check_tables, SCHEDULE, "abar[-2] * 1e-3", "abar[-2] * 1e-2"),
        (check_tables, SCHEDULE, "ratios[:1] - math.log(10.0)", "ratios[:1] - math.log(2.0)"),
    ],
    ("process", "ddpm", "levels"): [
        (check_processes, "processes.ddpm", "Tabulated(schedule, levels)", "Tabulated(schedule)"),
        (check_processes, "processes.ddpm", 'Law("levels", levels=levels,', 'Law("levels",'),
        (check_tables, SCHEDULE, "torch.lerp(table[index], table[index + 1], place - index)",
         "table[index]"),
        (check_laws, PROCESS, "torch.floor(u * self.levels) + 1.0", "torch.floor(u * self.levels)"),
        (check_laws, PROCESS, "(torch.floor(u * self.levels) + 1.0) / self.levels",
         "(torch.floor(u * 1000) + 1.0) / 1000"),
    ],
    ("process", "edm", "sigma_min"): [
        (check_processes, "processes.edm", "Edm(sigma_min * scale,", "Edm(sigma_min,"),
        (check_processes, "processes.edm", "Edm(sigma_min * scale,", "Edm(0.002 * scale,"),
        (check_processes, "processes.edm", "scale = data_std / 0.5", "scale = data_std"),
    ],
    ("process", "edm", "sigma_max"): [
        (check_processes, "processes.edm", "sigma_max * scale)", "sigma_max)"),
        (check_schedules, SCHEDULE, "self.sigma_max ** (1.0 / self.rho)", "80.0 ** (1 / self.rho)"),
        (check_schedules, SCHEDULE, "(low + t * (high - low)) ** self.rho",
         "(low + t * (high - low)) ** 7.0"),
    ],
    ("process", "edm", "mean"): [
        (check_processes, "processes.edm", "mean=mean + math.log(scale)", "mean=mean"),
        (check_laws, PROCESS, "self.mean + self.std", "self.std"),
    ],
    ("process", "edm", "std"): [
        (check_processes, "processes.edm", "std=std,", ""),
        (check_laws, PROCESS, "self.std * torch.special", "torch.special"),
    ],
    ("process", "flow", "law"): [
        (check_processes, "processes.flow", "Law(law, mean", 'Law("logit_normal", mean'),
        (check_laws, PROCESS, 'if self.kind == "logit_normal":', "if True:"),
    ],
    ("process", "flow", "mean"): [
        (check_processes, "processes.flow", "mean=mean + math.log(data_std)", "mean=mean"),
        (check_processes, "processes.flow", "mean=mean + math", "mean=math"),
    ],
    ("process", "flow", "std"): [
        (check_processes, "processes.flow", "std=std, stratified", "std=1.2, stratified"),
    ],
    ("process", "score", "sde"): [
        (check_processes, "processes.score", '"vp": VP()', '"vp": VePower(sigma_max)'),
        (check_schedules, SCHEDULE, "0.5 * t * (self.beta_max - self.beta_min)",
         "0.5 * t * self.beta_max"),
    ],
    ("process", "score", "sigma_max"): [
        (check_processes, "processes.score", "VeGeometric(sigma_max=sigma_max)", "VeGeometric()"),
        (check_processes, "processes.score", '"ve_power": VePower(sigma_max)',
         '"ve_power": VePower()'),
        (check_schedules, SCHEDULE, "math.log(self.base)", "math.log(25.0)"),
    ],
    ("process", "score", "law"): [
        (check_processes, "processes.score", "math.log(data_std) - 0.5", "-0.5"),
        (check_processes, "processes.score", "Law(law,", 'Law("uniform",'),
    ],
    ("process", "", "time_at"): [
        (check_time_at, SCHEDULE, "range(44)", "range(24)"),
        (check_time_at, SCHEDULE, ".where(level < ends[1], 1.0)", ""),
        (check_time_at, SCHEDULE, ".where(level > ends[0], 0.0)", ""),
        (check_time_at, SCHEDULE, "level = level.to(torch.float64)", "level = level"),
    ],
    ("process", "", "weight"): [
        (check_weights, PROCESS, "ratio * target.data_std) ** 2", "ratio * 0.5) ** 2"),
        (check_weights, PROCESS, "ratio**2 + target.data_std**2", "ratio**2 + 1.0"),
        (check_weights, PROCESS, "max=self.gamma", "max=5.0"),
        (check_weights, PROCESS, "1.0 / (1.0 + ratio**2)", "1.0 / (1.0 + ratio)"),
        (check_weights, PROCESS, "1.0 / ratio**2, max", "1.0 / ratio, max"),
    ],
    ("process", "", "law"): [
        (check_laws, PROCESS, "noise.stratified(n) if self.stratified else", ""),
        (check_laws, PROCESS, "noise.stratified(n) if self.stratified else noise.uniform(n)",
         "noise.stratified(n)"),
    ],
    ("process", "", "loss"): [
        (check_loss, PROCESS, "return weight * (estimate", "return (estimate"),
        (check_loss, PROCESS, ".flatten(1).mean(1)", ".flatten(1).sum(1)"),
        (check_loss, PROCESS, "denoiser(self.noised(batch.x, t, z), t,",
         "denoiser(self.noised(batch.x, t, z), t.mean().expand(len(t)),"),
        (check_start, PROCESS, "float(alpha) * self.target.data_std", "float(alpha) * 0.5"),
        (check_start, PROCESS, "float(alpha) * self.target.data_std", "self.target.data_std"),
    ],
    ("process", "", "data_std"): [
        (check_data_std, "recipes.assembly",
         "data_std=spec.std", "data_std=0.5"),
    ],
    ("process", "", "noise"): [
        (check_noise, NOISE, "self._draws * 2 + 1", "self._draws"),
        (check_noise, NOISE, "low.sin()", "low.cos()"),
        (check_noise, NOISE, "/ self.total", "/ len(self.seeds)"),
        (check_noise, NOISE, "self.place.to(torch.float64) +", "torch.arange(n) +"),
        (check_noise, NOISE, "* 2.0**-52", "* 2.0**-51"),
        (check_noise, NOISE, "torch.tensor([iteration]) * _GAMMA", "torch.tensor([iteration])"),
        (check_noise, NOISE, "self.uniform(n) * high", "self.uniform(n) * (high - 1)"),
    ],
}  # fmt: skip
