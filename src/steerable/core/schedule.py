"""How much signal and how much noise is in x_t = alpha x0 + sigma z.

A schedule is one function with two outputs, t in [0, 1], t = 0 is data, alpha / sigma strictly
falling, sigma(0) > 0. Derivatives are never needed. Computed in the dtype of t.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .errors import UserError

__all__ = ["VP", "Edm", "Flow", "Schedule", "Tabulated", "VeGeometric", "VePower", "log_ratios"]


@dataclass(frozen=True)
class Schedule(ABC):
    """t (*) -> (alpha (*), sigma (*))."""

    @abstractmethod
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal scale and noise scale at time t."""

    def level(self, t: Tensor) -> Tensor:
        """log(sigma / alpha) at time t."""
        alpha, sigma = self(t)
        return torch.log(sigma) - torch.log(alpha)

    def time_at(self, level: Tensor) -> Tensor:
        """The time at which log(sigma / alpha) equals `level`, clamped to [0, 1]. float64."""
        level = level.to(torch.float64)
        low, high = torch.zeros_like(level), torch.ones_like(level)
        for _ in range(44):  # bisection, as the ratio only rises, down to 2^-45 in t
            middle = (low + high) / 2
            below = self.level(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        time = (low + high) / 2
        ends = self.level(torch.tensor([0.0, 1.0], dtype=torch.float64))
        return time.where(level > ends[0], 0.0).where(level < ends[1], 1.0)


@dataclass(frozen=True)
class Flow(Schedule):
    """Straight line alpha = 1 - t, sigma = t, `eps` off both ends. Source: arXiv 2210.02747."""

    eps: float = 1e-4

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        scale = 1.0 - 2.0 * self.eps
        return self.eps + scale * (1.0 - t), self.eps + scale * t


@dataclass(frozen=True)
class VP(Schedule):
    """Variance preserving, beta linear in time. Source: Song et al., arXiv 2011.13456, eq. 33."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    eps: float = 1e-5

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = self.eps + (1.0 - self.eps) * t
        log_abar = -t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))
        return torch.exp(0.5 * log_abar), torch.sqrt(-torch.expm1(log_abar))


@dataclass(frozen=True)
class VeGeometric(Schedule):
    """Variance exploding, sigma geometric. Source: Song et al., arXiv 2011.13456, eq. 30."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.sigma_min * torch.exp(t * math.log(self.sigma_max / self.sigma_min))
        return torch.ones_like(sigma), sigma


@dataclass(frozen=True)
class VePower(Schedule):
    """The SDE dx = s^t dw: sigma^2 = (s^(2t) - 1) / (2 ln s). Source: Song's tutorial, s = 25."""

    base: float = 25.0
    eps: float = 1e-5

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_base = math.log(self.base)
        t = self.eps + (1.0 - self.eps) * t
        sigma = torch.sqrt(torch.expm1(2.0 * log_base * t) / (2.0 * log_base))
        return torch.ones_like(sigma), sigma


@dataclass(frozen=True)
class Edm(Schedule):
    """Sigma^(1/rho) is linear in t: a uniform grid is EDM's. Source: arXiv 2206.00364, eq. 5."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        sigma = (low + t * (high - low)) ** self.rho
        return torch.ones_like(sigma), sigma


def _abar(kind: str, u: Tensor) -> Tensor:
    """Signal power at the share u (*) of the way, in float64."""
    if kind == "cosine":  # Source: Nichol and Dhariwal, arXiv 2102.09672, eq. 17, s = 0.008
        angle = (u + 0.008) / 1.008 * math.pi / 2
        return (torch.cos(angle) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    if kind == "sigmoid":  # Source: Jabri et al., arXiv 2212.11972, from -3 to 3; lucidrains' curve
        low, high = torch.tensor([-3.0, 3.0], dtype=torch.float64).sigmoid()
        return (high - torch.sigmoid(u * 6.0 - 3.0)) / (high - low)
    if kind != "linear":
        takes = "linear, cosine or sigmoid"
        raise UserError("E-CONFIG", where="schedule", got=repr(kind), takes=takes)
    # Source: Ho et al., arXiv 2006.11239: 1000 betas from 1e-4 to 0.02. Another number of levels
    # reads the same curve, since betas scaled by 1000 / T pass 1 when T is small.
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    log_abar = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])
    place = (u * 1000).clamp(0, 1000)
    index = place.floor().clamp(max=999).to(torch.int64)
    share = place - index
    # At the knots the share is 0 or 1 up to rounding: snap, so that T = 1000 is the table itself.
    share = torch.where((share - share.round()).abs() < 1e-9, share.round(), share)
    return torch.exp(torch.lerp(log_abar[index], log_abar[index + 1], share))


@lru_cache(maxsize=64)
def log_ratios(kind: str, levels: int) -> Tensor:
    """log(sigma / alpha) at t = 0, 1/T, ..., 1, (T+1,) float64, strictly rising.

    Level i of a DDPM stands at t = (i + 1) / T. The last beta is at most 0.999, as published, and
    t = 0 lies a factor ten below the first level.
    """
    abar = _abar(kind, torch.arange(1, levels + 1, dtype=torch.float64) / levels)
    abar[-1] = torch.maximum(abar[-1], abar[-2] * 1e-3)
    ratios = 0.5 * (torch.log1p(-abar) - torch.log(abar))
    return torch.cat([ratios[:1] - math.log(10.0), ratios])


@dataclass(frozen=True)
class Tabulated(Schedule):
    """The discrete schedules of DDPM at any number of levels; log(sigma / alpha) linear between.

    Args:
        kind: `linear`, `cosine` or `sigmoid`.
        levels: T, from 2 to 4000.
    """

    kind: str = "linear"
    levels: int = 1000

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 4000:
            raise UserError("E-LIMIT", where="levels", got=str(self.levels), takes="2 to 4000")
        log_ratios(self.kind, self.levels)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        table = log_ratios(self.kind, self.levels).to(t.device)
        place = t.to(torch.float64).clamp(0.0, 1.0) * self.levels
        index = place.floor().clamp(max=self.levels - 1).to(torch.int64)
        ratio = torch.exp(torch.lerp(table[index], table[index + 1], place - index))
        alpha = torch.rsqrt(1.0 + ratio**2)
        return alpha.to(t.dtype), (alpha * ratio).to(t.dtype)
