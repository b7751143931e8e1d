"""A plain variational autoencoder: the null that a diffusion model has to beat.

Source: Kingma and Welling, arXiv 1312.6114. Gaussian likelihood of a learned variance, so that no
weight of the divergence has to be chosen.
"""

from __future__ import annotations

import torch
from torch import nn

from steerable.jobs.pictures import bytes_of

__all__ = ["Vae", "vae_samples"]


def _down(inside, outside):
    return nn.Sequential(nn.Conv2d(inside, outside, 4, 2, 1), nn.GroupNorm(8, outside), nn.SiLU())


def _up(inside, outside):
    up = nn.Upsample(scale_factor=2)
    return nn.Sequential(
        up, nn.Conv2d(inside, outside, 3, 1, 1), nn.GroupNorm(8, outside), nn.SiLU()
    )


class Vae(nn.Module):
    """Pictures (B,C,H,W) in [-1, 1], sides a multiple of 4; latents (B,latent)."""

    def __init__(self, shape, latent=32, width=24):
        super().__init__()
        channels, height, width_ = shape
        self.small = (2 * width, height // 4, width_ // 4)
        flat = self.small[0] * self.small[1] * self.small[2]
        self.encoder = nn.Sequential(_down(channels, width), _down(width, 2 * width), nn.Flatten())
        self.moments = nn.Linear(flat, 2 * latent)
        self.first = nn.Linear(latent, flat)
        self.decoder = nn.Sequential(
            _up(2 * width, width), _up(width, width), nn.Conv2d(width, channels, 3, 1, 1)
        )
        self.log_std = nn.Parameter(torch.zeros(()))
        self.latent = latent

    def decode(self, h):
        return self.decoder(self.first(h).unflatten(1, self.small))

    def forward(self, x, z):
        """Negative evidence bound per item, up to a constant; z (B,latent) standard normal."""
        mean, log_var = self.moments(self.encoder(x)).chunk(2, 1)
        error = (x - self.decode(mean + (log_var / 2).exp() * z)).square().flatten(1)
        fit = (error / (2 * (2 * self.log_std).exp()) + self.log_std).sum(1)
        return fit + 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def vae_samples(data, n, images, seed=0):
    """n samples (n,C,H,W) uint8 of a VAE trained on so many images, without the noise of pixels."""
    torch.manual_seed(seed)
    net = Vae(data.spec.shape)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    steps = images // 128
    falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for i in range(steps):
        batch = data.batch(torch.randint(len(data), (128,))).x
        loss = net(batch, torch.randn(128, net.latent)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
        if i % 500 == 0:
            print(f"  vae {i}/{steps} bound {loss.item():.1f}", flush=True)
    with torch.no_grad():
        return bytes_of(net.eval().decode(torch.randn(n, net.latent)))
