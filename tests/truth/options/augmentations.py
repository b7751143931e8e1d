"""Augmentations: every one of them alone and all together, pixel by pixel."""

from __future__ import annotations

import math

import torch

F64 = torch.float64
NAMES = ("flip", "flip_y", "turn", "rotate", "scale", "translate")


def check_augmentations(kit) -> None:
    """Every augmentation alone and all of them, pixel by pixel, and what is told of it."""
    n, side = 40, 8
    g = torch.Generator().manual_seed(3)
    x = 2.0 * torch.rand(n, 2, side, side, generator=g) - 1.0
    for names in [(name,) for name in NAMES] + [NAMES]:
        for share in (0.5, 1.0):
            training = kit("recipes.training").Training(augment=share, augmentations=names)
            noise = kit("core.noise").Noise(torch.arange(n))
            got, value = kit("jobs.augment").augmented(x, training, noise)
            u = kit("core.noise").Noise(torch.arange(n))

            def done(name, number, u=u, names=names, share=share):
                on = (u.uniform(n) < share) & (name in names)
                return torch.where(on, number, torch.zeros_like(number))

            flip, flip_y = done("flip", u.integers(n, 2)), done("flip_y", u.integers(n, 2))
            turns = done("turn", u.integers(n, 4))
            angle = done("rotate", math.pi * (2 * u.uniform(n) - 1))
            z = u.normal(torch.zeros(n, 1, dtype=F64))[:, 0]
            size = done("scale", 0.2 * math.log(2) * z)
            moved = [torch.floor(u.uniform(n) * 3).long() - 1 for _ in range(2)]
            on = done("translate", torch.ones(n, dtype=torch.int64))
            right, down = (m * on for m in moved)
            for i in range(n):
                want = x[i : i + 1]
                want = want.flip(3) if flip[i] else want
                want = want.flip(2) if flip_y[i] else want
                want = torch.rot90(want, -int(turns[i]), (2, 3))
                if angle[i] or size[i]:
                    want = turned(want, float(angle[i]), math.exp(float(size[i])))
                want = slid(want, int(right[i]), int(down[i]))
                off = float((got[i : i + 1] - want).abs().max())
                assert off < 1e-4, f"{names} {share}: picture {i} is off by {off:.1e}"
                whole = float(angle[i]) + int(turns[i]) * math.pi / 2
                told = [flip[i], flip_y[i], math.cos(whole) - 1, math.sin(whole), size[i], size[i],
                        2 * right[i] / side, 2 * down[i] / side]  # fmt: skip
                assert torch.allclose(value[i], torch.tensor([float(v) for v in told]), atol=1e-6)


def turned(x, angle, size):
    """A picture turned clockwise and enlarged about its centre, bicubic, mirrored borders."""
    h, w = x.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2,
                                   indexing="ij")  # fmt: skip
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    place = torch.stack(
        [(cos * columns + sin * rows) * 2 / w, (cos * rows - sin * columns) * 2 / h]
    )
    options = {"mode": "bicubic", "padding_mode": "reflection", "align_corners": False}
    place = place.permute(1, 2, 0)[None].float()
    return torch.nn.functional.grid_sample(x, place, **options).clamp(-1, 1)


def slid(x, right, down):
    """A picture moved by up to one pixel, its border repeated."""
    h, w = x.shape[2:]
    rows = (torch.arange(h) - down).clamp(0, h - 1)
    columns = (torch.arange(w) - right).clamp(0, w - 1)
    return x[:, :, rows][..., columns]


CHECKS = (check_augmentations,)

AUGMENT = "jobs.augment"
MUTANTS = {
    ("training", "", "augmentations"): [
        (check_augmentations, AUGMENT, "< training.augment", "< 0.5"),
        (check_augmentations, AUGMENT, "on & (name in training.augmentations)", "on"),
        (check_augmentations, AUGMENT, "part.rot90(-k,", "part.rot90(k,"),
        (check_augmentations, AUGMENT, "SHIFT = 1 / 8", "SHIFT = 1 / 4"),
        (check_augmentations, AUGMENT, "turned.cos() - 1.0", "turned.cos()"),
        (check_augmentations, AUGMENT, "-angle[moved].sin()", "angle[moved].sin()"),
        (check_augmentations, AUGMENT, "= -scale[moved]", "= scale[moved]"),
        (check_augmentations, AUGMENT, "shift[:, 1]), source", "shift[:, 0]), source"),
        (check_augmentations, AUGMENT, "SCALE = 0.2 *", "SCALE = 0.3 *"),
    ],
}  # fmt: skip
