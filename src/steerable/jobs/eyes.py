"""Who looks at pictures: a judge that names classes, and an extractor that gives features.

The judge is the extractor too, unless another one is asked for or there are no classes to learn.
A judge that had to be trained is kept beside the report, so that the next report has the same eyes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Splits
from steerable.nn.extraction import Extractor
from steerable.recipes.part import find

from . import durable
from .beside import object_in
from .data import fingerprint
from .features import cache_folder, features_of
from .judge import Judge, judge_bytes, read_judge, shipped_judge
from .judged import judge_for

__all__ = ["Eyes", "eyes_for", "kept_judge"]

JUDGE, NOTE = "judge.safetensors", "judge.json"


@dataclass(frozen=True)
class Eyes:
    """The judge, if there are classes, and the extractor of features."""

    judge: Judge | None
    extractor: Extractor

    def of_samples(self, x: Tensor) -> Tensor:
        """Features (N,F) of samples, which are never seen again and so not kept."""
        return features_of(self.extractor, x, cache=None)

    def of_real(self, x: Tensor) -> Tensor:
        """Features (N,F) of real pictures, kept for the next time."""
        return features_of(self.extractor, x, cache=cache_folder())

    def facts(self) -> dict[str, Any]:
        """Names and hashes, as plain data."""
        judge = self.judge
        known = {} if judge is None else {"accuracy": judge.accuracy, "n": judge.n}
        return {
            "extractor": {"name": self.extractor.name, "sha256": self.extractor.sha256},
            "judge": {"sha256": judge.sha256, **known} if judge else None,
        }


def eyes_for(splits: Splits, folder: Path | None, extractor: str = "") -> Eyes:
    """The eyes for some data.

    Args:
        splits: Real pictures; a judge learns their classes if none ships for them.
        folder: Where such a judge is kept, or None.
        extractor: Kind of extractor, with `:PATH` behind it where it takes a folder of weights.

    Raises:
        UserError: E-CONFIG or E-EXTRA for an extractor that cannot be had, E-DATA for data that no
            judge can learn.
    """
    labelled = len(splits.train.spec.labels.get("label", ())) > 1
    judge = _judge(splits, folder) if labelled else None
    if extractor:
        kind, _, path = extractor.partition(":")
        options = {"path": path} if path else {}
        try:
            return Eyes(judge, find("extractor", kind)(**options))
        except TypeError as error:
            got = f"{extractor!r}: {error}"
            do = "write KIND, or KIND:PATH where it takes a folder of weights"
            raise UserError("E-CONFIG", where="extractor", got=got, do=do) from error
    return Eyes(judge, judge or find("extractor", "pixels")())


def _judge(splits: Splits, folder: Path | None) -> Judge:
    """The judge that ships, the one kept in the folder for this very data, or a new one."""
    judge = shipped_judge(splits.train.spec)
    if judge is not None:
        return judge
    of = fingerprint(splits.train)
    judge = None if folder is None else kept_judge(folder, of)
    if judge is not None:
        return judge
    judge = judge_for(splits)
    if folder is not None:
        data = judge_bytes(judge)
        durable.folder(folder)
        told = {"data": of, "file": hashlib.sha256(data).hexdigest()}
        plain = json.dumps(told, indent=1, sort_keys=True).encode() + b"\n"
        for name, content in ((JUDGE, data), (NOTE, plain)):
            if (folder / name).exists() and not (folder / name).is_file():
                durable.set_aside(folder / name)
            durable.write(folder / name, content)
    return judge


def kept_judge(folder: Path, of: str) -> Judge | None:
    """The judge that a folder keeps for data of a fingerprint.

    A damaged one is as good as none: it is counted, and the next one takes its place.
    """
    file = folder / JUDGE
    if not file.is_file() or not (folder / NOTE).exists():
        return None
    told = object_in(folder / NOTE)
    if told is None or told.get("data") != of:
        return None
    try:
        return read_judge(file.read_bytes(), sha256=str(told.get("file")))
    except (UserError, OSError):
        durable.tally[f"damaged {JUDGE} passed over"] += 1
        return None
