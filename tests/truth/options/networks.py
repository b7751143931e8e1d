"""Every backbone written down once more on plain tensors, from its state and its options alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

F64 = torch.float64


class Weights:
    """The tensors of a state by name; what nobody has asked for is left over."""

    def __init__(self, state):
        self.state, self.used = dict(state), set()

    def __call__(self, name):
        self.used.add(name)
        assert name in self.state, f"no tensor {name}"
        return self.state[name]

    def has(self, name):
        return name in self.state

    def left(self):
        return sorted(set(self.state) - self.used)

    def linear(self, name, x, bias=True):
        return x @ self(f"{name}.weight").T + (self(f"{name}.bias") if bias else 0.0)

    def conv(self, name, x, bias=True, **options):
        kernel = self(f"{name}.weight")
        return F.conv2d(x, kernel, self(f"{name}.bias") if bias else None, **options)

    def same(self, name, x):
        return self.conv(name, x, padding=self(f"{name}.weight").shape[-1] // 2)

    def norm(self, name, x, groups):
        """Group norm in one formula."""
        b, c = x.shape[:2]
        flat = x.reshape(b, groups, -1)
        mean, var = flat.mean(-1, keepdim=True), flat.var(-1, correction=0, keepdim=True)
        x = ((flat - mean) / torch.sqrt(var + 1e-5)).reshape(x.shape)
        shape = (1, c, *[1] * (x.ndim - 2))
        return x * self(f"{name}.weight").reshape(shape) + self(f"{name}.bias").reshape(shape)

    def layer(self, name, x):
        """Layer norm over the last axis, with its gain and shift."""
        return plain(x, 1e-5) * self(f"{name}.weight") + self(f"{name}.bias")


def plain(x, eps):
    mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(var + eps)


def silu(x):
    return x * torch.sigmoid(x)


def groups(c):
    return next((g for g in (32, 16, 8, 4, 2) if c % g == 0 and c // g >= 4), 1)


def fewer(c):
    """The groups of `unet`."""
    return next(g for g in (8, 4, 2, 1) if c % g == 0)


def heads_of(c, head):
    return max(h for h in range(1, max(1, c // head) + 1) if c % h == 0)


def embedded(w, level, features=32):
    """Sines and cosines at frequencies from 1/16 to 4, then two layers."""
    rate = torch.tensor([64.0 ** (i / (features - 1)) / 16 for i in range(features)], dtype=F64)
    angle = level[:, None] * rate
    return two(w, torch.cat([angle.sin(), angle.cos()], 1) * 2**0.5)


def random_embedded(w, level):
    angle = 2 * math.pi * level[:, None] * w("level.frequencies")
    return two(w, torch.cat([angle.sin(), angle.cos()], 1) * 2**0.5)


def two(w, x):
    return w.linear("level.net.2", silu(w.linear("level.net.0", x)))


def places(n, c):
    """Sines and cosines of n places, in pairs whose frequencies fall from 1 to 1/100."""
    count = math.ceil(c / 2)
    rows = []
    for i in range(n):
        row = []
        for k in range(count):
            rate = 100.0 ** (-k / max(1, count - 1))
            row += [math.sin(i * rate), math.cos(i * rate)]
        rows.append(row[:c])
    return torch.tensor(rows, dtype=F64)


def grid(h, w, c):
    half = math.ceil(c / 2)
    down, along = places(h, half), places(w, half)
    return torch.stack([torch.cat([down[i], along[j]])[:c] for i in range(h) for j in range(w)])


def attend(q, k, v, heads, mask=None):
    """softmax(q k / sqrt(d)) v, head by head; where the mask is false a key does not count."""
    outs = []
    for a, b, c in zip(*(x.chunk(heads, -1) for x in (q, k, v)), strict=True):
        scores = a @ b.mT / math.sqrt(a.shape[-1])
        if mask is not None:
            scores = torch.where(mask[:, None], scores, torch.tensor(-1e30, dtype=F64))
        outs.append(torch.softmax(scores, -1) @ c)
    return torch.cat(outs, -1)


def self_attention(w, name, x, heads):
    """Attention over the places of a map, added to it."""
    b, c, h, v = x.shape
    rows = w.norm(f"{name}.norm", x, 1).flatten(2).mT
    q, k, value = w.linear(f"{name}.qkv", rows).chunk(3, -1)
    out = w.linear(f"{name}.out", attend(q, k, value, heads))
    return x + out.mT.reshape(b, c, h, v)


def unit(w, name, x, heads):
    """Each head of a row at root mean square 1, with a gain."""
    parts = x.unflatten(-1, (heads, -1))
    parts = parts / torch.sqrt(parts.square().mean(-1, keepdim=True) + 1e-6)
    return (parts * w(f"{name}.weight")).flatten(-2)


def attention(w, name, rows, heads, *, context=None, mask=None, normed=False):
    source = rows if context is None else context
    q = w.linear(f"{name}.query", rows)
    k = w.linear(f"{name}.key", source, bias=False)
    if normed:
        q, k = unit(w, f"{name}.query_norm", q, heads), unit(w, f"{name}.key_norm", k, heads)
    return w.linear(f"{name}.out", attend(q, k, w.linear(f"{name}.value", source), heads, mask))


def vector_of(level, slots, act=silu):
    return act(level if slots.vector is None else level + slots.vector)


def with_planes(x, slots, planes):
    if not planes:
        return x
    extra = slots.planes
    return torch.cat([x, torch.zeros_like(x[:, :1]).repeat(1, planes, 1, 1)
                      if extra is None else extra], 1)  # fmt: skip


def padded(x, multiple):
    """The last row and column again and again, until both sides are multiples."""
    while x.shape[2] % multiple:
        x = torch.cat([x, x[:, :, -1:]], 2)
    while x.shape[3] % multiple:
        x = torch.cat([x, x[..., -1:]], 3)
    return x


def twice(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def to_depth(x, n):
    """Patches n x n become channels, channel by channel, row by row."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // n, n, w // n, n)
    return x.permute(0, 1, 3, 5, 2, 4).reshape(b, c * n * n, h // n, w // n)


def from_depth(x, n):
    b, c, h, w = x.shape
    x = x.reshape(b, c // n**2, n, n, h, w)
    return x.permute(0, 1, 4, 2, 5, 3).reshape(b, c // n**2, h * n, w * n)


def residual(w, name, x, vector, *, scaled=False, heads=0, resize=1.0):
    """The block of `conditional_unet` and `adm`."""

    def resized(y):
        if resize == 2.0:
            return twice(y)
        return (
            y
            if resize == 1.0
            else (y[..., ::2, ::2] + y[..., 1::2, ::2] + y[..., ::2, 1::2] + y[..., 1::2, 1::2]) / 4
        )

    first = silu(w.norm(f"{name}.first_norm", x, groups(x.shape[1])))
    h = w.same(f"{name}.first", resized(first))
    film = w.linear(f"{name}.film", vector)[:, :, None, None]
    g = groups(h.shape[1])
    if scaled:
        scale, shift = film.chunk(2, 1)
        h = w.norm(f"{name}.second_norm", h, g) * (1 + scale) + shift
    else:
        h = w.norm(f"{name}.second_norm", h + film, g)
    h = w.same(f"{name}.second", silu(h))
    x = resized(x)
    if w.has(f"{name}.shortcut.weight"):
        x = w.same(f"{name}.shortcut", x)
    return self_attention(w, f"{name}.attention", x + h, heads) if heads else x + h


def level_heads(channels, shape, largest, head):
    """Heads of every level: none where the map, of the picture as built, is too large."""
    smallest = math.ceil(max(shape[1:]) / 2 ** (len(channels) - 1))
    sides = [smallest * 2 ** (len(channels) - 1 - i) for i in range(len(channels))]
    return [heads_of(c, head) if s <= largest else 0 for c, s in zip(channels, sides, strict=True)]


def unet(w, x, slots, shape, planes, *, channels=(48, 96), blocks=1, stem=0, attention=8, **_):
    if not stem:
        fits = [n for n in (1, 2, 4, 8) if max(shape[1:]) >= 12 * n
                and 2 * shape[0] * n * n <= channels[0]]  # fmt: skip
        stem = max(fits, default=1)
    multiple = stem * 2 ** (len(channels) - 1)
    vector = vector_of(embedded(w, slots.level), slots)

    def block(name, h):
        c = h.shape[1]
        inner = w.same(f"{name}.first", silu(w.norm(f"{name}.first_norm", h, fewer(c))))
        scale, shift = w.linear(f"{name}.film", vector)[:, :, None, None].chunk(2, 1)
        inner = w.norm(f"{name}.second_norm", inner, fewer(c)) * (1 + scale) + shift
        return h + w.same(f"{name}.second", silu(inner))

    size = x.shape[2:]
    h = w.same("enter", to_depth(padded(with_planes(x, slots, planes), multiple), stem))
    skips, last = [], len(channels) - 1
    for i in range(last + 1):
        for j in range(blocks):
            h = block(f"down.{i}.{j}", h)
        if i == last and math.ceil(max(shape[1:]) / multiple) <= attention:
            h = self_attention(w, f"down.{i}.{blocks}", h, heads_of(h.shape[1], 32))
        if i < last:
            skips.append(h)
            h = w.conv(f"shrink.{i}", h, stride=2, padding=1)
    for i in reversed(range(last + 1)):
        for j in range(blocks):
            h = block(f"up.{i}.{j}", h)
        if i:
            h = skips.pop() + twice(w.conv(f"grow.{i - 1}", h))
    h = w.same("leave", silu(w.norm("last_norm", h, fewer(channels[0]))))
    return from_depth(h, stem)[..., : size[0], : size[1]]


def conditional_unet(w, x, slots, shape, planes, *, channels=(64, 128, 256), blocks=1,
                     attention=16, **_):  # fmt: skip
    heads, last = level_heads(channels, shape, attention, 64), len(channels) - 1
    vector, size = vector_of(embedded(w, slots.level), slots), x.shape[2:]
    h = w.same("enter", padded(with_planes(x, slots, planes), 2**last))
    skips = []
    for i in range(last + 1):
        for j in range(blocks):
            h = residual(w, f"down.{i}.{j}", h, vector, heads=heads[i])
        skips.append(h)
        if i < last:
            h = w.conv(f"shrink.{i}", h, stride=2, padding=1)
    h = residual(w, "middle.0", h, vector, heads=heads_of(channels[-1], 64))
    h = residual(w, "middle.1", h, vector)
    for i in reversed(range(last + 1)):
        h = torch.cat([h, skips.pop()], 1)
        for j in range(blocks):
            h = residual(w, f"up.{i}.{j}", h, vector, heads=heads[i])
        if i:
            h = w.same(f"grow.{i - 1}.mix", twice(h))
    h = w.same("leave", silu(w.norm("last_norm", h, groups(h.shape[1]))))
    return h[..., : size[0], : size[1]]


def adm(w, x, slots, shape, planes, *, channels=(64, 128, 192), blocks=2, attention=16, head=64,
        **_):  # fmt: skip
    heads, last = level_heads(channels, shape, attention, head), len(channels) - 1
    vector, size = vector_of(embedded(w, slots.level), slots), x.shape[2:]

    def block(name, h, **options):
        return residual(w, name, h, vector, scaled=True, **options)

    h = w.same("enter", padded(with_planes(x, slots, planes), 2**last))
    skips, n = [h], 0
    for i in range(last + 1):
        if i:
            h = block(f"down.{n}", h, resize=0.5)
            skips, n = [*skips, h], n + 1
        for _ in range(blocks):
            h = block(f"down.{n}", h, heads=heads[i])
            skips, n = [*skips, h], n + 1
    h = block("middle.0", h, heads=heads_of(channels[-1], head))
    h, n = block("middle.1", h), 0
    for i in reversed(range(last + 1)):
        for _ in range(blocks + 1):
            h = block(f"up.{n}", torch.cat([h, skips.pop()], 1), heads=heads[i])
            n += 1
        if i:
            h = block(f"up.{n}", h, resize=2.0)
            n += 1
    assert not skips
    h = w.same("leave", silu(w.norm("last_norm", h, groups(h.shape[1]))))
    return h[..., : size[0], : size[1]]


def convnext_unet(w, x, slots, shape, planes, *, channels=(64, 128, 256, 512), residuals=2,
                  gates=False, pointwise=True, **_):  # fmt: skip
    last, size = len(channels) - 1, x.shape[2:]
    vector = vector_of(embedded(w, slots.level), slots, F.gelu)

    def block(name, y):
        h = w.conv(f"{name}.look", y, padding=3, groups=y.shape[1])
        h = h + w.linear(f"{name}.add", vector)[:, :, None, None]
        assert w(f"{name}.first.weight").shape[-1] == (1 if pointwise else 3)
        h = F.gelu(w.same(f"{name}.first", w.norm(f"{name}.first_norm", h, 1)))
        h = w(f"{name}.scale") * w.same(f"{name}.second", w.norm(f"{name}.second_norm", h, 1))
        return h + (w.same(f"{name}.shortcut", y) if w.has(f"{name}.shortcut.weight") else y)

    def gate(name, g, skip):
        asked = w.conv(f"{name}.of_g", g) + w.conv(f"{name}.of_x", skip, bias=False)
        return torch.sigmoid(w.conv(f"{name}.weight", asked.clamp(min=0))) * skip

    stem = h = w.same("stem", padded(with_planes(x, slots, planes), 2**last))
    skips = []
    for i in range(last + 1):
        for j in range(residuals):
            h = block(f"down.{i}.{j}", h)
            skips.append(h)
        if i < last:
            h = w.conv(f"shrink.{i}.mix", to_depth(h, 2))
    for j in range(2):
        h = block(f"middle.{j}", h)
    for i in reversed(range(last + 1)):
        for j in range(residuals):
            skip = skips.pop()
            skip = gate(f"gates.{i}.{j}", h, skip) if gates else skip
            h = block(f"up.{i}.{j}", torch.cat([h, skip], 1))
        if i:
            h = w.same(f"grow.{i - 1}.mix", twice(h))
    return w.conv("leave", block("last", torch.cat([h, stem], 1)))[..., : size[0], : size[1]]


def biased(w, name, x, vector, size="same"):
    if size == "double":
        kernel = w(f"{name}.convolution.weight")
        h = F.conv_transpose2d(x, kernel, stride=2, padding=1)
    else:
        stride = 2 if size == "half" else 1
        h = w.conv(f"{name}.convolution", x, bias=False, stride=stride, padding=1)
    h = w.norm(f"{name}.norm", h, groups(h.shape[1]))
    return silu(h + w.linear(f"{name}.bias", vector)[:, :, None, None])


def cut(h, like):
    return h[..., : like.shape[2], : like.shape[3]]


def score_unet(w, x, slots, shape, planes, *, channels=(32, 64, 128, 256), skips="concat", **_):
    vector = vector_of(random_embedded(w, slots.level), slots)
    h, kept = biased(w, "enter", with_planes(x, slots, planes), vector), []
    for i in range(len(channels) - 1):
        kept.append(h)
        h = biased(w, f"down.{i}", h, vector, "half")
    for i in reversed(range(len(channels) - 1)):
        skip = kept.pop()
        h = cut(biased(w, f"up.{i}", h, vector, "double"), skip)
        h = torch.cat([h, skip], 1) if skips == "concat" else h + skip
    return w.same("leave", h)


def transformer_unet(w, x, slots, shape, planes, *, channels=(32, 64, 128, 256), attention=8,
                     heads=0, **_):  # fmt: skip
    vector, last = vector_of(random_embedded(w, slots.level), slots), len(channels) - 1

    def read(side, i, h):
        c = h.shape[1]
        if i < last and math.ceil(max(shape[1:]) / 2**i) > attention:
            return h
        count, name = heads or heads_of(c, 32), f"read_{side}.{i}"
        rows, code = h.flatten(2).mT, grid(*h.shape[2:], c)
        q = w.layer(f"{name}.self_norm", rows) + code
        rows = rows + over(w, f"{name}.self_attention", q, count)
        if slots.tokens is not None:
            q = w.layer(f"{name}.cross_norm", rows) + code
            options = {"context": slots.tokens, "mask": slots.mask}
            rows = rows + over(w, f"{name}.cross_attention", q, count, **options)
        inner = F.gelu(w.linear(f"{name}.feed.0", w.layer(f"{name}.feed_norm", rows)))
        return (rows + w.linear(f"{name}.feed.2", inner)).mT.reshape(h.shape)

    h, kept = biased(w, "enter", with_planes(x, slots, planes), vector), []
    h = read("down", 0, h)
    for i in range(last):
        kept.append(h)
        h = read("down", i + 1, biased(w, f"down.{i}", h, vector, "half"))
    for i in reversed(range(last)):
        skip = kept.pop()
        h = read("up", i, skip + cut(biased(w, f"up.{i}", h, vector, "double"), skip))
    return w.same("leave", h)


over = attention


def dit(w, x, slots, shape, planes, *, patch=0, width=192, depth=6, heads=0, normed=True):
    side = max(shape[1:])
    patch = patch or (2 if side <= 16 else 4 if side <= 64 else 8 if side <= 128 else 16)
    heads = heads or heads_of(width, 32)
    vector, size = vector_of(embedded(w, slots.level), slots), x.shape[2:]
    cells = to_depth(padded(with_planes(x, slots, planes), patch), patch)
    down, along = cells.shape[2:]
    rows = w.linear("enter", cells.flatten(2).mT) + grid(down, along, width)
    mask = None
    if slots.tokens is not None:
        rows = torch.cat([rows, slots.tokens + places(slots.tokens.shape[1], width)], 1)
        if slots.mask is not None:
            mask = torch.cat([slots.mask.new_ones(len(x), down * along), slots.mask], 1)
    for i in range(depth):
        name = f"blocks.{i}"
        m = w.linear(f"{name}.modulation", vector)[:, None].chunk(6, -1)
        inner = plain(rows, 1e-6) * (1 + m[1]) + m[0]
        rows = rows + m[2] * over(w, f"{name}.attention", inner, heads, mask=mask, normed=normed)
        inner = plain(rows, 1e-6) * (1 + m[4]) + m[3]
        inner = F.gelu(w.linear(f"{name}.feed.0", inner), approximate="tanh")
        rows = rows + m[5] * w.linear(f"{name}.feed.2", inner)
    shift, scale = w.linear("modulation", vector)[:, None].chunk(2, -1)
    rows = plain(rows[:, : down * along], 1e-6) * (1 + scale) + shift
    cells = w.linear("leave", rows).mT.unflatten(2, (down, along))
    return from_depth(cells, patch)[..., : size[0], : size[1]]


def mlp(w, x, slots, shape, planes, *, blocks=4, **_):
    vector, flat = vector_of(embedded(w, slots.level), slots), x.flatten(1)
    h = w.linear("enter", flat)
    for i in range(blocks):
        name = f"blocks.{i}"
        scale, shift = w.linear(f"{name}.film", vector).chunk(2, 1)
        inner = w.linear(f"{name}.first", w.layer(f"{name}.norm", h)) * (1 + scale) + shift
        h = h + w.linear(f"{name}.second", silu(inner))
    answer = w.linear("leave", silu(w.layer("last_norm", h)))
    return (answer + w.linear("gain", vector) * flat).reshape(x.shape)


def half_unet(w, x, level, shape, *, channels=(32, 64, 96), blocks=1, attention=8, head=64, **_):
    """The classifier: logits of the pooled map."""
    heads, last = level_heads(channels, shape, attention, head), len(channels) - 1
    vector = silu(embedded(w, level))
    h, n = w.same("enter", padded(x, 2**last)), 0
    for i in range(last + 1):
        if i:
            h = residual(w, f"down.{n}", h, vector, scaled=True, resize=0.5)
            n += 1
        for _ in range(blocks):
            h = residual(w, f"down.{n}", h, vector, scaled=True, heads=heads[i])
            n += 1
    h = residual(w, "middle.0", h, vector, scaled=True)
    h = silu(w.norm("last_norm", h, groups(h.shape[1])))
    rows, count = h.flatten(2).mT, heads_of(h.shape[1], head)
    mean = rows.mean(1, keepdim=True)
    keys = torch.cat([mean, rows + grid(*h.shape[2:], h.shape[1])], 1)
    q, k = w.linear("pool.query", mean), w.linear("pool.key", keys, bias=False)
    return w.linear("pool.out", attend(q, k, w.linear("pool.value", keys), count)[:, 0])


REFERENCES = {
    "adm": adm,
    "conditional_unet": conditional_unet,
    "convnext_unet": convnext_unet,
    "dit": dit,
    "mlp": mlp,
    "score_unet": score_unet,
    "transformer_unet": transformer_unet,
    "unet": unet,
}
