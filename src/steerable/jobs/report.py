"""The report of a run: plain figures, and one HTML page with its pictures that opens anywhere."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from steerable.core.errors import UserError

from . import durable
from .beside import object_in
from .evaluate import Evaluation
from .items import write_items
from .model import Model
from .pictures import labelled_grid, png
from .sample import by_title
from .watch import records

__all__ = ["FOLDER", "MEANS", "write_numbers", "write_report"]

FOLDER = "evaluation"  # of a run
ROWS = 24  # of the grid of samples, which may have a caption each

MEANS = {
    "accuracy": "a judge sees the class that was asked for",
    "spread": "variety within a class, 1 is as real",
    "spread_pixels": "the same in pixels",
    "frechet": "feature Frechet distance, less is nearer to real",
    "frechet_infinity": "the same, extrapolated to endless n",
    "kid": "kernel distance, 0 for equal laws",
    "two_sample": "a nearest neighbour tells samples from real, 0.5 is chance",
    "precision": "share of samples among real items",
    "recall": "share of real items among samples",
    "density": "how crowded the places of the samples are with real items",
    "coverage": "share of real items with a sample near",
    "repeats": "share of samples that are near-copies of other samples",
    "memorisation": "distance to the training items over that of unseen real items; 0 is a copy",
    "near_copies": "share of samples nearer to a training item than 99 % of unseen real items",
    "colour": "distance of the colour histograms in grey levels",
    "tint": "largest shift of a channel in grey levels",
    "contrast": "contrast within a picture, 1 is as real",
    "dead": "share of blank samples",
    "classification_score": "a classifier that learned from samples, tested on real pictures",
    "fid": "the published FID, by torch-fidelity's Inception; compare at equal n only",
    "bits_per_dim": "bits per dimension of held-out items, an upper bound",
}

GOOD = {"yes": "good", "partly": "fair", "no": "bad"}
TURNED = {"yes": "bad", "no": "good"}  # of the question whether it copies


def _inline(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _drawn(figure: Any) -> str:
    """A figure as an inline SVG picture, without a date in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), "svg+xml")


def _loss_curve(run: Path) -> str:
    """Training and validation loss against the iteration."""
    from matplotlib.figure import Figure

    known = records(run)
    losses = [(r["iteration"], r["loss"]) for r in known if "loss" in r]
    checks = [r for r in known if r.get("event") == "validation"]
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    if losses:
        axes.plot(*zip(*losses, strict=True), lw=0.8, color="#9db4d0", label="training, mean of 10")
    for key, name, colour in (
        ("validation_loss_raw", "held-out, raw weights", "#d08b4f"),
        ("validation_loss", "held-out, EMA weights", "#1f4e8c"),
    ):
        points = [(r["iteration"], r[key]) for r in checks]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", ms=3, lw=1.2, color=colour, label=name)
    axes.set(xlabel="iteration", ylabel="loss", yscale="log")
    if losses or checks:
        axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _drawn(figure)


def _level_curve(levels: Mapping[str, Any]) -> str:
    """Loss on items seen and unseen at every noise level, beside the least possible."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for key, name, style in (
        ("train", "training items", {"color": "#9db4d0", "marker": "o"}),
        ("held_out", "held-out items", {"color": "#1f4e8c", "marker": "o"}),
        ("optimum", "least possible for items seen", {"color": "#888888", "ls": "--"}),
    ):
        if levels.get(key):
            rows = levels[key]
            axes.errorbar(levels["levels"], rows["mean"], rows["error"], label=name, ms=3, **style)
    axes.set(xlabel="log(sigma / alpha)", ylabel="loss")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _drawn(figure)


def _number(value: float) -> str:
    """A number with four figures that count."""
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _figures(measures: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rows of the table of all measures."""
    rows = []
    for name, figure in measures.items():
        means = MEANS.get(name, "how much of what was told can be read off the samples")
        floor = figure.get("floor", figure.get("real"))
        texts = {"value": _number(figure["value"]), "error": _number(figure["error"])}
        between = "" if floor is None else _number(floor)
        rows.append(
            {"name": name, "n": f"{figure['n']:,}", "floor": between, "means": means, **texts}
        )
    return rows


def _matrix(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix with shares, for a table whose cells are shaded."""

    def told(figures: Mapping[str, Any], name: str) -> str:
        found = figures.get(name)
        return "" if found is None else f"{found['value']:.3g} ± {found['error']:.1g}"

    rows = []
    for name, counts in zip(result.get("labels", ()), result.get("confusion", ()), strict=True):
        total, figures = max(1, sum(counts)), result["per_class"][name]
        cells = [{"count": c, "share": c / total} for c in counts]
        more = {"right": "accuracy", "spread": "spread", "kid": "kid"}
        texts = {key: told(figures, measure) for key, measure in more.items()}
        rows.append({"name": name, "cells": cells, "n": sum(counts), **texts})
    return rows


def _nearest(found: Evaluation) -> str:
    """The samples nearest to training items above these, with their distances."""
    assert found.nearest is not None
    titles = [f"{row['distance']:.2f}" for row in found.result["nearest"]]
    rows = [found.nearest[:, 0], found.nearest[:, 1]]
    return _inline(png(labelled_grid(rows, ["sample", "training"], columns=titles)))


def _sweep(run: Path) -> dict[str, str] | None:
    """The curves of the latest sweep of the run that has some."""
    for curves in sorted(run.glob("samples/sweep-*/curves.png"), reverse=True):
        facts = object_in(curves.parent / "sweep.json")
        if facts is None or not isinstance(facts.get("best"), str) or not curves.is_file():
            continue
        picture = curves.read_bytes()
        return {"name": curves.parent.name, "best": facts["best"], "curves": _inline(picture)}
    return None


def write_numbers(run: Path, evaluation: Evaluation) -> Path:
    """Write `evaluation/report.json` and the items beside it into the run; returns the file."""
    plain = json.dumps(
        evaluation.result, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    durable.folder(run / FOLDER)
    durable.write(run / FOLDER / "report.json", plain.encode() + b"\n")
    if evaluation.items is not None:
        write_items(run / FOLDER, evaluation.items)
    return run / FOLDER / "report.json"


def write_report(run: Path, model: Model, evaluation: Evaluation, *, proceed: str) -> Path:
    """Write `evaluation/report.html` into the run folder; returns the page.

    Args:
        run: The run folder.
        model: Its model.
        evaluation: What `evaluate` found.
        proceed: The command that goes on training.

    Raises:
        UserError: E-EXTRA without matplotlib and Jinja2; E-DISK if it cannot be written.
    """
    try:
        from jinja2 import Environment
        from matplotlib import figure as _  # noqa: F401
    except ImportError as error:
        do = 'pip install "steerable[eval]"'
        raise UserError("E-EXTRA", where="report", got=f"no {error.name}", do=do) from error
    result, made = evaluation.result, evaluation.sample
    assert made is not None, "a report shows samples"
    rows, titles = (shown[:ROWS] for shown in by_title(made))
    template = resources.files("steerable").joinpath("jobs/report.html.j2").read_text("utf-8")
    page = (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            name=model.spec.name,
            result=result,
            marks=[
                (TURNED if "copy" in v["question"] else GOOD).get(v["answer"], "")
                for v in result["verdicts"]
            ],
            grid=_inline(png(labelled_grid([row[:10] for row in rows], titles))),
            figures=_figures(result["measures"]),
            rows=_matrix(result),
            nearest=_nearest(evaluation) if evaluation.nearest is not None else "",
            levels=_level_curve(result["levels"]) if "levels" in result else "",
            curve=_loss_curve(run),
            sweep=_sweep(run),
            training=model.about["training"],
            versions=model.about["versions"],
            seconds=evaluation.seconds,
            speed=round(result["settings"]["n"] / max(evaluation.seconds["samples"], 0.1)),
            recipe=model.recipe.yaml(),
            proceed=proceed,
        )
    )
    durable.folder(run / FOLDER)
    durable.write(run / FOLDER / "report.html", page.encode())
    return run / FOLDER / "report.html"
