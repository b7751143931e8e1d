"""The command `steerable`: it parses, prints and sets the exit code; the library does the work.

Commands are imported when they run, and none imports torch at its top, so help is instant.
"""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import steerable
from steerable.core.errors import UserError

from .console import fail

__all__ = ["app", "main"]

app = App(
    name="steerable",
    help="Diffusion models that do as they are told: train on your own pictures, steer, measure.",
    version=steerable.__version__,
    help_format="plaintext",
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
    app.command(f"steerable.app.{_name}:{_name}", name=_name, help=_help)


def _out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch ran out of memory; torch's CPU allocator has no type of its own."""
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text


# What takes less memory, by command; the pictures themselves are checked before they are read.
LESS = {
    "train": "--set training.batch=32, --size xs, or smaller pictures (--set data.size=32)",
    "sample": "fewer pictures at a time (-n)",
    "edit": "fewer or smaller pictures",
    "encode": "fewer pictures at a time",
    "evaluate": "fewer samples (-n 500)",
    "sweep": "fewer samples a setting (-n 200)",
    "look": "fewer items (-n 50)",
    "likelihood": "fewer pictures (-n 20)",
    "data": "smaller pictures (--set data.size=32), or --quick",
    "demo": "fewer samples (--n 500)",
}


def _one_line(message: Warning | str, *_: object) -> str:
    """A warning for people, without the line of the program that gave it."""
    return f"warning  {' '.join(str(message).split())}\n"


def _no_memory(words: Sequence[str], error: BaseException) -> UserError:
    """What ran out of memory, how much was asked for, and what would take less."""
    from steerable.intake.memory import available, written

    command = words[0] if words else ""
    wanted = re.search(r"allocate (\d[\d.]* ?[kMGT]?i?B|\d+ bytes)", str(error))
    free = available()
    got = f"no room for another {wanted.group(1)}" if wanted else "none left"
    got += f"; {written(free[0])} are free ({free[1]})" if free else ""
    kept = "the last checkpoint, if there is one" if command in ("train", "demo") else ""
    do = LESS.get(command, "end other programs, or use a machine with more memory")
    return UserError("E-MEM", where=f"memory, {command or 'start'}", got=got, kept=kept, do=do)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with a documented exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.formatwarning = _one_line
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except UserError as error:
        if debug:
            traceback.print_exc()
        sys.exit(fail(error, as_json="--json" in words))
    except CycloptsError as error:
        text = " ".join(str(error).split())
        usage = UserError("E-CONFIG", where="command line", got=text, do="see steerable --help")
        sys.exit(fail(usage, as_json="--json" in words))
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        sys.exit(fail(_no_memory(words, error), as_json="--json" in words))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has gone
            sys.exit(0)
        got = error.strerror or type(error).__name__
        disk = UserError("E-DISK", where=str(error.filename or "disk")[:200], got=got)
        sys.exit(fail(disk, as_json="--json" in words))
    sys.exit(code if isinstance(code, int) else 0)
