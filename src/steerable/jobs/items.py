"""What an evaluation saw of each item, kept beside the report so that runs can be paired."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from steerable.core.errors import UserError

from . import durable

__all__ = ["Items", "paired", "read_items", "write_items"]

NAME = "items.safetensors"


@dataclass(frozen=True)
class Items:
    """Features and classes of the samples and of the real items of one evaluation.

    Attributes:
        fakes: Features of the samples, (n,F) float32.
        reals: Features of the real items, (m,F) float32.
        wanted: Class of each sample, (n,) int64; -1 without.
        predicted: The class that the judge saw, (n,) int64; -1 without.
        labels: Class of each real item, (m,) int64; -1 without.
    """

    fakes: Tensor
    reals: Tensor
    wanted: Tensor
    predicted: Tensor
    labels: Tensor


def write_items(folder: Path, items: Items) -> None:
    """Write them beside the report.

    Raises:
        UserError: E-DISK if they cannot be written.
    """
    durable.folder(folder)
    tensors = {name: value.contiguous() for name, value in vars(items).items()}
    durable.write(folder / NAME, save(tensors))


def read_items(folder: Path) -> tuple[dict[str, Any], Items]:
    """The report of an evaluation and its items.

    Raises:
        UserError: E-EVAL when there is no evaluation, E-CKPT-HEADER when it cannot be read.
    """
    report = folder / "report.json"
    if not report.is_file() or not (folder / NAME).is_file():
        do = f"steerable evaluate {folder.parent}"
        raise UserError("E-EVAL", where=str(folder.parent), got="no evaluation", do=do)
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        return _sound(told), _whole(Items(**load((folder / NAME).read_bytes())))
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        got, do = f"an evaluation that cannot be read: {error}", "evaluate it again"
        raise UserError("E-CKPT-HEADER", where=str(folder), got=got, do=do) from error


def _sound(told: Any) -> dict[str, Any]:
    """The report, once its parts have the form that they are compared by."""
    groups = ("settings", "reference", "extractor", "judge")
    if not isinstance(told, dict):
        raise ValueError("a report that is no JSON object")
    for group in groups:
        if not isinstance(told.get(group) or {}, dict):
            raise ValueError(f"its {group} are no JSON object")
    return told


def _whole(items: Items) -> Items:
    """The items, once their shapes fit together."""
    fakes, reals = items.fakes, items.reals
    sizes = {"wanted": len(fakes), "predicted": len(fakes), "labels": len(reals)}
    fits = fakes.ndim == reals.ndim == 2 and fakes.shape[1] == reals.shape[1]
    fits &= all(getattr(items, name).shape == (size,) for name, size in sizes.items())
    fits &= fakes.is_floating_point() and reals.is_floating_point()
    if not fits or not bool(fakes.isfinite().all()) or not bool(reals.isfinite().all()):
        raise ValueError(f"{NAME} does not hold what an evaluation sees")
    return items


def paired(one: Items, other: Items) -> bool:
    """Whether both drew the same wishes and were compared with the same real items."""
    alike = len(one.fakes) == len(other.fakes) and torch.equal(one.wanted, other.wanted)
    return alike and torch.equal(one.reals, other.reals)
