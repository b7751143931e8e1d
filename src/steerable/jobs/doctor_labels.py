"""Labels that may be wrong, by judges that never saw the picture they are asked about.

Source: confident learning, Northcutt et al., arXiv 1911.00068.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steerable.core.types import Dataset

from .judge import train_judge

__all__ = ["FEWEST", "Suspects", "confident", "question"]

FOLDS = 3
FEWEST = 6  # pictures of a class, so that each judge has seen four of it
SIDE = 4  # least side of a picture that a judge takes


@dataclass(frozen=True)
class Suspects:
    """What the judges say of the labels.

    Attributes:
        items: Numbers of the suspects, the least believable label first.
        seen: Class that the judges see in each.
        share: Probability that they give it.
        asked: How many pictures were judged.
        agreement: Share of them whose class the judges name as labelled.
        on_time: Whether every judge was trained to its end within its time.
        why_not: Why nothing was judged; empty if it was.
    """

    items: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    share: tuple[float, ...] = ()
    asked: int = 0
    agreement: float = 0.0
    on_time: bool = True
    why_not: str = ""


def confident(p: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Rows whose label is doubtful and the class that each seems to be, the surest first.

    A row counts as class j if p_j is at least the mean p_j of the rows labelled j; of several
    such classes the likeliest is taken. It is doubtful if that is another than its label.

    Args:
        p: Probabilities (N,K) from judges that did not train on the row.
        label: Given classes (N,) int64.
    """
    classes = p.shape[1]
    threshold = torch.full((classes,), torch.inf, dtype=p.dtype)
    for j in label.unique().tolist():
        threshold[j] = p[label == j, j].mean()
    sure = torch.where(p >= threshold, p, -1.0)
    best, seen = sure.max(1)
    own = p.gather(1, label[:, None])[:, 0]
    doubtful = torch.nonzero((best > own) & (seen != label))[:, 0]
    order = (best - own)[doubtful].argsort(descending=True, stable=True)
    rows = doubtful[order]
    return rows, seen[rows]


def question(
    data: Dataset, same: Sequence[Sequence[int]], *, seconds: float, seed: int
) -> Generator[float, None, Suspects]:
    """Judge every labelled picture by judges of the other two thirds; yields the share done.

    Copies stay in one third, or a judge would know the answer of one from the other.

    Args:
        data: All items.
        same: Groups of copies, by the items' numbers.
        seconds: Most time for the three judges together.
        seed: Of the thirds and of the judges.
    """
    reason = _hindered(data)
    if reason:
        return Suspects(why_not=reason)
    label = data.cond["label"]
    counts = torch.bincount(label[label >= 0], minlength=len(data.spec.labels["label"]))
    known = torch.nonzero((label >= 0) & (counts[label.clamp_min(0)] >= FEWEST))[:, 0]
    fold = _folds(label, same, seed)[known]
    own = replace(data.take(known), names=())
    p = torch.zeros(len(known), len(counts), dtype=torch.float64)
    on_time = True
    for k in range(FOLDS):
        inside, outside = torch.nonzero(fold == k)[:, 0], torch.nonzero(fold != k)[:, 0]
        begun = time.monotonic()
        limit = seconds / FOLDS
        judge = train_judge(own.take(outside), own.take(inside), seconds=limit, seed=seed + k)
        on_time = on_time and time.monotonic() - begun < limit
        features, _ = judge.look(own.x[inside])
        with torch.inference_mode():
            logits = judge.net.out(features.to(torch.float32))
        p[inside] = logits.to(torch.float64).softmax(1)
        yield (k + 1) / FOLDS
    given = own.cond["label"]
    rows, seen = confident(p, given)
    return Suspects(
        tuple(known[rows].tolist()),
        tuple(seen.tolist()),
        tuple(p[rows, seen].tolist()),
        len(known),
        float((p.argmax(1) == given).to(torch.float64).mean()),
        on_time,
    )


def _hindered(data: Dataset) -> str:
    """Why no judge can be trained; empty if one can."""
    if "label" not in data.spec.labels:
        return "there are no labels"
    if len(data.spec.shape) != 3 or min(data.spec.shape[1:]) < SIDE:
        return f"the pictures are smaller than {SIDE} x {SIDE}"
    label = data.cond["label"]
    counts = torch.bincount(label[label >= 0], minlength=1)
    if int((counts >= FEWEST).sum()) < 2:
        return f"fewer than two classes have {FEWEST} pictures"
    return ""


def _folds(label: Tensor, same: Sequence[Sequence[int]], seed: int) -> Tensor:
    """The third of each item (N,): classes are spread evenly, groups of copies stay together."""
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    order = order[label[order].argsort(stable=True)]
    fold = torch.empty(len(label), dtype=torch.int64)
    fold[order] = torch.arange(len(label)) % FOLDS
    for group in same:
        fold[list(group)] = fold[group[0]].clone()
    return fold
