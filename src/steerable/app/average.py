"""`steerable average`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .console import result

__all__ = ["average"]


def average(
    run: Path,
    /,
    *,
    width: float,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write the model of another averaging width, from the snapshots of a finished run.

    Parameters
    ----------
    run
        A run folder that was trained with --set training.ema_kind=power.
    width
        Standard deviation of the average as a share of the run, 0.03 to 0.25.
    out
        The model file to write; RUN/model-WIDTH.safetensors by default.
    json
        Print the result as one JSON object.
    """
    from steerable import api

    where = api.averaged(run, width, out or run / f"model-{width:g}.safetensors")
    result({"model": str(where), "width": width}, as_json=json, lines=[f"model    {where}"])
    return 0
