"""Trying sampling settings on a trained model: what guidance buys, what it costs, which is best."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Splits
from steerable.metrics.spread import Spread
from steerable.recipes import store
from steerable.recipes.recipe import Recipe

from . import durable
from .judge import Judge
from .judged import distance, judge_for, measurable, obedience, reference
from .lease import rewriting
from .lettering import plot_text, shortened
from .model import Model, read_about
from .output import Folder, Place, claim
from .pictures import png, sheet
from .sample import Sample, sample, steered
from .wish import Wish

__all__ = [
    "SEED", "Setting", "Sweeping", "Tried", "best", "keep", "laid_out", "product", "sweep", "write",
]  # fmt: skip

SEED = 2_000_000  # the same for every setting, and none that the evaluation uses
MOST = 200  # settings


@dataclass(frozen=True)
class Setting:
    """One choice of sampling settings; None is the model's own."""

    guidance: float | None = None
    interval: tuple[float, float] | None = None
    steps: int | None = None
    sampler: str | None = None

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with these settings."""
        return steered(
            recipe,
            guidance=self.guidance,
            interval=self.interval,
            steps=self.steps,
            sampler=self.sampler,
        )

    @property
    def title(self) -> str:
        """What differs from the model's own, in a line."""
        told = {
            "guidance": None if self.guidance is None else f"{self.guidance:g}",
            "in": None if self.interval is None else "{:g}:{:g}".format(*self.interval),
            "steps": self.steps,
            "sampler": self.sampler,
        }
        return ", ".join(f"{k} {v}" for k, v in told.items() if v is not None) or "as it is"


def product(
    guidance: Sequence[float] = (),
    intervals: Sequence[tuple[float, float]] = (),
    steps: Sequence[int] = (),
    samplers: Sequence[str] = (),
) -> list[Setting]:
    """Every combination; what is left out stays the model's own.

    Raises:
        UserError: E-LIMIT for more than 200 of them.
    """
    lists: list[Sequence[Any]] = [guidance, intervals, steps, samplers]
    made = [Setting(*choice) for choice in itertools.product(*(x or [None] for x in lists))]
    if len(made) > MOST:
        raise UserError("E-LIMIT", where="settings", got=str(len(made)), takes=f"up to {MOST}")
    return made


@dataclass(frozen=True)
class Tried:
    """One setting with what was measured, as plain data, and its first pictures of each class."""

    setting: Setting
    result: dict[str, Any]
    x: Tensor = field(compare=False, repr=False)


@dataclass(frozen=True)
class Sweeping:
    """Progress: settings that are done of all, and the one that has just been.

    `within` is the share of the next one that is done.
    """

    done: int
    of: int
    tried: Tried | None = None
    within: float = 0.0


def sweep(
    model: Model,
    splits: Splits,
    settings: Sequence[Setting],
    *,
    n: int = 500,
    seed: int = SEED,
    judge: Judge | None = None,
) -> Iterator[Sweeping]:
    """Draw n pictures with every setting, from the same seeds, and measure them.

    Args:
        model: The model.
        splits: Real pictures of the same classes.
        settings: From `product`.
        n: Pictures a setting, equally many of each class.
        seed: Seed of the first picture.
        judge: Who measures; by default the one of the data, trained now if none ships for it.

    Raises:
        UserError: E-EVAL when there are no labels to obey or too few pictures; E-CONFIG for a
            setting that cannot be taken, before anything is drawn.
    """
    names = measurable(model, splits, n, seed)
    recipes = [setting.of(model.recipe) for setting in settings]
    real, part = reference(splits, n, seed)
    yield Sweeping(0, len(settings))
    judge = judge or judge_for(splits)
    natural = _spread(judge.look(real.x)[0], real.cond["label"], len(names))
    wanted = [Wish({"label": names[i % len(names)]}, seed + i) for i in range(n)]
    labels = torch.arange(n) % len(names)
    for i, (setting, recipe) in enumerate(zip(settings, recipes, strict=True)):
        start = time.monotonic()
        made: Sample | None = None
        for step in sample(model, recipe, wanted):
            made = step.sample
            yield Sweeping(i, len(settings), within=step.done / step.of)
        seconds = time.monotonic() - start
        assert made is not None
        spread = _spread(judge.look(made.x)[0], labels, len(names))
        result = {
            **asdict(setting),
            "title": setting.title,
            **obedience(judge, made, names),
            **distance(judge, made, real, part),
            "spread": spread["spread"] / natural["spread"],
            "spread_error": spread["spread_error"] / natural["spread"],
            "n": n,
            "calls": made.calls,
            "samples_per_second": round(n / seconds, 2),
            "judge_accuracy": judge.accuracy,
            "judge_sha256": judge.sha256,
        }
        yield Sweeping(i + 1, len(settings), Tried(setting, result, made.x[: len(names)]))


def _spread(features: Tensor, labels: Tensor, classes: int) -> dict[str, float | int]:
    metric = Spread(classes)
    metric.update(features, labels)
    return metric.value()


def best(tried: Sequence[Tried]) -> Tried:
    """The least distance among the settings that obey.

    A setting obeys if its accuracy is the highest of all, or the judge's own on real pictures,
    whichever is less: above that, samples are only plainer than real ones. Two standard errors
    are allowed, since what n pictures cannot tell apart must not decide.
    """
    top = max(tried, key=lambda one: one.result["accuracy"])
    bar = min(top.result["accuracy"], top.result["judge_accuracy"])

    def obeys(one: Tried) -> bool:
        errors = (one.result["accuracy_error"] ** 2 + top.result["accuracy_error"] ** 2) ** 0.5
        return bar - one.result["accuracy"] <= 2 * errors

    return min(filter(obeys, tried), key=lambda one: one.result["frechet"])


def _curves(tried: Sequence[Tried]) -> bytes | None:
    """Accuracy, spread and distance of every setting, as a picture; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    import io

    names = [shortened(one.setting.title) for one in tried]
    buffer = io.BytesIO()
    with plot_text(names):
        figure = Figure(figsize=(1.8 + 0.55 * len(tried) + 3, 6), layout="constrained")
        axes = figure.subplots(3, sharex=True)
        place = list(range(len(tried)))
        real, between = tried[0].result["judge_accuracy"], tried[0].result["frechet_floor"]
        rows = (
            ("accuracy", "accuracy_error", "judge's accuracy", real),
            ("spread", "spread_error", "spread within\na class, real = 1", 1.0),
            ("frechet", "frechet_error", "feature Frechet\ndistance", between),
        )
        for axis, (key, error, name, line) in zip(axes, rows, strict=True):
            values, errors = ([one.result[k] for one in tried] for k in (key, error))
            axis.errorbar(place, values, errors, fmt="o-", ms=4, lw=1, capsize=3, color="#1f4e8c")
            axis.axhline(line, lw=0.8, ls="--", color="#888888")
            axis.set_ylabel(name)
            axis.spines[["top", "right"]].set_visible(False)
        title = f"n = {tried[0].result['n']} a setting; dashed: real pictures"
        axes[0].set_title(title, fontsize=9)
        axes[2].set_xticks(place, names, rotation=40, ha="right")
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def claim_sweep(model: Model, settings: Sequence[Setting], place: Place, **facts: Any) -> Folder:
    """The folder for a sweep, before it is run.

    Args:
        model: The model.
        settings: What will be tried.
        place: Where the user wants the results.
        facts: What else the results depend on.

    Raises:
        UserError: As `output.claim`.
    """
    request = {"model": model.about.get("sha256"), **facts}
    request["settings"] = [setting.title for setting in settings]
    names = ("sweep.json", "grid.png", "curves.png")
    return claim(place, "sweep", "sweep", request, names=names)


def write(folder: Folder, model: Model, tried: Sequence[Tried]) -> list[Path]:
    """Write `sweep.json`, `grid.png` and, where matplotlib is, `curves.png`.

    Raises:
        UserError: E-DISK if it cannot be written.
    """
    choice = best(tried)
    plain = {
        "model_sha256": model.about.get("sha256"),
        "best": choice.setting.title,
        "settings": [one.result for one in tried],
    }
    text = json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    image = sheet(*laid_out(model, tried)).image
    files = {"sweep.json": text.encode(), "grid.png": png(image), "curves.png": _curves(tried)}
    found = {name: data for name, data in files.items() if data is not None}
    folder.write(found)
    folder.finish()
    return [folder.path / name for name in found]


def laid_out(
    model: Model, tried: Sequence[Tried]
) -> tuple[list[Tensor], list[str], tuple[str, ...]]:
    """Rows of `grid.png`, a setting each with a star at the best, their names and the columns'."""
    choice = best(tried)
    names = [one.setting.title + (" *" if one is choice else "") for one in tried]
    return [one.x for one in tried], names, model.labels


def keep(model: Model, setting: Setting) -> Recipe:
    """Put a setting into the model file, which samples with it by default from then on.

    Weights and everything else that the file says of itself stay; it gets a new SHA-256.

    Returns:
        The recipe that is now in the file.

    Raises:
        UserError: E-CKPT-* if the file has been damaged since, E-DISK if it cannot be written.
    """
    with rewriting(model.path):
        tensors, about = store.open_model(model.path)
        now, _ = read_about(about, model.path.name, model.recipe.trusted)
        made = setting.of(now)  # another command may have changed the file since it was loaded
        told = {"sampler": made.sampler.flat(), "guidance": [part.flat() for part in made.guidance]}
        changed = {**about["recipe"], **told}
        durable.write(model.path, store.pack(tensors, {**about, "recipe": changed}))
    return made
