"""The plots of the tour, as inline SVG whose ink is the colour of the text around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steerable.core.schedule import Flow

from .lettering import plain_log, plot_text
from .tour_fault import Broken
from .tour_line import REACH, Forward, Reverse, Tilt, density
from .tour_plane import Field, Grid, Order, Walk, plane_world

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = [
    "faults", "fields", "forward_map", "gallery", "grid_rows", "order_lines", "reverse_maps",
    "tilted",
]  # fmt: skip

INK = "#010203"  # replaced by currentColor, so that light and dark pages both can be read
BLUE, ORANGE, GREEN, PINK = "#3f86d0", "#d9792b", "#3c9d6b", "#c75b93"
MANY = (BLUE, ORANGE, GREEN, PINK, "#8f78d2", "#a8803a", "#2aa3b0", "#cf5148", "#7d8a2e", "#8b8f99")
SETTINGS = {
    "svg.hashsalt": "steerable", "svg.fonttype": "path", "font.size": 9.5, "axes.titlesize": 10,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "legend.fontsize": 9, "axes.linewidth": 0.6,
}  # fmt: skip


def _svg(name: str, alt: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """An inline SVG element: ids made unique by `name`, read aloud as `alt`."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with plot_text(), mpl.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", dpi=144, metadata=nothing)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :].replace("xlink:href", "href").replace(INK, "currentColor")
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    text = re.sub(r'(<svg) width="[^"]*" height="[^"]*"', r"\1", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{alt}"', 1)


def _glow(colour: str) -> Colormap:
    """From nothing to a colour, so that the page shines through."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    return LinearSegmentedColormap.from_list("glow", [(*to_rgb(colour), 0), (*to_rgb(colour), 1)])


def _warming() -> Colormap:
    """From blue to orange, in tones that both light and dark pages can carry."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("warming", [BLUE, PINK, ORANGE])


def _map(axes: Axes, forward: Forward) -> None:
    """p_t over t and x, every column scaled to its own maximum."""
    image = (forward.density / forward.density.amax(1, keepdim=True)).sqrt().T.numpy()
    axes.imshow(
        image, extent=(0, 1, -REACH, REACH), origin="lower", aspect="auto", cmap=_glow(BLUE),
        interpolation="none",
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(-REACH, REACH), xlabel="time t (0 is data, 1 is noise)")


def forward_map(forward: Forward) -> str:
    """Densities of the forward process with trajectories over them."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _map(axes, forward)
        axes.plot(forward.times, forward.paths, color=ORANGE, lw=0.7, alpha=0.75)
        axes.set_ylabel("x_t")

    alt = "Heat map of the densities p_t: six modes at t = 0 merge into one Gaussian at t = 1"
    return _svg("forward", alt, (10, 3.8), draw)


def reverse_maps(forward: Forward, ways: Sequence[Reverse]) -> str:
    """Paths of samplers over the densities, and where they end beside the exact density."""

    def draw(figure: Figure) -> None:
        rows = figure.subplots(1, 4, sharey=True, width_ratios=(3, 1, 3, 1))
        exact = forward.density[0]
        for (left, right), way in zip((rows[:2], rows[2:]), ways, strict=True):
            _map(left, forward)
            left.set(xlim=(1, 0), title=f"{way.kind}, {way.steps} steps")
            left.plot(way.times, way.paths, color=ORANGE, lw=0.7, alpha=0.85)
            right.hist(
                way.end, bins=80, range=(-REACH, REACH), density=True, orientation="horizontal",
                color=ORANGE, alpha=0.65, label="samples",
            )  # fmt: skip
            right.plot(exact, forward.x, color=INK, lw=1.1, label="exact p(x)")
            right.set(xlabel="density at t = 0")
        rows[0].set_ylabel("x_t")
        rows[3].legend(loc="upper right", fontsize=8, bbox_to_anchor=(1.12, 1.0))

    alt = "Sampling paths from noise to data: smooth for the ODE, rough for the SDE; same histogram"
    return _svg("reverse", alt, (10, 4.2), draw)


def fields(pairs: Sequence[Field]) -> str:
    """Exact scores above learned ones, as arrows."""

    def draw(figure: Figure) -> None:
        grid = figure.subplots(2, len(pairs), sharex=True, sharey=True)
        for column, pair in zip(grid.T, pairs, strict=True):
            longest = float(pair.exact.norm(dim=1).max())
            for axes, field in zip(column, (pair.exact, pair.learned), strict=True):
                u = field / longest
                axes.quiver(
                    *pair.x.T, *u.T, u.norm(dim=1), cmap=_warming(), clim=(0, 1.1), angles="xy",
                    scale_units="xy", scale=1.6, width=0.005,
                )  # fmt: skip
                axes.set(aspect="equal", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))
            column[0].set_title(f"sigma / alpha = {pair.ratio:g}")
            column[1].set(title=f"off by {pair.error:.1%}", xlabel="x, first coordinate")
        grid[0, 0].set_ylabel("exact score\nsecond coordinate")
        grid[1, 0].set_ylabel("learned score\nsecond coordinate")

    alt = "Arrows of the exact score above those of the learned score at three noise levels"
    return _svg("fields", alt, (10, 6.8), draw)


def _data(axes: Axes, seed: int) -> None:
    """The density of the plane world, faint."""
    world = plane_world(seed, Flow())
    line = torch.linspace(-2.6, 2.6, 72, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    p = density(world, x, torch.zeros((), dtype=torch.float64)).reshape(72, 72)
    image, extent = (p / p.max()).sqrt().T.numpy(), (-2.6, 2.6, -2.6, 2.6)
    cmap = _glow(BLUE)
    axes.imshow(image, extent=extent, origin="lower", cmap=cmap, alpha=0.6, interpolation="none")


def gallery(ways: Sequence[Walk], seed: int) -> str:
    """The way of every sampler over the density of the data."""
    columns = 5
    rows = -(-len(ways) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(ways) :]:
            axes.set_visible(False)
        for axes, way in zip(grid.flat, ways, strict=False):
            _data(axes, seed)
            colour = PINK if way.stochastic else ORANGE
            axes.plot(way.x[..., 0], way.x[..., 1], color=colour, lw=0.8, marker=".", ms=2.5)
            axes.plot(*way.x[0].T, "o", mfc="none", mec=INK, ms=3.5, mew=0.7)
            axes.plot(*way.x[-1].T, ".", color=INK, ms=5)
            axes.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal")
            axes.set_title(f"{way.kind}\n{way.calls} calls", fontsize=9)
            axes.tick_params(labelbottom=True)
        figure.get_layout_engine().set(h_pad=0.1)
        figure.supxlabel("first coordinate", fontsize=9.5)
        figure.supylabel("second coordinate", fontsize=9.5)

    alt = "Sampling paths in the plane from the same seven starts, one panel for each sampler"
    return _svg("gallery", alt, (10, 2.45 * rows + 0.3), draw)


def order_lines(found: Sequence[Order]) -> str:
    """Error against the number of steps, both logarithmic."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, order in enumerate(found):
            axes.loglog(
                order.counts, order.errors, color=MANY[i % len(MANY)], lw=1.4, marker="o", ms=3.5,
                ls=("-", "--", ":")[i % 3],
                label=f"{order.kind}: {order.measured:.2f} ({order.declared})",
            )  # fmt: skip
        axes.set(xlabel="steps", ylabel="distance to the exact end")
        axes.set_xticks(found[0].counts, [str(count) for count in found[0].counts])
        axes.minorticks_off()
        plain_log(axes.yaxis)
        axes.grid(alpha=0.2, lw=0.5, color=INK)
        title = "measured order (declared)"
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title=title)

    alt = "Error of every deterministic sampler against its number of steps, straight lines"
    return _svg("orders", alt, (10, 4.2), draw)


def grid_rows(found: Sequence[Grid]) -> str:
    """Where every grid puts its steps."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, grid in enumerate(found):
            colour = MANY[row % len(MANY)]
            axes.plot(grid.levels, torch.full_like(grid.levels, row), color=colour, lw=0.6)
            axes.plot(grid.levels, torch.full_like(grid.levels, row), "o", color=colour, ms=5)
        axes.set_yticks(range(len(found)), [grid.kind for grid in found])
        axes.set(ylim=(len(found) - 0.5, -0.5), xlabel="log(sigma / alpha): noise left, data right")
        axes.invert_xaxis()
        axes.grid(axis="x", alpha=0.2, lw=0.5, color=INK)
        axes.set_ylabel("grid")

    alt = "One row of dots for each time grid: its noise levels from noise on the left to data"
    return _svg("grids", alt, (10, 0.42 * len(found) + 0.9), draw)


def _steps(axes: Axes, shares: Tensor, **style: Any) -> None:
    width = 2 * REACH / len(shares)
    axes.stairs(shares / width, torch.linspace(-REACH, REACH, len(shares) + 1), **style)


def tilted(found: Sequence[Tilt]) -> str:
    """What guidance samples beside the tilted law, a panel for each weight."""
    plain = next(tilt.law for tilt in found if tilt.weight == 1.0)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(2, 2, sharex=True)
        for axes, tilt in zip(grid.flat, found, strict=True):
            _steps(axes, tilt.ode, fill=True, color=BLUE, alpha=0.45, label="sampled, ODE")
            _steps(axes, tilt.ancestral, color=GREEN, lw=1.0, label="sampled, ancestral")
            _steps(axes, tilt.law, color=ORANGE, lw=1.8, label="tilted law")
            _steps(axes, plain, color=INK, lw=0.9, ls=":", label="p(x|y)")
            axes.set(xlim=(-REACH, REACH), ylabel="density")
            ode, sde = tilt.off
            axes.set_title(f"weight {tilt.weight:g}: off by {ode:.3f} (ODE), {sde:.3f} (ancestral)")
        for axes in grid[1]:
            axes.set_xlabel("x")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)

    alt = "Densities sampled with guidance weights 0, 1, 2 and 4 over the tilted law"
    return _svg("tilted", alt, (10, 5.6), draw)


def faults(found: Sequence[Broken], weights: Tensor) -> str:
    """Samples side by side, coloured by the class that was asked for, and the shares of modes."""

    def draw(figure: Figure) -> None:
        above, below = figure.subfigures(2, 1, height_ratios=(1.1, 1))
        for axes, way in zip(above.subplots(1, len(found), sharey=True), found, strict=True):
            half = len(way.x) // 2
            for part, colour in ((way.x[:half], BLUE), (way.x[half:], ORANGE)):
                axes.plot(*part.T, ".", color=colour, ms=2.5, alpha=0.6, rasterized=True)
            axes.axhline(0, color=INK, lw=0.5, ls=":")
            axes.set(xlim=(-2.4, 2.4), ylim=(-1.3, 1.3), xlabel="first coordinate")
            axes.set_title(f"{way.name}: {way.accuracy:.1%} obey")
        above.axes[0].set_ylabel("second coordinate")
        axes = below.subplots()
        place = torch.arange(len(weights), dtype=torch.float64).numpy()
        for i, (way, colour) in enumerate(zip(found, (GREEN, BLUE, PINK), strict=True)):
            bars = way.shares.numpy()
            axes.bar(place + 0.22 * (i - 1), bars, 0.2, color=colour, label=way.name)
        for k, weight in enumerate(weights):
            label = "exact weight" if k == 0 else None
            axes.plot([k - 0.4, k + 0.4], [weight, weight], color=INK, lw=1.3, label=label)
        half = len(weights) // 2
        names = [f"{side} {k + 1}" for side in ("upper", "lower") for k in range(half)]
        axes.set_xticks(place, names)
        axes.set(ylabel="share of the samples", xlabel="mode")
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0.0, 1.0))

    alt = "Scatter plots: exact and ancestral samples agree, the wrong sampler loses most modes"
    return _svg("faults", alt, (10, 6.0), draw)
