"""What is known of the data of a run: the scan report, counts and a fingerprint of the content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steerable.core.condition import absent
from steerable.core.errors import UserError
from steerable.core.types import Dataset, Splits
from steerable.recipes.part import Part, build, kinds

from .model import Model
from .run import Run

__all__ = [
    "compare", "data_part", "data_report", "fingerprint", "known_to", "own_splits", "part_again",
    "sound_report", "splits_for",
]  # fmt: skip


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


def splits_for(model: Model, data: str | None) -> Splits:
    """The data of a model: the one that it was trained on, or DATA read with the same options.

    Raises:
        UserError: E-EVAL when the model file does not say where its pictures are, else E-DATA.
    """
    beside = Run(model.path.parent).recipe()
    own = beside.data if beside is not None else model.recipe.data
    if data is None and beside is None and "path" in own.options:
        do = "--data FOLDER"
        got = "a model file away from its run, which does not say where its pictures are"
        raise UserError("E-EVAL", where=model.path.name, got=got, do=do)
    return build("data", part_again(own, data) if data else own)


def own_splits(model: Model, splits: Splits, given: bool) -> Splits | None:
    """The data that a model was trained on, if it is at hand.

    Args:
        model: The model.
        splits: The data of an evaluation.
        given: Whether that was named by the user; it may be the model's own data all the same.
    """
    run = Run(model.path.parent)
    known = (run.data_report() or {}) if given and run.recipe() is not None else {}
    if not given or (
        sound_report(known) and known["fingerprint"]["train"] == fingerprint(splits.train)
    ):
        return splits
    try:
        return splits_for(model, None)
    except UserError as error:
        if error.code not in ("E-DATA", "E-EVAL"):
            raise
        return None  # the report says that and what it could not measure


def known_to(splits: Splits, names: Set[str]) -> Splits:
    """The data without the conditions that a model does not read, in its items and its spec."""

    def without(data: Dataset) -> Dataset:
        kept = {
            kind: {k: v for k, v in getattr(data.spec, kind).items() if k in names}
            for kind in ("labels", "vectors", "tokens")
        }
        cond = {name: value for name, value in data.cond.items() if name in names}
        return replace(data, spec=replace(data.spec, **kept), cond=cond)

    return replace(splits, train=without(splits.train), held_out=without(splits.held_out))


def fingerprint(data: Dataset) -> str:
    """SHA-256 of the items with their conditions and their names."""
    spec, facts = data.spec, [tuple(data.x.shape), sorted(data.spec.labels.items())]
    if spec.vectors or spec.tokens:  # labels alone keep the fingerprints that runs have on disk
        facts += [sorted(spec.vectors.items()), sorted(spec.tokens.items())]
    digest = hashlib.sha256(repr(tuple(facts)).encode())
    digest.update(data.x.contiguous().numpy().data)
    for name in sorted(data.cond):
        digest.update(data.cond[name].contiguous().numpy().data)
    return digest.hexdigest()


def _counts(data: Dataset, name: str) -> list[int]:
    labels = data.cond[name]
    return torch.bincount(labels[labels >= 0], minlength=len(data.spec.labels[name])).tolist()


def _by_class(splits: Splits, name: str) -> dict[str, dict[str, int]]:
    train, held_out = _counts(splits.train, name), _counts(splits.held_out, name)
    rows = zip(splits.train.spec.labels[name], train, held_out, strict=True)
    return {label: {"train": a, "held_out": b} for label, a, b in rows}


def _conditions(splits: Splits) -> dict[str, dict[str, Any]]:
    """Every condition but a label that all items have: its kind, and how many items have it."""
    spec, told = splits.train.spec, splits.report.get("conditions", {})
    kinds_of = {"label": spec.labels, "vector": spec.vectors, "tokens": spec.tokens}
    found = {}
    for kind, names in kinds_of.items():
        for name in names:
            present = [
                int((~absent(part.cond[name])).sum()) for part in (splits.train, splits.held_out)
            ]
            if name == "label" and present == [len(splits.train), len(splits.held_out)]:
                continue
            facts: dict[str, Any] = {"kind": kind}
            facts["present"] = dict(zip(("train", "held_out"), present, strict=True))
            if kind == "vector":
                facts["numbers"] = list(names[name])
            elif kind == "tokens":
                length = splits.train.cond[name].shape[1]
                facts.update(words=len(names[name]), length=length)
            elif name != "label":
                facts["classes"] = _by_class(splits, name)
            found[name] = {**facts, **told.get(name, {})}
    return found


def data_report(splits: Splits) -> dict[str, Any]:
    """The report of the scan with the counts and the fingerprint of both splits, plain data.

    `classes` are those of the condition `label`; all others stand under `conditions`.
    """
    train, held_out = splits.train, splits.held_out
    spec = train.spec
    facts = {
        "name": spec.name,
        "shape": list(spec.shape),
        "std": spec.std,
        "n_train": len(train),
        "n_held_out": len(held_out),
        "classes": _by_class(splits, "label") if "label" in spec.labels else {},
        "conditions": _conditions(splits),
        "fingerprint": {"train": fingerprint(train), "held_out": fingerprint(held_out)},
    }
    return {**splits.report, **facts}


def sound_report(report: Mapping[str, Any]) -> bool:
    """Whether a report that was read from disk holds what its readers count on."""
    prints, classes = report.get("fingerprint"), report.get("classes")
    if not isinstance(prints, dict) or not isinstance(classes, dict):
        return False
    rows = [row if isinstance(row, dict) else {} for row in classes.values()]
    counts = [row.get(part) for row in rows for part in ("train", "held_out")]
    whole = all(type(count) is int for count in counts)
    texts = all(isinstance(prints.get(part), str) for part in ("train", "held_out"))
    return whole and texts and isinstance(report.get("conditions", {}), dict)


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
        got="; ".join(changes[:5]) or _quiet_change(before, now),
        takes="the data of the run's data-report.json",
        kept="the run as it is",
        do="start a new run for the new data",
    )


def _quiet_change(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What has changed where every class is as large as before."""
    old, new = before.get("conditions", {}), now["conditions"]
    other = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    if other:
        return "other values of " + ", ".join(other[:5])
    return "other pixels or another split in the same classes"
