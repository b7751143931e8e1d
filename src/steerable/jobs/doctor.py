"""The data doctor: what is wrong with pictures and labels before anything is trained on them."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Splits

from . import doctor_copies, doctor_labels, doctor_size
from .data import data_report
from .doctor_findings import (
    Finding,
    balance,
    blank,
    contradicted,
    copied,
    doubted,
    leaked,
    size,
    sizes,
)
from .doctor_labels import Suspects
from .wish import check_seed

__all__ = ["Checking", "Diagnosis", "diagnose"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found.

    Attributes:
        splits: The data.
        report: Its scan report, plain data.
        findings: What was found, the gravest first.
        names: Name of every picture, those for training first.
    """

    splits: Splits
    report: dict[str, Any]
    findings: tuple[Finding, ...]
    names: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """The scan report with the findings, pictures by their names; plain JSON."""
        rows = [
            {
                "kind": f.kind,
                "severity": f.severity,
                "count": f.count,
                "n": f.n,
                "items": [[self.names[i] for i in group] for group in f.groups],
                "remarks": list(f.remarks),
                "sentence": f.sentence,
                "advice": f.advice,
            }
            for f in self.findings
        ]
        return {**self.report, "findings": rows}


@dataclass(frozen=True)
class Checking:
    """Progress: the stage, its share done, and at the end the diagnosis."""

    stage: str
    share: float
    diagnosis: Diagnosis | None = None


def diagnose(
    splits: Splits, *, seconds: float = 60.0, seed: int = 0, budget: str = "10m"
) -> Iterator[Checking]:
    """Look at data step by step; the last item holds the diagnosis.

    The same data and seed give the same diagnosis, unless the time ended the judges' training,
    which is then said.

    Args:
        splits: The data.
        seconds: Most time for the judges that doubt labels; 0 leaves them out.
        seed: Of the judges.
        budget: The run that the verdict on the size is about.

    Raises:
        UserError: E-LIMIT for a time or a seed out of range; E-CONFIG for a budget that is none.
    """
    check_seed(seed)
    if not 0 <= seconds < math.inf:
        raise UserError("E-LIMIT", where="seconds of the check", got=str(seconds), takes="0 up")
    if not -(2**63) <= seed < 2**63:
        raise UserError("E-LIMIT", where="seed of the check", got=str(seed), takes="64 bits")
    every = _together(splits)
    seen = doctor_size.views(every.spec, budget)
    copies = yield from _staged("copies", doctor_copies.search(every.x))
    doubts = Suspects(why_not="left out as asked")
    if seconds:
        asking = doctor_labels.question(every, copies.same(), seconds=seconds, seed=seed)
        doubts = yield from _staged("labels", asking)
    report, cut = data_report(splits), len(splits.train)
    found = [
        *copied(every, copies),
        *leaked(copies, cut, len(every)),
        *contradicted(every, copies),
        *doubted(every, doubts),
        *balance(report["classes"]),
        *blank(every),
        *sizes(report),
        size(splits.train, copies, seen, budget),
    ]
    found.sort(key=lambda f: ("problem", "warning", "note").index(f.severity))
    yield Checking("done", 1.0, Diagnosis(splits, report, tuple(found), every.names))


def _staged(stage: str, work: Generator[float, None, _T]) -> Generator[Checking, None, _T]:
    """The progress of a part of the work, under its name."""
    while True:
        try:
            share = next(work)
        except StopIteration as end:
            return end.value
        yield Checking(stage, share)


def _together(splits: Splits) -> Dataset:
    """Both parts as one, every picture with a name."""
    parts = {"train": splits.train, "held-out": splits.held_out}
    names = [
        name
        for part, data in parts.items()
        for name in (data.names or (f"{part} {i}" for i in range(len(data))))
    ]
    x = torch.cat([data.x for data in parts.values()])
    cond = {k: torch.cat([data.cond[k] for data in parts.values()]) for k in splits.train.cond}
    return replace(splits.train, x=x, cond=cond, names=tuple(names))
