"""Operators and constraints: each option against a matrix, an exact convolution or the formula."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import fft, ndimage

F64 = torch.float64
SHAPE = (2, 1, 8, 12)
KERNELS = ("box", "bilinear", "bicubic", "lanczos2", "lanczos3")


def kernel(name, u):
    """The value of a resampling kernel at u, written once more."""
    u = np.abs(u)
    if name == "box":
        return np.where(u < 0.5, 1.0, np.where(u == 0.5, 0.5, 0.0))
    if name == "bilinear":
        return np.maximum(0.0, 1.0 - u)
    if name == "bicubic":
        near = 1.5 * u**3 - 2.5 * u**2 + 1.0
        return np.where(u <= 1, near, np.where(u < 2, -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2, 0.0))
    lobes = int(name[-1])
    return np.where(u < lobes, np.sinc(u) * np.sinc(u / lobes), 0.0)


def line(name, n, factor):
    """The matrix that shrinks a line of n pixels, (n / factor, n)."""
    centre = (np.arange(n // factor) + 0.5) * factor - 0.5
    raw = kernel(name, (np.arange(n) - centre[:, None]) / factor)
    return raw / raw.sum(1, keepdims=True)


def enlarged(name, n, factor):
    """The matrix that enlarges a line to n pixels, (n, n / factor)."""
    centre = (np.arange(n) + 0.5) / factor - 0.5
    raw = kernel(name, np.arange(n // factor) - centre[:, None])
    return raw / raw.sum(1, keepdims=True)


def pictures(shape=SHAPE, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def matrix(operator, shape):
    """The operator as a matrix, column by column, on one picture of a shape (C,H,W)."""
    eye = torch.eye(math.prod(shape), dtype=F64).reshape(-1, *shape)
    return operator(eye).flatten(1).T


def blurred(x, std):
    """Pictures with every cosine scaled by the transform of a Gaussian."""
    w = [math.pi / n * np.arange(n) for n in x.shape[2:]]
    gain = np.exp(-0.5 * std**2 * (w[0][:, None] ** 2 + w[1] ** 2))
    got = fft.idctn(fft.dctn(x, axes=(2, 3), norm="ortho") * gain, axes=(2, 3), norm="ortho")
    if std > 1.2:  # narrower ones cannot be sampled on pixels
        plain = ndimage.gaussian_filter(x, std, mode="reflect", radius=40, axes=(2, 3))
        assert np.abs(got - plain).max() < 1e-4
    return got


def operators(kit):
    """Every operator with each of its options, a shape of pictures, and its exact answer."""
    mask = (pictures((1, 1, 8, 12), 5) > 0).double()
    found = [
        (kit.part("operators.inpaint")(mask=mask), (1, 8, 12), lambda x: np.where(mask, 0.0, x)),
        (
            kit.part("operators.grey")(),
            (3, 4, 5),
            lambda x: 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:],
        ),
    ]
    for std in (0.6, 1.5, 3.0):
        part = kit.part("operators.blur")
        operator = part(std=std) if std != 1.5 else part()
        found.append((operator, (1, 16, 24), lambda x, s=std: blurred(x, s)))
    for factor in (2, 4):
        for name in KERNELS:
            operator = kit.part("operators.downsample")(factor=factor, kernel=name)
            rows, columns = line(name, 8, factor), line(name, 12, factor)
            found.append((operator, (1, 8, 12), lambda x, r=rows, c=columns: r @ x @ c.T))
    part = kit.part("operators.downsample")()
    found.append((part, (1, 8, 12), lambda x: x.reshape(-1, 1, 4, 2, 6, 2).mean((3, 5))))
    return found


def check_operators(kit) -> None:
    """Forward, adjoint and nearest of every operator, the last by its normal equations."""
    for operator, shape, exact in operators(kit):
        x = pictures((3, *shape), 1)
        y = operator(x)
        off = np.abs(y.numpy() - exact(x.numpy())).max()
        assert off < 1e-9, f"{operator}: off by {off:.1e}"
        a = matrix(operator, shape)
        v = pictures(tuple(y.shape), 2)
        back = operator.adjoint(v).flatten(1)
        assert torch.allclose(back, v.flatten(1) @ a, atol=1e-10), f"{operator}: adjoint"
        for weight in (1e-3, 0.4, 5.0):
            left = a.T @ a + weight * torch.eye(a.shape[1], dtype=F64)
            right = v.flatten(1) @ a + weight * x.flatten(1)
            want = torch.linalg.solve(left, right.T).T
            got = operator.nearest(x, v, weight).flatten(1)
            assert torch.allclose(got, want, atol=1e-7), f"{operator}: nearest, {weight}"


def noise_of(kit):
    return kit("core.noise").Noise(torch.arange(SHAPE[0]) + 4)


def check_keep(kit) -> None:
    """The known part at the level of s, bit-exact at the end, from `start` on; the hole is free."""
    schedule = kit("core.schedule").Flow()
    image, x = pictures(seed=1), pictures(seed=2)
    mask = torch.tensor([0.0, 0.4, 0.6, 1.0] * 3, dtype=F64).expand(SHAPE[0], 1, 8, 12)
    hole = mask >= 0.5
    for start in (1.0, 0.5, 0.0):
        part = kit.part("constraints.keep")
        keep = part(image=image.where(~hole, torch.nan), mask=mask, start=start)
        for time in (1.0, 0.5, 0.2, 0.0):
            s = torch.tensor(time, dtype=F64)
            got = keep(x, s, schedule, noise_of(kit))
            alpha, sigma = schedule(s)
            known = alpha * image + sigma * noise_of(kit).normal(image) if time else image
            want = torch.where(hole, x, known) if time <= start else x
            assert torch.equal(got, want), f"keep start={start} at {time}"
    assert part(image=image, mask=mask).start == 1.0


def check_ilvr(kit) -> None:
    """x_s + up(down(.)) of the noised reference less x_s; factor, kernel, and the interval."""
    schedule = kit("core.schedule").Flow()
    reference, x = pictures(seed=1), pictures(seed=2)
    part = kit.part("constraints.ilvr")
    cases = [{"factor": f, "kernel": name} for f in (2, 4) for name in KERNELS]
    for options in [*cases, {"start": 0.5}, {"stop": 0.3}, {"start": 0.6, "stop": 0.2}, {}]:
        o = {"factor": 4, "kernel": "box", "start": 1.0, "stop": 0.0} | options
        ilvr = part(reference=reference, **options)
        low = [
            enlarged(o["kernel"], n, o["factor"]) @ line(o["kernel"], n, o["factor"])
            for n in (8, 12)
        ]
        for time in (1.0, 0.6, 0.5, 0.3, 0.2, 0.0):
            s = torch.tensor(time, dtype=F64)
            got = ilvr(x, s, schedule, noise_of(kit))
            alpha, sigma = schedule(s)
            y = alpha * reference + sigma * noise_of(kit).normal(x) if time else reference
            change = low[0] @ (y - x).numpy() @ low[1].T
            want = x.numpy() + (change if o["stop"] <= time <= o["start"] else 0.0)
            off = np.abs(got.numpy() - want).max()
            assert off < 1e-10, f"ilvr {options} at {time}: off by {off:.1e}"


CHECKS = (check_operators, check_keep, check_ilvr)
RESIZING = "nn.resizing"
BLUR, DOWN, GREY = "operators.blur", "operators.downsample", "operators.grey"
MUTANTS = {
    ("operator", "blur", "std"): [
        (check_operators, BLUR, "(self.std * w) ** 2", "(1.5 * w) ** 2"),
        (check_operators, BLUR, "-0.5 * (self.std", "-1.0 * (self.std"),
        (check_operators, BLUR, "gains / (gains**2 + weight)", "1.0 / (gains + weight)"),
        (check_operators, BLUR, "basis[0] /= math.sqrt(2.0)", "basis[0] /= 2.0"),
        (check_operators, BLUR, "Range(0.05, 100)] = 1.5", "Range(0.05, 100)] = 1.2"),
    ],
    ("operator", "downsample", "factor"): [
        (check_operators, DOWN, "down(x, self.factor, self.kernel)", "down(x, 2, self.kernel)"),
        (check_operators, DOWN, "1.0 / self.factor)", "1.0)"),
        (check_operators, DOWN, "a[:, None] * b + weight", "a[:, None] + b + weight"),
    ],
    ("operator", "downsample", "kernel"): [
        (check_operators, DOWN, "down(x, self.factor, self.kernel)", "down(x, self.factor)"),
        (check_operators, DOWN, "n, self.kernel, 1.0", 'n, "box", 1.0'),
        (check_operators, RESIZING, "a, u = -0.5,", "a, u = -0.75,"),
        (check_operators, RESIZING, "_lanczos(u, 3)", "_lanczos(u, 2)"),
        (check_operators, RESIZING, "* min(scale, 1.0)", ""),
        (check_operators, RESIZING, "return raw / total", "return raw * scale"),
    ],
    ("operator", "grey", ""): [
        (check_operators, GREY, "(0.299, 0.587, 0.114)", "(0.2126, 0.7152, 0.0722)"),
        (check_operators, GREY, "(square + weight)", "(1.0 + weight)"),
        (check_operators, GREY, "return self._shares(y) * y", "return y.expand(-1, 3, -1, -1)"),
    ],
    ("operator", "inpaint", ""): [
        (check_operators, "operators.inpaint", ">= 0.5", "< 0.5"),
        (check_operators, "operators.inpaint", "/ (1.0 + weight)", ""),
        (check_operators, "operators.inpaint", "return y.masked_fill(self._hidden(y), 0.0)",
         "return y"),
    ],
    ("constraint", "keep", "start"): [
        (check_keep, "constraints.keep", "s <= self.start", "s < self.start"),
        (check_keep, "constraints.keep", "s <= self.start", "s <= 1.0"),
        (check_keep, "constraints.keep", "if s > 0:", "if s >= 0:"),
        (check_keep, "constraints.keep", "alpha * known + sigma", "known + sigma"),
        (check_keep, "constraints.keep", ">= 0.5, x_s, known)", "> 0.9, x_s, known)"),
    ],
    ("constraint", "ilvr", "factor"): [
        (check_ilvr, "constraints.ilvr", "- x_s, self.factor,", "- x_s, 4,"),
    ],
    ("constraint", "ilvr", "kernel"): [
        (check_ilvr, "constraints.ilvr", "self.factor, self.kernel)", 'self.factor, "box")'),
        (check_ilvr, RESIZING, "up(down(x, factor, kernel), factor, kernel, size=size)",
         'up(down(x, factor, kernel), factor, "box", size=size)'),
    ],
    ("constraint", "ilvr", "start"): [
        (check_ilvr, "constraints.ilvr", "(s <= self.start) & ", ""),
        (check_ilvr, "constraints.ilvr", "(s <= self.start)", "(s < self.start)"),
        (check_ilvr, "constraints.ilvr", "alpha * wanted + sigma", "wanted + sigma"),
    ],
    ("constraint", "ilvr", "stop"): [
        (check_ilvr, "constraints.ilvr", " & (s >= self.stop)", ""),
        (check_ilvr, "constraints.ilvr", "(s >= self.stop)", "(s > self.stop)"),
        (check_ilvr, "constraints.ilvr", "lowpass(wanted - x_s", "lowpass(wanted"),
    ],
}  # fmt: skip
