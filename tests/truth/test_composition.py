"""Composition of conditions, and the sampler that makes it follow the product law.

Three laws in the plane stand for two conditions and for none; the product of their densities is
known on a grid.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Estimate
from steerable.oracles.mixture import Mixture

from ..mutants import noticed
from .worlds import F64, Kit, kit_with

KIT = Kit()
BINS, REACH, FINE = 10, 2.2, 10  # of the histogram; cells of a bin in which the density is summed
ROOM = 0.07  # of the total variation
A, B, NONE = 0, 1, -1


class Laws:
    """p(x | A), p(x | B), two mixtures of four modes, and p(x), a Gaussian that covers both."""

    def __init__(self, seed, schedule):
        g = torch.Generator().manual_seed(seed)
        self.schedule, self.law = schedule, {}
        for label in (A, B):
            means = 0.8 * (2 * torch.rand(4, 2, generator=g, dtype=F64) - 1)
            weights = torch.rand(4, generator=g, dtype=F64) + 0.2
            stds = 0.22 + 0.18 * torch.rand(4, generator=g, dtype=F64)
            self.law[label] = Mixture(schedule, weights / weights.sum(), means, stds)
        one = torch.ones(1, dtype=F64)
        self.law[NONE] = Mixture(schedule, one, torch.zeros(1, 2, dtype=F64), one)

    def __call__(self, x_t, t, cond):
        label = cond.get("label", torch.full((len(x_t),), NONE))
        x0 = torch.zeros_like(x_t)
        for one, law in self.law.items():
            rows = (label == one).nonzero()[:, 0]
            x0[rows] = law(x_t[rows], t if t.ndim == 0 else t[rows], {}).x0
        return Estimate(x0, x_t, *self.schedule(t))

    def density(self, **exponents):
        """prod p^exponent in the bins, summing to one, exact but for the quadrature."""
        at = (torch.arange(BINS * FINE, dtype=F64) + 0.5) / (BINS * FINE) * 2 * REACH - REACH
        x = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
        log = torch.zeros(len(x), dtype=F64)
        for name, w in exponents.items():
            law = self.law[{"a": A, "b": B, "none": NONE}[name]]
            distance = (x[:, None] - law.means).square().sum(-1)
            peaks = law.weights.log() - distance / (2 * law.stds**2) - 2 * law.stds.log()
            log = log + w * torch.logsumexp(peaks, 1)
        cells = torch.exp(log - log.max()).reshape(BINS, FINE, BINS, FINE).sum((1, 3))
        return cells / cells.sum()


def histogram(x):
    index = ((x + REACH) / (2 * REACH) * BINS).floor().to(torch.int64).clamp(0, BINS - 1)
    flat = torch.bincount(index[:, 0] * BINS + index[:, 1], minlength=BINS**2)
    return flat.reshape(BINS, BINS).to(F64) / len(x)


def variation(a, b):
    return 0.5 * float((a - b).abs().sum())


def floor_of(exact, n):
    """Median total variation of n exact draws to their own law."""
    g = torch.Generator().manual_seed(8)
    found = []
    for _ in range(9):
        index = torch.multinomial(exact.flatten(), n, replacement=True, generator=g)
        drawn = torch.bincount(index, minlength=BINS**2).reshape(BINS, BINS) / n
        found.append(variation(drawn, exact))
    return sorted(found)[4]


def ve(kit):
    """The schedule of most of these tests."""
    return kit("core.schedule").VeGeometric()


def sampled(kit, guidance, laws, sampler, *, n, steps, seed=0):
    """Samples that wish for A, from 10 times the size of the data down to 1/7 of the least std."""
    times = kit.part("grids.log_snr")(laws.schedule, steps, high=10.0, low=0.03)
    noise = Noise(torch.arange(n) + 1_000_003 * seed)
    x = float(laws.schedule(times[0])[1]) * noise.normal(torch.zeros(n, 2, dtype=F64))
    ask, cond = guidance(laws), {"label": torch.full((n,), A)}
    return kit.run(
        lambda x_t, t: ask(x_t, t, cond),
        x,
        schedule=laws.schedule,
        sampler=kit.sampler(sampler)(),
        times=times,
        noise=noise,
    )


def composed(kit, n, *, terms=((B, 1.0),), **options):
    """The composition of the wish with further terms for a batch of n."""
    rows = [{"cond": {"label": label}, "weight": weight} for label, weight in terms]
    return kit.part("guidance.compose")(
        written=lambda cond: {"label": torch.full((n,), cond["label"])}, terms=rows, **options
    )


class Product:
    """The plain product of the laws of A and B: exponents that sum to 2, not to 1."""

    def __call__(self, laws):
        def guided(x_t, t, cond):
            a, b = (laws.law[label](x_t, t, {}) for label in (A, B))
            x0 = a.x0 + b.x0 - x_t / a.alpha
            return dataclasses.replace(a, x0=x0, terms=((1.0, a.x0), (1.0, b.x0)))

        return guided


def check_product(kit, n=3000, steps=80):
    """A and B over the law without either: the density of the product, within the room."""
    for seed in (7, 9):
        laws = Laws(seed, ve(kit))
        exact = laws.density(a=1, b=1, none=-1)
        x = sampled(kit, composed(kit, n), laws, "smc", n=n, steps=steps)
        off = variation(histogram(x), exact)
        print(f"product, laws {seed}: {off:.3f}, exact draws {floor_of(exact, n):.3f}")
        assert off < ROOM, f"laws {seed}: total variation {off:.3f}"


def check_weighted(kit, n=3000, steps=80):
    """A^1.5 and not B^-0.5, and plain guidance of weight 2."""
    laws = Laws(9, ve(kit))
    for name, guidance, exponents in (
        ("not", composed(kit, n, terms=((B, -0.5),), weight=1.5), {"a": 1.5, "b": -0.5}),
        ("cfg", kit.part("guidance.cfg")(weight=2.0), {"a": 2.0, "none": -1.0}),
    ):
        exact = laws.density(**exponents)
        off = variation(histogram(sampled(kit, guidance, laws, "smc", n=n, steps=steps)), exact)
        print(f"{name}: {off:.3f}, exact draws {floor_of(exact, n):.3f}")
        assert off < ROOM, f"{name}: total variation {off:.3f}"


def check_sum_of_two(kit, n=6000, steps=100):
    """Exponents that sum to 2: the start and the forward kernel count."""
    laws = Laws(9, ve(kit))
    exact = laws.density(a=1, b=1)
    off = variation(histogram(sampled(kit, Product(), laws, "smc", n=n, steps=steps)), exact)
    print(f"sum of two: {off:.3f}, exact draws {floor_of(exact, n):.3f}")
    assert off < ROOM, f"total variation {off:.3f}"


@pytest.mark.parametrize("check", [check_product, check_weighted, check_sum_of_two])
def test_particles_reach_the_product_law(check):
    check(KIT)


def test_composition_alone_does_not():
    """The same denoisers and guidances with ancestral steps, far outside of the same room."""
    n, laws = 3000, [Laws(seed, ve(KIT)) for seed in (7, 9)]
    for law, guidance, exponents in (
        (laws[0], composed(KIT, n), {"a": 1, "b": 1, "none": -1}),
        (laws[1], composed(KIT, n), {"a": 1, "b": 1, "none": -1}),
        (laws[1], KIT.part("guidance.cfg")(weight=2.0), {"a": 2.0, "none": -1.0}),
        (laws[1], Product(), {"a": 1, "b": 1}),
    ):
        off = variation(
            histogram(sampled(KIT, guidance, law, "ancestral", n=n, steps=80)),
            law.density(**exponents),
        )
        print(f"plain: {off:.3f}")
        assert off > 1.3 * ROOM


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "ve", "edm", "flow"])
def test_every_process_reaches_the_product_law(name):
    """More particles and steps: the distance falls towards that of exact draws."""
    module = KIT("core.schedule")
    schedule = {
        "vp": module.VP(),
        "ve": module.VeGeometric(),
        "edm": module.Edm(),
        "flow": module.Flow(),
    }[name]
    laws, n = Laws(9, schedule), 10_000
    exact = laws.density(a=1, b=1, none=-1)
    off, plain = (
        variation(histogram(sampled(KIT, composed(KIT, n), laws, kind, n=n, steps=100)), exact)
        for kind in ("smc", "ancestral")
    )
    print(f"{name}: {off:.3f}, plain {plain:.3f}, exact draws {floor_of(exact, n):.3f}")
    assert off < ROOM and plain > 2 * off
    both = laws.density(a=1, b=1)
    off = variation(histogram(sampled(KIT, Product(), laws, "smc", n=n, steps=100)), both)
    print(f"{name}: sum of two {off:.3f}")
    assert off < ROOM


# the formula of composition


def _scene(n=6):
    laws = Laws(7, KIT("core.schedule").VP())
    g = torch.Generator().manual_seed(3)
    t = torch.tensor(0.4, dtype=F64)
    return laws, torch.randn(n, 2, generator=g, dtype=F64), t


def check_composition(kit):
    """u + sum w (c - u) by hand, with a negative prompt, with items that wish for nothing."""
    laws, x, t = _scene()
    label = torch.tensor([A, B, NONE, A, NONE, B])
    e = {one: law(x, t, {}).x0 for one, law in laws.law.items()}
    own = laws(x, t, {"label": label}).x0
    wishes = (label != NONE)[:, None]
    for terms, away, weight in (
        (((B, 1.5),), None, 1.0),
        (((B, 1.5), (A, -0.5)), None, 2.0),
        (((B, 2.0),), A, 1.5),
        ((), A, 3.0),
        ((), None, 2.0),
        (((A, 1.0),), None, 0.0),
    ):
        options = {} if away is None else {"away": {"label": away}}
        made = composed(kit, len(x), terms=terms, weight=weight, **options)
        got = made(laws)(x, t, {"label": label})
        u = e[NONE if away is None else away]
        want = u + sum(w * (e[one] - u) for one, w in terms)
        want = torch.where(wishes, want + weight * (own - u), want)
        if not terms:
            want = torch.where(wishes, want, own)
        assert float((got.x0 - want).abs().max()) < 1e-12, f"{terms}, {away}, {weight}"
        exponents = [w for w, _ in got.terms]
        assert exponents[:-1] == [weight, *(w for _, w in terms)]
        assert abs(sum(exponents) - 1) < 1e-12, "the exponents of a composition sum to 1"
        assert float((sum(w * x0 for w, x0 in got.terms) - want).abs().max()) < 1e-12


def check_times_of_items(kit):
    """A time for each item, in the longer batch too."""
    laws, x, _ = _scene()
    t = torch.linspace(0.2, 0.9, len(x), dtype=F64)
    label = torch.full((len(x),), A)
    got = composed(kit, len(x))(laws)(x, t, {"label": label})
    for i in range(len(x)):
        one = composed(kit, 1)(laws)(x[i : i + 1], t[i], {"label": label[:1]})
        assert float((one.x0 - got.x0[i : i + 1]).abs().max()) < 1e-12
    assert got.alpha.shape == t.shape


def check_one_call(kit):
    """All is asked in one longer batch that begins with the question itself."""
    laws, x, t = _scene()
    asked = []

    def denoise(x_t, time, cond):
        asked.append((x_t, cond["label"].tolist()))
        return laws(x_t, time, cond)

    composed(kit, len(x))(denoise)(x, t, {"label": torch.full((len(x),), A)})
    ((seen, label),) = asked
    assert torch.equal(seen, x.repeat(3, 1))
    assert label == [A] * 6 + [NONE] * 6 + [B] * 6


def check_sentences(kit):
    """Sentences of other lengths are padded, and a term leaves the other conditions absent."""
    x, t = torch.zeros(2, 1, dtype=F64), torch.tensor(0.5, dtype=F64)
    rows = {"a": torch.tensor([[1, 2, 3]] * 2), "b": torch.tensor([[4]] * 2)}
    seen = {}

    def denoise(x_t, time, cond):
        seen.update(cond)
        return Estimate(x_t, x_t, *KIT("core.schedule").VP()(time))

    made = kit.part("guidance.compose")(
        written=lambda cond: {"prompt": rows[cond["prompt"]]},
        terms=[{"cond": {"prompt": "a"}}, {"cond": {"prompt": "b"}}],
    )
    size = torch.tensor([[0.5], [0.25]])
    made(denoise)(x, t, {"prompt": torch.tensor([[7, 8], [9, -1]]), "size": size})
    gone = [-1, -1, -1]
    assert seen["prompt"].tolist() == [
        *([7, 8, -1], [9, -1, -1]),
        *(gone, gone),
        *([1, 2, 3], [1, 2, 3]),
        *([4, -1, -1], [4, -1, -1]),
    ]
    assert torch.equal(seen["size"][:2], size) and bool(seen["size"][2:].isnan().all())


FORMULAE = (check_composition, check_times_of_items, check_one_call, check_sentences)


@pytest.mark.parametrize("check", FORMULAE)
def test_formula(check):
    check(KIT)


@pytest.mark.parametrize(
    ("term", "code"),
    [
        ({"label": "boot"}, "E-CONFIG"),
        ({"cond": {}}, "E-CONFIG"),
        ({"cond": {"label": "boot"}, "wieght": 2}, "E-CONFIG"),
        ({"cond": {"label": "boot"}, "weight": "much"}, "E-CONFIG"),
        ({"cond": {"label": "boot"}, "weight": 1e6}, "E-LIMIT"),
    ],
)
def test_a_term_of_another_form_is_refused(term, code):
    with pytest.raises(UserError) as caught:
        KIT.part("guidance.compose")(written=lambda cond: {}, terms=[term])
    assert caught.value.code == code


# the sampler


def check_plain_is_ancestral(kit):
    """Without terms every step is the ancestral one."""
    laws = Laws(7, kit("core.schedule").VP())

    def plain(inner):
        return lambda x_t, t, cond: inner(x_t, t, {})

    a, b = (sampled(kit, plain, laws, kind, n=50, steps=20) for kind in ("smc", "ancestral"))
    assert float((a - b).abs().max()) < 1e-12


def check_survivors(kit):
    """Item i stays floor or ceiling of N w_i times, on average N w_i, and in its place."""
    survivors = kit("samplers.smc")._survivors
    g = torch.Generator().manual_seed(2)
    log = 2 * torch.randn(40, generator=g, dtype=F64)
    want = 40 * torch.softmax(log, 0)
    total = torch.zeros(40, dtype=F64)
    for i in range(1000):
        chosen = survivors(log, (i + 0.5) / 1000)
        count = torch.bincount(chosen, minlength=40)
        assert bool(((count >= want.floor()) & (count <= want.ceil())).all())
        kept = count > 0
        assert torch.equal(chosen[kept], torch.arange(40)[kept]), "a survivor has moved"
        total += count
    assert float((total / 1000 - want).abs().max()) < 2e-3
    for n in (1, 7):
        for u in (1e-9, 0.5, 1 - 1e-9):
            assert torch.equal(survivors(torch.full((n,), -3.0, dtype=F64), u), torch.arange(n))


def check_lost_numbers(kit):
    """An item that is not a number is not resampled away, so that the loop stops at it."""
    laws = Laws(7, ve(kit))

    def broken(inner):
        def guided(x_t, t, cond):
            answer = composed(kit, len(x_t))(inner)(x_t, t, cond)
            x0 = torch.where(torch.arange(len(x_t))[:, None] == 3, torch.nan, answer.x0)
            return answer.with_x0(x0)

        return guided

    with pytest.raises(UserError) as caught:
        sampled(kit, broken, laws, "smc", n=8, steps=5)
    assert "step 1 of 5" in str(caught.value), "the loop was kept from seeing it"
    assert caught.value.code == "E-NUM"


def check_float32(kit):
    """The weights of float32 samples are computed in double: the law holds as well."""
    laws, n = Laws(9, ve(kit)), 3000
    made = composed(kit, n)

    def single(inner):
        def guided(x_t, t, cond):
            answer = made(inner)(x_t.double(), t, cond)
            terms = tuple((w, x0.float()) for w, x0 in answer.terms)
            return dataclasses.replace(answer, x0=answer.x0.float(), x_t=x_t, terms=terms)

        return guided

    times = kit.part("grids.log_snr")(laws.schedule, 50, high=10.0, low=0.03)
    noise = Noise(torch.arange(n))
    ask, cond = single(laws), {"label": torch.full((n,), A)}
    x = kit.run(
        lambda x_t, t: ask(x_t, t, cond),
        float(laws.schedule(times[0])[1]) * noise.normal(torch.zeros(n, 2)),
        schedule=laws.schedule,
        sampler=kit.sampler("smc")(),
        times=times,
        noise=noise,
    )
    assert x.dtype == torch.float32
    assert variation(histogram(x), laws.density(a=1, b=1, none=-1)) < ROOM


SAMPLER = (check_plain_is_ancestral, check_survivors, check_lost_numbers, check_float32)


@pytest.mark.parametrize("check", SAMPLER)
def test_sampler(check):
    check(KIT)


COMPOSE, SMC, CFG = "guidance.compose", "samplers.smc", "guidance.cfg"
LAWS = (check_product, check_weighted)
OF_ONE_STEP = {  # mutants whose formula is checked by hand
    "sign of a term": (COMPOSE, "x0 = x0 + weight * (c - u)", "x0 = x0 - weight * (c - u)"),
    "weight off by one": (
        COMPOSE,
        "x0 = x0 + weight * (c - u)",
        "x0 = x0 + (weight - 1.0) * (c - u)",
    ),
    "composed around c": (COMPOSE, "        x0 = u\n", "        x0 = own\n"),
    "exponent of u wrong": (COMPOSE, "(1.0 - sum(weights), u)", "(-sum(weights), u)"),
    "negative prompt ignored": (COMPOSE, "if self.away else {}", "if False else {}"),
    "wishes for nothing count": (COMPOSE, "torch.where(wishes, own, u)", "own"),
    "keeps away though nothing is wished": (COMPOSE, "torch.where(wishes, u, own)", "u"),
    "terms keep the wish's other conditions": (
        COMPOSE,
        "cond.get(name, absent_like(example))",
        "cond.get(name, example)",
    ),
    "times not repeated": (COMPOSE, "t.repeat(copies)", "t.repeat_interleave(copies)"),
    "sentences padded with word 0": (COMPOSE, "value=-1", "value=0"),
    "survivors by chance of their place": (SMC, "+ u) / len(log)", "+ 0.5) / len(log)"),
    "lost numbers resampled": (SMC, "if not bool(log.isfinite().all()):", "if False:"),
    "weights in the dtype of the sample": (SMC, "softmax(log, 0)", "softmax(log.half(), 0)"),
}
OF_THE_LAW = {  # mutants that the histogram alone must notice
    "resampling forgotten": (
        SMC,
        "return x_s[_survivors(log, float(noise.uniform(len(x_s))[0]))], True",
        "return x_s, True",
    ),
    "proposal forgotten": (SMC, "log = log - _log_normal(x_s, _mean", "log = log - 0 * _log_normal(x_s, _mean"),  # noqa: E501
    "sign of the weights": (SMC, "torch.softmax(log, 0)", "torch.softmax(-log, 0)"),
    "exponents ignored": (SMC, "sum(w * _log_normal(", "sum(_log_normal("),
    "weights of the wrong variance": (SMC, "_log_normal(x_s, mean, tau**2)", "_log_normal(x_s, mean, missing)"),  # noqa: E501
    "exponent of u wrong, by the law": (COMPOSE, "(1.0 - sum(weights), u)", "(-sum(weights), u)"),
    "terms without u, by the law": (COMPOSE, "terms=(*factors, (1.0 - sum(weights), u))", "terms=(*factors,)"),  # noqa: E501
    "weight of the proposal off by one, by the law": (COMPOSE, "weights = [self.weight, *(float(term.get(\"weight\", 1.0)) for term in self.terms)]", "weights = [self.weight, *(float(term.get(\"weight\", 1.0)) + 1.0 for term in self.terms)]"),  # noqa: E501
    "cfg without the exponent of u": (CFG, "terms=((own, full.x0), *less)", "terms=((1.0, full.x0),)"),  # noqa: E501
}  # fmt: skip
OF_TWO = {  # mutants that matter when the exponents sum to 2
    "start not weighed": (SMC, "if memory is None:", "if False:"),
    "start weighed in every step": (SMC, "if memory is None:", "if True:"),
    "start weighed the wrong way": (SMC, "log = log + excess * _log_normal(x_t, torch", "log = log - excess * _log_normal(x_t, torch"),  # noqa: E501
    "forward kernel forgotten": (SMC, "log = log - excess * _log_normal(x_t, spread", "log = log - 0 * excess * _log_normal(x_t, spread"),  # noqa: E501
    "forward kernel the wrong way": (SMC, "log = log - excess * _log_normal(x_t, spread", "log = log + excess * _log_normal(x_t, spread"),  # noqa: E501
}  # fmt: skip


def _survives(mutant, checks):
    faults = (UserError, pytest.fail.Exception, RuntimeError)
    return noticed(checks, kit_with(*mutant), *faults) is None


@pytest.mark.parametrize("name", OF_ONE_STEP)
def test_mutant_of_a_formula_is_noticed(name):
    assert not _survives(OF_ONE_STEP[name], (*FORMULAE, *SAMPLER[:3])), f"'{name}' survives"


QUICK = ("resampling forgotten", "proposal forgotten", "sign of the weights", "exponents ignored")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in OF_THE_LAW]
)
def test_mutant_of_the_law_is_noticed_by_the_law(name):
    assert not _survives(OF_THE_LAW[name], LAWS), f"'{name}' survives"


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TWO)
def test_mutant_of_the_start_and_of_the_kernel_is_noticed(name):
    assert not _survives(OF_TWO[name], (check_sum_of_two,)), f"'{name}' survives"


def test_weight_zero_leaves_the_terms_alone_and_without_them_the_law_without_a_condition():
    """With exact scores: the std of p(x) is 1, and that of B is its own."""
    n, laws = 2000, Laws(9, ve(KIT))
    x = sampled(KIT, composed(KIT, n, terms=(), weight=0.0), laws, "ancestral", n=n, steps=50)
    exact = laws.density(none=1)
    assert variation(histogram(x), exact) < 3 * floor_of(exact, n)
    x = sampled(KIT, composed(KIT, n, weight=0.0), laws, "ancestral", n=n, steps=50)
    exact = laws.density(b=1)
    assert variation(histogram(x), exact) < 3 * floor_of(exact, n)
    assert math.isclose(float(exact.sum()), 1.0, rel_tol=1e-12)
