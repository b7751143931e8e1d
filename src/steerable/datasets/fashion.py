"""Fashion-MNIST: 28 x 28 grey pictures of clothes in ten classes, white on black."""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Spec, Splits

__all__ = ["fashion"]

_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "held_out": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_Arrays = tuple[np.ndarray, np.ndarray]  # pictures (N,28,28) uint8, labels (N,) uint8


def fashion(*, source: Literal["auto", "full", "embedded"] = "auto") -> Splits:
    """Fashion-MNIST; the held-out part is taken from the official test pictures.

    Args:
        source: `embedded` reads the 6,000 + 1,000 pictures of the package; `full` the 60,000 +
            10,000 of the four IDX files in the folder `fashion-mnist` of the folder that the
            environment variable STEERABLE_DATA names; `auto` the larger set that is there. The
            report's `source` says which one it was.

    Raises:
        UserError: E-CONFIG for another word; E-DATA when the full set is asked for and is not
            there, or when a file of it is damaged.
    """
    if source not in ("auto", "full", "embedded"):
        takes = "'auto', 'full' or 'embedded'"
        raise UserError("E-CONFIG", where="fashion source", got=repr(source), takes=takes)
    folder = None if source == "embedded" else _folder()
    if source == "full" and folder is None:
        raise UserError(
            "E-DATA",
            where="the full Fashion-MNIST",
            got=f"STEERABLE_DATA is {os.environ.get('STEERABLE_DATA', 'not set')!r}",
            takes="a folder that holds fashion-mnist/ with " + ", ".join(sum(_FILES.values(), ())),
            do="set STEERABLE_DATA, or use source=embedded",
        )
    if folder is None:
        train, held_out = _sheet("train"), _sheet("test")
    else:
        train, held_out = (_pair(folder, *names) for names in _FILES.values())
    words = json.loads(_resource("fashion.json"))["classes"]
    # No flips: shoes nearly all point one way, and a model must learn that.
    spec = Spec("fashion", (1, 28, 28), {"label": tuple(words)}, std=_std(train[0]))
    report = {
        "source": "embedded" if folder is None else "full",
        "split": "held out: pictures of the official test set",
    }
    return Splits(_dataset(spec, *train), _dataset(spec, *held_out), report)


def _folder() -> Path | None:
    """The folder of the four IDX files, if all of them are there."""
    place = os.environ.get("STEERABLE_DATA")
    if not place:
        return None
    folder = Path(place) / "fashion-mnist"
    return folder if all((folder / n).is_file() for n in sum(_FILES.values(), ())) else None


def _resource(name: str) -> bytes:
    return resources.files("steerable").joinpath("data", name).read_bytes()


def _sheet(part: str) -> _Arrays:
    """Pictures and labels of a shipped sheet, with the classes taking turns.

    The sheets are sorted by class; taking turns makes every prefix of 10 k items balanced.
    """
    from PIL import Image

    count = {"train": 6000, "test": 1000}[part]
    with Image.open(BytesIO(_resource(f"fashion_{part}_{count}.png"))) as picture:
        sheet = np.asarray(picture)
    with np.load(BytesIO(_resource("fashion_labels.npz")), allow_pickle=False) as stored:
        labels = stored[f"{part}_labels"]
    cells = sheet.reshape(count // 100, 28, 100, 28).swapaxes(1, 2).reshape(count, 28, 28)
    order = np.arange(count).reshape(10, -1).T.ravel()
    return cells[order], labels[order]


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of one gzipped IDX file of bytes."""
    try:
        with gzip.open(path) as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError("E-DATA", where=str(path), got=f"unreadable: {error}") from error
    head = np.frombuffer(data[: 4 + 4 * dimensions], ">u4")
    if (
        len(head) != 1 + dimensions
        or int(head[0]) != 0x0800 + dimensions  # 08: unsigned bytes
        or len(data) != head.nbytes + math.prod(int(n) for n in head[1:])
    ):
        raise UserError(
            "E-DATA",
            where=str(path),
            got=f"{len(data)} bytes, not an IDX file of {dimensions} dimensions",
            do="fetch the file anew",
        )
    return np.frombuffer(data, np.uint8, offset=head.nbytes).reshape([int(n) for n in head[1:]])


def _pair(folder: Path, pictures: str, labels: str) -> _Arrays:
    """Pictures and labels of two IDX files that belong together."""
    x, y = _idx(folder / pictures, 3), _idx(folder / labels, 1)
    if x.shape[1:] != (28, 28) or len(x) != len(y) or len(y) == 0 or int(y.max()) > 9:
        raise UserError(
            "E-DATA",
            where=str(folder / pictures),
            got=f"{len(x)} pictures of {x.shape[1]} x {x.shape[2]}, {len(y)} labels",
            takes="28 x 28 pictures with one label of 0 to 9 each",
        )
    return x, y


def _std(x: np.ndarray) -> float:
    """Standard deviation of bytes on the scale [-1, 1], exact, without a copy as floats."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(x), 4096):
        counts += np.bincount(x[start : start + 4096].ravel(), minlength=256)
    values = np.arange(256) / 127.5 - 1.0
    mean = float(counts @ values) / x.size
    return math.sqrt(float(counts @ (values - mean) ** 2) / x.size)


def _dataset(spec: Spec, x: np.ndarray, labels: np.ndarray) -> Dataset:
    pictures = torch.from_numpy(x[:, None].copy())  # own memory: the file buffer is read-only
    return Dataset(spec, pictures, {"label": torch.from_numpy(labels.astype(np.int64))})
