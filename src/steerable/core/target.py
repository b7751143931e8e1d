"""What the network is asked: x0 = c_skip x_t + c_out F, with F fed with c_in x_t.

All schools are rows of one table. The regression target follows: F* = (x0 - c_skip x_t) / c_out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import UserError

__all__ = ["TARGETS", "Target"]

TARGETS = ("x0", "noise", "v", "flow", "edm")


@dataclass(frozen=True)
class Target:
    """(alpha, sigma) -> (c_in, c_skip, c_out).

    Args:
        kind: `x0`; `noise` (DDPM, score models); `v` (Salimans and Ho, arXiv 2202.00512);
            `flow` (z - x0); `edm` (Karras et al., arXiv 2206.00364, table 1).
        data_std: Standard deviation d of the data; c_in = 1 / sqrt(sigma^2 + alpha^2 d^2).
    """

    kind: str
    data_std: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in TARGETS:
            takes = ", ".join(TARGETS)
            raise UserError("E-CONFIG", where="target", got=repr(self.kind), takes=takes)

    def __call__(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d = self.data_std
        q = torch.sqrt(sigma**2 + (alpha * d) ** 2)
        if self.kind == "x0":
            c_skip, c_out = torch.zeros_like(alpha), torch.ones_like(alpha)
        elif self.kind == "noise":
            c_skip, c_out = 1.0 / alpha, -sigma / alpha
        elif self.kind == "v":
            rho = torch.sqrt(alpha**2 + sigma**2)
            c_skip, c_out = alpha / rho**2, -sigma / rho
        elif self.kind == "flow":
            c_skip, c_out = 1.0 / (alpha + sigma), -sigma / (alpha + sigma)
        else:
            c_skip, c_out = alpha * d**2 / q**2, sigma * d / q
        return 1.0 / q, c_skip, c_out
