"""Guidance by a measurement or a score: by hand, from the Jacobian of a Gaussian."""

from __future__ import annotations

import math

import numpy as np
import torch

from .guidance import SHAPE, B, D, made, near, scene

F64 = torch.float64
A = np.full((1, D), 0.25)  # the mean of the four numbers, as a matrix


def check_diffpir(kit) -> None:
    """The minimiser of |y - A x|^2 + k |x - x0|^2 with k = lam (noise alpha / sigma)^2."""
    world, x, _, label = scene(kit)
    y = np.linspace(-1, 1, B)[:, None]
    for time in (0.2, 0.45, 0.9):
        t = torch.tensor(time, dtype=F64)
        alpha, sigma = (float(v) for v in world.schedule(t))
        x0 = world.x0(x, t, label=label).flatten(1).numpy()
        for noise, lam in ((0.0, 1.0), (0.3, 1.0), (0.3, 4.0), (2.0, 0.5), (0.3, 0.0)):
            k = max(lam * (noise * alpha / sigma) ** 2, 1e-8)
            left = A.T @ A + k * np.eye(D)
            want = np.linalg.solve(left, A.T @ y.T + k * x0.T).T
            guided = made(kit, world, "diffpir", noise=noise, lam=lam)(world)
            got = guided(x, t, {"label": label}).x0.flatten(1)
            near(got, torch.tensor(want), f"diffpir {noise} {lam} {time}", 1e-6)
    part = kit.part("guidance.diffpir")(operator=None, measured=None)
    assert (part.noise, part.lam) == (0.0, 1.0)


def check_dps(kit) -> None:
    """The step by hand, from the Jacobian of the Gaussian; weight and noise."""
    world, x, t, label = scene(kit)
    alpha, sigma = (float(v) for v in world.schedule(t))
    y = np.linspace(-1, 1, B)[:, None]
    x0 = world.x0(x, t, label=label).flatten(1).numpy()
    jacobian = world.gain(t).numpy()  # d x0 / d x_t
    rest = y - x0 @ A.T
    direction = sigma**2 / alpha * rest @ A @ jacobian  # at v = 1
    k = (rest * (direction @ A.T)).sum(1) / (rest**2).sum(1)
    square = (rest**2).mean(1)
    for weight in (0.5, 1.0, 3.0):
        for noise in (0.0, 0.7, 2.0):
            v = np.maximum(np.maximum(np.minimum(square, k), k / 2), max(noise**2, 1e-12))
            want = x0 + weight * direction / v[:, None]
            guided = made(kit, world, "dps", weight=weight, noise=noise)(world)
            got = guided(x, t, {"label": label}).x0.flatten(1)
            near(got, torch.tensor(want), f"dps {weight} {noise}", 1e-9)
    near(made(kit, world, "dps", weight=0.0)(world)(x, t, {"label": label}).x0.flatten(1),
         torch.tensor(x0), "weight 0 is off")  # fmt: skip
    part = kit.part("guidance.dps")(operator=None, measured=y_of())
    assert (part.weight, part.noise) == (1.0, 0.0)


def y_of():
    return torch.zeros(1)


def check_posterior(kit) -> None:
    """The mean of the Gaussian posterior; with fewer iterations, the steps of the solver."""
    world, x, t, label = scene(kit)
    alpha, sigma = (float(v) for v in world.schedule(t))
    x0 = world.x0(x, t, label=label)
    covariance = sigma**2 / alpha * world.gain(t).numpy()
    matrix = np.array([[1.0, 0.2, -0.3, 0.0], [0.0, 0.7, 0.1, 0.4], [0.3, 0.0, 0.9, -0.2]])
    y = np.random.default_rng(0).normal(size=(B, 3))

    class Matrix:
        def __call__(self, x):
            return x.flatten(1) @ torch.tensor(matrix.T)

        def adjoint(self, y):
            return (y @ torch.tensor(matrix)).reshape(-1, *SHAPE)

    part = kit.part("guidance.posterior")
    for noise in (0.0, 0.5):
        system = matrix @ covariance @ matrix.T + noise**2 * np.eye(3)
        right = y - x0.flatten(1).numpy() @ matrix.T
        for iterations in (1, 2, 3, 30):
            solution = np.stack([conjugate(system, r, iterations) for r in right])
            want = x0.flatten(1).numpy() + solution @ matrix @ covariance.T
            options = {"noise": noise, "iterations": iterations}
            guidance = part(operator=Matrix(), measured=torch.tensor(y), **options)
            got = guidance(world)(x, t, {"label": label}).x0.flatten(1)
            near(got, torch.tensor(want), f"posterior {options}", 1e-8)
        exact = np.linalg.solve(system, right.T).T @ matrix @ covariance.T
        near(got, torch.tensor(x0.flatten(1).numpy() + exact), "the exact mean", 1e-8)
    default = part(operator=None, measured=y_of())
    assert (default.noise, default.iterations) == (0.0, 2)


def conjugate(system, right, iterations):
    """The minimiser over the Krylov space, by its basis: what conjugate gradients reach."""
    basis = [right / np.linalg.norm(right)]
    for _ in range(min(iterations, len(right)) - 1):
        new = system @ basis[-1]
        for _ in range(2):
            for old in basis:
                new = new - (new @ old) * old
        basis.append(new / np.linalg.norm(new))
    columns = np.stack(basis, 1)
    return columns @ np.linalg.solve(columns.T @ system @ columns, columns.T @ right)


def check_universal(kit) -> None:
    """Up the gradient of the score of x0-hat, through the Jacobian of the Gaussian."""
    world, x, t, label = scene(kit)
    alpha, sigma = world.schedule(t)
    x0 = world.x0(x, t, label=label).flatten(1)
    slope = -2 * (x0 - 0.3) @ world.gain(t)
    for scale in (-0.5, 0.0, 1.0, 3.0):
        want = x0 + scale * sigma**2 / alpha * slope
        got = made(kit, world, "universal", scale=scale)(world)(x, t, {"label": label}).x0
        near(got.flatten(1), want, f"universal {scale}")
    assert math.isclose(kit.part("guidance.universal")(score=None).scale, 1.0)


CHECKS = (check_diffpir, check_dps, check_posterior, check_universal)

MUTANTS = {
    ("guidance", "diffpir", "noise"): [
        (check_diffpir, "guidance.diffpir", "(self.noise * estimate.alpha / estimate.sigma) ** 2",
         "(self.noise * estimate.sigma / estimate.alpha) ** 2"),
        (check_diffpir, "guidance.diffpir", "/ estimate.sigma) ** 2", "/ estimate.sigma)"),
    ],
    ("guidance", "diffpir", "lam"): [
        (check_diffpir, "guidance.diffpir", "self.lam * (self", "(self"),
        (check_diffpir, "guidance.diffpir", "_FLOOR = 1e-8", "_FLOOR = 1e-4"),
    ],
    ("guidance", "dps", "weight"): [
        (check_dps, "guidance.dps", "self.weight * step", "step"),
        (check_dps, "guidance.dps", "slope / -2.0", "-slope"),
        (check_dps, "guidance.dps", "estimate.sigma**2 / estimate.alpha", "estimate.sigma**2"),
    ],
    ("guidance", "dps", "noise"): [
        (check_dps, "guidance.dps", "max(self.noise**2, 1e-12)", "1e-12"),
        (check_dps, "guidance.dps", "self.noise**2", "self.noise"),
        (check_dps, "guidance.dps", "k), k / 2.0)", "k), k)"),
    ],
    ("guidance", "posterior", "noise"): [
        (check_posterior, "guidance.posterior", "self.noise**2 * v", "self.noise * v"),
        (check_posterior, "guidance.posterior", " + self.noise**2 * v", ""),
    ],
    ("guidance", "posterior", "iterations"): [
        (check_posterior, "guidance.posterior", "self.iterations)\n", "2)\n"),
        (check_posterior, "guidance.posterior", "rest + share * direction", "rest"),
        (check_posterior, "guidance.posterior", "return scale * product", "return product"),
        (check_posterior, "guidance.posterior", "(a * b).flatten(1).sum(1)",
         "(a * b).sum().expand(len(a))"),
    ],
    ("guidance", "universal", "scale"): [
        (check_universal, "guidance.universal", "self.scale * estimate.sigma**2", "self.scale"),
        (check_universal, "guidance.universal", "self.scale * estimate", "estimate"),
        (check_universal, "guidance.universal", "value.sum()", "value.mean()"),
        (check_universal, "guidance.universal", "/ estimate.alpha\n", "\n"),
    ],
}  # fmt: skip
