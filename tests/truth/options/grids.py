"""Grids of times: every option against the formula, on schedules of which the inverse is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

F64 = torch.float64


def wide(kit):
    """A schedule with sigma / alpha from 1e-6 to 1e6, on which no range is cut."""
    return kit("core.schedule").VeGeometric(1e-6, 1e6)


def ratios(times):
    """sigma / alpha of the times of `wide`, by its closed form; the last time is the data."""
    assert times.dtype == F64 and float(times[-1]) == 0.0, "a grid ends at the data"
    return np.exp(math.log(1e-6) + times[:-1].numpy() * math.log(1e12))


def same(got, want, what):
    """Ratios that agree to nine digits."""
    assert len(got) == len(want), f"{what}: {len(got)} times instead of {len(want)}"
    off = float(np.abs(np.asarray(got) / np.asarray(want) - 1).max())
    assert off < 1e-9, f"{what}: off by {off:.1e}"


def log_snr(n, high=160.0, low=0.004):
    return np.geomspace(high, low, n)


def karras(n, rho=7.0, high=160.0, low=0.004):
    share = np.arange(n) / max(1, n - 1)
    return (high ** (1 / rho) + share * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def cosine(n, high=160.0, low=0.004):
    angle = np.arctan(high) + np.arange(n) / n * (np.arctan(low) - np.arctan(high))
    return np.tan(angle)


FALLING = {"log_snr": log_snr, "karras": karras, "cosine": cosine}


def check_falling(kit) -> None:
    """The formula of each grid with and without its options, for several numbers of steps."""
    for kind, formula in FALLING.items():
        grid = kit.part(f"grids.{kind}")
        cases = [{}, {"high": 20.0}, {"low": 0.2}, {"high": 1.0, "low": 1e-5}, {"high": 1e4}]
        if kind == "karras":
            cases += [{"rho": 1.0}, {"rho": 2.5}, {"rho": 20.0, "high": 40.0, "low": 0.02}]
        for options in cases:
            for n in (2, 3, 8, 25):
                got = ratios(grid(wide(kit), n, **options))
                same(got, formula(n, **options), f"{kind} {n} {options}")


def check_limits(kit) -> None:
    """Where a schedule does not reach, a grid begins and ends at what it reaches."""
    schedule = kit("core.schedule").VeGeometric(0.05, 30.0)
    for kind in FALLING:
        times = kit.part(f"grids.{kind}")(schedule, 10)
        assert abs(float(times[0]) - 1.0) < 1e-12, f"{kind} begins at the highest level"
        assert kind == "cosine" or 0 < float(times[-2]) < 1e-8, f"{kind} ends at the lowest level"
        assert bool((times.diff() < 0).all()), f"{kind} falls"


def check_uniform(kit) -> None:
    """Equal steps in t, on any schedule."""
    for n in (1, 4, 9):
        for schedule in (wide(kit), kit("core.schedule").Flow()):
            want = [1 - i / n for i in range(n + 1)]
            got = kit.part("grids.uniform")(schedule, n)
            assert np.allclose(got.numpy(), want, rtol=0, atol=1e-15)


def integer_levels(spacing, n, levels):
    """The levels of a respaced DDPM as the published codes write them, in whole numbers."""
    if spacing == "trailing":
        return [round(levels - i * levels / n) - 1 for i in range(n)]
    if spacing == "leading":
        return [i * levels // n for i in reversed(range(n))]
    return np.round(np.linspace(0, levels - 1, n))[::-1].tolist()


def check_ddpm(kit) -> None:
    """Levels i at t = (i + 1) / T, for every spacing and numbers that divide T and do not."""
    for levels in (20, 50, 1000):
        for spacing in ("trailing", "leading", "linspace"):
            for n in (2, 4, 10, 20):
                options = {"levels": levels, "spacing": spacing}
                times = kit.part("grids.ddpm")(wide(kit), n, **options)
                index = integer_levels(spacing, n, levels)
                want = [(i + 1) / levels for i in index] + [0.0]
                off = np.abs(times.numpy() - want).max()
                assert off < 1e-12, f"ddpm {options} {n} steps: off by {off:.1e}"
    got = kit.part("grids.ddpm")(wide(kit), 4) * 1000
    assert got.tolist() == [1000, 750, 500, 250, 0], "by default trailing, of 1000"
    with pytest.raises(kit("core.errors").UserError, match="1 to 20"):
        kit.part("grids.ddpm")(wide(kit), 21, levels=20)


def walked(n, jump, repeats):
    """Places of the walk: each full stretch, counted from the end, is walked `repeats` times."""
    path = []
    for i in range(n):
        path.append(i)
        if (n - 1 - i) % jump == 0 and i >= jump:
            for _ in range(repeats - 1):
                path += range(i - jump, i + 1)
    return [*path, n]


def check_repaint(kit) -> None:
    """The walk of every jump, number of repeats and base."""
    bases = {"log_snr": log_snr, "cosine": cosine}
    for n, jump, repeats in ((12, 3, 4), (12, 5, 2), (11, 10, 3), (7, 1, 2), (9, 4, 1), (5, 8, 1)):
        order = walked(n, jump, repeats)
        for base in ("log_snr", "uniform", "cosine"):
            options = {"jump": jump, "repeats": repeats, "base": base}
            times = kit.part("grids.repaint")(wide(kit), n, **options)
            if base == "uniform":
                falling = np.linspace(1, 0, n + 1)
            else:
                level = np.log(bases[base](n))
                falling = np.append((level - math.log(1e-6)) / math.log(1e12), 0.0)
            assert len(times) == len(order), f"{len(times)} times: {options}"
            assert np.allclose(times.numpy(), falling[order], rtol=0, atol=1e-9), str(options)
    default = kit.part("grids.repaint")(wide(kit), 25)
    assert len(default) == len(walked(25, 10, 10)), "ten jumps, ten times"
    with pytest.raises(kit("core.errors").UserError, match="11 steps or more"):
        kit.part("grids.repaint")(wide(kit), 10)


def check_optimised(kit) -> None:
    """The table of the number of steps, whose keys may be text; nothing else is taken."""
    tables = {3: [3.0, 0.5, -2.0], "2": [1.5, -1.0]}
    grid = kit.part("grids.optimised")
    for n, levels in ((3, [3.0, 0.5, -2.0]), (2, [1.5, -1.0])):
        same(ratios(grid(wide(kit), n, tables=tables)), np.exp(levels), f"optimised {n}")
    error = kit("core.errors").UserError
    for n, other in ((4, tables), (2, {}), (2, {2: [1.0, 1.0]}), (3, {3: [2.0, 1.0]})):
        with pytest.raises(error):
            grid(wide(kit), n, tables=other)


CHECKS = (check_falling, check_limits, check_uniform, check_ddpm, check_repaint, check_optimised)

RANGE = "core.sample"
# (room, kind, option) -> mistakes: the check that notices, the module, texts and replacements
MUTANTS = {
    ("grid", "karras", "rho"): [
        (check_falling, "grids.karras", "torch.exp(end / rho)", "torch.exp(end / 7.0)",
         "rho * torch.log", "7.0 * torch.log"),
        (check_falling, "grids.karras", "torch.exp(end / rho)", "torch.exp(end * rho)"),
        (check_falling, "grids.karras", "rho * torch.log(", "torch.log("),
        (check_falling, "grids.karras", "0.0, 1.0, steps,", "0.0, 1.0, steps + 1,"),
    ],
    ("grid", "karras", "high"): [
        (check_falling, "grids.karras", "(schedule, high, low)", "(schedule, 160.0, low)"),
    ],
    ("grid", "karras", "low"): [
        (check_falling, "grids.karras", "(schedule, high, low)", "(schedule, high, 0.004)"),
    ],
    ("grid", "log_snr", "high"): [
        (check_falling, "grids.log_snr", "(schedule, high, low)", "(schedule, 160.0, low)"),
        (check_limits, RANGE, ".clamp(ends[0], ends[1])", ".clamp(max=ends[1] - 0.1)"),
    ],
    ("grid", "log_snr", "low"): [
        (check_falling, "grids.log_snr", "(schedule, high, low)", "(schedule, high, 0.004)"),
        (check_limits, RANGE, ".clamp(ends[0], ends[1])", ".clamp(max=ends[1])"),
        (check_falling, "grids.log_snr", "0.0, 1.0, steps,", "0.0, 0.9, steps,"),
    ],
    ("grid", "cosine", "high"): [
        (check_falling, "grids.cosine", "(schedule, high, low)", "(schedule, 160.0, low)"),
        (check_falling, "grids.cosine", "/ steps * (last", "/ (steps - 1) * (last"),
    ],
    ("grid", "cosine", "low"): [
        (check_falling, "grids.cosine", "(schedule, high, low)", "(schedule, high, 0.004)"),
        (check_falling, "grids.cosine", "torch.log(torch.tan(angle))", "torch.log(angle)"),
    ],
    ("grid", "uniform", ""): [
        (check_uniform, "grids.uniform", "(1.0, 0.0, steps + 1,", "(0.999, 0.0, steps + 1,"),
    ],
    ("grid", "ddpm", "levels"): [
        (check_ddpm, "grids.ddpm", "(index + 1) / levels", "(index + 1) / 1000"),
        (check_ddpm, "grids.ddpm", "linspace(levels - 1, 0", "linspace(999, 0"),
    ],
    ("grid", "ddpm", "spacing"): [
        (check_ddpm, "grids.ddpm", 'spacing == "leading"', "False"),
        (check_ddpm, "grids.ddpm", 'spacing == "trailing"', 'spacing == "linspace"'),
        (check_ddpm, "grids.ddpm", "torch.floor(", "torch.ceil("),
    ],
    ("grid", "repaint", "jump"): [
        (check_repaint, "grids.repaint", "top + jump + 1)", "top + jump)"),
        (check_repaint, "grids.repaint", "range((low % jump) + 1)", "range(1)"),
    ],
    ("grid", "repaint", "repeats"): [
        (check_repaint, "grids.repaint", "range(repeats - 1)", "range(repeats)"),
        (check_repaint, "grids.repaint", "in (top, *stretch)", "in stretch"),
    ],
    ("grid", "repaint", "base"): [
        (check_repaint, "grids.repaint", 'base == "uniform"', "False"),
        (check_repaint, "grids.repaint", 'base == "log_snr"', "True"),
    ],
    ("grid", "optimised", "tables"): [
        (check_optimised, "grids.optimised", "{int(count): levels for", "{count: levels for"),
        (check_optimised, "grids.optimised", "known[steps]", "known[max(known)]"),
    ],
}  # fmt: skip
