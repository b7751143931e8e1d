"""One's own pictures: a folder in any of the usual layouts, or an .npz file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Range, Spec, Splits
from steerable.intake import columns as tables
from steerable.intake import splitting
from steerable.intake.reading import Reading
from steerable.intake.scanning import READER, Look, Scan

__all__ = ["images"]

_MAX_SIDE = 1024

_T = TypeVar("_T")


def images(
    path: str,
    *,
    size: tuple[int, int] | int = (0, 0),
    channels: int = 0,
    held_out: Annotated[float, Range(0.01, 0.5)] = 0.1,
    flip: bool = False,
    background: str = "white",
    on_bad: Literal["report", "error"] = "report",
    columns: dict[str, Literal["label", "vector", "tokens"]] = {},  # noqa: B006, never changed
) -> Splits:
    """Read PNG, JPEG and WebP pictures, with the names of their class folders as labels.

    The same content gives the same split, whatever the folder and its other classes are called.
    Labels that are whole numbers are sorted as numbers, all others as text.

    Args:
        path: A folder of class folders, a flat folder, a folder with `metadata.csv` or
            `metadata.jsonl` (`file_name`, `label`), or an .npz file (`images`, `labels`).
        size: Rows and columns of the items, or one number for both; 0 takes the pictures' own
            size, at most 64 on the longer side.
        channels: 1 grey, 3 RGB, 4 RGBA; 0 takes the fewest that lose nothing, where alpha counts
            if all pictures can have it and one uses it.
        held_out: Share of each class that is kept for measuring.
        flip: Whether a left-right flip keeps the meaning, so that training may use it.
        background: Colour under transparent pictures, by name or as #rrggbb.
        on_bad: `report` lists up to 5 % bad files and goes on; `error` stops at one.
        columns: Further conditions, {name: kind}, from the columns of the table or the arrays of
            the .npz file that have these names. `label`: class names, text or whole numbers;
            `vector`: a number, a JSON list, or numbers between blanks or semicolons, scaled to
            [-1, 1] by the least and the largest of the training part; `tokens`: the words of a
            text in lower case, at most 64 of the 4096 most frequent. A picture may lack a value;
            `label: label` says so of the label too, and another kind reads the label as that.

    Raises:
        UserError: E-DATA for a path, layout or share of bad files that cannot be used; E-LIMIT and
            E-CONFIG for an option out of its range; E-MEM if the pictures do not fit.
    """
    options = dict(locals())
    *_, last = reading(options)
    assert last.splits is not None
    return last.splits


def reading(options: Mapping[str, Any], *, reader: int = READER) -> Iterator[Reading]:
    """`images` step by step; the last step holds the data.

    Args:
        options: All of its options.
        reader: Version of what is made of the same files.

    Raises:
        UserError: As `images`.
    """
    path, size, columns = options["path"], options["size"], options["columns"]
    channels, share, on_bad = options["channels"], options["held_out"], options["on_bad"]
    height, width = (size, size) if isinstance(size, int) else size
    _checked(height, width, channels, share, on_bad)
    _free(columns)
    look = Look(_colour(options["background"]), reduced=reader > 1)
    scan = Scan(path, strict=on_bad == "error", columns=columns)
    total = len(scan.listing.entries)
    for done in scan.peek():
        yield Reading("headers", done, total)
    shape, total = (channels, *scan.target(height, width)), len(scan.listing.entries)
    loading = scan.load(shape, look)
    x = yield from _counted_by(loading, total)
    yield Reading("pictures", total, total)
    splits = _split(scan, x, share=share, flip=options["flip"], columns=columns)
    report = {**splits.report, "reader": reader}
    yield Reading("pictures", total, total, replace(splits, report=report))


def _counted_by(loading: Generator[int, None, _T], total: int) -> Generator[Reading, None, _T]:
    """The progress of the pictures; returns what comes of them."""
    while True:
        try:
            done = next(loading)
        except StopIteration as end:
            return end.value
        yield Reading("pictures", done, total)


def _checked(height: int, width: int, channels: int, share: float, on_bad: str) -> None:
    for option, value in (("rows", height), ("columns", width)):
        if not 0 <= value <= _MAX_SIDE:
            takes = f"1 to {_MAX_SIDE} pixels, or 0 for the pictures' own size"
            raise UserError("E-LIMIT", where=f"images {option}", got=str(value), takes=takes)
    if channels not in (0, 1, 3, 4):
        takes = "1 grey, 3 RGB, 4 RGBA, 0 to choose"
        raise UserError("E-CONFIG", where="images channels", got=str(channels), takes=takes)
    if not 0.01 <= share <= 0.5:
        raise UserError("E-LIMIT", where="images held_out", got=str(share), takes="0.01 to 0.5")
    if on_bad not in ("report", "error"):
        takes = "'report' or 'error'"
        raise UserError("E-CONFIG", where="images on_bad", got=repr(on_bad), takes=takes)


def _free(columns: Mapping[str, str]) -> None:
    """Refuse columns whose names or kinds cannot be taken."""
    tables.checked(columns)
    for name in columns:
        if hasattr(nn.ModuleDict(), name):  # where a network keeps its conditions by name
            where, do = f"images columns, {name!r}", "rename the column"
            takes = "a name that torch does not use for itself"
            raise UserError("E-CONFIG", where=where, got="such a name", takes=takes, do=do)


def _colour(name: str) -> tuple[int, int, int]:
    from PIL import ImageColor

    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError as fault:
        takes = "a colour name or #rrggbb"
        raise UserError(
            "E-CONFIG", where="images background", got=repr(name), takes=takes
        ) from fault
    return red, green, blue


@dataclass(frozen=True)
class _Table:
    """The good pictures in the order of the scan; the lists run in parallel.

    Attributes:
        classes: Names of the classes; empty without labels.
        names: Names of the files.
        index: Class of each picture, -1 without a label.
        keys: Hash of each picture's pixels.
        out: Whether it is held out.
        values: Its values of the columns asked for.
    """

    classes: list[str]
    names: list[str]
    index: list[int]
    keys: list[bytes]
    out: list[bool]
    values: list[tuple[tables.Value, ...]]


def _split(
    scan: Scan, x: NDArray[np.uint8], *, share: float, flip: bool, columns: Mapping[str, str]
) -> Splits:
    """Hold pictures out and sort the items in place: first those to train on."""
    entries, keys = scan.listing.entries, splitting.digests(x)
    classes = tables.ordered({entry.label for entry in entries if entry.label is not None})
    place = {label: i for i, label in enumerate(classes)}
    index = [-1 if entry.label is None else place[entry.label] for entry in entries]
    out = splitting.held_out(keys, index, share)
    if not any(out):
        raise UserError(
            "E-DATA",
            where=scan.path,
            got="no class has two different pictures of its own, so none can be held out",
            takes="two different pictures in a class at least",
            do="add pictures",
        )
    names, values = [_shown(entry.name) for entry in entries], [entry.values for entry in entries]
    table = _Table(classes, names, index, keys, out, values)
    made = _conditions(table, columns, scan.path)
    report = {**_scanned(scan, x.shape), **_counted(table, x.shape[1:], share)}
    report["warnings"] = [*scan.listing.warnings, *_warnings(table)]
    report["conditions"] = {name: column.facts for name, column in made.items() if column.facts}
    order = sorted(range(len(out)), key=out.__getitem__)
    splitting.reorder(x, order)
    items, cut = torch.from_numpy(x), out.count(False)
    kinds = {
        kind: {name: column.names for name, column in made.items() if column.kind == kind}
        for kind in ("label", "vector", "tokens")
    }
    shape, std = tuple(int(side) for side in x.shape[1:]), _std(items[:cut])
    spec = Spec(report["name"], shape, *kinds.values(), std=std, flip=flip)
    cond = {name: torch.from_numpy(column.values[order]) for name, column in made.items()}
    files = tuple(names[i] for i in order)
    train, rest = (
        Dataset(spec, items[part], {key: value[part] for key, value in cond.items()}, files[part])
        for part in (slice(cut), slice(cut, None))
    )
    return Splits(train, rest, report)


def _conditions(table: _Table, columns: Mapping[str, str], path: str) -> dict[str, tables.Column]:
    """The conditions by name: the classes that the split went by, and the other columns."""
    made = {}
    if table.classes:
        facts = {"missing": table.index.count(-1)} if "label" in columns else {}
        made["label"] = tables.Column(
            "label", np.array(table.index, np.int64), tuple(table.classes), facts
        )
    for place, (name, kind) in enumerate(columns.items()):
        if name not in made:
            values = [row[place] for row in table.values]
            made[name] = tables.encoded(name, kind, values, table.out, path)
    return made


def _shown(name: str) -> str:
    """A file name as text that every file and screen can take."""
    return name.encode(errors="backslashreplace").decode()


def _scanned(scan: Scan, shape: tuple[int, ...]) -> dict[str, Any]:
    """The part of the report that tells what the files were and what was done to them."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    for head, n in scan.headers.items():
        sizes[head.height, head.width] += n
        modes[head.mode] += n
    return {
        "name": _shown(scan.name) or "images",
        "source": scan.listing.layout,
        "size": {"height": shape[2], "width": shape[3], "reason": scan.size_reason},
        "channels": {"n": shape[1], "reason": scan.channels_reason},
        "sizes": [{"height": h, "width": w, "n": n} for (h, w), n in sizes.most_common(10)],
        "modes": dict(modes.most_common()),
        "conversions": dict(scan.conversions.most_common()),
        "bad": [{"name": _shown(name), "reason": why} for name, why in sorted(scan.listing.bad)],
        "ignored": scan.listing.ignored.total(),
        "ignored_kinds": {_shown(kind): n for kind, n in scan.listing.ignored.most_common(10)},
    }


def _counted(table: _Table, shape: tuple[int, ...], share: float) -> dict[str, Any]:
    """The part of the report that tells what the items are and where they went."""
    sides = Counter(zip(table.index, table.out, strict=True))
    copies = splitting.duplicates(table.keys)
    digest = hashlib.sha256(json.dumps(shape).encode())
    rows = zip(table.names, table.index, table.keys, table.values, strict=True)
    for name, i, key, values in rows:
        label = table.classes[i] if i >= 0 else None
        digest.update(json.dumps([name, label, key.hex(), *values]).encode())
    return {
        "n": len(table.out),
        "n_train": table.out.count(False),
        "n_held_out": table.out.count(True),
        "split": f"held out: {share:.0%} of each class, chosen by content",
        "classes": {
            name: {"train": sides[i, False], "held_out": sides[i, True]}
            for i, name in enumerate(table.classes)
        },
        "duplicates": {
            "n": sum(len(group) - 1 for group in copies),
            "groups": [[table.names[i] for i in group[:10]] for group in copies[:10]],
        },
        "fingerprint": digest.hexdigest(),
    }


def _warnings(table: _Table) -> list[str]:
    """What the owner of the pictures ought to know about the classes."""
    found = []
    if len(table.classes) == 1:
        found.append("one class only: the label says nothing")
    sizes = Counter(table.index)
    measured = {i for i, out in zip(table.index, table.out, strict=True) if out}
    for i, name in enumerate(table.classes):
        if i not in measured:
            why = "copies or shared pictures only" if sizes[i] > 1 else "one picture only"
            found.append(f"class {name!r}: {why}, so nothing of it is held out")
    folded = Counter(name.casefold() for name in table.classes)
    for name in (name for name in table.classes if folded[name.casefold()] > 1):
        found.append(f"class {name!r} differs from another one by upper and lower case only")
    groups = splitting.duplicates(table.keys)
    shared = sum(len({table.index[i] for i in group}) > 1 for group in groups)
    if shared:
        found.append(f"{shared} pictures are in more than one class; they are trained on only")
    return found


def _std(x: Tensor) -> float:
    """Standard deviation in [-1, 1], from exact counts of the 256 values; at least 0.05."""
    counts = torch.zeros(256, dtype=torch.float64)
    for part in x.split(max(1, 2**22 // x[0].numel())):
        counts += torch.bincount(part.flatten(), minlength=256)
    share, level = counts / counts.sum(), torch.arange(256, dtype=torch.float64) / 127.5 - 1
    mean = (share * level).sum()
    return max(0.05, float((share * (level - mean) ** 2).sum().sqrt()))
