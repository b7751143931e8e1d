"""Files beside the weights of a run, read with suspicion: logs, reports, the model file's age.

None of them is needed to train, to sample or to measure. So what is damaged is skipped and counted,
by whoever reads, and set aside by the one who owns the folder; it never stops a job.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from steerable.core.errors import UserError
from steerable.recipes import store

from . import durable

__all__ = [
    "RECORD", "mend_folder", "mend_log", "mend_plain", "model_iterations", "object_in", "parsed",
    "records_in", "sound",
]  # fmt: skip

RECORD = "metrics.jsonl"

Record = dict[str, Any]

# What a record of an event must hold, numbers all of them, and what goes with a figure of a check.
_NEEDED = {
    "start": ("validation_loss_raw",),
    "validation": ("validation_loss", "validation_loss_raw"),
    "accuracy": ("n", "commonest"),
}
_WITH = {
    "gain": ("gain_error",),
    "accuracy": ("accuracy_error", "chance", "judge_accuracy", "judge_n", "n"),
    "tint": ("tint_error",),
    "dead": ("dead_error", "dead_real"),
    "spread": ("spread_error", "spread_real", "spread_real_error"),
    "memorisation": (
        *("memorisation_error", "control_memorisation", "control_memorisation_error"),
        *("near_copies", "near_copies_error", "control_near_copies", "control_near_copies_error"),
    ),
}
_TOLD = ("kind", "sentence", "advice")  # of a trouble, texts


def parsed(line: str | bytes) -> Record | None:
    """The JSON object of a line of a log with its iteration; None if it is none."""
    try:
        value = json.loads(line, parse_constant=_refused)
    except (ValueError, RecursionError):  # a JSON or a UTF-8 error is a ValueError
        return None
    return value if isinstance(value, dict) and _natural(value.get("iteration")) else None


def sound(record: Record) -> bool:
    """Whether a record of `metrics.jsonl` holds what its readers count on."""
    event = record.get("event")
    if event is None:
        lost = record.get("grad_norm", 0) is None
        return all(_finite(v) for k, v in record.items() if not (lost and k == "grad_norm"))
    if event == "trouble":
        return all(isinstance(record.get(key), str) for key in _TOLD)
    if event == "accuracy" and not _levels(record.get("levels")):
        return False
    if event == "check":
        needed = {key for name, keys in _WITH.items() if name in record for key in (name, *keys)}
        return all(_finite(record.get(key)) for key in needed)
    return isinstance(event, str) and all(_finite(record.get(k)) for k in _NEEDED.get(event, ()))


def records_in(path: Path, accept: Callable[[Record], bool] = lambda _: True) -> list[Record]:
    """The sound lines of a log, in order; none if there is no log.

    Damaged lines are skipped and counted; a torn last line is what a kill leaves behind and no
    damage.
    """
    good, bad = _split(path, accept)
    if bad:
        durable.tally[f"damaged lines of {path.name} skipped"] += bad
    return [record for record, _ in good]


def object_in(path: Path, *, quiet: bool = False) -> Record | None:
    """The JSON object of a file; None without a file, or if it is damaged, which is counted.

    Args:
        path: The file.
        quiet: Leave the counting to the caller.
    """
    if not path.exists():
        return None
    value = None
    with suppress(OSError, ValueError, RecursionError):
        value = json.loads(path.read_bytes(), parse_constant=_refused) if path.is_file() else None
    if isinstance(value, dict):
        return value
    if not quiet:
        durable.tally[f"damaged {path.name} passed over"] += 1
    return None


def mend_log(path: Path, iteration: int, accept: Callable[[Record], bool] = lambda _: True) -> None:
    """Cut a log back to an iteration; if it is damaged, set it aside and go on with the rest.

    Call it under the lease.

    Raises:
        UserError: E-DISK if the folder cannot be changed.
    """
    good, bad = _split(path, accept)
    if bad or _odd(path):
        durable.set_aside(path)
        kept = [line for record, line in good if record["iteration"] <= iteration]
        durable.write(path, b"".join(kept))
    else:
        durable.cut(path, lambda line: (parsed(line) or {"iteration": 0})["iteration"] <= iteration)


def mend_plain(path: Path) -> None:
    """Set aside what is no file, or none that can be read, but has the name of one.

    Raises:
        UserError: E-DISK if that cannot be done.
    """
    if _odd(path):
        durable.set_aside(path)


def mend_folder(path: Path) -> None:
    """Set aside what is no folder but has the name of one.

    Raises:
        UserError: E-DISK if that cannot be done.
    """
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        durable.set_aside(path)


def model_iterations(path: Path) -> int | None:
    """Iterations of the training of a model file; None without one that can be read."""
    try:
        _, about = store.open_model(path)
    except UserError:
        return None  # it is made from the checkpoints, which are what counts
    training = about.get("training")
    count = training.get("iterations") if isinstance(training, dict) else None
    return count if _natural(count) else None


def _split(path: Path, accept: Callable[[Record], bool]) -> tuple[list[tuple[Record, bytes]], int]:
    """The sound records of a log with their lines, and the number of damaged lines."""
    if not path.is_file():
        return [], int(path.exists())
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return [], 1
    good: list[tuple[Record, bytes]] = []
    bad = 0
    for line in lines:
        if not line.endswith(b"\n"):
            bad += line is not lines[-1]  # splitlines knows other ends of a line than we write
            continue
        record = parsed(line)
        if record is not None and accept(record):
            good.append((record, line))
        else:
            bad += 1
    return good, bad


def _odd(path: Path) -> bool:
    """Whether a name is taken by no file of its own; no line is written through a link."""
    there = path.is_symlink() or path.exists()
    return there and (path.is_symlink() or not path.is_file() or not _readable(path))


def _readable(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def _natural(value: Any) -> bool:
    """A count; beyond ten digits no run will ever come."""
    return type(value) is int and 0 <= value < 10**10


def _finite(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 10**15
    return isinstance(value, float) and math.isfinite(value)


def _levels(value: Any) -> bool:
    """The accuracies of a classifier at its noise levels."""
    keys = ("t", "level", "accuracy", "error", "n")
    rows = isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    return bool(rows) and all(_finite(row.get(key)) for row in value for key in keys)


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
