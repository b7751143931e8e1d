"""The tour: one HTML page on what diffusion does, whose every plot is computed by the library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import steerable
from steerable.core.errors import UserError

from . import durable, tour_plots
from .page import rendered
from .tour_fault import broken
from .tour_line import Forward, forward, reverse, tilts
from .tour_plane import RATIOS, Field, grids, orders, pooled, training, walks
from .tour_plane import field as score_field
from .wish import check_seed

__all__ = ["Stage", "tour", "touring"]

WAYS = (("heun", 40), ("ancestral", 120))  # samplers of the line, with steps
FRAMES = 3  # every which time of the forward process the slider shows


@dataclass(frozen=True)
class Stage:
    """How far the tour is; at the last stage `page` is the file and `figures` what was measured."""

    share: float
    text: str
    page: Path | None = None
    figures: dict[str, Any] = field(default_factory=dict)


def touring(out: str | Path, *, seed: int = 0) -> Iterator[Stage]:
    """Make the page stage by stage.

    Args:
        out: The HTML file to write.
        seed: Of the worlds, the noise and the network.

    Raises:
        UserError: E-EXTRA without matplotlib and Jinja2; E-DISK if it cannot be written; E-LIMIT
            for a seed that is none.
    """
    check_seed(seed)
    _require()
    shown: dict[str, Any] = {"seed": seed, "version": steerable.__version__}
    yield Stage(0.0, "noising and sampling on a line")
    _line(shown, seed)
    yield Stage(0.1, "guidance")
    shown["tilts"] = tilts(seed)
    yield Stage(0.15, "a broken sampler")
    world, shown["faults"] = broken(seed)
    shown["mode_weights"] = world.weights
    learned: list[Field] = []
    for share, denoiser in training(seed):
        if share == 1.0:
            learned = [score_field(denoiser, ratio, seed=seed) for ratio in RATIOS]
        yield Stage(0.2 + 0.4 * share, "training a small network")
    shown["fields"], shown["pooled"] = learned, pooled(learned)
    yield Stage(0.6, "every sampler")
    shown["walks"], shown["missing"] = walks(seed)
    shown["orders"] = orders(seed)
    yield Stage(0.8, "time grids")
    shown["grids"] = grids(seed)
    yield Stage(0.85, "drawing")
    page, path = _page(shown), Path(out)
    durable.folder(path.parent)
    durable.write(path, page)
    yield Stage(1.0, "done", path, _figures(shown))


def tour(out: str | Path = "tour.html", *, seed: int = 0) -> Stage:
    """Write the page; `.page` is the file and `.figures` what was measured.

    Args:
        out: The HTML file to write.
        seed: Of the worlds, the noise and the network.

    Raises:
        UserError: E-EXTRA without matplotlib and Jinja2; E-DISK if it cannot be written.
    """
    last = None
    for stage in touring(out, seed=seed):
        last = stage
    assert last is not None
    return last


def _require() -> None:
    try:
        import jinja2
        import matplotlib as mpl

        assert jinja2 and mpl
    except ImportError as error:
        do = 'pip install "steerable[eval]"'
        raise UserError("E-EXTRA", where="tour", got=f"no {error.name}", do=do) from error


def _line(shown: dict[str, Any], seed: int) -> None:
    shown["forward"] = forward(seed)
    world = shown["forward"].world
    shown["reverse"] = [reverse(world, kind, steps, seed=seed) for kind, steps in WAYS]


def _frames(shown: Forward) -> str:
    """Densities at some times as JSON for the slider."""
    alpha, sigma = (values.tolist() for values in shown.world.schedule(shown.times))
    frames = [
        {
            "t": round(float(shown.times[i]), 3),
            "alpha": round(alpha[i], 3),
            "sigma": round(sigma[i], 3),
            "p": [round(p, 4) for p in shown.density[i].tolist()],
        }
        for i in range(0, len(shown.times), FRAMES)
    ]
    return json.dumps({"x": [round(x, 3) for x in shown.x.tolist()], "frames": frames})


def _figures(shown: dict[str, Any]) -> dict[str, Any]:
    """What was measured, as plain data."""
    return {
        "seed": shown["seed"],
        "reverse": {w.kind: {"w2": w.w2, "floor": w.floor} for w in shown["reverse"]},
        "score_error": {f"{f.ratio:g}": f.error for f in shown["fields"]},
        "score_error_pooled": shown["pooled"],
        "samplers": [w.kind for w in shown["walks"]],
        "left_out": shown["missing"],
        "orders": {
            o.kind: {"declared": o.declared, "measured": o.measured} for o in shown["orders"]
        },
        "grids": {g.kind: g.off for g in shown["grids"]},
        "guidance": {
            f"{t.weight:g}": dict(zip(("ode", "ancestral"), t.off, strict=True), floor=t.floor)
            for t in shown["tilts"]
        },
        "faults": {
            b.name: {"accuracy": b.accuracy, "spread": b.spread, "shares": b.shares.tolist()}
            for b in shown["faults"]
        },
    }


def _page(shown: dict[str, Any]) -> bytes:
    plots = {
        "forward": tour_plots.forward_map(shown["forward"]),
        "reverse": tour_plots.reverse_maps(shown["forward"], shown["reverse"]),
        "fields": tour_plots.fields(shown["fields"]),
        "gallery": tour_plots.gallery(shown["walks"], shown["seed"]),
        "orders": tour_plots.order_lines(shown["orders"]),
        "grids": tour_plots.grid_rows(shown["grids"]),
        "tilted": tour_plots.tilted(shown["tilts"]),
        "faults": tour_plots.faults(shown["faults"], shown["mode_weights"]),
    }
    weights = ", ".join(f"{w:.2f}" for w in shown["forward"].world.weights.tolist())
    frames = _frames(shown["forward"])
    return rendered("tour.html.j2", **shown, plots=plots, weights=weights, frames=frames)
