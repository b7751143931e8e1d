"""The command `steerable`: it parses, prints and sets the exit code; the library does the work.

Commands are imported when they run, and none imports torch at its top, so help is instant.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError

import steerable
from steerable.core.errors import UserError

from .console import fail, holding, outlets, print_object, say
from .examples import epilogue

__all__ = ["app", "main"]

app = App(
    name="steerable",
    help="Diffusion models that do as they are told: train on your own pictures, steer, measure.",
    version=steerable.__version__,
    help_format="plaintext",
    help_epilogue="Each command has examples: steerable train --help",
    suppress_keyboard_interrupt=False,  # `main` says how a command ends
)
COMMANDS = {
    "train": "Train a model on labelled pictures; the same command again resumes.",
    "sample": "Make pictures of the classes asked for.",
    "edit": "Repaint, translate, upscale or colourise pictures.",
    "evaluate": "Measure whether the labels are obeyed.",
    "compare": "Put two evaluated runs side by side.",
    "sweep": "Try sampling settings and find the best.",
    "encode": "Walk pictures up to their noise and back.",
    "interpolate": "Go from one picture to another through their noise.",
    "likelihood": "Measure bits per dimension of held-out pictures.",
    "look": "Look inside a model: tables, attention maps, schedule, loss by noise level.",
    "average": "Write the model of another averaging width from the snapshots of a run.",
    "grid": "Fit the time grid to a model, for good pictures in few steps.",
    "data": "Look at data before training on it.",
    "info": "Show what a model file knows of itself.",
    "parts": "List samplers, networks and other parts with their options.",
    "tour": "Write a page that shows, on laws with exact answers, what diffusion does.",
    "demo": "Train, draw, measure and report on the pictures in the package.",
}
for _name, _help in COMMANDS.items():
    # `data` has commands of its own, with their examples.
    _more = {} if _name == "data" else {"help_epilogue": epilogue(_name)}
    app.command(f"steerable.app.{_name}:{_name}", name=_name, help=_help, **_more)


# What to do when memory ends, by command; what fits any other is the last.
LESS = {
    "train": "--set training.batch=32, --size xs, or smaller pictures",
    "sample": "a smaller -n, or fewer labels at a time",
    "edit": "fewer pictures at a time, or a smaller -n",
    "encode": "fewer pictures at a time",
    "interpolate": "a smaller --count",
    "evaluate": "a smaller -n",
    "sweep": "a smaller -n",
    "likelihood": "a smaller -n",
    "look": "a smaller -n",
    "data": "smaller pictures, or a part of them",
    "": "close other programs, or take a machine with more memory",
}
NARROW = 40  # columns, below which the layout of help may never come to an end
STOPPED = {129: "SIGHUP", 130: "SIGINT", 143: "SIGTERM"}


def _out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch ran out of memory; torch's CPU allocator has no type of its own."""
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text


def _one_line(message: Warning | str, *_: object) -> str:
    """A warning for people, without the line of the program that gave it."""
    return f"warning  {' '.join(str(message).split())}\n"


def _no_memory(command: str, error: BaseException) -> UserError:
    """What ran out of memory, how much was asked for, and what would take less."""
    from steerable.intake.memory import available, written

    wanted = re.search(r"allocate (\d[\d.]* ?[kMGT]?i?B|\d+ bytes)", str(error))
    free = available()
    got = f"no room for another {wanted.group(1)}" if wanted else "none left"
    got += f"; {written(free[0])} are free ({free[1]})" if free else ""
    kept = "the last checkpoint of the run folder, if there is one" if command == "train" else ""
    do = LESS.get(command, LESS[""])
    return UserError("E-MEM", where=f"memory, {command or 'start'}", got=got, kept=kept, do=do)


def _fault(error: Exception, command: str) -> UserError | None:
    """An exception as a fault of the catalogue; one that is in none of its rows is a defect."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, CycloptsError):
        text = " ".join(str(error).split())
        do = f"see steerable {command} --help" if command in COMMANDS else "see steerable --help"
        return UserError("E-CONFIG", where="command line", got=text, do=do)
    if _out_of_memory(error):
        return _no_memory(command, error)
    if isinstance(error, Warning):  # a warning of a library is an exception only where asked for
        got, do = f"{type(error).__name__}: {error}"[:300], "leave out -W error"
        return UserError("E-CONFIG", where="-W error", got=got, do=do)
    if isinstance(error, OSError):
        got = error.strerror or type(error).__name__
        return UserError("E-DISK", where=str(error.filename or "disk")[:200], got=got)
    return None


def _wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also one that cannot be parsed."""
    options = words[: words.index("--")] if "--" in words else words
    false = {"--json=false", "--json=no", "--json=n", "--json=f", "--json=0", "--json=off"}
    return any(w == "--json" or (w.startswith("--json=") and w not in false) for w in options)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with a documented exit code.

    With --json it prints one object, however the command ends: the result, the fault, both where
    there are both, or the signal that stopped it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if shutil.get_terminal_size().columns < NARROW:
        os.environ["COLUMNS"] = str(NARROW)
    warnings.formatwarning = _one_line
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    with outlets() as (out, _):
        code = _run(words, debug=debug, as_json=_wants_json(words))
        out.flush()
        if out.fault is not None and not code:
            got = out.fault.strerror or "cannot be written"
            lost = UserError("E-DISK", where="standard output", got=got, kept="the files written")
            code = fail(lost, as_json=False)
    sys.exit(code)


def _run(words: list[str], *, debug: bool, as_json: bool) -> int:
    """The exit code of a command, all of whose output is printed."""
    command = words[0] if words else ""
    with holding() as held:
        try:
            code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
            code = code if isinstance(code, int) else 0
        except SystemExit as end:  # a second signal
            code = end.code if isinstance(end.code, int) else 1
        except KeyboardInterrupt:
            code = 130
            say("stopped by SIGINT")
        except Exception as error:
            fault = _fault(error, command)
            if debug or fault is None:
                say(traceback.format_exc().rstrip())
            if fault is not None:
                return fail(fault, as_json=as_json, found=held[0] if held else None)
            code, got = 1, " ".join(f"{type(error).__name__}: {error}"[:500].split())
            say(f"error[E-BUG] {got} · a defect of steerable: report it with the lines above")
    ended: dict[str, Any] = {}
    if code == 1 or (code and not held):
        got = f"stopped by {STOPPED[code]}" if code in STOPPED else "a defect of steerable"
        ended = {"error": STOPPED.get(code, "E-BUG"), "where": f"steerable {command}".strip()}
        ended |= {"got": got, "takes": "", "kept": "", "do": ""}
    if held:
        print_object({**held[0], **ended} if ended else held[0])
    elif code and as_json:
        print_object(ended)
    return code
