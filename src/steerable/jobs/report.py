"""The report of a run: plain figures, and one HTML page with its pictures that opens anywhere."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steerable.core.errors import UserError

from . import durable
from .beside import object_in
from .data import sound_report
from .evaluate import Evaluation
from .items import write_items
from .lettering import plain_log, plot_text
from .model import Model
from .output import PAGE, Place, check_file
from .page import rendered
from .pictures import png, sheet
from .run import Run
from .sample import Sample, by_title
from .watch import records, troubles_of

__all__ = ["FOLDER", "MEANS", "check_folder", "write_numbers", "write_report"]

FOLDER = "evaluation"  # of a run
ROWS, ACROSS = 24, 10  # of the grid of samples, which may have a caption each
MATRIX = 20  # classes whose confusion matrix is a table with counts; of more, a picture
PAIRS = 20  # of classes that are confused most
LISTED = 200  # classes in the list of the figures of each
MAP = 600  # pixels of the picture of a confusion matrix
FAILED = 20  # files that could not be read, by name

MEANS = {
    "accuracy": (
        "How often a separate classifier sees the class that was asked for. Good: as often as "
        "it is right about real pictures."
    ),
    "spread": (
        "How different the samples of one class are from each other. Good: near 1, as real ones."
    ),
    "spread_pixels": (
        "The same, measured in pixels, which also sees what a class does not depend on. Good: "
        "near 1."
    ),
    "frechet": (
        "Feature Frechet distance: how far the samples as a whole are from real pictures, in "
        "average and in variety. Good: near what two sets of real ones have."
    ),
    "frechet_infinity": "The same, as it would be for endlessly many pictures. Good: near 0.",
    "kid": "Another distance of the whole set (kernel distance). Good: 0 within its error.",
    "two_sample": (
        "How often one can tell a sample from a real picture by what it is most like. Good: "
        "0.5, a guess; 1 is always; far below 0.5 means copies."
    ),
    "precision": "Share of samples that look like some real picture. Good: near the real value.",
    "recall": "Share of real pictures that the samples come near to. Good: near the real value.",
    "density": "How many real pictures there are around a sample. Good: near the real value.",
    "coverage": "Share of real pictures that have a sample close by. Good: near the real value.",
    "repeats": (
        "Share of samples that are near-copies of other samples. Good: as few as of real ones."
    ),
    "memorisation": (
        "How far samples are from the training pictures, unseen real ones being at 1. Good: "
        "about 1; 0 is a copy."
    ),
    "near_copies": (
        "Share of samples nearer to a training picture than 99 % of unseen real ones. Good: "
        "about 0.01, as of real ones."
    ),
    "colour": "How far the colours are off, in grey levels. Good: near the real value.",
    "tint": "The largest shift of a colour, in grey levels. Good: near the real value.",
    "contrast": "Contrast within a picture over that of real ones. Good: near 1; less is blurred.",
    "dead": "Share of blank samples. Good: as few as of real ones.",
    "classification_score": (
        "How well a classifier that learned from the samples alone names real pictures. Good: "
        "as well as one that learned from real ones."
    ),
    "fid": (
        "The FID of papers, by torch-fidelity's Inception. Less is better; compare at equal n only."
    ),
    "bits_per_dim": (
        "How many bits a pixel the model needs to store an unseen picture; an upper bound. Less "
        "is better."
    ),
}
TOLD = (
    "How much of what was asked for can be read off the samples. Good: as much as off real items."
)

GOOD = {"yes": "good", "partly": "fair", "no": "bad"}
TURNED = {"yes": "bad", "partly": "fair", "no": "good"}  # of the question whether it copies


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
    plain_log(axes.yaxis)
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
        means = MEANS.get(name, TOLD)
        floor = figure.get("floor", figure.get("real"))
        texts = {"value": _number(figure["value"]), "error": _number(figure["error"])}
        between = "" if floor is None else _number(floor)
        rows.append(
            {"name": name, "n": f"{figure['n']:,}", "floor": between, "means": means, **texts}
        )
    return rows


def _matrix(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix, of few classes with shares, for a table with shaded cells."""

    def told(figures: Mapping[str, Any], name: str) -> str:
        found = figures.get(name)
        return "" if found is None else f"{found['value']:.3g} ± {found['error']:.1g}"

    rows, many = [], len(result.get("labels", ())) > MATRIX
    for name, counts in zip(result.get("labels", ()), result.get("confusion", ()), strict=True):
        total, figures = max(1, sum(counts)), result["per_class"].get(name, {})
        cells = [] if many else [{"count": c, "share": c / total} for c in counts]
        more = {"right": "accuracy", "spread": "spread", "kid": "kid"}
        texts = {key: told(figures, measure) for key, measure in more.items()}
        rows.append({"name": name, "cells": cells, "n": sum(counts), **texts})
    return rows


def _confused(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for each other most: asked, seen, count, of, share."""
    names, found = result.get("labels", ()), []
    for asked, counts in zip(names, result.get("confusion", ()), strict=True):
        total = max(1, sum(counts))
        found += [
            {"asked": asked, "seen": seen, "count": c, "of": total, "share": c / total}
            for seen, c in zip(names, counts, strict=True)
            if c and seen != asked
        ]
    found.sort(key=lambda row: (-row["share"], -row["count"]))
    return found[:PAIRS]


def _map(result: Mapping[str, Any]) -> str:
    """The confusion matrix of many classes as a picture of shares, dark is much."""
    import torch

    counts = torch.tensor(result["confusion"], dtype=torch.float32)
    side = len(counts)
    if side > MAP:  # neighbours in one cell, by their mean, so that thousands stay a picture
        counts = torch.nn.functional.adaptive_avg_pool2d(counts[None, None], MAP)[0, 0]
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1e-9)
    ends = torch.tensor([[255.0, 255.0, 255.0], [16.0, 48.0, 110.0]])
    x = torch.lerp(ends[0][:, None, None], ends[1][:, None, None], shares.sqrt()[None])
    scale = max(1, MAP // len(counts))
    x = x.round().to(torch.uint8).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return _inline(png(x))


def _nearest(found: Evaluation) -> str:
    """The samples nearest to training items above these, with their distances."""
    assert found.nearest is not None
    titles = [f"{row['distance']:.2f}" for row in found.result["nearest"]]
    rows = [found.nearest[:, 0], found.nearest[:, 1]]
    return _inline(png(sheet(rows, ["sample", "training"], titles).image))


def _sweep(run: Path) -> dict[str, str] | None:
    """The curves of the latest sweep of the run that has some."""
    for curves in sorted(run.glob("samples/sweep-*/curves.png"), reverse=True):
        facts = object_in(curves.parent / "sweep.json")
        if facts is None or not isinstance(facts.get("best"), str) or not curves.is_file():
            continue
        picture = curves.read_bytes()
        return {"name": curves.parent.name, "best": facts["best"], "curves": _inline(picture)}
    return None


def _samples(made: Sample) -> dict[str, Any]:
    """The picture of the samples, and what it does not show."""
    rows, titles = by_title(made)
    picture = sheet([row[:ACROSS] for row in rows[:ROWS]], titles[:ROWS])
    return {
        "grid": _inline(png(picture.image)),
        "grid_shown": picture.shown,
        "grid_rows": min(ROWS, len(rows)),
        "grid_of": len(rows),
    }


def _classes(result: Mapping[str, Any]) -> dict[str, Any]:
    """The confusion matrix: a table of few classes; pairs, a picture and a list of many."""
    rows, many = _matrix(result), len(result.get("labels", ())) > MATRIX
    right = [row[i] / max(1, sum(row)) for i, row in enumerate(result.get("confusion", ()))]
    order = sorted(range(len(rows)), key=right.__getitem__) if many else []
    return {
        "rows": rows,
        "many": many,
        "confused": _confused(result),
        "map": _map(result) if many else "",
        "listed": [rows[i] for i in order[:LISTED]],
    }


def _record(run: Path) -> dict[str, Any]:
    """The record of the data of the run, with a warning where it is damaged."""
    report = Run(run).data_report()
    if report is None:
        there = (run / "data-report.json").exists()
        return {"warnings": ["data-report.json cannot be read"] if there else []}
    return report if sound_report(report) else {"warnings": ["data-report.json is damaged"]}


def _data(run: Path, model: Model) -> dict[str, Any]:
    """Sizes of the data that the run was trained on; counts are None where no record is at hand."""
    report = _record(run)
    return {
        "train": report.get("n_train"),
        "held_out": report.get("n_held_out"),
        "shape": model.spec.shape,
        "classes": len(model.labels),
    }


def _failed(run: Path, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was left out or went wrong, with its reason: stages, files of the data, the training."""
    report = _record(run)
    bad = report.get("bad", [])
    found = [(f"measure: {stage}", why) for stage, why in result["skipped"].items()]
    found += [(f"file: {row['name']}", row["reason"]) for row in bad[:FAILED]]
    if len(bad) > FAILED:
        found.append(("files", f"{len(bad) - FAILED:,} more, which data-report.json lists"))
    found += [("data", warning) for warning in report.get("warnings", [])[:FAILED]]
    troubles = {row["kind"]: row for row in troubles_of(run)}
    return [*found, *((f"training: {k}", row["sentence"]) for k, row in troubles.items())]


def check_folder(run: Path) -> None:
    """Check, before any work, that the evaluation may be written beside a model.

    In a run folder it is the run's own. Beside a model file alone there may lie anything.

    Raises:
        UserError: As `output.check_file`.
    """
    if (run / "recipe.yaml").is_file():
        return
    made = {"report.json": [b'"measures"', b'"classifies"'], "report.html": PAGE}
    made |= {"items.safetensors": [b'"predicted"'], "judge.safetensors": [b"judge"]}
    for name, marks in made.items():
        check_file(run / FOLDER / name, Place(None), marks=marks)


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
    for name in ("matplotlib", "jinja2"):
        if find_spec(name) is None:
            do = 'pip install "steerable[eval]"'
            raise UserError("E-EXTRA", where="report", got=f"no {name}", do=do)
    result, made = evaluation.result, evaluation.sample
    assert made is not None, "a report shows samples"
    with plot_text():
        levels = _level_curve(result["levels"]) if "levels" in result else ""
        curve = _loss_curve(run)
    page = rendered(
        "report.html.j2",
        name=model.spec.name,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        result=result,
        marks=[
            (TURNED if "copy" in v["question"] else GOOD).get(v["answer"], "")
            for v in result["verdicts"]
        ],
        **_samples(made),
        data=_data(run, model),
        failed=_failed(run, result),
        figures=_figures(result["measures"]),
        **_classes(result),
        nearest=_nearest(evaluation) if evaluation.nearest is not None else "",
        levels=levels,
        curve=curve,
        sweep=_sweep(run),
        training=model.about["training"],
        versions=model.about["versions"],
        seconds=evaluation.seconds,
        speed=round(result["settings"]["n"] / max(evaluation.seconds.get("samples", 0.1), 0.1)),
        recipe=model.recipe.yaml(),
        proceed=proceed,
    )
    durable.folder(run / FOLDER)
    durable.write(run / FOLDER / "report.html", page)
    return run / FOLDER / "report.html"
