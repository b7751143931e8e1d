"""`steerable look`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerable.core.errors import UserError

from .console import Bar, duration, result
from .options import AllowCode, Cond, Count, Data, Force, Json, Out, Run, Whole, place
from .reading import data_of

if TYPE_CHECKING:
    from steerable.core.types import Splits
    from steerable.jobs.model import Model

__all__ = ["look"]


def look(
    run: Run,
    /,
    *,
    data: Data = None,
    label: str | None = None,
    cond: Cond = None,
    seed: Whole = 0,
    n: Count = 200,
    out: Out = None,
    force: Force = False,
    allow_code: AllowCode = None,
    json: Json = False,
) -> int:
    """Look inside a model: its tables, attention maps, schedule, and loss by noise level.

    Writes a page and, beside it, its numbers as JSON.

    Parameters
    ----------
    label
        Class of the sample whose attention is shown; the first class by default.
    seed
        Seed of the sample.
    n
        Training and held-out items each whose loss is measured.
    out
        The page; inside.html in the run folder, or here for a model file, by default.
    """
    from steerable import api
    from steerable.jobs.inside_page import check_pages, require, write_inside
    from steerable.jobs.wish import parsed

    require()
    where = out or (Path(run) if Path(run).is_dir() else Path()) / "inside.html"
    check_pages(where, place(None, run, data, force=force))
    model = api.load(run, allow_code=allow_code or ())
    told, splits = parsed(cond or []), _data(model, data)
    bar, start, found = Bar(), time.monotonic(), None
    for progress in api.look(model, splits, label=label, cond=told, seed=seed, items=n):
        found, share = progress.inside, progress.share
        left = (time.monotonic() - start) * (1 / share - 1)
        bar.show(share, f"{duration(left)} left", last=found is not None)
    assert found is not None
    page, numbers = write_inside(where, model, found)
    lines = [*_lines(found.numbers), f"page     {page}", f"numbers  {numbers}"]
    plain = {"page": str(page), "numbers": str(numbers)}
    loss = found.numbers["loss"]
    figures = {key: loss.get(key) for key in ("underfit", "memorised", "left_out")}
    result({**plain, **figures}, as_json=json, lines=lines)
    return 0


def _data(model: Model, data: str | None) -> Splits | str | None:
    """The data; where the model's own cannot be read, `look` says why it does without."""
    try:
        return data_of(model, data)
    except UserError:
        if data is not None:
            raise
        return None


def _lines(numbers: dict[str, Any]) -> list[str]:
    """The figures for people."""
    lines, loss = [], numbers["loss"]
    for name, table in numbers["similarity"].items():
        near = [p for p in table["pairs"] if p["beyond_chance"]][:3]
        words = ", ".join(f"{p['a']} and {p['b']} {p['cosine']:.2f}" for p in near)
        lines.append(f"{name:8s} alike: {words or 'no pair, beyond chance'}")
    if "left_out" in loss:
        return [*lines, f"loss     {loss['left_out']}"]
    if "underfit" in loss:
        gap = loss["underfit"]
        lines.append(f"underfit {gap['value']:.0%} ± {gap['error']:.0%} above the optimum")
    if "memorised" in loss:
        heart = loss["memorised"]
        lines.append(f"by heart {heart['value']:.2f} ± {heart['error']:.2f}, from 0 to 1")
    return lines
