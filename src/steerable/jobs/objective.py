"""The loss of a training batch: the process's own, with what self-conditioning adds.

A classifier of noised items has a loss of its own at the same times and the same noise.
"""

from __future__ import annotations

from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.types import Batch
from steerable.nn.noisy_classifier import NoisyClassifier
from steerable.nn.uncertainty import Uncertainty
from steerable.recipes.assembly import Network

from .self_conditioning import estimated

__all__ = ["loss_at", "losses", "objective"]


def loss_at(net: Network, batch: Batch, t: Tensor, z: Tensor) -> Tensor:
    """The loss (B,) of every item at given times t (B,) and noise z (B,*S)."""
    if isinstance(net, NoisyClassifier):
        return net.loss_at(batch, t, z)
    return net.process.loss_at(net, batch, t, z)


def losses(net: Network, batch: Batch, noise: Noise) -> Tensor:
    """The loss (B,) of every item; without self-conditioning it is `Process.loss`, bit by bit."""
    return _at(net, batch, net.process.draw(len(batch.x), noise), noise)


def _at(net: Network, batch: Batch, t: Tensor, noise: Noise) -> Tensor:
    z = noise.normal(batch.x)
    return loss_at(net, estimated(net, batch, t, z, noise), t, z)


def objective(
    net: Network, uncertainty: Uncertainty | None, batch: Batch, noise: Noise
) -> tuple[Tensor, Tensor]:
    """What is minimised, and the mean loss to report, which learned weights leave as it is."""
    t = net.process.draw(len(batch.x), noise)
    loss = _at(net, batch, t, noise)
    mean = loss.mean()
    if uncertainty is None:
        return mean, mean.detach()
    level = net.process.schedule.level(t)
    return uncertainty.weighed(loss, level).mean(), mean.detach()
