"""`steerable average`."""

from __future__ import annotations

from pathlib import Path

from .console import Bar, result
from .options import Force, Json, Out, Real, place

__all__ = ["average"]


def average(
    run: Path,
    /,
    *,
    width: Real = 0.1,
    at: Real = 1.0,
    out: Out = None,
    force: Force = False,
    json: Json = False,
) -> int:
    """Write the model of another averaging width, or of an earlier moment, from a run's snapshots.

    An early moment is the weaker model that the guidance `autoguidance` asks for:
    `--at 0.3 --out weak.safetensors`, then `sample RUN --set guidance.kind=autoguidance
    --set guidance.model=weak.safetensors`.

    Parameters
    ----------
    run
        A run folder that was trained with --set training.ema_kind=power.
    width
        Standard deviation of the average as a share of the run, 0.03 to 0.25; a model has 0.1.
    at
        The moment, as a share of the run; the nearest one with snapshots is taken.
    out
        The model file to write; RUN/model-WIDTH.safetensors by default, with -AT for a moment.
    """
    from steerable import api
    from steerable.jobs.averaging import FOLDER
    from steerable.jobs.durable import counted
    from steerable.jobs.output import check_file

    name = f"model-{width:g}" + (f"-{at:g}" if at != 1 else "")
    target = out or run / f"{name}.safetensors"
    check_file(target, place(None, str(run), run / FOLDER, force=force), marks=[b'\\"ema_width\\"'])
    where = api.averaged(run, width, target, at=at)
    for line in counted():
        Bar().say(line)
    result(
        {"model": str(where), "width": width, "at": at}, as_json=json, lines=[f"model    {where}"]
    )
    return 0
