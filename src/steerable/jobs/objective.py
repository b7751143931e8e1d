"""The loss of a training batch: the process's own, with what self-conditioning adds."""

from __future__ import annotations

from torch import Tensor

from steerable.core.denoise import Denoiser
from steerable.core.noise import Noise
from steerable.core.types import Batch
from steerable.nn.uncertainty import Uncertainty

from .self_conditioning import estimated

__all__ = ["losses", "objective"]


def losses(net: Denoiser, batch: Batch, noise: Noise) -> Tensor:
    """The loss (B,) of every item; without self-conditioning it is `Process.loss`, bit by bit."""
    return _at(net, batch, net.process.draw(len(batch.x), noise), noise)


def _at(net: Denoiser, batch: Batch, t: Tensor, noise: Noise) -> Tensor:
    z = noise.normal(batch.x)
    return net.process.loss_at(net, estimated(net, batch, t, z, noise), t, z)


def objective(
    net: Denoiser, uncertainty: Uncertainty | None, batch: Batch, noise: Noise
) -> tuple[Tensor, Tensor]:
    """What is minimised, and the mean loss to report, which learned weights leave as it is."""
    t = net.process.draw(len(batch.x), noise)
    loss = _at(net, batch, t, noise)
    mean = loss.mean()
    if uncertainty is None:
        return mean, mean.detach()
    level = net.process.schedule.level(t)
    return uncertainty.weighed(loss, level).mean(), mean.detach()
