"""A classifier that sees what a denoiser sees: noised items, at every noise level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steerable.core.condition import absent
from steerable.core.process import Process
from steerable.core.types import Batch, Cond, spread

__all__ = ["NoisyClassifier"]


class NoisyClassifier(nn.Module):
    """(x_t (B,*S), t () or (B,), cond) -> log p(y | x_t) (B,) of the label y that `cond` holds.

    An item whose label is absent has 0, whatever x_t is, so it has no gradient either. The network
    f is fed with c_in * x_t and log(sigma / alpha), exactly as a denoiser of this process.

    The logits are prior + alpha / sqrt(alpha^2 + sigma^2) f. Where noise hides everything the true
    p(y | x_t) is p(y), and its gradient falls as alpha / sigma^2, for guidance multiplies it by
    sigma^2 / alpha. A network alone does not learn gradients that small, and what it is off by
    would be multiplied by up to 10^4; here the error of the shift of x0-hat is that of f at any
    level.

    Args:
        process: How data is noised and which times are trained.
        backbone: A network (x (B,*S), level (B,)) -> logits (B,classes).
        classifies: Name of the label in `cond`.
        classes: Number of classes, the logits of the network.
    """

    def __init__(
        self, process: Process, backbone: nn.Module, classifies: str, classes: int
    ) -> None:
        super().__init__()
        self.process, self.backbone, self.classifies = process, backbone, classifies
        self.prior = nn.Parameter(torch.zeros(classes))
        self.conditions = nn.ModuleDict()  # it is told none: it names one

    def log_probs(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Log p(k | x_t) of every class k, (B,K)."""
        alpha, sigma = self.process.schedule(t)
        c_in = spread(self.process.target(alpha, sigma)[0], x_t)
        level = torch.log(sigma / alpha).to(x_t).expand(len(x_t))
        found = self.backbone(c_in * x_t, level)
        seen = spread(alpha / torch.sqrt(alpha**2 + sigma**2), found)
        return F.log_softmax((self.prior + seen * found).to(x_t.dtype), 1)

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        label = cond.get(self.classifies)
        if label is None:
            return x_t.new_zeros(len(x_t))
        label = label.to(x_t.device)
        rows = self.log_probs(x_t, t).gather(1, label.clamp(min=0)[:, None])[:, 0]
        return rows.masked_fill(absent(label), 0.0)

    def loss_at(self, batch: Batch, t: Tensor, z: Tensor) -> Tensor:
        """Cross entropy (B,) at given times t (B,) and noise z (B,*S); 0 without a label."""
        return -self(self.process.noised(batch.x, t, z), t, batch.cond)
