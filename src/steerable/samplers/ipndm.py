"""iPNDM: Adams-Bashforth with the weights of equal steps, on whatever grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask
from steerable.nn.multistep import adams, extended

__all__ = ["Ipndm"]

# Adams-Bashforth weights of one to four answers, the newest first.
_ADAMS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class Ipndm(Sampler):
    """The last four z-hat with weights (55, -59, 37, -9) / 24, fewer in the first steps.

    x_s / alpha_s = x_t / alpha_t + (r_s - r_t) sum_j c_j z-hat_j with r = sigma / alpha.
    The weights are those of equal steps in r, where the order is 4; on the grid `log_snr` it is
    2, and yet the error in 6 to 20 calls is a third to a half of that of `lms`, whose weights fit
    every grid (mixtures). On `karras` the same holds from 10 calls on, not below.
    Source: Liu et al., arXiv 2202.09778, eq. 9; Zhang and Chen, arXiv 2204.13902, section H.
    """

    order: ClassVar[int | None] = 2
    stochastic: ClassVar[bool] = False

    def step(
        self,
        ask: Ask,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        schedule: Schedule,
        memory: Any,
        noise: Noise,
    ) -> tuple[Tensor, Any]:
        """One step; one call of the denoiser. Memory: the last four answers and their levels."""
        start, end = schedule.level(t), schedule.level(s)
        estimate = ask(x_t, t)
        history = extended(memory, start, estimate.noise, ahead=end, most=4)
        weights = [(end.exp() - start.exp()) * share for share in _ADAMS[len(history) - 1]]
        return adams(estimate, history, weights, schedule, s), history
