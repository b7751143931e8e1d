"""How often the caption that was asked for fits a picture better than other captions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["Retrieval"]


class Retrieval:
    """Counts of pictures whose right candidate has the highest of K scores.

    Candidates with equal scores share the picture, so that scores that know nothing are at chance,
    1 / K, wherever the right one stands.

    Source: R-precision with one right candidate, Xu et al., arXiv 1711.10485, section 4.

    Args:
        candidates: K.
    """

    def __init__(self, candidates: int) -> None:
        assert candidates >= 2, "something to choose from"
        # Pictures by how many candidates share the highest score; place 0: the right one does not.
        self.counts = torch.zeros(candidates + 1, dtype=torch.int64)

    def update(self, scores: Tensor, wanted: Tensor) -> None:
        """Add scores (B,K) of the candidates and the places (B,) int64 of the right ones.

        Raises:
            UserError: E-NUM when a score is not a number.
        """
        candidates = len(self.counts) - 1
        assert scores.shape == (len(wanted), candidates), "scores (B,K), a place for each row"
        scores, wanted = scores.detach().cpu(), wanted.to("cpu", torch.int64)
        assert bool(((wanted >= 0) & (wanted < candidates)).all()), f"places 0 to {candidates - 1}"
        broken = int(scores.isnan().any(1).sum())
        if broken:
            got = f"{broken} of {len(scores)} pictures whose scores are no numbers"
            raise UserError("E-NUM", where="retrieval", got=got)
        best = scores == scores.amax(1, keepdim=True)
        right = best.gather(1, wanted[:, None])[:, 0]
        self.counts += torch.bincount(best.sum(1) * right, minlength=candidates + 1)

    def merge(self, other: Retrieval) -> None:
        """Add all that another one has seen."""
        assert self.counts.shape == other.counts.shape, "the same number of candidates"
        self.counts += other.counts

    def value(self) -> dict[str, Any]:
        """Plain JSON: `retrieval`, its standard error, `n`, the number of `candidates`, `chance`.

        Raises:
            UserError: E-EVAL when nothing was counted.
        """
        n, candidates = int(self.counts.sum()), len(self.counts) - 1
        if n == 0:
            raise UserError("E-EVAL", where="retrieval", got="0 pictures", takes="1 or more")
        credit = 1.0 / torch.arange(candidates + 1, dtype=torch.float64)
        credit[0] = 0.0
        weight = self.counts.to(torch.float64) / n
        share = float(weight @ credit)
        variance = max(0.0, float(weight @ credit.square()) - share**2)
        return {
            "retrieval": share,
            "retrieval_error": (variance / n) ** 0.5,
            "n": n,
            "candidates": candidates,
            "chance": 1.0 / candidates,
        }
