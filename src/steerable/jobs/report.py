"""The report of a run: one HTML file with its pictures inside, which opens anywhere."""

from __future__ import annotations

import base64
import io
import json
from importlib import resources
from pathlib import Path
from typing import Any

from steerable.core.errors import UserError

from . import durable
from .evaluate import Evaluation
from .model import Model
from .pictures import labelled_grid, png
from .sample import by_title

__all__ = ["write_numbers", "write_report"]


def _inline(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _loss_curve(run: Path) -> str:
    """Training and validation loss against the iteration, as an inline SVG picture."""
    from matplotlib.figure import Figure

    records = _lines(run / "metrics.jsonl")
    losses = [(r["iteration"], r["loss"]) for r in records if "loss" in r]
    checks = [r for r in records if r.get("event") == "validation"]
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), "svg+xml")


def _matrix(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix with shares, for a table whose cells are shaded."""
    rows = []
    for name, counts in zip(result["labels"], result["confusion"], strict=True):
        total = max(1, sum(counts))
        cells = [{"count": c, "share": c / total} for c in counts]
        rows.append({"name": name, "cells": cells, "right": result["per_class"][name]})
    return rows


def _verdict(result: dict[str, Any]) -> str:
    """What the accuracy says, in words, next to what the judge manages on real pictures."""
    accuracy, real = result["accuracy"], result["judge_accuracy"]
    chance = 1 / len(result["labels"])
    if accuracy <= chance + 0.1:
        return "The label is ignored: the judge is right no more often than by chance."
    if accuracy >= real - 0.05:
        return "It obeys: the judge names these samples as well as it names real pictures."
    return "It obeys in part: the judge names real pictures better than these samples."


def write_numbers(run: Path, evaluation: Evaluation) -> None:
    """Write `evaluation.json` into the run folder."""
    plain = json.dumps(evaluation.result, indent=1, sort_keys=True, ensure_ascii=False)
    durable.write(run / "evaluation.json", plain.encode() + b"\n")


def write_report(run: Path, model: Model, evaluation: Evaluation, *, proceed: str) -> Path:
    """Write `report.html` into the run folder; returns the page.

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
    rows, titles = by_title(made)
    template = resources.files("steerable").joinpath("jobs/report.html.j2").read_text("utf-8")
    page = (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            name=model.spec.name,
            grid=_inline(png(labelled_grid([row[:10] for row in rows], titles))),
            curve=_loss_curve(run),
            rows=_matrix(result),
            result=result,
            verdict=_verdict(result),
            training=model.about["training"],
            versions=model.about["versions"],
            parameters=sum(p.numel() for p in model.denoiser.parameters()),
            recipe=model.recipe.yaml(),
            proceed=proceed,
        )
    )
    durable.write(run / "report.html", page.encode())
    return run / "report.html"
