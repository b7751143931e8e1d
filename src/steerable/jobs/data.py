"""What is known of the data of a run: the scan report, counts and a fingerprint of the content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Splits
from steerable.recipes.part import Part, kinds

__all__ = ["compare", "data_part", "data_report", "part_again"]


def data_part(kind_or_path: str) -> Part:
    """The data part of a command's DATA: a built-in name, else a path for `images`.

    A folder with the name of a built-in set is meant when it is written as a path: `./fashion`.
    """
    if kind_or_path in kinds("data") and kind_or_path != "images":
        return Part(kind=kind_or_path)
    return Part(kind="images", options={"path": str(Path(kind_or_path).resolve())})


def part_again(old: Part, kind_or_path: str) -> Part:
    """The data part of DATA, with the options that a run has for data of the same kind."""
    new = data_part(kind_or_path)
    return (
        Part(kind=new.kind, options={**old.options, **new.options}) if new.kind == old.kind else new
    )


def _fingerprint(data: Dataset) -> str:
    digest = hashlib.sha256(repr((tuple(data.x.shape), sorted(data.spec.labels.items()))).encode())
    digest.update(data.x.contiguous().numpy().data)
    for name in sorted(data.cond):
        digest.update(data.cond[name].contiguous().numpy().data)
    return digest.hexdigest()


def _counts(data: Dataset, name: str) -> list[int]:
    labels = data.cond[name]
    return torch.bincount(labels[labels >= 0], minlength=len(data.spec.labels[name])).tolist()


def data_report(splits: Splits) -> dict[str, Any]:
    """The report of the scan with the counts and the fingerprint of both splits, plain data."""
    train, held_out = splits.train, splits.held_out
    spec = train.spec
    classes = {
        label: {"train": a, "held_out": b}
        for name in spec.labels
        for label, a, b in zip(
            spec.labels[name], _counts(train, name), _counts(held_out, name), strict=True
        )
    }
    facts = {
        "name": spec.name,
        "shape": list(spec.shape),
        "std": spec.std,
        "n_train": len(train),
        "n_held_out": len(held_out),
        "classes": classes,
        "fingerprint": {"train": _fingerprint(train), "held_out": _fingerprint(held_out)},
    }
    return {**splits.report, **facts}


def compare(before: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Check that the data is the one that a run started with.

    Raises:
        UserError: E-DATA-CHANGED with the counts that differ.
    """
    if before.get("fingerprint") == now["fingerprint"]:
        return
    changes = [
        f"{name}: {old['train']}+{old['held_out']} -> {new['train']}+{new['held_out']}"
        for name in sorted({*before.get("classes", {}), *now["classes"]})
        if (old := before.get("classes", {}).get(name, {"train": 0, "held_out": 0}))
        != (new := now["classes"].get(name, {"train": 0, "held_out": 0}))
    ]
    raise UserError(
        "E-DATA-CHANGED",
        where=where,
        got="; ".join(changes[:5]) or "other pixels or another split in the same classes",
        takes="the data of the run's data-report.json",
        kept="the run as it is",
        do="start a new run for the new data",
    )
