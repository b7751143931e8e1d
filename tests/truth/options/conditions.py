"""Conditions: what each writes, what an absent one writes, and how they come to the network."""

from __future__ import annotations

import math

import pytest
import torch

from .backbones import SHAPE, SMALL, drawn
from .networks import F64, Weights, dit

N = 4
WIDTH = 32


def parts(kit):
    """Every condition with values for N items."""
    g = torch.Generator().manual_seed(2)
    words = torch.tensor([[1, 0, 4, 2], [3, -1, -1, -1], [2, 2, -1, -1], [0, 1, 2, -1]])
    picture = torch.randn(N, SHAPE[0] + 1, 8, 8, generator=g, dtype=F64)
    picture[:, -1] = (picture[:, -1] > 0).double()
    make = kit.part
    return {
        "label": (make("conditions.label")(WIDTH, 3), torch.tensor([0, 2, 1, 1])),
        "vector": (
            make("conditions.vector")(WIDTH, 2),
            torch.randn(N, 2, generator=g, dtype=F64),
        ),
        "tokens": (make("conditions.tokens")(WIDTH, 5), words),
        "mask": (make("conditions.mask")(SHAPE), picture),
        "estimate": (
            make("conditions.estimate")(SHAPE),
            torch.randn(N, *SHAPE, generator=g, dtype=F64),
        ),
        "augmentation": (
            make("conditions.augmentation")(WIDTH),
            torch.randn(N, 8, generator=g, dtype=F64),
        ),
    }


FIXED = ("mask", "estimate", "augmentation")  # whose null is zero and stays so
DROPOUT = {"label": 0.1, "vector": 0.1, "tokens": 0.1, "mask": 0.1, "estimate": 0.5,
           "augmentation": 0.0}  # fmt: skip


def written(w, kind, value, features=4):
    """What a present value writes, from the tensors of the condition."""
    if kind == "label":
        return w("table.weight")[value]
    if kind == "tokens":
        return w("table.weight")[value.clamp(min=0)] + w("places")[: value.shape[1]]
    if kind == "vector":
        found = [value]
        for wave in (torch.sin, torch.cos):
            for k in range(value.shape[1]):
                found += [wave(value[:, k : k + 1] * 2**i * math.pi / 2) for i in range(features)]
        h = w.linear("net.0", torch.cat(found, 1))
        return w.linear("net.2", h * torch.sigmoid(h))
    if kind == "augmentation":
        return w.linear("net", value, bias=False)
    if kind == "mask":
        known = 1.0 - value[:, -1:]
        return torch.cat([value[:, :-1] * known, known], 1)
    return value


def check_encodings(kit) -> None:
    """What every condition writes for present values, and for absent ones the null."""
    known = parts(kit)
    assert sorted(known) == kit("recipes.part").kinds("condition"), "a condition without a check"
    for kind, (condition, value) in known.items():
        trained = condition.null.requires_grad
        assert trained == (kind not in FIXED)
        assert not bool(condition.null.any()), "a null starts at zero"
        grad = drawn(condition) and condition.null
        w = Weights(condition.state_dict())
        want = written(w, kind, value)
        assert torch.allclose(condition(value), want, atol=1e-12), kind
        assert [n for n in w.left() if n != "null"] == [], kind
        gone = kit("core.condition").absent_like(value)
        mixed = torch.where((torch.arange(N) % 2 == 0).reshape(-1, *[1] * (value.ndim - 1)),
                            gone, value)  # fmt: skip
        assert kit("core.condition").absent(mixed).tolist() == [True, False, True, False]
        got = condition(mixed)
        assert torch.allclose(got[1::2], want[1::2], atol=1e-12), f"{kind}: present"
        assert torch.equal(got[::2], condition.null.expand_as(want)[::2]), f"{kind}: absent"
        assert grad.shape == condition.null.shape
    some = torch.tensor([[float("nan"), 1.0], [float("nan")] * 2])
    assert kit("core.condition").absent(some).tolist() == [False, True], "all of it, not a part"


def check_features(kit) -> None:
    """`features` is the number of octaves of `vector`, `length` the longest prompt of `tokens`."""
    value = parts(kit)["vector"][1]
    for features in (1, 6):
        vector = drawn(kit.part("conditions.vector")(WIDTH, 2, features=features))
        want = written(Weights(vector.state_dict()), "vector", value, features)
        assert torch.allclose(vector(value), want, atol=1e-12), f"{features} features"
    for length in (3, 64):
        tokens = kit.part("conditions.tokens")(WIDTH, 5, length=length)
        tokens(torch.zeros(1, length, dtype=torch.int64))
        with pytest.raises(kit("core.errors").UserError, match=f"at most {length}"):
            tokens(torch.zeros(1, length + 1, dtype=torch.int64))


def check_dropout(kit) -> None:
    """Whole items are hidden where the item's own number is below the share, and no others."""
    classes = {"label": (8, 3), "vector": (8, 2), "tokens": (8, 5), "mask": (SHAPE,),
               "estimate": (SHAPE,), "augmentation": (8,)}  # fmt: skip
    n = 200
    noise = kit("core.noise").Noise
    for kind, (_, value) in parts(kit).items():
        value = value[torch.arange(n) % N]
        for share in (None, 0.0, 0.35, 1.0):
            options = {} if share is None else {"dropout": share}
            condition = kit.part(f"conditions.{kind}")(*classes[kind], **options)
            got = condition.dropped(value, noise(torch.arange(n)))
            limit = DROPOUT[kind] if share is None else share
            gone = noise(torch.arange(n)).uniform(n) < limit
            hidden = kit("core.condition").absent_like(value)
            want = torch.where(gone.reshape(-1, *[1] * (value.ndim - 1)), hidden, value)
            assert torch.equal(got.nan_to_num(9), want.nan_to_num(9)), f"{kind} {share}"
    cond = {"b": torch.arange(n), "a": torch.arange(n), "c": torch.arange(n)}
    owners = {k: kit.part("conditions.label")(8, n, dropout=d) for k, d in
              (("a", 0.2), ("b", 0.5), ("c", 0.0))}  # fmt: skip
    got = kit("core.condition").Condition.drop_all(torch.nn.ModuleDict(owners), cond,
                                                   noise(torch.arange(n)))  # fmt: skip
    again = noise(torch.arange(n))
    for name, share in (("a", 0.2), ("b", 0.5), ("c", 0.0)):  # in the order of the names
        want = torch.where(again.uniform(n) < share, -1, torch.arange(n))
        assert torch.equal(got[name], want), name


def denoiser(kit, kind, conditions, planes=0):
    """A small backbone behind the denoiser of a process whose data has std 0.7."""
    cls, options = kit.part(f"backbones.{kind}"), dict(SMALL[kind])
    options["width"] = WIDTH
    backbone = cls(SHAPE, planes, **options) if "planes" in cls.accepts else cls(SHAPE, **options)
    process = kit("core.process").Process(
        kit("core.schedule").VP(), kit("core.target").Target("v", 0.7)
    )
    return drawn(kit("core.denoise").Denoiser(process, backbone, conditions))


def scene():
    g = torch.Generator().manual_seed(8)
    return torch.randn(N, *SHAPE, generator=g, dtype=F64), torch.tensor(0.4, dtype=F64)


def check_nulls(kit) -> None:
    """In every backbone an absent value is a missing one is the null, and the null matters."""
    x, t = scene()
    for kind in ("tokens", "label", "vector"):
        for backbone in SMALL:
            condition, value = parts(kit)[kind]
            if condition.slot not in kit.part(f"backbones.{backbone}").accepts:
                continue
            net = denoiser(kit, backbone, {"told": condition})
            gone = kit("core.condition").absent_like(value)
            mixed = torch.cat([value[:2], gone[2:]])
            with torch.no_grad():
                given, missing = net(x, t, {"told": value}).x0, net(x, t, {}).x0
                absent, both = net(x, t, {"told": gone}).x0, net(x, t, {"told": mixed}).x0
                what = f"{kind} in {backbone}"
                assert torch.allclose(absent, missing, atol=1e-9), f"{what}: absent is missing"
                assert torch.allclose(both[2:], missing[2:], atol=1e-9), f"{what}: mixed, absent"
                assert torch.allclose(both[:2], given[:2], atol=1e-9), f"{what}: mixed, present"
                apart = (given - missing).abs().amax((1, 2, 3))
                assert float(apart.min()) > 1e-5, f"{what} does not matter"
                place = condition.null.flatten()
                place.copy_(place + torch.linspace(-1, 1, len(place)).cos())
                for cond, moved in (({}, N), ({"told": gone}, N), ({"told": mixed}, 2)):
                    before = {N: missing, 2: both}[moved]
                    change = (net(x, t, cond).x0 - before).abs().amax((1, 2, 3)) > 1e-6
                    assert change.tolist() == [False] * (N - moved) + [True] * moved, (
                        f"{what}: the null of an absent value is not heard"
                    )


def check_slots(kit) -> None:
    """Several conditions of every slot at once, some of them absent: the whole answer by hand."""
    x, _ = scene()
    t = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=F64)
    known, again = parts(kit), parts(kit)
    conditions = {k: c for k, (c, _) in known.items()} | {"more": again["tokens"][0]}
    net = denoiser(kit, "dit", conditions, planes=2 * SHAPE[0] + 1)
    cond = {k: v for k, (_, v) in known.items() if k != "vector"}
    cond["tokens"] = torch.where(torch.arange(N)[:, None] == 1, -1, cond["tokens"])
    cond["more"] = torch.tensor([[4, 4], [1, -1], [-1, -1], [0, 2]])
    cond["estimate"] = cond["estimate"].clone()
    cond["estimate"][3] = math.nan
    w = {k: Weights(c.state_dict()) for k, c in conditions.items()}

    def told(name, kind=None):
        value = cond[name]
        gone = kit("core.condition").absent(value).reshape(-1, *[1] * (value.ndim - 1))
        full = written(w[name], kind or name, value.nan_to_num(0.0).clamp(min=0) if kind
                       or name == "tokens" else value.nan_to_num(0.0))  # fmt: skip
        return torch.where(gone.reshape(-1, *[1] * (full.ndim - 1)), w[name]("null"), full)

    vector = told("label") + w["vector"]("null") + told("augmentation")
    tokens = torch.cat([told("tokens"), told("more", "tokens")], 1)
    mask = torch.tensor(
        [
            [1, 1, 1, 1, 1, 1],
            [1, 0, 0, 0, 1, 0],  # of an absent sentence its first place counts, the null
            [1, 1, 0, 0, 1, 0],
            [1, 1, 1, 0, 1, 1],
        ],
        dtype=torch.bool,
    )
    planes = torch.cat([told("mask"), told("estimate")], 1)
    alpha, sigma = net.process.schedule(t)
    slots = kit("core.types").Slots(torch.log(sigma / alpha), vector, tokens, mask, planes)
    q = torch.sqrt(sigma**2 + (0.7 * alpha) ** 2)
    state = Weights(net.backbone.state_dict())
    options = SMALL["dit"] | {"width": WIDTH}
    shape = (-1, 1, 1, 1)
    f = dit(state, x / q.reshape(shape), slots, SHAPE, 2 * SHAPE[0] + 1, **options)
    rho = torch.hypot(alpha, sigma)
    want = (alpha / rho**2).reshape(shape) * x - (sigma / rho).reshape(shape) * f
    got = net(x, t, cond)
    off = float((got.x0 - want).abs().max().detach())
    assert off < 1e-6, f"the answer by hand: off by {off:.1e}"
    with pytest.raises(kit("core.errors").UserError, match="'other'"):
        net(x, t, {"other": torch.arange(N)})


CHECKS = (check_encodings, check_features, check_dropout, check_nulls, check_slots)

CONDITION, DENOISE = "core.condition", "core.denoise"


def _dropout(kind):
    old = f"Range(0, 1)] = {DROPOUT[kind]}"
    return {
        ("condition", kind, "dropout"): [
            (check_dropout, f"conditions.{kind}", "dropout=dropout)", "dropout=0.25)"),
            (check_dropout, f"conditions.{kind}", old, "Range(0, 1)] = 0.2"),
        ]
    }


MUTANTS = {
    **_dropout("label"),
    **_dropout("vector"),
    **_dropout("tokens"),
    **_dropout("mask"),
    **_dropout("estimate"),
    **_dropout("augmentation"),
    ("condition", "tokens", "length"): [
        (check_features, "conditions.tokens", "> longest:", "> 64:"),
        (check_encodings, "conditions.tokens", "+ self.places[: value.shape[1]]", ""),
        (check_encodings, "conditions.tokens", "self.places[: value.shape[1]]", "self.places[:1]"),
    ],
    ("condition", "vector", "features"): [
        (check_features, "conditions.vector", "torch.arange(self.features,", "torch.arange(4,"),
        (check_encodings, "conditions.vector", "(math.pi / 2)", "math.pi"),
        (check_encodings, "conditions.vector", "angle.cos().flatten(1)]",
         "angle.sin().flatten(1)]"),
        (check_encodings, "conditions.vector", "[value, angle", "[0.0 * value, angle"),
    ],
    ("condition", "", "encode"): [
        (check_encodings, "conditions.mask", "value[:, -1:] < 0.5", "value[:, -1:] >= 0.5"),
        (check_encodings, "conditions.mask", "known.to(value.dtype)], 1)",
         "(~known).to(value.dtype)], 1)"),
        (check_encodings, "conditions.augmentation", "bias=False)", "bias=True)"),
        (check_encodings, "conditions.estimate", "return value", "return 2.0 * value"),
        (check_encodings, "conditions.estimate", "self.null.requires_grad_(False)", "pass"),
    ],
    ("condition", "", "absent"): [
        (check_nulls, CONDITION, "return there | (first & ~there.any(1, keepdim=True))",
         "return there"),
        (check_slots, CONDITION, "return there | (first & ~there.any(1, keepdim=True))",
         "return there"),
        (check_slots, CONDITION, "return there | (first & ~there.any(1, keepdim=True))",
         "return there | ~there.any(1, keepdim=True)"),
        (check_slots, CONDITION, "return there | (first & ~there.any(1, keepdim=True))",
         "return there | True"),
        (check_encodings, CONDITION, "flat == -1).all(1)", "flat == -1).any(1)"),
        (check_encodings, CONDITION, "self.null, encoded)", "0.0 * self.null, encoded)"),
        (check_dropout, CONDITION, "in sorted(cond)}", "in cond}"),
        (check_dropout, CONDITION, "< self.dropout", "<= 0.1"),
    ],
    ("condition", "", "slots"): [
        (check_nulls, DENOISE, "condition.null.expand(", "(0.0 * condition.null).expand("),
        (check_slots, DENOISE, "torch.stack(written[\"vector\"]).sum(0)",
         "torch.stack(written[\"vector\"]).mean(0)"),
        (check_slots, DENOISE, "torch.cat(masks, 1) if masks", "None if masks"),
        (check_slots, DENOISE, "torch.cat(written[\"tokens\"], 1)",
         "torch.cat(written[\"tokens\"][::-1], 1)"),
        (check_slots, DENOISE, "torch.cat(written[\"planes\"], 1)",
         "torch.cat(written[\"planes\"][::-1], 1)"),
        (check_slots, DENOISE, "torch.log(sigma / alpha)", "torch.log(sigma)"),
        (check_slots, DENOISE, "self.backbone(c_in * x_t", "self.backbone(x_t"),
        (check_slots, DENOISE, "c_skip * x_t + c_out", "x_t + c_out"),
        (check_nulls, DENOISE, "ones if value is None", "~ones if value is None"),
    ],
}  # fmt: skip
