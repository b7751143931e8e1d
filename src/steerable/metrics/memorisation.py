"""Memorisation: are samples nearer to the training items than unseen real items are?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.nn.neighbours import nearest
from steerable.nn.rows import Rows

__all__ = ["Memorisation"]

LEAST = 10  # samples, and unseen items: the median of fewer says nothing
NEAR = 0.01  # share of unseen items that are nearer than what is called a near copy
REPEATS = 200  # of the bootstrap
WORST = 16  # pairs that are listed


class Memorisation:
    """A set of items as rows: pixels, or features of a judge.

    Both distances are to the same training items, so that their number does not matter.

    Source: the ratio to unseen items of Meehan et al., arXiv 2004.05675, with medians.
    """

    def __init__(self) -> None:
        self.rows = Rows()

    def update(self, rows: Tensor, items: Tensor | None = None) -> None:
        """Add rows (B,...) of the items (B,) int64; without numbers, of those that come next."""
        self.rows.update(rows, items)

    def merge(self, other: Memorisation) -> None:
        """Add all that another one has seen."""
        self.rows.merge(other.rows)

    def value(self, train: Memorisation, unseen: Memorisation) -> dict[str, Any]:
        """How much nearer to the training items samples are than real items that it never saw.

        `memorisation` is the median distance of samples to their nearest training item, over that
        of unseen items: 1 where nothing is copied, 0 for copies, above 1 for samples far from
        everything. `near_copies` is the share of samples at most as far from a training item as
        the nearest hundredth of the unseen items is; `near_copies_unseen` is the share of the
        unseen items themselves, to compare it with: 0.01, or more when there are less than 100 or
        when unseen items are in the training set. Errors are for these training items. `worst`
        lists the nearest samples with the numbers of their rows, by rising distance.

        Args:
            train: The items that the model was trained on.
            unseen: Items of the same kind that it was not.

        Raises:
            UserError: E-EVAL when there is no training item, less than 10 of the others, or about
                half of the unseen items are in the training set: the ratio would be over 0.
        """
        a, known, b = self.rows.table(), train.rows.table(), unseen.rows.table()
        if min(len(a), len(b)) < LEAST or not len(known):
            got = f"{len(a)} samples, {len(known)} training items and {len(b)} unseen items"
            takes = f"{LEAST} or more samples and unseen items, 1 or more training items"
            raise UserError("E-EVAL", where="memorisation", got=got, takes=takes)
        (mine, at), theirs = nearest(a, known, 1), nearest(b, known, 1)[0][:, 0]
        mine, at = mine[:, 0], at[:, 0]
        ratio, share, errors = _ratio(mine, theirs), _near(mine, theirs), _errors(mine, theirs)
        if not bool(errors.isfinite().all()):
            got = f"{int((theirs == 0).sum())} of {len(b)} unseen items are in the training set"
            do = "remove from the held-out items those that are also training items"
            raise UserError("E-EVAL", where="memorisation", got=got, takes="few or none", do=do)
        order = mine.argsort(stable=True)[:WORST].tolist()
        return {
            "memorisation": float(ratio),
            "memorisation_error": float(errors[0]),
            "near_copies": float(share),
            "near_copies_error": float(errors[1]),
            "near_copies_unseen": float(_near(theirs, theirs)),
            "n": len(a),
            "n_train": len(known),
            "n_unseen": len(b),
            "worst": [
                {"sample": i, "train": int(at[i]), "distance": float(mine[i])} for i in order
            ],
        }


def _median(x: Tensor) -> Tensor:
    """Medians (...) of x (...,N): the middle one, or the mean of the two middle ones."""
    rising, n = x.sort(-1).values, x.shape[-1]
    return (rising[..., (n - 1) // 2] + rising[..., n // 2]) / 2


def _ratio(mine: Tensor, theirs: Tensor) -> Tensor:
    """Ratios (...) of the medians of mine (...,N) and theirs (...,M); not finite over 0."""
    return _median(mine) / _median(theirs)


def _near(mine: Tensor, theirs: Tensor) -> Tensor:
    """Shares (...) of mine (...,N) that are not above the first percentile of theirs (...,M).

    The place p (M + 1) in the rising order has the share p of the law below it on average, for
    every law and M; with M < 99 there is none so low, and the least one stands for it.
    """
    rising, n = theirs.sort(-1).values, theirs.shape[-1]
    place = max(0.0, NEAR * (n + 1) - 1)
    low = int(place)
    limit = torch.lerp(rising[..., low], rising[..., min(low + 1, n - 1)], place - low)
    return (mine <= limit[..., None]).double().mean(-1)


def _errors(mine: Tensor, theirs: Tensor) -> Tensor:
    """Standard errors (2,) of `_ratio` and `_near`: bootstrap over both, with a fixed seed.

    A share of 0 or 1 would be the same in every draw. So its error is never less than that of n
    independent items with one more of each outcome, and of a percentile of the unseen ones.
    """
    generator = torch.Generator().manual_seed(0)
    draws = []
    for x in (mine, theirs):
        draws.append(x[torch.randint(len(x), (REPEATS, len(x)), generator=generator)])
    ratios, shares = _ratio(*draws), _near(*draws)
    share = float((_near(mine, theirs) * len(mine) + 1) / (len(mine) + 2))
    least = share * (1 - share) / len(mine) + NEAR * (1 - NEAR) / len(theirs)
    return torch.stack([ratios.std(), shares.std().clamp(min=least**0.5)])
