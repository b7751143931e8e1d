"""What is inside a trained model: its tables, its attention, its schedule, its loss by level."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.conditions.label import Label
from steerable.conditions.tokens import Tokens
from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.process import Process
from steerable.core.types import Dataset, Spec, Splits
from steerable.recipes.assembly import grid
from steerable.recipes.recipe import Recipe

from .attended import Attended, attended, has_attention
from .data import known_to, splits_for
from .levels import level_losses, mirrored, summary, trained_at
from .model import Model
from .wish import Wish, check_seed, wishes

__all__ = ["Inside", "Progress", "look", "schedule", "similarity"]

NULL = "(null)"
ROWS = 512  # of a table that are compared
PAIRS = 6
CHANCE = 0.05


@dataclass(frozen=True)
class Inside:
    """What was found, as plain data, and the attention maps with their pictures."""

    numbers: dict[str, Any]
    attention: Attended | None


@dataclass(frozen=True)
class Progress:
    """Share done, and on the last item everything."""

    share: float
    inside: Inside | None = None


def similarity(net: Denoiser, spec: Spec) -> dict[str, dict[str, Any]]:
    """Cosine similarity of the rows of every learned table, the null last, by condition.

    Random rows of width D have cosines of mean 0 and standard deviation 1 / sqrt(D). `bound` is
    what the largest of so many random ones exceeds in 5 of 100 cases at most; `pairs` are the most
    similar ones with whether they pass it. A row of zeros has no direction: None.
    """
    found = {}
    for name, condition in net.conditions.items():
        if not isinstance(condition, (Label, Tokens)):
            continue
        table = condition.table.weight.detach()[:ROWS]
        known = spec.labels[name] if isinstance(condition, Label) else spec.tokens[name]
        rows = torch.cat([table, condition.null.detach().reshape(1, -1)]).cpu().to(torch.float64)
        found[name] = {
            "kind": "label" if isinstance(condition, Label) else "tokens",
            "names": [*known[:ROWS], NULL],
            "rows_in_table": len(known),
            **_compared(rows, [*known[:ROWS], NULL]),
        }
    return found


def _compared(rows: Tensor, names: list[str]) -> dict[str, Any]:
    lengths = rows.norm(dim=1)
    cosine = (F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).mT).clamp(-1, 1)
    blank = lengths == 0
    cosine[blank], cosine[:, blank] = torch.nan, torch.nan
    count = len(rows) - 1  # the null is in the matrix, but no pair of classes
    pairs = [(float(cosine[i, j]), i, j) for i in range(count) for j in range(i + 1, count)]
    tail = CHANCE / max(1, len(pairs))
    quantile = -torch.special.ndtri(torch.tensor(tail, dtype=torch.float64))
    bound = min(1.0, float(quantile) / math.sqrt(rows.shape[1]))
    best = sorted((p for p in pairs if not math.isnan(p[0])), reverse=True)[:PAIRS]
    row = cosine[-1, :-1].nan_to_num(-2.0)
    near = {"name": names[int(row.argmax())], "cosine": float(row.max())}
    return {
        "width": rows.shape[1],
        "lengths": lengths.tolist(),
        "cosine": [[None if math.isnan(v) else v for v in row] for row in cosine.tolist()],
        "bound": bound,
        "null_nearest": None if near["cosine"] < -1 else near,
        "pairs": [
            {"a": names[i], "b": names[j], "cosine": value, "beyond_chance": value > bound}
            for value, i, j in best
        ],
    }


def schedule(process: Process, recipe: Recipe, *, points: int = 201) -> dict[str, Any]:
    """Alpha, sigma and log-SNR over t, the model's own grid, and the density of training levels."""
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    alpha, sigma = process.schedule(t)
    times = grid(recipe.sampler.grid, process.schedule, recipe.sampler.steps)
    drawn = trained_at(process)
    ends = process.schedule.level(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    low, high = max(ends[0], float(drawn.min()) - 0.5), min(ends[1], float(drawn.max()) + 0.5)
    counts, edges = torch.histogram(drawn, 60, range=(low, high), density=True)
    return {
        "t": t.tolist(),
        "alpha": alpha.tolist(),
        "sigma": sigma.tolist(),
        "log_snr": (-2 * process.schedule.level(t)).tolist(),
        "sampler": recipe.sampler.flat(),
        "grid": times.tolist(),
        "grid_levels": process.schedule.level(times[times > 0]).tolist(),
        "law": process.law.kind,
        "density": {"edges": edges.tolist(), "density": counts.tolist()},
    }


def _wish(
    spec: Spec, splits: Splits | None, label: str | None, cond: Mapping[str, Any], seed: int
) -> Wish:
    """What is asked for; by default the first class, and the words of a held-out item."""
    if label is not None or cond:
        return wishes(spec, [] if label is None else [label], 1, seed, cond)[0]
    told: dict[str, Any] = {name: known[0] for name, known in spec.labels.items() if known}
    for name, known in spec.tokens.items():
        told[name] = known[: min(3, len(known))]
        if splits is not None and len(splits.held_out):
            row = splits.held_out.cond[name][0]
            told[name] = tuple(known[i] for i in row.tolist() if i >= 0) or told[name]
    return Wish(told, seed)


def _data(model: Model, data: str | Splits | None) -> tuple[Splits | None, str]:
    """The data, or a sentence why there is none, which is no fault where none was asked for.

    Raises:
        UserError: E-DATA if it does not fit the model.
    """
    try:
        splits = data if isinstance(data, Splits) else splits_for(model, data)
    except UserError as error:
        if data is not None or error.code not in ("E-DATA", "E-EVAL", "E-CONFIG"):
            raise
        return None, f"Left out, as the data cannot be read: {error}"
    splits = known_to(splits, set(model.recipe.conditions))
    spec = splits.train.spec
    for kind in ("labels", "vectors", "tokens"):
        if getattr(spec, kind) != getattr(model.spec, kind) or spec.shape != model.spec.shape:
            got = f"items {spec.shape}, or other {kind} than the model's"
            raise UserError("E-DATA", where=spec.name, got=got, takes=f"items {model.spec.shape}")
    return splits, ""


def _maps(model: Model, recipe: Recipe, wish: Wish) -> tuple[Attended | None, dict[str, Any]]:
    """The attention maps, and as plain data those or a sentence why there are none."""
    if not has_attention(model.denoiser):
        return None, {"left_out": "Left out: no layer of this network has attention."}
    if len(model.spec.shape) != 3:
        return None, {"left_out": "Left out: the positions of these items are not a picture's."}
    found = attended(model, recipe, wish)
    layers = [
        {
            "name": layer.name,
            "words": _rounded(layer.words),
            "tokens_among_positions": layer.among,
            "queries": [list(place) for place in layer.queries],
            "places": _rounded(layer.places),
        }
        for layer in found.layers
    ]
    plain = {
        "cond": dict(wish.cond),
        "seed": wish.seed,
        "times": list(found.times),
        "levels": list(found.levels),
        "words": list(found.words),
        "layers": layers,
        "layers_not_shown": list(found.left_out),
    }
    return found, plain


def _rounded(value: Tensor | None) -> Any:
    return None if value is None else value.to(torch.float64).mul(1e6).round().div(1e6).tolist()


def look(
    model: Model,
    data: str | Splits | None = None,
    *,
    label: str | None = None,
    cond: Mapping[str, Any] | None = None,
    seed: int = 0,
    items: int = 200,
) -> Iterator[Progress]:
    """Look inside a model; the last item holds everything.

    Args:
        model: From `load`.
        data: The data: its two parts, a folder or a name; the one that the model was trained on by
            default. Where that one is not at hand, the losses are left out.
        label: Class of the sample whose attention is shown; the first one by default.
        cond: Its other conditions by name; the words of a held-out item by default.
        seed: Seed of the sample.
        items: Items of each part whose loss is measured.

    Raises:
        UserError: E-DATA for data that does not fit, E-LABEL or E-CONFIG for a condition that the
            model does not know, E-LIMIT for `items` out of range.
    """
    if not 2 <= items <= 10_000:
        raise UserError("E-LIMIT", where="n", got=str(items), takes="2 to 10,000")
    check_seed(seed)
    net, recipe = model.denoiser, model.recipe
    splits, why = _data(model, data)
    wish = _wish(model.spec, splits, label, cond or {}, seed)
    numbers: dict[str, Any] = {
        "name": model.spec.name,
        "similarity": similarity(net, model.spec),
        "schedule": schedule(net.process, recipe),
    }
    yield Progress(0.05)
    found, numbers["attention"] = _maps(model, recipe, wish)
    yield Progress(0.15)
    if splits is None:
        numbers["loss"] = {"left_out": why}
    else:
        train: Dataset = mirrored(splits.train) if recipe.training.flip else splits.train
        for share, losses in level_losses(net, train, splits.held_out, items=items):
            yield Progress(0.15 + 0.84 * share)
            if losses is not None:
                numbers["loss"] = summary(net.process, losses)
    yield Progress(1.0, Inside(numbers, found))
