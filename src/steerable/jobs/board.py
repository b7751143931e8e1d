"""The record of a run on a TensorBoard: the numbers of `metrics.jsonl` and the previews.

The board is a view and nothing depends on it: it is made anew from the record when a session opens
it, so that a resumed run, whose record was cut back, shows each iteration once.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steerable.core.errors import UserError

from . import durable
from .beside import RECORD, mend_folder, parsed, sound
from .watch import preview_file

__all__ = ["Board", "require_board"]

FOLDER = "board"
GROUPS = {None: "training", "start": "validation", "validation": "validation", "check": "check"}


def require_board() -> type[Any]:
    """TensorBoard's writer of event files.

    Raises:
        UserError: E-EXTRA without TensorBoard.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        do = 'pip install "steerable[board]", or leave --board out'
        got = f"no {error.name or 'tensorboard'}"
        raise UserError("E-EXTRA", where="--board", got=got, do=do) from error
    return SummaryWriter


class Board:
    """The board of one run folder, in its folder `board`.

    Args:
        run: The run folder.

    Raises:
        UserError: E-EXTRA without TensorBoard, E-DISK if the folder cannot be made.
    """

    def __init__(self, run: Path) -> None:
        writer = require_board()
        mend_folder(run / FOLDER)
        durable.folder(run / FOLDER)
        for old in (run / FOLDER).glob("events.out.tfevents.*"):
            durable.remove(old)
        self.run = run
        self._read = 0  # bytes of the record that are on the board
        self._writer = writer(str(run / FOLDER), flush_secs=10)

    def follow(self) -> None:
        """Show what the record has more than the board."""
        path = self.run / RECORD
        if not path.is_file() or path.stat().st_size <= self._read:
            return
        with path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # a line may be half written
        self._read += len(whole)
        for line in whole.splitlines():
            record = parsed(line)
            if record is not None and sound(record):
                self._show(record)

    def _show(self, record: Mapping[str, Any]) -> None:
        i = int(record["iteration"])
        for name, value in numbers(record):
            self._writer.add_scalar(name, value, i)
        if record.get("event") == "trouble":
            text = f"{record['sentence']}. {record['advice']}"
            self._writer.add_text(f"trouble/{record['kind']}", text, i)
        if record.get("event") == "validation" and preview_file(self.run, i).is_file():
            picture = _picture(preview_file(self.run, i))
            if picture is not None:
                self._writer.add_image("preview", picture, i)

    def close(self) -> None:
        """Show the rest and leave the files whole."""
        self.follow()
        self._writer.close()


def numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values of the numbers of a record that are a curve."""
    event = record.get("event")
    if event == "accuracy":
        for row in record["levels"]:
            yield f"accuracy/t={row['t']:g}", float(row["accuracy"])
    if event not in GROUPS:
        return
    for name, value in record.items():
        if isinstance(value, int | float) and name not in ("iteration", "n", "gain_n"):
            yield f"{GROUPS[event]}/{name}", float(value)


def _picture(path: Path) -> Any:
    """A picture file as (3,H,W) uint8; None, with a count, if it is damaged."""
    import numpy as np
    from PIL import Image

    faults = (OSError, SyntaxError, ValueError, struct.error, zlib.error)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (*faults, Image.DecompressionBombError):
        durable.tally["damaged previews passed over"] += 1
        return None
