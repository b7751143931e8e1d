"""Guidance: every option against the formula, in numpy where no gradient is needed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

F64 = torch.float64
SHAPE, D, B = (2, 2), 4, 5


class World:
    """A Gaussian about a mean that the label moves: an exact denoiser with a known Jacobian."""

    def __init__(self, kit, seed=0, width=1.0):
        g = torch.Generator().manual_seed(seed)
        self.kit, self.schedule = kit, kit("core.schedule").VP()
        basis = width * torch.randn(D, D, generator=g, dtype=F64) / 2
        self.covariance = basis @ basis.mT + 0.1 * torch.eye(D, dtype=F64)
        self.means = torch.randn(4, D, generator=g, dtype=F64)  # the last one without a label
        self.asked = []

    def gain(self, t):
        """K of x0 = m + K (x_t - alpha m)."""
        alpha, sigma = self.schedule(t)
        spread = alpha**2 * self.covariance + sigma**2 * torch.eye(D, dtype=F64)
        return alpha * self.covariance @ torch.linalg.inv(spread)

    def mean(self, cond, n):
        label = cond.get("label", torch.full((n,), -1))
        other = cond.get("other", torch.full((n,), -1))
        return self.means[label] + 0.3 * self.means[other].flip(1)

    def __call__(self, x_t, t, cond):
        self.asked.append((len(x_t), dict(cond)))
        alpha, sigma = self.schedule(t)
        if t.ndim:  # items with times of their own, one after the other
            rows = [
                self.x0(x_t[i : i + 1], t[i], **{k: v[i : i + 1] for k, v in cond.items()})
                for i in range(len(x_t))
            ]
            return self.kit("core.types").Estimate(torch.cat(rows), x_t, alpha, sigma)
        mean = self.mean(cond, len(x_t))
        x0 = mean + (x_t.flatten(1) - alpha * mean) @ self.gain(t).mT
        return self.kit("core.types").Estimate(x0.reshape(x_t.shape), x_t, alpha, sigma)

    def x0(self, x_t, t, **cond):
        """The answer alone, apart from the count of calls."""
        answer = self(x_t, t, cond).x0
        self.asked.pop()
        return answer


def scene(kit):
    """The world, noised items, a time, and their labels."""
    x = torch.randn(B, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=F64)
    return World(kit), x, torch.tensor(0.45, dtype=F64), torch.tensor([0, 1, 2, 1, 0])


def near(got, want, what, room=1e-10):
    off = float((got - want).abs().max())
    assert off < room, f"{what}: off by {off:.1e}"


def times():
    return torch.tensor([1.0, 0.8, 0.45, 0.2, 0.0], dtype=F64)


def made(kit, world, kind, **options):
    """A guidance with all that it may ask for."""
    part = kit("recipes.part")
    operator = kit.part("operators.downsample")(factor=2)
    y = torch.linspace(-1, 1, B, dtype=F64).reshape(B, 1, 1)
    plane = y[:, None]
    context = {
        "schedule": world.schedule,
        "times": times(),
        "written": lambda cond: {k: torch.full((B,), int(v)) for k, v in cond.items()},
        "weaker": lambda path: World(kit, seed=len(path)),
        "classifier": lambda path: log_p(world, len(path) or 1),
        "score": lambda x0: -(x0 - 0.3).square().flatten(1).sum(1),
        "operator": Flat(kit, operator),
        "measured": plane,
    }
    return part.build("guidance", part.Part(kind=kind, options=options), **context)


class Flat:
    """An operator on items (B,2,2), by way of pictures of one channel."""

    def __init__(self, kit, inner):
        self.inner = inner

    def __call__(self, x):
        return self.inner(x[:, None])

    def adjoint(self, y):
        return self.inner.adjoint(y)[:, 0]

    def nearest(self, x, y, weight):
        return self.inner.nearest(x[:, None], y, weight)[:, 0]


def log_p(world, sharpness):
    """A number an item that depends on x_t, t and the label, 0 without one."""

    def value(x_t, t, cond):
        label = cond.get("label")
        if label is None:
            return x_t.new_zeros(len(x_t))
        target = world.means[label]
        square = (x_t.flatten(1) - target).square().sum(1)
        return torch.where(label < 0, 0.0, -0.5 / sharpness * square)

    return value


AT_WORK = {
    "apg": {"weight": 3.0},
    "autoguidance": {"model": "abc"},
    "cfg": {"weight": 3.0},
    "cfg_pp": {},
    "cfg_zero": {"weight": 3.0},
    "classifier": {"run": "abc"},
    "compose": {"terms": [{"cond": {"label": 1}, "weight": 1.5}]},
    "diffpir": {"noise": 0.5},
    "dps": {},
    "posterior": {},
    "threshold": {"limit": 0.05},
    "universal": {},
}


def check_intervals(kit) -> None:
    """At work from start down to stop, both of them included; else the very estimate below."""
    assert sorted(AT_WORK) == kit("recipes.part").kinds("guidance"), "a guidance without a check"
    for kind, options in AT_WORK.items():
        world, x, _, label = scene(kit)
        for start, stop in ((0.7, 0.3), (1.0, 0.5), (0.5, 0.0)):
            guided = made(kit, world, kind, start=start, stop=stop, **options)(world)
            for time in (0.95, 0.7, 0.6, 0.5, 0.4, 0.3, 0.1):
                t = torch.tensor(time, dtype=F64)
                got = guided(x, t, {"label": label})
                plain = world.x0(x, t, label=label)
                inside = stop <= time <= start
                moved = float((got.x0 - plain).abs().max()) > 1e-6
                assert moved == inside, f"{kind} {start} {stop} at {time}"
                assert inside or torch.equal(got.x0, plain)
                assert got.x_t is x and float(got.alpha) == float(world.schedule(t)[0])
        always = made(kit, world, kind, **options)(world)
        for time in (1.0, 0.5, 0.01) if kind != "cfg_pp" else (0.5,):
            t = torch.tensor(time, dtype=F64)
            got = always(x, t, {"label": label}).x0
            assert float((got - world.x0(x, t, label=label)).abs().max()) > 1e-6, f"{kind} {time}"


def check_cfg(kit) -> None:
    """Every weight, own weights, rescaling, and the batch up to which one call is made."""
    world, x, t, label = scene(kit)
    other = torch.tensor([2, 2, 0, 1, 1])
    cond = {"label": label, "other": other}
    both = world.x0(x, t, **cond)
    none, only = world.x0(x, t), {k: world.x0(x, t, **{k: v}) for k, v in cond.items()}
    part = kit.part("guidance.cfg")
    for weight in (-2.0, 0.0, 0.5, 1.0, 4.0):
        for rescale in (0.0, 0.7, 1.0):
            cases = {
                (): [(weight, none)],
                (("label", 2.5),): [(2.5, only["other"]), (weight, only["label"])],
                (("label", 2.5), ("other", 1.0)): [(2.5, only["other"])],
                (("label", 1.5), ("other", -1.0)): [(1.5, only["other"]), (-1.0, only["label"])],
            }
            for weights, groups in cases.items():
                want = both + sum((w - 1) * (both - u) for w, u in groups)
                ratio = both.flatten(1).numpy().std(1) / want.flatten(1).numpy().std(1)
                want = want * torch.tensor(1 + rescale * (ratio - 1)).reshape(-1, 1, 1)
                for together in (0, B - 1, B, 100):
                    world.asked.clear()
                    options = {"weights": dict(weights), "together": together}
                    guided = part(weight=weight, rescale=rescale, **options)(world)
                    got = guided(x, t, cond)
                    near(got.x0, want, f"cfg {weight} {rescale} {weights} {together}")
                    active = [w for w, _ in groups if w != 1.0]
                    long = [B * (1 + len(active))] if together >= B and active else []
                    calls = long or [B] * (1 + len(active))
                    assert [n for n, _ in world.asked] == calls, f"together {together}"
                    exponents = [w for w, _ in got.terms]
                    known = [1 + sum(w - 1 for w in active), *(1 - w for w in active)]
                    assert np.allclose(exponents, known if active else [])
    defaults = part()
    assert (defaults.weight, defaults.together, defaults.rescale) == (2.0, 32, 0.0)


def check_apg(kit) -> None:
    """Weight, eta, norm and momentum over three calls, and a new trajectory begins anew."""
    world, x, _, label = scene(kit)
    cases = [{}, {"weight": 5.0}, {"eta": 0.4}, {"eta": 1.0}, {"norm": 0.2}, {"norm": 3.0}]
    cases += [{"momentum": 0.0}, {"momentum": 0.6, "norm": 0.5, "eta": 0.3, "weight": -1.0}]
    for options in cases:
        known = {"weight": 2.0, "eta": 0.0, "norm": 0.0, "momentum": -0.5} | options
        guidance = kit.part("guidance.apg")(**options)
        for _ in range(2):  # of two trajectories
            guided, last = guidance(world), np.zeros((B, D))
            for time in (0.9, 0.5, 0.2):
                t = torch.tensor(time, dtype=F64)
                c = world.x0(x, t, label=label).flatten(1).numpy()
                u = world.x0(x, t).flatten(1).numpy()
                d = last = c - u + known["momentum"] * last
                size = np.linalg.norm(d, axis=1, keepdims=True)
                d = d * np.minimum(1.0, known["norm"] / size) if known["norm"] else d
                along = (d * c).sum(1, keepdims=True) / (c * c).sum(1, keepdims=True) * c
                want = c + (known["weight"] - 1) * (d - along + known["eta"] * along)
                got = guided(x, t, {"label": label}).x0.flatten(1)
                near(got, torch.tensor(want), f"apg {options} {time}")
    off = kit.part("guidance.apg")(weight=1.0)(world)
    world.asked.clear()
    off(x, t, {"label": label})
    kit.part("guidance.apg")(weight=3.0)(world)(x, t, {})
    assert len(world.asked) == 2, "weight 1 is off, and nothing guides without a condition"


def check_autoguidance(kit) -> None:
    """Weight on either side of 1, of the model that is named, which is told the same."""
    world, x, t, label = scene(kit)
    for model in ("abc", "a longer path"):
        weak = World(kit, seed=len(model))
        b, own = weak.x0(x, t, label=label), world.x0(x, t, label=label)
        for weight in (-1.0, 0.0, 0.5, 3.0):
            guided = made(kit, world, "autoguidance", model=model, weight=weight)(world)
            got = guided(x, t, {"label": label})
            near(got.x0, b + weight * (own - b), f"autoguidance {weight}")
            assert [w for w, _ in got.terms] == [weight, 1 - weight]
            near(got.terms[0][1], own, "the first factor")
            near(got.terms[1][1], b, "the second factor")
    cfg = kit.part("guidance.cfg")(weight=3.0)(world)  # a product below is raised to the power
    got = made(kit, world, "autoguidance", model="abc", weight=2.5)(cfg)(x, t, {"label": label})
    assert np.allclose([w for w, _ in got.terms], [2.5 * 3.0, 2.5 * -2.0, -1.5])
    assert made(kit, world, "autoguidance", weight=1.0)(world) is world, "off asks nobody"
    with pytest.raises(kit("core.errors").UserError, match=r"autoguidance\.model"):
        made(kit, world, "autoguidance")(world)
    assert kit.part("guidance.autoguidance")(weaker=None).weight == 2.0


def check_cfg_pp(kit) -> None:
    """Algorithm 2 of CFG++: the step of `ddim` puts the unconditional noise back."""
    world, x, _, label = scene(kit)
    ddim, noise = kit.part("samplers.ddim")(), kit("core.noise").Noise(torch.arange(B))
    for scale in (0.0, 0.35, 1.0):
        ask = made(kit, world, "cfg_pp", scale=scale)(world)
        grid = times()
        for t, s in pairwise(grid[:-1]):
            c, u = world.x0(x, t, label=label), world.x0(x, t)
            alpha_t, sigma_t = world.schedule(t)
            alpha_s, sigma_s = world.schedule(s)
            z = (x - alpha_t * u) / sigma_t
            want = alpha_s * (u + scale * (c - u)) + sigma_s * z

            def bound(y, v, ask=ask):
                return ask(y, v, {"label": label})

            got, _ = ddim.step(bound, x, t, s, world.schedule, None, noise)
            near(got, want, f"cfg_pp {scale}")
        last = grid[-2]
        c, u = world.x0(x, last, label=label), world.x0(x, last)
        near(ask(x, last, {"label": label}).x0, u + scale * (c - u), "the last step")
        between = torch.tensor(0.6, dtype=F64)  # belongs to the step that ends at 0.45
        c, u = world.x0(x, between, label=label), world.x0(x, between)
        r = [float(world.schedule.level(v).exp()) for v in (grid[2], between)]
        want = u + scale / (1 - r[0] / r[1]) * (c - u)
        near(ask(x, between, {"label": label}).x0, want, "between two times")
    assert kit.part("guidance.cfg_pp")(schedule=None, times=None).scale == 0.6


def check_cfg_zero(kit) -> None:
    """The rescaled unconditional velocity of each item, and velocity 0 in the first steps."""
    world, x, _, label = scene(kit)
    grid = times()
    for zero in (0, 1, 3):
        for weight in (-0.5, 0.0, 3.0):
            ask = made(kit, world, "cfg_zero", weight=weight, zero=zero)(world)
            for i, t in enumerate(grid[:-1]):
                alpha, sigma = world.schedule(t)
                world.asked.clear()
                got = ask(x, t, {"label": label})
                if i < zero:
                    near(got.velocity, torch.zeros_like(x), f"step {i} of {zero}")
                    assert not world.asked, "nobody is asked"
                    continue
                v = [(x - alpha * a) / sigma - a for a in (
                    world.x0(x, t, label=label), world.x0(x, t))]  # fmt: skip
                c, u = (a.flatten(1) for a in v)
                scaled = ((c * u).sum(1) / (u * u).sum(1))[:, None] * u
                want = (scaled + weight * (c - scaled)).reshape(x.shape)
                near(got.velocity, want, f"cfg_zero {zero} {weight} {i}", 1e-8)
                assert len(world.asked) == 2
    off = made(kit, world, "cfg_zero", weight=1.0)(world)
    near(off(x, grid[0], {"label": label}).x0, world.x0(x, grid[0], label=label), "weight 1 is off")
    alone = made(kit, world, "cfg_zero", weight=3.0)(world)
    near(alone(x, grid[2], {}).x0, world.x0(x, grid[2]), "nothing guides without a condition")
    with pytest.raises(kit("core.errors").UserError, match="0 to 3"):
        made(kit, world, "cfg_zero", zero=4)
    whole = kit.part("guidance.cfg_zero")(schedule=None, times=grid)
    assert (whole.weight, whole.zero) == (2.0, 1)


def check_classifier(kit) -> None:
    """Scale and clip, of the classifier that is named; an item without a label stays."""
    world, x, t, label = scene(kit)
    label = torch.where(torch.arange(B) == 2, -1, label)
    alpha, sigma = world.schedule(t)
    x = 3.0 * x
    plain = world.x0(x, t, label=label)
    for run in ("abc", "a longer path"):
        slope = -(x.flatten(1) - world.means[label]) / len(run)
        slope[2] = 0.0
        for scale in (-1.0, 0.5, 2.0):
            for clip in (0.0, 0.6):
                want = plain + scale * sigma**2 / alpha * slope.reshape(x.shape)
                if clip:
                    want = torch.where(
                        (torch.arange(B) == 2)[:, None, None], want, want.clamp(-clip, clip)
                    )
                options = {"run": run, "scale": scale, "clip": clip}
                got = made(kit, world, "classifier", **options)(world)(x, t, {"label": label})
                near(got.x0, want, f"classifier {options}")
    assert bool((plain[2].abs() > 0.6).any()), "the item that stays would be clipped"
    near(made(kit, world, "classifier", scale=0.0)(world)(x, t, {"label": label}).x0, plain, "off")
    gone = torch.full((B,), -1)
    near(made(kit, world, "classifier")(world)(x, t, {"label": gone}).x0, world.x0(x, t), "none")
    assert kit.part("guidance.classifier")(classifier=None).scale == 1.0
    assert kit.part("guidance.classifier")(classifier=None).clip == 0.0


def check_compose(kit) -> None:
    """Terms with their weights, the own weight, and what is kept away from."""
    world, x, t, label = scene(kit)
    label = torch.where(torch.arange(B) == 1, -1, label)
    wishes = (label >= 0)[:, None, None]
    own, none = world.x0(x, t, label=label), world.x0(x, t)
    terms = [{"cond": {"label": 2}, "weight": 1.5}, {"cond": {"other": 0}, "weight": -0.5}]
    terms += [{"cond": {"label": 0, "other": 1}}]
    others = [
        world.x0(x, t, label=torch.full((B,), 2)),
        world.x0(x, t, other=torch.full((B,), 0)),
        world.x0(x, t, label=torch.full((B,), 0), other=torch.full((B,), 1)),
    ]
    for away, u in (({}, none), ({"label": 1}, world.x0(x, t, label=torch.full((B,), 1)))):
        for weight in (1.0, 0.0, 2.5):
            for count in (1, 3):
                c = torch.where(wishes, own, u)
                want = u + weight * (c - u)
                for w, o in zip((1.5, -0.5, 1.0)[:count], others[:count], strict=True):
                    want = want + w * (o - u)
                options = {"terms": terms[:count], "away": away, "weight": weight}
                got = made(kit, world, "compose", **options)(world)(x, t, {"label": label})
                near(got.x0, want, f"compose {options}")
                exponents = [weight, *(1.5, -0.5, 1.0)[:count]]
                assert np.allclose([w for w, _ in got.terms], [*exponents, 1 - sum(exponents)])
            if weight != 1.0:  # without terms an item that wishes for nothing stays
                base = torch.where(wishes, u, own)
                options = {"away": away, "weight": weight}
                got = made(kit, world, "compose", **options)(world)(x, t, {"label": label})
                near(got.x0, base + weight * (own - base), f"compose {options}")
    assert made(kit, world, "compose")(world) is world, "nothing to compose"


def check_threshold(kit) -> None:
    """Limit and quantile, item by item."""
    world, x, t, label = scene(kit)
    x = 4.0 * x
    x0 = world.x0(x, t, label=label).flatten(1).numpy()
    for limit in (0.3, 1.0, 50.0):
        for quantile in (0.5, 0.8, 1.0):
            s = np.maximum(np.quantile(np.abs(x0), quantile, axis=1), limit)[:, None]
            s = limit if quantile == 1.0 else s
            want = np.clip(x0, -s, s) * limit / s
            guided = made(kit, world, "threshold", limit=limit, quantile=quantile)(world)
            got = guided(x, t, {"label": label}).x0.flatten(1)
            near(got, torch.tensor(want), f"threshold {limit} {quantile}")
    part = kit.part("guidance.threshold")()
    assert (part.limit, part.quantile) == (1.0, 1.0)


def check_times_of_items(kit) -> None:
    """Items with times of their own are guided as each would be by itself."""
    world, x, _, label = scene(kit)
    t = torch.tensor([0.9, 0.7, 0.45, 0.45, 0.3], dtype=F64)
    for kind, options in AT_WORK.items():
        # The first steps of `cfg_zero` are those of a batch, whose items share their time.
        options = options | ({"zero": 0} if kind == "cfg_zero" else {})
        whole = made(kit, world, kind, **options)(world)
        got = whole(x, t, {"label": label})
        assert got.alpha.shape == got.sigma.shape == (B,), kind
        for i in range(B):
            alone = made(kit, world, kind, **options)(world)
            same = torch.full((B,), float(t[i]), dtype=F64)
            want = alone(x, same, {"label": label})
            near(got.x0[i], want.x0[i], f"{kind}: item {i}", 1e-6)
            near(got.alpha[i], want.alpha[i], f"{kind}: alpha of item {i}")


CHECKS = (
    check_times_of_items,
    check_intervals,
    check_cfg,
    check_apg,
    check_autoguidance,
    check_cfg_pp,
    check_cfg_zero,
    check_classifier,
    check_compose,
    check_threshold,
)

STEER = "core.steer"


def _interval(kind, *edits):
    """Mistakes of the interval of one guidance: it is not asked for, or the wrong way round."""
    module = f"guidance.{kind}"
    old, never, inverse = edits
    return {
        ("guidance", kind, "start"): [(check_intervals, module, old, never)],
        ("guidance", kind, "stop"): [(check_intervals, module, old, inverse)],
    }


OFF = "if not self.active(t):"
MUTANTS = {
    ("guidance", "", "times of items"): [
        (check_times_of_items, "guidance.cfg", "t if t.ndim == 0 else t.repeat(copies)",
         "t if t.ndim == 0 else t.repeat_interleave(copies)"),
        (check_times_of_items, "guidance.compose", "t if t.ndim == 0 else t.repeat(copies)",
         "t if t.ndim == 0 else t.repeat_interleave(copies)"),
        (check_times_of_items, "guidance.diffpir", "for weight in k.unique():",
         "for weight in k.unique()[:1]:"),
        (check_times_of_items, "guidance.cfg_pp", "spread(self._weight(t), x_t)",
         "self._weight(t).mean()"),
    ],
    ("guidance", "", "start"): [
        (check_intervals, STEER, "t <= self.start", "t < self.start"),
        (check_intervals, STEER, "(t <= self.start) & ", ""),
    ],
    ("guidance", "", "stop"): [
        (check_intervals, STEER, "t >= self.stop", "t > self.stop"),
        (check_intervals, STEER, " & (t >= self.stop)", ""),
        (check_intervals, STEER, "(t >= self.stop)", "(t <= self.stop)"),
    ],
    **_interval("apg", " or not self.active(t):", ":", " or self.active(t):"),
    **_interval("autoguidance", OFF, "if False:", "if self.active(t):"),
    **_interval("cfg", " if self.active(t) else []", "", " if not self.active(t) else []"),
    **_interval("cfg_pp", " or not self.active(t):", ":", " or self.active(t):"),
    **_interval("cfg_zero", " or not self.active(t):", ":", " or self.active(t):"),
    **_interval("classifier", " or not self.active(t):", ":", " or self.active(t):"),
    **_interval("compose", OFF, "if False:", "if self.active(t):"),
    **_interval("diffpir", OFF, "if False:", "if self.active(t):"),
    **_interval("dps", "if not self.active(t) or", "if", "if self.active(t) or"),
    **_interval("posterior", OFF, "if False:", "if self.active(t):"),
    **_interval("threshold", OFF, "if False:", "if self.active(t):"),
    **_interval("universal", " or not self.active(t):", ":", " or self.active(t):"),
    ("guidance", "apg", "weight"): [
        (check_apg, "guidance.apg", "(self.weight - 1.0) *", "self.weight *"),
        (check_apg, "guidance.apg", "if self.weight == 1.0 or", "if"),
        (check_apg, "guidance.apg", "weight: Annotated[float, Range(-100, 100)] = 2.0",
         "weight: Annotated[float, Range(-100, 100)] = 3.0"),
    ],
    ("guidance", "apg", "eta"): [
        (check_apg, "guidance.apg", "(1.0 - self.eta) * parallel", "parallel"),
        (check_apg, "guidance.apg", "(1.0 - self.eta) * parallel", "self.eta * parallel"),
        (check_apg, "guidance.apg", "(d * along).sum(1) /", "(d * along).sum() /"),
    ],
    ("guidance", "apg", "norm"): [
        (check_apg, "guidance.apg", "if self.norm > 0:", "if False:"),
        (check_apg, "guidance.apg", "length.clamp(min=self.norm)", "length"),
        (check_apg, "guidance.apg", "vector_norm(d, dim=1, keepdim=True)", "vector_norm(d)"),
    ],
    ("guidance", "apg", "momentum"): [
        (check_apg, "guidance.apg", "self.momentum * last", "last"),
        (check_apg, "guidance.apg", "if last is not None:", "if False:"),
        (check_apg, "guidance.apg", "last = difference.detach()",
         "last = (c.x0 - denoise(x_t, t, {}).x0).detach()"),
        (check_apg, "guidance.apg",
         "        last: Tensor | None = None  # of this trajectory\n", "",
         "nonlocal last", "global last",
         "__all__ = [", "last = None\n__all__ = ["),
    ],
    ("guidance", "autoguidance", "model"): [
        (check_autoguidance, "guidance.autoguidance", "self.weaker(self.model)",
         'self.weaker("abc")'),
        (check_autoguidance, "guidance.autoguidance", "if not self.model:", "if False:"),
    ],
    ("guidance", "autoguidance", "weight"): [
        (check_autoguidance, "guidance.autoguidance", "b + self.weight * (own.x0 - b)",
         "own.x0 + self.weight * (own.x0 - b)"),
        (check_autoguidance, "guidance.autoguidance", "weak(x_t, t, cond)", "weak(x_t, t, {})"),
        (check_autoguidance, "guidance.autoguidance", "(self.weight * exponent, x0)",
         "(self.weight, x0)"),
        (check_autoguidance, "guidance.autoguidance", "1.0 - self.weight, b", "-self.weight, b"),
    ],
    ("guidance", "cfg", "weight"): [
        (check_cfg, "guidance.cfg", "(rest, self.weight)]", "(rest, 2.0)]"),
        (check_cfg, "guidance.cfg", "(full.x0 - u)\n", "(x0 - u)\n"),
        (check_cfg, "guidance.cfg", "own = 1.0 + sum", "own = sum"),
        (check_cfg, "guidance.cfg", "[(1.0 - w, u)", "[(w - 1.0, u)"),
    ],
    ("guidance", "cfg", "weights"): [
        (check_cfg, "guidance.cfg", "frozenset(cond) - frozenset(self.weights)", "frozenset(cond)"),
        (check_cfg, "guidance.cfg", "frozenset({name}), w)", "frozenset({name}), self.weight)"),
        (check_cfg, "guidance.cfg", "if k not in group}", "if k in group}"),
    ],
    ("guidance", "cfg", "together"): [
        (check_cfg, "guidance.cfg", "len(x_t) <= self.together", "len(x_t) < self.together"),
        (check_cfg, "guidance.cfg", "_together if 0 < len(x_t)", "_apart if 0 < len(x_t)"),
        (check_cfg, "guidance.cfg", "if name in g else value for",
         "if name not in g else value for"),
    ],
    ("guidance", "cfg", "rescale"): [
        (check_cfg, "guidance.cfg", "if self.rescale != 0.0:", "if False:"),
        (check_cfg, "guidance.cfg", "1.0 + share * (ratio - 1.0)", "ratio"),
        (check_cfg, "guidance.cfg", "wanted / std", "std / wanted"),
        (check_cfg, "guidance.cfg", "correction=0", "correction=1", "wanted / std,",
         "1.1 * wanted / std,"),
    ],
    ("guidance", "cfg_pp", "scale"): [
        (check_cfg_pp, "guidance.cfg_pp", "return self.scale /", "return 0.6 /"),
        (check_cfg_pp, "guidance.cfg_pp", "ratio.where(s > 0, 0.0)", "ratio"),
        (check_cfg_pp, "guidance.cfg_pp", "1.0 - ratio", "1.0 + ratio"),
        (check_cfg_pp, "guidance.cfg_pp", "times < t[..., None]", "times <= t[..., None]"),
        (check_cfg_pp, "guidance.cfg_pp", ".amax(-1)", ".amin(-1)"),
    ],
    ("guidance", "cfg_zero", "weight"): [
        (check_cfg_zero, "guidance.cfg_zero", "scaled + self.weight *", "v_c + self.weight *"),
        (check_cfg_zero, "guidance.cfg_zero", "self.weight * (v_c - scaled)",
         "self.weight * (v_c - v_u)"),
        (check_cfg_zero, "guidance.cfg_zero", "spread((v_c * v_u).flatten(1).sum(1) / size, v_u)",
         "1.0"),
        (check_cfg_zero, "guidance.cfg_zero", "spread(sigma, x_t) * v) / whole",
         "spread(sigma, x_t) * v)"),
    ],
    ("guidance", "cfg_zero", "zero"): [
        (check_cfg_zero, "guidance.cfg_zero", "t > self.times[self.zero]", "t > self.times[1]"),
        (check_cfg_zero, "guidance.cfg_zero", "t > self.times[self.zero]",
         "t >= self.times[self.zero]"),
        (check_cfg_zero, "guidance.cfg_zero", "Estimate(x_t / whole,", "Estimate(x_t / alpha,"),
    ],
    ("guidance", "classifier", "run"): [
        (check_classifier, "guidance.classifier", "self.classifier(self.run)",
         'self.classifier("abc")'),
    ],
    ("guidance", "classifier", "scale"): [
        (check_classifier, "guidance.classifier", "estimate.sigma**2 / estimate.alpha",
         "estimate.sigma**2"),
        (check_classifier, "guidance.classifier", "self.scale * estimate.sigma**2",
         "self.scale * 1"),
        (check_classifier, "guidance.classifier", "value.sum()", "value.mean()"),
        (check_classifier, "guidance.classifier", "self.scale * estimate", "estimate"),
    ],
    ("guidance", "classifier", "clip"): [
        (check_classifier, "guidance.classifier", "if self.clip > 0:", "if False:"),
        (check_classifier, "guidance.classifier", "torch.where(moved, x0.clamp", "(x0.clamp",
         "self.clip), x0)", "self.clip))"),
        (check_classifier, "guidance.classifier", "-self.clip, self.clip", "-1.0, 1.0"),
    ],
    ("guidance", "compose", "terms"): [
        (check_compose, "guidance.compose", '(float(term.get("weight", 1.0)) for',
         "(1.0 for"),
        (check_compose, "guidance.compose", "self.written(term[\"cond\"]) for",
         "self.written(self.terms[0][\"cond\"]) for"),
        (check_compose, "guidance.compose", "own = torch.where(wishes, own, u)", "own = own"),
    ],
    ("guidance", "compose", "away"): [
        (check_compose, "guidance.compose", "if self.away else {}", "if False else {}"),
        (check_compose, "guidance.compose", "u = torch.where(wishes, u, own)", "u = u"),
    ],
    ("guidance", "compose", "weight"): [
        (check_compose, "guidance.compose", "[self.weight, *(float", "[1.0, *(float"),
        (check_compose, "guidance.compose", "1.0 - sum(weights), u", "1.0, u"),
        (check_compose, "guidance.compose", "x0 + weight * (c - u)", "x0 + weight * (c - own)"),
    ],
    ("guidance", "threshold", "limit"): [
        (check_threshold, "guidance.threshold", "x0.clamp(-limit, limit)", "x0.clamp(-1, 1)"),
        (check_threshold, "guidance.threshold", " * limit / scale)", " / scale)"),
        (check_threshold, "guidance.threshold", ".clamp(min=limit)", ".clamp(min=1.0)"),
    ],
    ("guidance", "threshold", "quantile"): [
        (check_threshold, "guidance.threshold", "self.quantile, dim=1)", "0.5, dim=1)"),
        (check_threshold, "guidance.threshold", "x0.abs().flatten(1), self.quantile, dim=1)",
         "x0.abs(), self.quantile).expand(len(x0))"),
        (check_threshold, "guidance.threshold", "if self.quantile == 1.0:", "if True:"),
    ],
}  # fmt: skip
