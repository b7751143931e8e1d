"""`steerable likelihood`."""

from __future__ import annotations

import time
from typing import Any, Literal

from steerable.core.errors import UserError

from .console import Bar, duration, result
from .options import AllowCode, Count, Data, Json, Real, Run, Whole
from .reading import data_of

__all__ = ["likelihood"]


def likelihood(
    run: Run,
    /,
    *,
    data: Data = None,
    n: Count = 100,
    trace: Literal["auto", "exact", "hutchinson"] = "auto",
    probes: Whole = 1,
    tolerance: Real = 1e-5,
    conditional: bool = True,
    allow_code: AllowCode = None,
    json: Json = False,
) -> int:
    """Measure bits per dimension of held-out pictures.

    Parameters
    ----------
    n
        Number of held-out pictures.
    trace
        exact, for pictures of up to 64 numbers, or hutchinson; auto takes what fits.
    probes
        Probes of hutchinson, which lower its spread.
    tolerance
        Of one step of the solver.
    conditional
        Whether the model is told the conditions of the pictures.
    """
    from steerable import api
    from steerable.jobs.likelihood import integral_for

    if trace == "exact" and probes != 1:
        takes = "one of them: probes are for the trace hutchinson"
        raise UserError(
            "E-CONFIG", where="probes", got=f"{probes} with an exact trace", takes=takes
        )
    model = api.load(run, allow_code=allow_code or ())
    how = integral_for(model.spec, trace, probes=probes, tolerance=tolerance)
    held_out = data_of(model, data).held_out
    bar, start, r = Bar(), time.monotonic(), None
    for progress in api.likelihood(model, held_out, n=n, integral=how, conditional=conditional):
        r, share = progress.result, progress.done / progress.of
        left = (time.monotonic() - start) * (1 / share - 1)
        bar.show(share, f"{progress.of} pictures  {duration(left)} left", last=r is not None)
    assert r is not None
    result(r, as_json=json, lines=_lines(r))
    return 0


def _lines(r: dict[str, Any]) -> list[str]:
    told = ", ".join(r["conditions"]) or "nothing"
    trace = f"{r['probes']} probes" if r["probes"] else "exact trace"
    return [
        f"bits/dim {r['bpd']:.3f} ± {r['bpd_error']:.3f} on n = {r['n']}, told {told}; {trace}",
        f"calls    {r['calls_per_item']} of the network a picture, {r['seconds']} s",
    ]
