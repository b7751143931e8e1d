"""`steerable tour`."""

from __future__ import annotations

from pathlib import Path

from .console import Bar, result
from .options import Flag, Force, Out, Whole

__all__ = ["tour"]


def tour(
    *,
    out: Out = Path("tour.html"),
    force: Force = False,
    seed: Whole = 0,
    json: Flag = False,
) -> int:
    """Write one page that shows, on laws with exact answers, what diffusion and steering do.

    Takes less than a minute, needs no data, and reads nothing from the network. Needs the extra
    `eval`.

    Parameters
    ----------
    out
        The HTML file.
    seed
        Seed of the worlds, the noise and the network.
    json
        Print what was measured as one JSON object.
    """
    from steerable.jobs.output import Place, check_file
    from steerable.jobs.tour import touring

    assert out is not None
    check_file(out, Place(None, force=force))
    bar, last = Bar(), None
    for stage in touring(out, seed=seed):
        bar.show(stage.share, stage.text, last=stage.page is not None)
        last = stage
    assert last is not None
    result({"out": str(last.page), **last.figures}, as_json=json, lines=[str(last.page)])
    return 0
