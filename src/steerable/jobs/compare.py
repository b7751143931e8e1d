"""Two runs side by side: differences of their figures, item against item.

Both drew their samples for the same wishes from the same seeds, so what they share cancels: the
errors are those of the difference, of shares item by item, and of distances by halves that cut both
runs and the real items in the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.metrics.frechet import Frechet
from steerable.metrics.kid import Kid
from steerable.metrics.two_sample import TwoSample
from steerable.nn.halves import halving_error
from steerable.nn.neighbours import inside, nearest

from .items import Items, paired, read_items
from .report import FOLDER

__all__ = ["Comparison", "compare"]

NEIGHBOURS = 5  # that the balls of recall and coverage reach to
NORMAL = 1.96  # errors on either side that hold the truth in 95 of 100 cases
LESS = ("frechet", "kid", "two_sample")  # less is better; of all others more is

_Way = Callable[[Tensor, Tensor], float] | None  # of samples and real items; None for the classes


@dataclass(frozen=True)
class Comparison:
    """Progress: measures that are done of all, and at last the rows of the table, plain data."""

    done: int
    of: int
    rows: list[dict[str, Any]] | None = None


def compare(run_a: Path, run_b: Path) -> Iterator[Comparison]:
    """Compare two runs that have been evaluated alike; the last item holds the rows.

    A row: `measure`, `n`, the values `a` and `b`, `difference` b - a with its `error`, the 95 %
    interval `low` to `high`, and which run is `better`, `a`, `b` or `undecided`.

    Raises:
        UserError: E-EVAL for a run without evaluation; E-CONFIG for evaluations that differ in what
            they compared with what, naming it.
    """
    (report_a, a), (report_b, b) = (read_items(Path(run) / FOLDER) for run in (run_a, run_b))
    _alike(report_a, report_b, a, b)
    ways, rows = _ways(a), []
    for i, (name, way) in enumerate(ways):
        yield Comparison(i, len(ways))
        rows.append(_row(name, way, a, b))
    yield Comparison(len(ways), len(ways), rows)


def _alike(one: Mapping[str, Any], other: Mapping[str, Any], a: Items, b: Items) -> None:
    """Refuse what cannot be ranked."""
    keys = (("settings", "n"), ("settings", "seed"), ("reference", "fingerprint"))
    keys += (("extractor", "sha256"), ("judge", "sha256"))
    for group, key in keys:
        values = [(report.get(group) or {}).get(key) for report in (one, other)]
        if values[0] != values[1]:
            do = "evaluate both with the same --n, --seed, --against and --extractor"
            got = f"{group} {key}: {str(values[0])[:16]} and {str(values[1])[:16]}"
            raise UserError("E-CONFIG", where="comparison", got=got, takes="the same", do=do)
    if not paired(a, b):
        got, do = "other classes or real items", "evaluate both against the same data"
        raise UserError("E-CONFIG", where="comparison", got=got, takes="the same", do=do)


def _ways(items: Items) -> list[tuple[str, _Way]]:
    """The measures that can be compared, with how each is had from samples and real features."""
    ways: list[tuple[str, _Way]] = [
        ("frechet", _frechet),
        ("kid", _kid),
        ("two_sample", _told_apart),
        ("recall", _recalled),
        ("coverage", _covered),
    ]
    return [*([("accuracy", None)] if bool((items.wanted >= 0).all()) else []), *ways]


def _frechet(fakes: Tensor, reals: Tensor) -> float:
    one, two = Frechet(), Frechet()
    one.update(fakes)
    two.update(reals)
    return one.distance(two)


def _kid(fakes: Tensor, reals: Tensor) -> float:
    one, two = Kid(), Kid()
    one.update(fakes)
    two.update(reals)
    return float(one.value(two)["kid"])


def _told_apart(fakes: Tensor, reals: Tensor) -> float:
    one, two = TwoSample(), TwoSample()
    one.update(fakes)
    two.update(reals)
    return float(one.value(two)["two_sample"])


def _recalled(fakes: Tensor, reals: Tensor) -> float:
    radius = nearest(fakes, fakes, NEIGHBOURS, itself=True)[0][:, -1]
    return float((inside(reals, fakes, radius) > 0).double().mean())


def _covered(fakes: Tensor, reals: Tensor) -> float:
    radius = nearest(reals, reals, NEIGHBOURS, itself=True)[0][:, -1]
    return float((nearest(reals, fakes, 1)[0][:, 0] <= radius).double().mean())


def _row(name: str, way: _Way, a: Items, b: Items) -> dict[str, Any]:
    """Both values of a measure, and their difference with its interval."""
    values, error, n = _accuracies(a, b) if way is None else _distances(way, a, b)
    difference = values[1] - values[0]
    low, high = difference - NORMAL * error, difference + NORMAL * error
    winner = ("b", "a") if name not in LESS else ("a", "b")
    better = winner[0] if low > 0 else winner[1] if high < 0 else "undecided"
    told = {"a": values[0], "b": values[1], "difference": difference, "error": error}
    return {"measure": name, "n": n, **told, "low": low, "high": high, "better": better}


def _accuracies(a: Items, b: Items) -> tuple[tuple[float, float], float, int]:
    """Shares that the judge names as asked, and the error of their difference, paired."""
    right = [(one.predicted == one.wanted).to(torch.float64) for one in (a, b)]
    n = len(right[0])
    error = float((right[1] - right[0]).std()) / n**0.5
    return (float(right[0].mean()), float(right[1].mean())), error, n


def _distances(
    way: Callable[[Tensor, Tensor], float], a: Items, b: Items
) -> tuple[tuple[float, float], float, int]:
    """Values of a measure of sets, and the error of their difference from halves of all sets."""
    n = min(len(a.fakes), len(a.reals) // 2)
    order = torch.argsort(a.labels, stable=True)[::2]  # a half with the same classes
    reals = a.reals[order][:n].double()
    both = torch.cat([a.fakes[:n], b.fakes[:n]], 1).double()  # so that a cut is the same in both

    def difference(both: Tensor, reals: Tensor) -> Tensor:
        one, two = both.chunk(2, 1)
        return torch.tensor([way(two, reals) - way(one, reals)], dtype=torch.float64)

    error = float(halving_error(difference, both, reals)[0])
    one, two = both.chunk(2, 1)
    return (way(one, reals), way(two, reals)), error, n
