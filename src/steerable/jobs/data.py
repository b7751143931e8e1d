"""What is known of the data of a run: the scan report, counts and a fingerprint of the content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steerable.core.condition import absent
from steerable.core.errors import UserError
from steerable.core.types import Dataset, Splits
from steerable.recipes.part import Part, kinds

from .model import Model
from .reading import READER, Reading, finished, reading
from .run import Run

__all__ = [
    "compare", "data_part", "data_report", "fingerprint", "items_of", "known_to", "own_reading",
    "own_splits", "part_again", "reader_of", "reading_for", "sound_report", "splits_for",
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
    return finished(reading_for(model, data))


def reading_for(model: Model, data: str | None) -> Iterator[Reading]:
    """`splits_for` step by step; the last step holds the data.

    Raises:
        UserError: As `splits_for`.
    """
    beside = Run(model.path.parent, model.recipe.trusted).recipe()
    own = beside.data if beside is not None else model.recipe.data
    if data is None and beside is None and "path" in own.options:
        do = "--data FOLDER"
        got = "a model file away from its run, which does not say where its pictures are"
        raise UserError("E-EVAL", where=model.path.name, got=got, do=do)
    trained, part = model.about.get("training"), part_again(own, data) if data else own
    known = trained if isinstance(trained, Mapping) else {}
    yield from reading(part, reader=reader_of(known))


def reader_of(known: Mapping[str, Any]) -> int:
    """The version of the reader of a run's data report, or of what a model says of its training.

    Raises:
        UserError: E-CKPT-NEWER for a version that this program does not have.
    """
    reader = known.get("reader", 1)  # the first one was not written down
    if not isinstance(reader, int) or not 1 <= reader <= READER:
        got, takes = f"pictures read by version {reader!r}", f"versions up to {READER}"
        raise UserError("E-CKPT-NEWER", where="data", got=got, takes=takes, do="update steerable")
    return reader


def own_splits(model: Model, splits: Splits, given: bool) -> Splits | None:
    """The data that a model was trained on, if it is at hand.

    Args:
        model: The model.
        splits: The data of an evaluation.
        given: Whether that was named by the user; it may be the model's own data all the same.
    """
    last = None
    for step in own_reading(model, splits, given):
        last = step.splits
    return last


def own_reading(model: Model, splits: Splits, given: bool) -> Iterator[Reading]:
    """`own_splits` step by step; the last step holds the data, or none if it is not at hand."""
    run = Run(model.path.parent, model.recipe.trusted)
    known = (run.data_report() or {}) if given and run.recipe() is not None else {}
    if not given or (
        sound_report(known) and known["fingerprint"]["train"] == fingerprint(splits.train)
    ):
        yield Reading("pictures", 1, 1, splits)
        return
    try:
        yield from reading_for(model, None)
    except UserError as error:
        if error.code not in ("E-DATA", "E-EVAL"):
            raise
        yield Reading("pictures", 0, 0)  # the report says that and what it could not measure


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


def items_of(splits: Splits) -> dict[str, dict[str, str]]:
    """What is in every file, for data that has files: the start of the SHA-256 of its pixels.

    Kept beside a run, it tells later which files have changed.
    """
    parts = {"train": splits.train, "held_out": splits.held_out}
    return {
        part: {
            name: hashlib.sha256(row.contiguous().numpy().data).hexdigest()[:16]
            for name, row in zip(data.names, data.x, strict=bool(data.names))
        }
        for part, data in parts.items()
    }


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


def compare(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Check that the data is the one that a run started with.

    Args:
        before: The report of the run's data, with its `items` if they are known.
        now: That of the data as it is.
        where: The run.

    Raises:
        UserError: E-DATA-CHANGED with the files, the classes or the conditions that differ.
    """
    if before.get("fingerprint") == now["fingerprint"]:
        return
    changes = _files_changed(before.get("items") or {}, now.get("items") or {})
    changes += [
        f"{name}: {old['train']}+{old['held_out']} -> {new['train']}+{new['held_out']}"
        for name in sorted({*before.get("classes", {}), *now["classes"]})
        if (old := before.get("classes", {}).get(name, {"train": 0, "held_out": 0}))
        != (new := now["classes"].get(name, {"train": 0, "held_out": 0}))
    ]
    raise UserError(
        "E-DATA-CHANGED",
        where=where,
        got="; ".join(changes[:8]) or _quiet_change(before, now),
        takes="the data of the run's data-report.json",
        kept="the run as it is",
        do="put the data back as it was, or start a new run for the new data",
    )


NAMED = 5  # files that a message names of each sort of change


def _files_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has happened to the files, a sentence a sort of change; none where that is not known."""
    old = {name: key for part in before.values() for name, key in part.items()}
    new = {name: key for part in now.values() for name, key in part.items()}
    if not old or not new:
        return []
    gone = [name for name in sorted(old) if name not in new]
    fresh = [name for name in sorted(new) if name not in old]
    # A file that is gone and one that is new with the same pixels are one that was renamed.
    waiting: dict[str, list[str]] = {}
    for name in reversed(fresh):
        waiting.setdefault(new[name], []).append(name)
    renamed = {name: waiting[old[name]].pop() for name in gone if waiting.get(old[name])}
    taken = set(renamed.values())
    sorts = {
        "added": [name for name in fresh if name not in taken],
        "removed": [name for name in gone if name not in renamed],
        "changed": [name for name in sorted(old) if name in new and old[name] != new[name]],
        "renamed": [f"{a} -> {b}" for a, b in renamed.items()],
        "in the other part": [
            name
            for name in sorted(old)
            if name in new and (name in before["train"]) != (name in now["train"])
        ],
    }
    return [f"{sort}: {_some(names)}" for sort, names in sorts.items() if names]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _quiet_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What has changed where every class is as large as before and no file tells."""
    old, new = before.get("conditions", {}), now["conditions"]
    other = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    if other:
        return "other values of " + ", ".join(other[:5])
    if before.get("items") and now.get("items"):
        return "other labels or values of the same files"
    return "other pixels, other names of the files, or another split in the same classes"
