"""The inside of a model as one HTML file with its pictures in it, which opens anywhere."""

from __future__ import annotations

import base64
import io
import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steerable.core.errors import UserError

from . import durable
from .attended import Attended, Layer
from .inside import Inside
from .lettering import plain_log, plot_text, shortened
from .model import Model
from .output import HEAD, PAGE, Place, check_file
from .page import rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_pages", "require", "write_inside"]

MADE_BY = "steerable look"

BLUE, ORANGE, GREY = "#1f4e8c", "#d08b4f", "#555555"
DOTS = 110  # a inch, of pictures that are no lines
NAMED = 60  # rows of a table that have a name beside them
NAME = 24  # columns of a name in a plot
NUMBERED = 14  # rows of a table with the number in each cell


def require() -> None:
    """Check, before anything is computed, that a page can be made.

    Raises:
        UserError: E-EXTRA without matplotlib or Jinja2.
    """
    for name in ("matplotlib", "jinja2"):
        if find_spec(name) is None:
            do = 'pip install "steerable[eval]"'
            raise UserError("E-EXTRA", where="look", got=f"no {name}", do=do)


def _inline(figure: Figure, kind: str) -> str:
    """The figure as a data URL, `svg` or `png`."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=DOTS, metadata=metadata)
    mime = "svg+xml" if kind == "svg" else kind
    return f"data:image/{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _heat(table: dict[str, Any]) -> str:
    """The matrix of cosines; the diagonal is left blank, so that the colours serve the rest."""
    names = [shortened(name, NAME) for name in table["names"]]
    cosine = torch.tensor(
        [[float("nan") if v is None else v for v in row] for row in table["cosine"]]
    ).fill_diagonal_(torch.nan)
    span = max(0.1, float(cosine.abs().nan_to_num().max()))
    side = min(9.0, max(3.2, 0.42 * len(names) + 1.4))
    figure = _figure(side + 0.9, side)
    axes = figure.subplots()
    axes.set_facecolor("#e6e6e6")
    image = axes.imshow(cosine.numpy(), cmap="RdBu_r", vmin=-span, vmax=span)
    figure.colorbar(image, ax=axes, shrink=0.7, label="cosine")
    if len(names) <= NAMED:
        size = 8 if len(names) <= 30 else 5
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        axes.tick_params(length=0)
    for i in range(len(names) if len(names) <= NUMBERED else 0):
        for j in range(len(names)):
            value = float(cosine[i, j])
            if not math.isnan(value):
                ink = "white" if abs(value) > 0.65 * span else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=ink)
    axes.axhline(len(names) - 1.5, color="white", lw=2)
    axes.axvline(len(names) - 1.5, color="white", lw=2)
    return _inline(figure, "svg")


def _schedule(found: dict[str, Any]) -> str:
    """Alpha and sigma, the log-SNR with the sampling grid, and where training looks."""
    figure = _figure(11, 3.1)
    scales, ratio, law = figure.subplots(1, 3)
    scales.plot(found["t"], found["alpha"], color=BLUE, label="alpha")
    scales.plot(found["t"], found["sigma"], color=ORANGE, label="sigma")
    if max(found["sigma"]) > 5:
        scales.set_yscale("log")
        plain_log(scales.yaxis)
    scales.set(xlabel="t (0 is data)", title="scales of signal and noise")
    scales.legend(frameon=False, fontsize=8)
    ratio.plot(found["t"], found["log_snr"], color=GREY, lw=1)
    times = [t for t in found["grid"] if t > 0]
    steps = [-2 * level for level in found["grid_levels"]]
    ratio.plot(times, steps, "o", ms=4, color=BLUE, label="sampling grid")
    ratio.set(xlabel="t", title="log-SNR = 2 log(alpha / sigma)")
    ratio.legend(frameon=False, fontsize=8)
    edges, density = found["density"]["edges"], found["density"]["density"]
    law.stairs(density, edges, fill=True, color="#9db4d0", label="training times")
    law.plot(
        found["grid_levels"], [0.0] * len(times), "|", ms=14, mew=1.5, color=BLUE, label="grid"
    )
    law.set(xlabel="log(sigma / alpha)", title="where training looks", ylim=(None, None))
    law.legend(frameon=False, fontsize=8)
    for axes in (scales, ratio, law):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(10)
    return _inline(figure, "svg")


def _loss(found: dict[str, Any]) -> str:
    """Loss over the level, on seen and unseen items, and its optimum; the law of t behind."""
    figure = _figure(9, 4)
    axes = figure.subplots()
    lines = (("train", "training items", BLUE), ("held_out", "held-out items", ORANGE))
    lowest = []
    for key, name, colour in lines:
        if found[key] is not None:
            mean, error = found[key]["mean"], found[key]["error"]
            axes.errorbar(
                found["levels"], mean, error, fmt="o-", ms=3, lw=1.2, color=colour, label=name
            )
            lowest += mean
    floor = min(lowest) / 30
    if found["optimum"] is not None:
        least = [max(v, floor / 10) for v in found["optimum"]["mean"]]
        name = f"optimum of the {found['of']:,} training items"
        axes.plot(found["levels"], least, "--", color="black", lw=1.2, label=name)
    axes.set(yscale="log", xlabel="log(sigma / alpha): data left, noise right", ylabel="loss")
    axes.set_ylim(bottom=floor)
    plain_log(axes.yaxis)
    behind = axes.twinx()
    behind.fill_between(found["levels"], found["law"], color="#9db4d0", alpha=0.3, lw=0)
    behind.set(yticks=[], ylim=(0, 3 * max(found["law"])))
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    for side in (axes, behind):
        side.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return _inline(figure, "svg")


def _grey(picture: Tensor) -> Tensor:
    """A (C,H,W) uint8 picture as (H,W) in [0, 1], its alpha ignored."""
    colours = picture[: 3 if len(picture) >= 3 else 1]
    return colours.to(torch.float32).mean(0) / 255.0


def _colours(picture: Tensor) -> Tensor:
    """The same as (H,W,3)."""
    if len(picture) >= 3:
        return picture[:3].permute(1, 2, 0)
    return picture[:1].expand(3, -1, -1).permute(1, 2, 0)


def _maps(found: Attended, layer: Layer, *, words: bool) -> str:
    """Rows are times from noise to data: x0-hat, then a map for every word or every query."""
    values = layer.words if words else layer.places
    assert values is not None
    rows, columns = values.shape[:2]
    height, width = found.picture.shape[1:]
    tile = 1.15 * min(1.0, 9.5 / (1.15 * (columns + 1)))
    figure = _figure(tile * (columns + 1) + 0.9, tile * height / width * rows + 0.5)
    every = figure.subplots(rows, columns + 1, squeeze=False)
    frame = (-0.5, width - 0.5, height - 0.5, -0.5)
    for r in range(rows):
        every[r][0].imshow(_colours(found.estimates[r]).numpy())
        every[r][0].set_ylabel(f"t = {found.times[r]:.2f}", fontsize=8)
        for c in range(columns):
            axes, top = every[r][c + 1], float(values[r].max())
            axes.imshow(_grey(found.picture).numpy(), cmap="gray", vmin=0, vmax=2)  # dimmed
            way = {"cmap": "magma", "alpha": 0.7, "interpolation": "bilinear", "extent": frame}
            axes.imshow(values[r, c].numpy(), vmin=0, vmax=top or 1.0, **way)
            if words:
                axes.set_xlabel(f"{float(values[r, c].mean()):.2f}", fontsize=7, labelpad=1)
            else:
                y, x = layer.queries[c]
                h, w = values.shape[2:]
                place = ((x + 0.5) * width / w - 0.5, (y + 0.5) * height / h - 0.5)
                axes.plot(*place, "o", ms=4, mfc="#4fe3c1", mec="black", mew=0.6)
    every[0][0].set_title("x0-hat", fontsize=8)
    for c in range(columns):
        title = shortened(found.words[c], NAME) if words else "from the dot"
        every[0][c + 1].set_title(title, fontsize=9 if words else 8)
    for axes in every.flat:
        axes.set(xticks=[], yticks=[])
    return _inline(figure, "png")


def _layers(found: Attended) -> list[dict[str, Any]]:
    """The pictures of every layer, with its name."""
    return [
        {
            "name": layer.name.removeprefix("backbone."),
            "among": layer.among,
            "words": None if layer.words is None else _maps(found, layer, words=True),
            "places": None if layer.places is None else _maps(found, layer, words=False),
        }
        for layer in found.layers
    ]


def _pictures(inside: Inside) -> dict[str, Any]:
    numbers = inside.numbers
    return {
        "tables": [
            {"name": name, "picture": _heat(table), **table}
            for name, table in numbers["similarity"].items()
        ],
        "layers": [] if inside.attention is None else _layers(inside.attention),
        "schedule_picture": _schedule(numbers["schedule"]),
        "loss_picture": None if "left_out" in numbers["loss"] else _loss(numbers["loss"]),
    }


def check_pages(page: Path, place: Place) -> None:
    """Check, before any work, that the page and its numbers may be written.

    Raises:
        UserError: As `output.check_file`.
    """
    check_file(page, place)
    numbers, marks = page.with_suffix(".json"), [b'"generator": "' + MADE_BY.encode()]
    if page.is_file() and any(mark in page.read_bytes()[:HEAD] for mark in PAGE):
        marks.append(b'"similarity":')  # of the page, written before its numbers said so
    check_file(numbers, place, marks=marks)


def write_inside(out: Path, model: Model, inside: Inside) -> list[Path]:
    """Write the page `out` and the numbers beside it as JSON; returns both.

    Raises:
        UserError: E-DISK if it cannot be written.
    """
    attention = inside.attention
    names = [name for table in inside.numbers["similarity"].values() for name in table["names"]]
    with plot_text([*names, *(() if attention is None else attention.words)]):
        pictures = _pictures(inside)
    page = rendered(
        "inside.html.j2",
        **inside.numbers,
        **pictures,
        asked="" if attention is None else attention.wish.title or "nothing",
        words=() if attention is None else attention.words,
        sha256=model.about.get("sha256", ""),
    )
    told = {"generator": MADE_BY, **inside.numbers}
    plain = json.dumps(told, ensure_ascii=False, allow_nan=False)
    numbers = out.with_suffix(".json")
    durable.folder(out.parent)
    durable.write(numbers, plain.encode() + b"\n")
    durable.write(out, page)
    return [out, numbers]
