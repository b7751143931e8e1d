"""`steerable compare`."""

from __future__ import annotations

from pathlib import Path

from .console import Bar, result
from .options import Json

__all__ = ["compare"]


def compare(run_a: Path, run_b: Path, /, *, json: Json = False) -> int:
    """Put two evaluated runs side by side: what differs, and by more than chance?

    Both must have been evaluated with the same samples asked for, real pictures and features.

    Parameters
    ----------
    run_a
        A run folder with an evaluation.
    run_b
        Another one.
    """
    from steerable.jobs.compare import compare as job
    from steerable.jobs.durable import counted

    bar, rows = Bar(), None
    for progress in job(run_a, run_b):
        bar.show(progress.done / progress.of, "comparing")
        rows = progress.rows
    for line in counted():
        bar.say(line)
    assert rows is not None
    lines = [f"a: {run_a}", f"b: {run_b}", f"{'measure':<12}{'a':>10}{'b':>10}{'b - a':>12}"]
    lines[-1] += "   95 % interval          better     n"
    for row in rows:
        interval = f"{row['low']:.4g} to {row['high']:.4g}"
        values = "".join(f"{row[key]:>{w}.4g}" for key, w in zip("ab", (10, 10), strict=True))
        better = f"{row['better']:<10} {row['n']:,}"
        lines.append(
            f"{row['measure']:<12}{values}{row['difference']:>12.4g}   {interval:<22} {better}"
        )
    result({"a": str(run_a), "b": str(run_b), "rows": rows}, as_json=json, lines=lines)
    return 0
