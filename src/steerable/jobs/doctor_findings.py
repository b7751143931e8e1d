"""What the doctor makes of what was seen: findings with their weight, their words and advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steerable.core.types import Dataset

from . import doctor_copies, doctor_size
from .doctor_copies import Copies
from .doctor_labels import Suspects

__all__ = [
    "Finding", "balance", "blank", "contradicted", "copied", "doubted", "leaked", "size", "sizes",
]  # fmt: skip

SHORT = 20  # pictures of a class below which it is called small
UNEVEN, VERY_UNEVEN = 3, 10  # largest class over smallest
FEW, MANY = 0.01, 0.05  # shares of the pictures that make a finding a warning, a problem
WEAK = 0.5  # agreement of the judges below which they accuse no single picture
FLAT = 2  # grey levels between darkest and brightest of a blank picture; JPEG leaves one or two
APART = 1.5  # of the sides' ratio to the items', where a centre crop takes a third away


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: What it is about, one word or two.
        severity: `note`, `warning` or `problem`.
        count: How many pictures or classes it is about.
        n: Out of how many.
        groups: Numbers of the pictures, in rows of those that belong together.
        remarks: A remark for each row, or none.
        sentence: What was found.
        advice: What to do.
    """

    kind: str
    severity: str
    count: int
    n: int
    sentence: str
    advice: str
    groups: tuple[tuple[int, ...], ...] = ()
    remarks: tuple[str, ...] = ()


def _class(data: Dataset, i: int) -> str:
    index = int(data.cond["label"][i])
    return data.spec.labels["label"][index] if index >= 0 else "no label"


def _grave(count: int, n: int) -> str:
    """By the share of the pictures that are concerned."""
    return "note" if count < FEW * n else "warning" if count < MANY * n else "problem"


def _many(groups: Sequence[object]) -> str:
    return f"{len(groups)} group{'' if len(groups) == 1 else 's'}"


def copied(data: Dataset, copies: Copies) -> Iterator[Finding]:
    """Exact and near copies."""
    n, weighs = len(data), "each copy counts as a picture of its own, so it is seen more often"
    spare = sum(len(group) - 1 for group in copies.exact)
    if spare:
        what = f"{spare} of {n:,} pictures are exact copies of others, in {_many(copies.exact)}"
        do = f"remove them: {weighs}"
        yield Finding("copies", _grave(spare, n), spare, n, what, do, copies.exact)
    near = sum(len(group) for group in copies.near)
    if near:
        what = (
            f"{near} of {n:,} pictures, in {_many(copies.near)}, are so much nearer to each "
            f"other than to their neighbours (below {copies.factor:.2f} of the distance) that "
            "they may be one picture saved twice"
        )
        do = f"look at them and keep one of each that is a copy: {weighs}"
        grave = "note" if near < FEW * n else "warning"  # some may be chance
        yield Finding("near copies", grave, near, n, what, do, copies.near)
    if not copies.searched:
        what = f"near copies were not looked for: that takes {doctor_copies.LEAST} pictures "
        yield Finding("near copies", "note", 0, n, what + "with something in them", "nothing")


def leaked(copies: Copies, cut: int, n: int) -> Iterator[Finding]:
    """Held-out pictures with a copy among those to train on, each beside its copies."""
    rows = [
        (i, *(j for j in group if j < cut))
        for group in copies.same()
        if group[0] < cut
        for i in group
        if i >= cut
    ]
    if rows:
        what = (
            f"{len(rows)} of {n - cut} held-out pictures have a copy, or what looks like one, "
            "among the training pictures: what is measured on them is too good"
        )
        severity = "problem" if len(rows) >= MANY * (n - cut) else "warning"
        do = "remove the copies, then let the data be split anew"
        yield Finding("leakage", severity, len(rows), n - cut, what, do, tuple(sorted(rows)))


def contradicted(data: Dataset, copies: Copies) -> Iterator[Finding]:
    """Copies with different labels."""
    if "label" not in data.spec.labels:
        return
    label = data.cond["label"]
    rows = [g for g in copies.same() if len({int(label[i]) for i in g if label[i] >= 0}) > 1]
    if rows:
        sure = {i for group in copies.exact for i in group}
        count = sum(map(len, rows))
        what = f"{count} pictures in {_many(rows)} of copies have different labels"
        grave = "problem" if any(set(row) & sure for row in rows) else "warning"
        remarks = tuple(" | ".join(_class(data, i) for i in row[:8]) for row in rows)
        do = "give copies one label, or keep one of them"
        yield Finding("contradiction", grave, count, len(data), what, do, tuple(rows), remarks)


def doubted(data: Dataset, doubts: Suspects) -> Iterator[Finding]:
    """Labels that judges doubt, and how far they can be trusted."""
    n, kind = doubts.asked, "labels"
    if doubts.why_not:
        what = f"no label was doubted: {doubts.why_not}"
        yield Finding(kind, "note", 0, len(data), what, "nothing")
        return
    late = "" if doubts.on_time else "; time ended their training, so another run may differ"
    known = f"judges that never saw the picture agree with {doubts.agreement:.1%} of the labels"
    if doubts.agreement < WEAK:
        what = f"{known}, too few to accuse a single one{late}"
        do = "either the labels are wrong, or the pictures do not show them, or they are too few"
        yield Finding(kind, "warning", 0, n, what, do)
        return
    count = len(doubts.items)
    remarks = tuple(
        f"{_class(data, i)}, looks like {data.spec.labels['label'][j]} ({p:.0%})"
        for i, j, p in zip(doubts.items, doubts.seen, doubts.share, strict=True)
    )
    what = f"{count} of {n:,} labels are doubtful; {known}{late}"
    do = "look at them, the least believable first; some are right and hard" if count else "nothing"
    rows = tuple((i,) for i in doubts.items)
    yield Finding(kind, _grave(count, n), count, n, what, do, rows, remarks)


def balance(classes: dict[str, dict[str, int]]) -> Iterator[Finding]:
    """Classes: how even they are, which are small, of which nothing is held out."""
    n = len(classes)
    if n < 2:
        what = "one class only: the label says nothing" if n else "no labels: nothing can be asked"
        do = "put the pictures into one folder a class, or train without labels on purpose"
        yield Finding("classes", "note", n, n, what, do)
        return
    many = {name: row["train"] + row["held_out"] for name, row in classes.items()}
    least, most = min(many, key=many.__getitem__), max(many, key=many.__getitem__)
    ratio = many[most] / max(1, many[least])
    what = f"{n} classes of {many[least]:,} pictures each"
    if ratio > 1:
        what = f"{n} classes of {many[least]:,} ('{least}') to {many[most]:,} ('{most}') pictures"
    do = "nothing"
    if ratio > UNEVEN:
        what += f": {ratio:.0f} times as many; the small ones are learned last"
        do = "more pictures of the small classes, or fewer of the large ones"
    grave = "warning" if ratio > VERY_UNEVEN else "note"
    yield Finding("balance", grave, n, n, what, do)
    for kind, names, why, do in (
        (
            "small classes",
            [name for name, own in many.items() if own < SHORT],
            f"have fewer than {SHORT} pictures",
            "more pictures of them: what varies inside a class is not to be seen in so few",
        ),
        (
            "not held out",
            [name for name, row in classes.items() if not row["held_out"]],
            "have nothing held out, so nothing is measured on them",
            "two different pictures in each class, which no other class has",
        ),
    ):
        if names:
            some = ", ".join(f"'{name}'" for name in names[:8]) + (" …" if len(names) > 8 else "")
            what = f"{len(names)} of {n} classes {why}: {some}"
            yield Finding(kind, "warning", len(names), n, what, do)


def blank(data: Dataset) -> Iterator[Finding]:
    """Pictures of one colour."""
    flat = data.x.flatten(2)
    span = flat.amax(2).to(torch.int16) - flat.amin(2).to(torch.int16)
    empty = torch.nonzero((span <= FLAT).all(1))[:, 0].tolist()
    if empty:
        n, count = len(data), len(empty)
        grave = "problem" if count >= MANY * n else "warning"
        what = f"{count} of {n:,} pictures are blank: one colour and nothing else"
        rows = tuple((i,) for i in empty)
        yield Finding("blank", grave, count, n, what, "remove them", rows)


def sizes(report: dict[str, Any]) -> Iterator[Finding]:
    """Pictures that were enlarged or cropped much; of the ten commonest sizes, which are kept."""
    rows: Sequence[dict[str, int]] = report.get("sizes", ())
    height, width = report["shape"][-2:]
    n = sum(row["n"] for row in rows)
    small = sum(row["n"] for row in rows if row["height"] < height or row["width"] < width)
    ratios = [(row, row["width"] * height / (row["height"] * width)) for row in rows]
    cropped = sum(row["n"] for row, r in ratios if max(r, 1 / r) > APART)
    items = f"items of {width} x {height}"
    for kind, count, why, do in (
        ("enlarged", small, f"are smaller than the {items} and blurred", "a smaller data.size"),
        ("cropped", cropped, f"lose a third or more to the shape of the {items}", "crop by hand"),
    ):
        if count:
            what = f"{count} of {n:,} pictures {why}"
            yield Finding(kind, _grave(count, n), count, n, what, do)


def size(train: Dataset, copies: Copies, seen: float, budget: str) -> Finding:
    """The verdict on the number of training pictures, copies counted once."""
    cut = len(train)
    spare = sum(max(0, sum(i < cut for i in group) - 1) for group in copies.same())
    told = doctor_size.verdict(cut - spare, seen, budget)
    return Finding("size", told["severity"], cut - spare, cut, told["sentence"], told["advice"])
