"""Backbones: each option against the network written once more, and whether everything matters."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from .networks import F64, REFERENCES, Weights, half_unet

# Options of small networks, the first of each kind without any beside the widths.
SMALL = {
    "adm": {"channels": (8, 16), "width": 24},
    "conditional_unet": {"channels": (8, 16), "width": 24},
    "convnext_unet": {"channels": (8, 12), "width": 24},
    "dit": {"width": 32, "depth": 2},
    "mlp": {"hidden": 24, "width": 20},
    "score_unet": {"channels": (8, 16, 24), "width": 24},
    "transformer_unet": {"channels": (8, 16, 24), "width": 24},
    "unet": {"channels": (12, 16), "width": 24},
}
CASES = {
    "adm": [{"blocks": 1}, {"attention": 3}, {"attention": 4}, {"head": 8},
            {"channels": (8, 8, 12)}],
    "conditional_unet": [{"blocks": 2}, {"attention": 3}, {"attention": 4}, {"channels": (128, 8)}],
    "convnext_unet": [{"residuals": 1}, {"gates": True}, {"pointwise": False}, {"channels": (8,)},
                      {"gates": True, "residuals": 1, "channels": (8, 12, 8)}],
    "dit": [{"patch": 4}, {"depth": 1}, {"heads": 2}, {"heads": 4}, {"normed": False}],
    "mlp": [{"blocks": 1}, {"hidden": 40}],
    "score_unet": [{"skips": "add"}, {"channels": (8, 16)}, {"scale": 2.0}],
    "transformer_unet": [{"attention": 2}, {"attention": 16}, {"heads": 2}, {"scale": 2.0},
                         {"channels": (8, 64)}],
    "unet": [{"blocks": 2}, {"attention": 3}, {"stem": 2}, {"stem": 1, "attention": 4},
             {"channels": (12, 8, 64)}],
}  # fmt: skip
SHAPE = (2, 8, 8)
SIZES = ((8, 8), (7, 10))


def drawn(module, seed=0, scale=0.3):
    """The module in float64 with every parameter drawn anew, so that nothing starts silent."""
    g = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=g, dtype=F64))
    return module


def built(kit, kind, planes=3, shape=SHAPE, **options):
    """A small backbone, and whether it takes planes."""
    cls = kit.part(f"backbones.{kind}")
    takes = "planes" in cls.accepts
    options = SMALL[kind] | options
    return drawn(cls(shape, planes, **options) if takes else cls(shape, **options))


def slots_of(kit, net, size, planes=3, n=3, seed=1):
    """Items and every slot that the backbone reads; prompts of several lengths."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=F64)

    x, found = draw(n, SHAPE[0], *size), {"level": 2.0 * draw(n)}
    if "vector" in net.accepts:
        found["vector"] = draw(n, net.width)
    if "planes" in net.accepts and planes:
        found["planes"] = draw(n, planes, *size)
    if "tokens" in net.accepts:
        found["tokens"] = draw(n, 4, net.width)
        found["mask"] = torch.arange(4) < torch.tensor([[4], [2], [1]])[:n]
    return x, kit("core.types").Slots(**found)


def reference_of(kind):
    """The check that a backbone with each of its options is the network of its reference."""

    def check(kit) -> None:
        for options in ({}, *CASES[kind]):
            net = built(kit, kind, **options)
            sizes = SIZES[:1] if kind == "mlp" else SIZES if not options else SIZES[1:]
            for size in sizes:
                x, slots = slots_of(kit, net, size)
                bare = kit("core.types").Slots(slots.level)
                unmasked = dataclasses.replace(slots, mask=None)
                for told in (slots, bare, unmasked) if not options else (slots,):
                    weights = Weights(net.state_dict())
                    full = SMALL[kind] | options
                    want = REFERENCES[kind](weights, x, told, SHAPE, 3, **full)
                    with torch.no_grad():
                        got = net(x, told)
                    assert got.shape == x.shape
                    off = float((got - want).abs().max() / want.abs().max().clamp(min=1.0))
                    assert off < 1e-6, f"{kind} {options} {size}: off by {off:.1e}"
                    left = weights.left() if told is slots else []
                    assert not left, f"{kind} {options}: {left}"

    check.__name__ = f"check_{kind}"
    return check


NETWORKS = {kind: reference_of(kind) for kind in SMALL}


def check_all_have_references(kit) -> None:
    """No backbone is without a reference."""
    assert (
        sorted(SMALL)
        == sorted(REFERENCES)
        == sorted(SKIPS)
        == kit("recipes.part").kinds("backbone")
    )


def check_classifier(kit) -> None:
    """Every option of the classifier's network, and the logits that noise silences."""
    small = {"channels": (8, 16), "width": 24}
    cases = [{}, {"blocks": 2}, {"attention": 3}, {"attention": 4}, {"head": 8}]
    for options in [*cases, {"channels": (8, 8, 128)}]:
        net = drawn(kit.part("classifiers.half_unet")(SHAPE, 5, **(small | options)))
        for size in SIZES:
            g = torch.Generator().manual_seed(3)
            x = torch.randn(3, SHAPE[0], *size, generator=g, dtype=F64)
            level = torch.randn(3, generator=g, dtype=F64)
            weights = Weights(net.state_dict())
            want = half_unet(weights, x, level, SHAPE, **(small | options))
            off = float(((net(x, level) - want).abs().max() / want.abs().max()).detach())
            assert off < 1e-6, f"half_unet {options} {size}: off by {off:.1e}"
            assert not weights.left()
    process = kit.part("processes.flow")(0.3)
    noisy = kit("nn.noisy_classifier").NoisyClassifier(process, net, "label", 5)
    with torch.no_grad():
        noisy.prior.copy_(torch.linspace(-1, 1, 5))
    noisy = noisy.double()
    t = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    alpha, sigma = process.schedule(t)
    x = x[:, :, :8, :8]
    c_in = 1 / torch.sqrt(sigma**2 + 0.09 * alpha**2)
    f = net(c_in[:, None, None, None] * x, torch.log(sigma / alpha))
    logits = noisy.prior + (alpha / torch.hypot(alpha, sigma))[:, None] * f
    label = torch.tensor([3, -1, 0])
    want = torch.log_softmax(logits, 1)[[0, 1, 2], label] * (label >= 0)
    assert torch.allclose(noisy(x, t, {"label": label}), want, atol=1e-12)
    assert torch.equal(noisy(x, t, {}), torch.zeros(3, dtype=F64))
    batch = kit("core.types").Batch(x, {"label": label})
    z = torch.randn(x.shape, generator=g, dtype=F64)
    loss = noisy.loss_at(batch, t, z)
    assert torch.allclose(loss, -noisy(process.noised(x, t, z), t, {"label": label}))


def gradients_of(kind):
    """The check that with every tensor drawn the answer depends on each, and on all it is told."""

    def check(kit) -> None:
        for options in ({}, *CASES[kind]):
            net = built(kit, kind, **options)
            x, slots = slots_of(kit, net, (8, 8))
            told = {f.name: getattr(slots, f.name) for f in dataclasses.fields(slots)}
            inputs = {k: v.requires_grad_() for k, v in {"x": x, **told}.items()
                      if v is not None and v.is_floating_point()}  # fmt: skip
            g = torch.Generator().manual_seed(7)
            answer = net(x, slots)
            (answer * torch.randn(answer.shape, generator=g, dtype=F64)).sum().backward()
            for name, parameter in net.named_parameters():
                grad = parameter.grad
                assert grad is not None and bool(grad.any()), f"{kind} {options}: {name}"
            for name, value in inputs.items():
                read = value.grad != 0
                if name == "tokens":
                    assert not bool(read[~slots.mask].any()), f"{kind}: a masked token is read"
                    read = read[slots.mask]
                share = float(read.double().mean())
                assert share > 0.99, f"{kind} {options}: {share:.2f} of {name} is read"

    check.__name__ = f"check_gradients_of_{kind}"
    return check


GRADIENTS = {kind: gradients_of(kind) for kind in SMALL}


# For each backbone where a skip begins, and what else takes its map: with the second cut off, the
# gradient of the first goes through the skip alone.
SKIPS = {
    "adm": [("enter", "down.0"), *((f"down.{i}", f"down.{i + 1}") for i in range(4)),
            ("down.4", "middle.0")],
    "conditional_unet": [("down.0.0", "shrink.0"), ("down.1.0", "middle.0")],
    "convnext_unet": [("stem", "down.0.0"), ("down.0.0", "down.0.1"), ("down.0.1", "shrink.0"),
                      ("down.1.0", "down.1.1"), ("down.1.1", "middle.0")],
    "dit": [],
    "mlp": [],
    "score_unet": [("enter", "down.0"), ("down.0", "down.1")],
    "transformer_unet": [("enter", "down.0"), ("down.0", "down.1")],
    "unet": [("down.0.0", "shrink.0")],
}  # fmt: skip


def skips_of(kind):
    """The check that every skip hands its map on: with the other way cut off it still matters."""

    def check(kit) -> None:
        for begins, other in SKIPS[kind]:
            net = built(kit, kind)
            x, slots = slots_of(kit, net, (8, 8))

            def cut(module, args):
                return (args[0].detach().requires_grad_(), *args[1:])

            handle = net.get_submodule(other).register_forward_pre_hook(cut)
            net(x.requires_grad_(), slots).square().sum().backward()
            handle.remove()
            owner = net.get_submodule(begins)
            silent = [n for n, p in owner.named_parameters() if p.grad is None or not p.grad.any()]
            assert not silent, f"{kind}: the skip of {begins} is not taken ({silent})"

    check.__name__ = f"check_skips_of_{kind}"
    return check


WITH_SKIPS = {kind: skips_of(kind) for kind, pairs in SKIPS.items() if pairs}


def check_stem(kit) -> None:
    """The stem is the largest that leaves 12 places a side and half of the width to features."""
    for side in (8, 23, 24, 48, 96, 200):
        for c in (1, 3):
            for width in (7, 8, 31, 32, 64, 384):
                fits = [n for n in (1, 2, 4, 8) if side >= 12 * n and width >= 2 * c * n * n]
                got = kit("nn.resampling").stem_for((c, side, 5), width)
                assert got == max(fits, default=1), f"{side} {c} {width}"
    net = kit.part("backbones.unet")((1, 24, 20), 0, channels=(8, 8), width=16)
    assert (net.stem, net.multiple) == (2, 4)


def check_places(kit) -> None:
    """A permuted picture has no permuted answer: every network knows where a pixel lies.

    Networks that convolve know it by their borders and their kernels; those that attend by a code.
    """
    for kind in SMALL:
        net = built(kit, kind)
        x, slots = slots_of(kit, net, (8, 8))
        bare = dataclasses.replace(slots, planes=None)
        with torch.no_grad():
            got = net(x, bare)
            for move in (lambda v: v.roll(4, -1), lambda v: v.roll(4, -2), lambda v: v.flip(-1)):
                off = (net(move(x), bare) - move(got)).abs().amax((1, 2, 3))
                assert float(off.min()) > 1e-4, f"{kind}: a permuted picture, a permuted answer"
            if slots.tokens is not None:
                order = torch.tensor([1, 0, 2, 3])
                other = dataclasses.replace(bare, tokens=slots.tokens[:, order])
                off = float((net(x, other) - got)[0].abs().max())
                coded = kind == "dit"  # elsewhere the condition itself tells the place of a word
                assert (off > 1e-4) == coded, f"{kind}: the order of tokens"


def check_masks(kit) -> None:
    """A masked token changes nothing, each other one does, for every item by its own mask."""
    for kind in ("dit", "transformer_unet"):
        net = built(kit, kind)
        x, slots = slots_of(kit, net, (8, 8))
        with torch.no_grad():
            got = net(x, slots)
            for place in range(4):
                moved = slots.tokens.clone()
                moved[:, place] += torch.linspace(
                    -1, 1, net.width
                ).sin()  # a norm hears no constant
                other = net(x, dataclasses.replace(slots, tokens=moved))
                change = (other - got).abs().amax((1, 2, 3)) > 1e-6
                assert torch.equal(change, slots.mask[:, place]), f"{kind}: token {place}"


def check_dropout(kit) -> None:
    """`dropout` is the share of every dropout layer, inside every block, at work in training."""
    with_dropout = ("adm", "conditional_unet", "mlp", "unet", "half_unet")
    for kind in with_dropout:
        for share in (0.0, 0.7):
            if kind == "half_unet":
                options = {"channels": (8, 16), "width": 24, "dropout": share}
                net = drawn(kit.part("classifiers.half_unet")(SHAPE, 5, **options))
            else:
                net = built(kit, kind, dropout=share)
            layers = [m for m in net.modules() if isinstance(m, nn.Dropout)]
            blocks = [m for n, m in net.named_modules() if n.endswith(("second", "blocks"))]
            count = len(blocks) - (kind == "mlp")
            assert len(layers) == count and {m.p for m in layers} == {share}, kind
            seen = []
            for layer in layers:
                layer.register_forward_hook(lambda m, a, out, seen=seen: seen.append((a[0], out)))
            x, slots = slots_of(kit, net, (8, 8)) if kind != "half_unet" else scene(kit)
            told = slots.level if kind == "half_unet" else slots
            with torch.no_grad():
                first = net(x, told)
                assert torch.equal(first, net(x, told)), f"{kind}: eval is deterministic"
                assert all(torch.equal(a, b) for a, b in seen) and len(seen) == 2 * count
                net.train()
                assert torch.equal(net(x, told), first) == (share == 0.0), kind
                for before, after in seen[-count:]:
                    dropped = float(((after == 0) & (before != 0)).double().mean())
                    assert math.isclose(dropped, share, abs_tol=0.12), f"{kind}: {dropped}"


def scene(kit):
    g = torch.Generator().manual_seed(2)
    level = torch.randn(3, generator=g, dtype=F64)
    x = torch.randn(3, *SHAPE, generator=g, dtype=F64)
    return x, kit("core.types").Slots(level)


def check_frequencies(kit) -> None:
    """`scale` is the spread of the random frequencies, which are a buffer; `width` the vector's."""
    for kind in ("score_unet", "transformer_unet"):
        for scale in (0.5, 2.0):
            torch.manual_seed(3)
            options = {"channels": (8, 16)} | ({"scale": scale} if scale != 0.5 else {})
            net = kit.part(f"backbones.{kind}")(SHAPE, 0, **options)
            std = float(net.level.get_buffer("frequencies").std())
            assert abs(std / scale - 1) < 0.2, f"{kind}: {std}"
    for kind in SMALL:
        width = SMALL[kind]["width"]
        net = built(kit, kind)
        assert net.width == width == net.level.net[2].out_features, kind


def check_sizes(kit) -> None:
    """What a base width makes of every kind, on small and large, square and oblong pictures."""
    for shape in ((1, 8, 8), (3, 28, 28), (1, 33, 20), (3, 64, 64)):
        side = max(shape[1:])

        def levels(smallest, side=side):
            n = 1
            while math.ceil(side / 2 ** (n - 1)) > smallest:
                n += 1
            return max(2, n)

        for base in (24, 48, 96):
            first = 8 * round(base / 12)
            steps = range(levels(8))
            fits = [n for n in (1, 2, 4, 8) if side >= 12 * n and base >= 2 * shape[0] * n * n]
            stem = max(fits, default=1)
            small = max(2, 1 + math.ceil(math.log2(side / stem / 8)))
            four, two = min(5, max(3, levels(4))), min(5, max(3, levels(2)))
            wide, blocks = {"width": 4 * base}, {"blocks": 1 if base < 96 else 2}
            rising = tuple(base * min(1 + i, 4) for i in steps)
            wants = {
                "adm": {"channels": rising, **wide, **blocks},
                "conditional_unet": {"channels": tuple(base * min(2**i, 4) for i in steps), **wide},
                "convnext_unet": {
                    "channels": tuple(base * 2**i for i in range(min(4, levels(8)))),
                    **wide,
                },
                "dit": {"depth": 6, **wide},
                "mlp": {"hidden": 16 * base, **wide},
                "score_unet": {"channels": tuple(first * min(2**i, 8) for i in range(two)), **wide},
                "transformer_unet": {"channels": tuple(first * 2**i for i in range(four)), **wide},
                "unet": {"channels": (base, *[2 * base] * (small - 1)), "stem": stem, **wide},
            }
            for kind, want in wants.items():
                assert kit.part(f"backbones.{kind}").sized(shape, base) == want, f"{kind} {shape}"
            attention = {"attention": 8 if base < 96 else 32}
            got = kit.part("classifiers.half_unet").sized(shape, base)
            assert got == {"channels": rising, **wide, **blocks, **attention}


CHECKS = (
    check_sizes,
    check_all_have_references,
    *NETWORKS.values(),
    check_classifier,
    *GRADIENTS.values(),
    *WITH_SKIPS.values(),
    check_stem,
    check_places,
    check_masks,
    check_dropout,
    check_frequencies,
)


def _at(kind, *edits, module=None, check=None):
    """A mistake in the file of a backbone, or in a layer that it is made of."""
    return (check or NETWORKS[kind], module or f"backbones.{kind}", *edits)


ATTENTION, BLOCKS, EMBED = "nn.attention", "nn.blocks", "nn.embeddings"
BIASED, RESAMPLING = "nn.biased", "nn.resampling"
MUTANTS = {
    ("backbone", "unet", "channels"): [
        _at("unet", "h = skips[i - 1] +", "h = 0.0 * skips[i - 1] +"),
        _at("unet", "h = skips[i - 1] +", "h = 0.0 * skips[i - 1] +", check=WITH_SKIPS["unet"]),
        _at("unet", "h = skips[i - 1] +", "h = 0.5 * skips[i - 1] +"),
        _at("unet", "self.leave(F.silu(self.last_norm(h)))", "self.leave(self.last_norm(h))"),
    ],
    ("backbone", "unet", "blocks"): [
        _at("unet", "h = self._run(self.up[i], h, vector)",
            "h = self._run(self.up[i][:1], h, vector)"),
        _at("unet", "return x + self.second", "return self.second"),
    ],
    ("backbone", "unet", "stem"): [
        _at("unet", "self.stem = stem or stem_for", "self.stem = stem_for"),
        _at("unet", "2 * shape[0] * s**2 <= width", "shape[0] * s**2 <= width", module=RESAMPLING,
            check=check_stem),
        _at("unet", ">= 12 * s and", ">= 8 * s and", module=RESAMPLING, check=check_stem),
    ],
    ("backbone", "unet", "width"): [
        _at("unet", "F.silu(vector if slots.vector is None else vector + slots.vector)",
            "F.silu(vector)"),
        _at("unet", "self.second_norm(h), 1.0 + scale)", "self.second_norm(h), scale)"),
        _at("unet", "vector = self.level(slots.level)", "vector = 0.0 * self.level(slots.level)",
            check=GRADIENTS["unet"]),
    ],
    ("backbone", "unet", "attention"): [
        _at("unet", "<= attention:", "< attention:"),
        _at("unet", "<= attention:", "<= 8:"),
        _at("unet", "return x + rows.reshape", "return rows.reshape", module=ATTENTION),
        _at("unet", "self.norm(x).permute", "x.permute", module=ATTENTION),
    ],
    ("backbone", "unet", "dropout"): [
        _at("unet", "nn.Dropout(dropout)", "nn.Dropout(0.0)", check=check_dropout),
        _at("unet", "self.second(self.dropout(F.silu(h)))", "self.second(F.silu(h))",
            check=check_dropout),
    ],
    ("backbone", "conditional_unet", "channels"): [
        _at("conditional_unet", "torch.cat([h, skips[i]], 1)", "torch.cat([h, 0.0 * skips[i]], 1)"),
        _at("conditional_unet", "torch.cat([h, skips[i]], 1)", "torch.cat([h, 0.0 * skips[i]], 1)",
            check=WITH_SKIPS["conditional_unet"]),
        _at("conditional_unet", "h = _run(self.middle, h, vector)", "h = h"),
        _at("conditional_unet", "channels >= 4 * g", "channels >= 2 * g", module=BLOCKS),
    ],
    ("backbone", "conditional_unet", "blocks"): [
        _at("conditional_unet", "block(c, c, heads=h) for _ in range(blocks)",
            "block(c, c, heads=h) for _ in range(1)"),
    ],
    ("backbone", "conditional_unet", "width"): [
        _at("conditional_unet", "self.second_norm(h + film)", "self.second_norm(h)", module=BLOCKS),
        _at("conditional_unet", "F.silu(vector if slots.vector", "(vector if slots.vector"),
    ],
    ("backbone", "conditional_unet", "attention"): [
        _at("conditional_unet", "largest=attention", "largest=16"),
        _at("conditional_unet", "if side <= largest", "if side < largest", module=BLOCKS),
        _at("conditional_unet", "heads_by_width(last, HEAD)), block", "0), block"),
    ],
    ("backbone", "conditional_unet", "dropout"): [
        _at("conditional_unet", "width=width, dropout=dropout", "width=width", check=check_dropout),
        _at("conditional_unet", "nn.Dropout(dropout)", "nn.Dropout(dropout / 2)", module=BLOCKS,
            check=check_dropout),
    ],
    ("backbone", "adm", "channels"): [
        _at("adm", "torch.cat([h, skips.pop()], 1)", "torch.cat([h, 0.0 * skips.pop()], 1)",
            check=WITH_SKIPS["adm"]),
        _at("adm", "torch.cat([h, skips.pop()], 1)", "torch.cat([h, 2.0 * skips.pop()], 1)"),
        _at("adm", "F.avg_pool2d(x, 2) if half", "x[..., ::2, ::2] if half", module=BLOCKS),
        _at("adm", "self.shortcut(self._resized(x)) + h", "h", module=BLOCKS),
    ],
    ("backbone", "adm", "blocks"): [
        _at("adm", "            for _ in range(blocks):\n", "            for _ in range(2):\n"),
    ],
    ("backbone", "adm", "width"): [
        _at("adm", "1.0 + scale)", "scale)", module=BLOCKS),
        _at("adm", "F.silu(vector if slots.vector is None else vector + slots.vector)",
            "F.silu(vector)"),
    ],
    ("backbone", "adm", "attention"): [
        _at("adm", "largest=attention", "largest=16"),
    ],
    ("backbone", "adm", "head"): [
        _at("adm", "largest=attention, head=head", "largest=attention, head=64"),
        _at("adm", "heads_by_width(now, head)", "heads_by_width(now, 64)"),
    ],
    ("backbone", "adm", "dropout"): [
        _at("adm", "dropout=dropout, scaled", "scaled", check=check_dropout),
        _at("adm", "self.second(self.dropout(F.silu(h)))", "self.second(F.silu(h))",
            module=BLOCKS, check=check_dropout),
    ],
    ("backbone", "convnext_unet", "channels"): [
        _at("convnext_unet", "torch.cat([h, taken], 1)", "torch.cat([h, 0.0 * taken], 1)",
            check=WITH_SKIPS["convnext_unet"]),
        _at("convnext_unet", "torch.cat([h, stem], 1)", "torch.cat([h, 0.0 * stem], 1)"),
        _at("convnext_unet", "reversed(skips)", "skips"),
        _at("convnext_unet", "h = F.gelu(self.first(", "h = F.relu(self.first("),
    ],
    ("backbone", "convnext_unet", "residuals"): [
        _at("convnext_unet", "for _ in range(residuals)) for c in channels\n",
            "for _ in range(2)) for c in channels\n"),
    ],
    ("backbone", "convnext_unet", "width"): [
        _at("convnext_unet", "+ self.add(vector)", "+ 0.0 * self.add(vector)",
            check=GRADIENTS["convnext_unet"]),
        _at("convnext_unet", "F.gelu(vector if", "F.silu(vector if"),
    ],
    ("backbone", "convnext_unet", "pointwise"): [
        _at("convnext_unet", "kernel=1 if pointwise else 3", "kernel=1"),
    ],
    ("backbone", "convnext_unet", "gates"): [
        _at("convnext_unet", "if self.gated else skip", "if False else skip"),
        _at("convnext_unet", "self.of_g(g) + self.of_x(x)", "self.of_x(x)", module=BLOCKS),
        _at("convnext_unet", "torch.sigmoid(self.weight", "(self.weight", module=BLOCKS),
    ],
    ("backbone", "dit", "patch"): [
        _at("dit", "self.patch = patch or auto", "self.patch = auto"),
        _at("dit", "+ grid_code(", "+ 0.0 * grid_code("),
        _at("dit", "+ grid_code(", "+ 0.0 * grid_code(", check=check_places),
        _at("dit", "grid_code(down, along,", "grid_code(along, down,"),
        _at("dit", "-math.log(100.0) * share", "-math.log(10.0) * share", module=EMBED),
    ],
    ("backbone", "dit", "width"): [
        _at("dit", "told[0], told[1])", "told[1], told[0])"),
        _at("dit", "torch.addcmul(rows, told[2], mixed)", "rows + mixed"),
        _at("dit", "tokens = slots.tokens + line_code", "tokens = slots.tokens + 0.0 * line_code",
            check=check_places),
        _at("dit", "+ line_code(", "- line_code("),
    ],
    ("backbone", "dit", "depth"): [
        _at("dit", "for _ in range(depth)", "for _ in range(2)"),
        _at("dit", "for block in self.blocks:", "for block in self.blocks[:1]:"),
    ],
    ("backbone", "dit", "heads"): [
        _at("dit", "heads_for(width, heads)", "heads_for(width)"),
        _at("dit", "torch.cat([mask.new_ones(rows.shape[:2]), mask], 1)",
            "mask.new_ones(len(mask), rows.shape[1] + mask.shape[1])", check=check_masks),
        _at("dit", "torch.cat([mask.new_ones(rows.shape[:2]), mask], 1)",
            "mask.new_ones(len(mask), rows.shape[1] + mask.shape[1])"),
    ],
    ("backbone", "dit", "normed"): [
        _at("dit", "normed=normed", "normed=True"),
        _at("dit", "key = self.key_norm(self._split(self.key(source)))",
            "key = self._split(self.key(source))", module=ATTENTION),
    ],
    ("backbone", "mlp", "hidden"): [
        _at("mlp", "return h + self.second", "return self.second"),
        _at("mlp", "self.gain(vector), flat)", "0.0 * self.gain(vector), flat)"),
        _at("mlp", "self.first(self.norm(h))", "self.first(h)"),
    ],
    ("backbone", "mlp", "blocks"): [
        _at("mlp", "for _ in range(blocks)", "for _ in range(4)"),
    ],
    ("backbone", "mlp", "width"): [
        _at("mlp", "vector + slots.vector)", "vector)"),
        _at("mlp", "1.0 + scale)", "scale)"),
    ],
    ("backbone", "mlp", "dropout"): [
        _at("mlp", "nn.Dropout(dropout)", "nn.Dropout(0.1)", check=check_dropout),
    ],
    ("backbone", "score_unet", "channels"): [
        _at("score_unet", "torch.cat([h, skip], 1)", "torch.cat([h, 0.0 * skip], 1)",
            check=WITH_SKIPS["score_unet"]),
        _at("score_unet", "self.norm(self.convolution(x)) + ", "self.convolution(x) + ",
            module=BIASED),
    ],
    ("backbone", "score_unet", "width"): [
        _at("score_unet", "+ self.bias(vector)", "+ 0.0 * self.bias(vector)", module=BIASED,
            check=GRADIENTS["score_unet"]),
        _at("score_unet", "vector + slots.vector)", "vector)"),
    ],
    ("backbone", "score_unet", "scale"): [
        _at("score_unet", "(width, scale=scale)", "(width)", check=check_frequencies),
        _at("score_unet", "scale * torch.randn", "torch.randn", module=EMBED,
            check=check_frequencies),
        _at("score_unet", "2.0 * math.pi * level", "math.pi * level", module=EMBED),
    ],
    ("backbone", "score_unet", "skips"): [
        _at("score_unet", 'else h + skip\n', "else h\n"),
        _at("score_unet", 'if self.skips == "concat" else', 'if self.skips == "concat" else 0.5 *'),
    ],
    ("backbone", "transformer_unet", "channels"): [
        _at("transformer_unet", "h = skip + self.up", "h = 0.0 * skip + self.up",
            check=WITH_SKIPS["transformer_unet"]),
        _at("transformer_unet", "h = self._read(self.read_up, i, h, slots)", "h = h"),
    ],
    ("backbone", "transformer_unet", "width"): [
        _at("transformer_unet", "context=width, heads=count)\n            if count and",
            "context=width, heads=count, position=False)\n            if count and"),
        _at("transformer_unet", "slots.tokens, slots.mask) if", "slots.tokens) if",
            check=check_masks),
        _at("transformer_unet", "self.cross_norm(rows) + code,", "self.cross_norm(rows),",
            module=ATTENTION),
        _at("transformer_unet", "self.self_norm(rows) + code)", "self.self_norm(rows))",
            module=ATTENTION),
    ],
    ("backbone", "transformer_unet", "scale"): [
        _at("transformer_unet", "(width, scale=scale)", "(width)", check=check_frequencies),
    ],
    ("backbone", "transformer_unet", "attention"): [
        _at("transformer_unet", "<= attention", "<= 8"),
        _at("transformer_unet", "<= attention", "< attention"),
    ],
    ("backbone", "transformer_unet", "heads"): [
        _at("transformer_unet", "heads_for(c, heads)", "heads_for(c)"),
        _at("transformer_unet", "heads_by_width(channels, 32)", "heads_by_width(channels, 64)",
            module=ATTENTION),
    ],
    ("backbone", "", "sized"): [
        (check_sizes, "backbones.unet", "[2 * base] * (levels - 1)", "[base] * (levels - 1)"),
        (check_sizes, BLOCKS, "max(2, 1 + math.ceil", "max(1, 1 + math.ceil"),
        (check_sizes, "backbones.score_unet", "levels_for(shape, 2)", "levels_for(shape, 4)"),
        (check_sizes, "backbones.dit", '"width": 4 * base', '"width": base'),
    ],
    ("backbone", "", "planes"): [
        _at("unet", "[x, planes.to(x)]", "[x, 0.0 * planes.to(x)]", module=RESAMPLING),
        _at("adm", "[x, planes.to(x)]", "[x, 0.0 * planes.to(x)]", module=RESAMPLING,
            check=GRADIENTS["adm"]),
        _at("unet", 'mode="replicate"', 'mode="constant"', module=RESAMPLING),
    ],
    ("backbone", "", "level"): [
        _at("unet", "math.log(64.0) - math.log(16.0)", "math.log(64.0)", module=EMBED),
        _at("unet", "[angle.sin(), angle.cos()], 1) * math.sqrt(2.0))",
            "[angle.sin(), 0.0 * angle.cos()], 1) * math.sqrt(2.0))", module=EMBED),
    ],
    ("classifier", "half_unet", "channels"): [
        _at("unet", "rows + code], 1)", "rows], 1)", module="classifiers.half_unet",
            check=check_classifier),
        _at("unet", "torch.cat([mean, rows", "torch.cat([0.0 * mean, rows",
            module="classifiers.half_unet", check=check_classifier),
        _at("unet", "(*self.down, *self.middle)", "self.down", module="classifiers.half_unet",
            check=check_classifier),
    ],
    ("classifier", "half_unet", "blocks"): [
        _at("unet", "for _ in range(blocks)", "for _ in range(1)", module="classifiers.half_unet",
            check=check_classifier),
    ],
    ("classifier", "half_unet", "width"): [
        _at("unet", "F.silu(self.level(level))", "self.level(level)",
            module="classifiers.half_unet", check=check_classifier),
        _at("unet", "self.prior + seen * found", "self.prior + found", module="nn.noisy_classifier",
            check=check_classifier),
        _at("unet", "self.prior + seen", "seen", module="nn.noisy_classifier",
            check=check_classifier),
        _at("unet", "self.backbone(c_in * x_t", "self.backbone(x_t", module="nn.noisy_classifier",
            check=check_classifier),
        _at("unet", "rows.masked_fill(absent(label), 0.0)", "rows", module="nn.noisy_classifier",
            check=check_classifier),
    ],
    ("classifier", "half_unet", "attention"): [
        _at("unet", "largest=attention", "largest=8", module="classifiers.half_unet",
            check=check_classifier),
    ],
    ("classifier", "half_unet", "head"): [
        _at("unet", "heads_by_width(now, head)", "heads_by_width(now, 8)",
            module="classifiers.half_unet", check=check_classifier),
        _at("unet", "largest=attention, head=head", "largest=attention, head=32",
            module="classifiers.half_unet", check=check_classifier),
    ],
    ("classifier", "half_unet", "dropout"): [
        _at("unet", "dropout=dropout, scaled", "scaled", module="classifiers.half_unet",
            check=check_dropout),
    ],
}  # fmt: skip
