"""`steerable sweep`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from steerable.core.errors import UserError

from .console import Bar, duration, result, whole_grid
from .options import (
    AllowCode,
    Count,
    Data,
    Flag,
    Force,
    Json,
    Out,
    Run,
    Whole,
    interval_of,
    place,
)
from .reading import data_of

if TYPE_CHECKING:
    from steerable.jobs.sweep import Setting, Sweeping, Tried

__all__ = ["numbers_of", "sweep"]


def numbers_of(text: str | None, where: str, *, whole: bool = False) -> list[float]:
    """`1,2,4`, or `1:5` for five even values, or `1:5:9` for nine.

    Raises:
        UserError: E-CONFIG if it is none of these.
    """
    if text is None:
        return []
    try:
        if ":" not in text:
            found = [_finite(part) for part in text.split(",")]
        else:
            low, high, *count = (_finite(part) for part in text.split(":"))
            many = int(count[0]) if count else 5
            if len(count) > 1 or not 2 <= many <= 100:
                raise ValueError(text)
            found = [low + (high - low) * i / (many - 1) for i in range(many)]
        if whole:  # halves upwards, so that evenly spread values stay so
            found = list(dict.fromkeys(float(int(v + 0.5)) for v in found))
    except ValueError as error:
        takes = "1,2,4 or LOW:HIGH or LOW:HIGH:COUNT"
        raise UserError("E-CONFIG", where=where, got=repr(text)[:80], takes=takes) from error
    return found


def _finite(text: str) -> float:
    """A number that is one.

    Raises:
        ValueError: If it is not.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def sweep(
    run: Run,
    /,
    *,
    guidance: str | None = None,
    interval: str | None = None,
    steps: str | None = None,
    sampler: str | None = None,
    data: Data = None,
    n: Count = 500,
    seed: Whole = 2_000_000,
    out: Out = None,
    force: Force = False,
    keep: Flag = False,
    allow_code: AllowCode = None,
    json: Json = False,
) -> int:
    """Try sampling settings: a grid of pictures, curves of accuracy, spread and distance, the best.

    Every combination of the lists is tried from the same seeds. The best is the one of least
    distance among those that obey as well as any, or as real pictures do, within the error.

    Parameters
    ----------
    guidance
        Weights, as 1,2,4 or LOW:HIGH or LOW:HIGH:COUNT; 1:5 if nothing is listed.
    interval
        Times LOW:HIGH between which guidance is at work; several with commas.
    steps
        Numbers of steps.
    sampler
        Kinds of samplers, with commas.
    n
        Pictures a setting.
    seed
        Seed of the first picture.
    out
        Folder for sweep.json, grid.png and curves.png.
    keep
        Put the best setting into the model file, as its default.
    """
    from steerable import api
    from steerable.jobs import sweep as job
    from steerable.jobs.pictures import rows_left_out

    settings = _listed(guidance, interval, steps, sampler)
    bar = Bar()
    bar.say(f"plan     {len(settings)} settings, {n} pictures each; reads the data first")
    model = api.load(run, allow_code=allow_code or ())
    where = place(out, run, data, force=force)
    with job.claim_sweep(model, settings, where, n=n, seed=seed, data=data) as folder:
        steps = job.sweep(model, data_of(model, data), settings, n=n, seed=seed)
        tried = _watched(steps, bar)
        files = job.write(folder, model, tried)
    choice = job.best(tried)
    if keep:
        job.keep(model, choice.setting)
    plain = {
        "best": choice.result,
        "settings": [one.result for one in tried],
        "files": [str(path) for path in files],
        "kept": str(model.path) if keep else None,
        "grid_left_out": rows_left_out(*job.laid_out(model, tried)),
    }
    lines = [f"best     {choice.setting.title}", *map(str, files)]
    lines += whole_grid(plain["grid_left_out"])
    result(plain, as_json=json, lines=[*lines, *([f"kept in {model.path}"] if keep else [])])
    return 0


def _listed(
    guidance: str | None, interval: str | None, steps: str | None, sampler: str | None
) -> list[Setting]:
    """Every combination of the lists."""
    from steerable.jobs.sweep import product

    if not any((guidance, interval, steps, sampler)):
        guidance = "1:5"
    spans = [span for span in (interval or "").split(",") if span]
    return product(
        numbers_of(guidance, "guidance"),
        [pair for span in spans if (pair := interval_of(span)) is not None],
        [int(v) for v in numbers_of(steps, "steps", whole=True)],
        [kind.strip() for kind in (sampler or "").split(",") if kind.strip()],
    )


def _watched(steps: Iterator[Sweeping], bar: Bar) -> list[Tried]:
    """Run a sweep with progress on stderr."""
    begun, tried = (0.0, 0.0), []  # when the first picture began, and the share done by then
    for step in steps:
        share, now = (step.done + step.within) / step.of, time.monotonic()
        if step.tried is not None:
            tried.append(step.tried)
            bar.say(_line(step.tried))
        if not share:
            bar.show(share, "the judge looks at real pictures")
        elif not begun[0]:
            begun = now, share
        else:
            left = (now - begun[0]) / (share - begun[1]) * (1 - share)
            bar.show(share, f"{step.done} settings  {duration(left)} left")
    return tried


def _line(tried: Tried) -> str:
    r: dict[str, Any] = tried.result
    return (
        f"{tried.setting.title:28s} accuracy {r['accuracy']:.3f} ± {r['accuracy_error']:.3f}  "
        f"spread {r['spread']:.2f} ± {r['spread_error']:.2f}  "
        f"frechet {r['frechet']:.2f} ± {r['frechet_error']:.2f}  "
        f"n = {r['n']}, {r['calls']} calls, {r['samples_per_second']} a second"
    )
