"""`steerable data check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from steerable.core.errors import UserError

from .console import Bar, result
from .examples import BUILT_IN, epilogue
from .options import Flag, Force, Json, Out, Real, Words
from .reading import read

if TYPE_CHECKING:
    from steerable.jobs.doctor import Diagnosis

__all__ = ["data"]

data = App(
    name="data",
    help="Look at data before training on it.",
    help_format="plaintext",
    help_epilogue=epilogue("data"),
)

FOLDER = f"A folder of pictures, a .npz file, or a built-in set: {BUILT_IN}."
SECONDS = 60.0  # for the judges, at most
NAMED = 6  # rows of pictures that a line names


@data.command
def check(
    folder: Annotated[str, Parameter(help=FOLDER)],
    /,
    *,
    set_: Annotated[Words, Parameter(name="--set")] = None,
    page: Out = None,
    force: Force = False,
    quick: Flag = False,
    seconds: Real = SECONDS,
    fail_on: Literal["problem", "warning"] | None = None,
    json: Json = False,
) -> int:
    """Scan pictures, then look for copies, leaks, doubtful labels, blank ones and too few of them.

    Leaves with 0 whatever is found, if the data can be used and --fail-on does not say otherwise.

    Parameters
    ----------
    set_
        Change how the data is read: --set "data.columns={caption: tokens}". May be repeated.
    page
        Write a page with the pictures in question, such as data-check.html.
    quick
        Leave out the doubts about labels.
    seconds
        Most time to train the judges that doubt labels.
    fail_on
        Leave with 9 if a problem, or a warning and what is graver, was found.
    """
    from steerable import api
    from steerable.jobs.doctor_page import require, write_page
    from steerable.jobs.output import Place, check_file

    if quick and seconds not in (0.0, SECONDS):
        takes = "one of them: quick leaves out what the seconds are for"
        raise UserError("E-CONFIG", where="quick", got=f"with {seconds:g} seconds", takes=takes)
    if page is not None:
        require()
        data = Path(folder)
        check_file(page, Place(None, force=force, inputs=(data,), data=(data,)))
    splits = read(api.reading(folder, settings=set_ or []))
    bar, found = Bar(), None
    for progress in api.diagnose(folder, seconds=0.0 if quick else seconds, splits=splits):
        found = progress.diagnosis
        bar.show(progress.share, progress.stage, last=found is not None)
    assert found is not None
    lines = [*_lines(found.report), *_findings(found)]
    result(found.plain(), as_json=json, lines=lines)
    if page is not None:
        bar.say(f"page     {write_page(page, found)}")
    elif any(f.groups for f in found.findings):
        bar.say("the pictures in question: --page data-check.html")
    grave = {"problem": {"problem"}, "warning": {"problem", "warning"}}.get(fail_on or "", set())
    failing = [f"{f.severity} {f.kind}" for f in found.findings if f.severity in grave]
    if failing:
        raise UserError("E-GATE", where="data check", got=", ".join(failing), takes="none")
    return 0


def _findings(found: Diagnosis) -> list[str]:
    """Every finding with its advice and the pictures that it is about."""
    lines = [""]
    for f in found.findings:
        lines.append(f"{f.severity:8s} {f.kind}: {f.sentence}")
        for k, group in enumerate(f.groups[:NAMED]):
            more = " …" if len(group) > NAMED else ""
            names = " = ".join(found.names[i] for i in group[:NAMED]) + more
            lines.append(f"           {names}{': ' + f.remarks[k] if f.remarks else ''}")
        if len(f.groups) > NAMED:
            lines.append(f"           … and {len(f.groups) - NAMED} more")
        if f.advice != "nothing":
            lines.append(f"         -> {f.advice}")
    return lines


def _lines(report: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in report.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{key}")
            lines += [
                f"{indent}  " + ", ".join(f"{k} {v}" for k, v in row.items()) for row in value
            ]
        elif value not in ({}, []):
            lines.append(f"{indent}{key}: {value}")
    return lines
