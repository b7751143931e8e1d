"""What extractors of features share: the look of their input, and a hash of all that decides.

A feature must not know its neighbours: networks see one picture at a time, which on a CPU is as
fast as any batch, and float32 sums then round the same way however a set is cut into batches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from steerable.core.errors import UserError

__all__ = ["IMAGENET", "Extractor", "Preparation", "check_pictures", "digest", "one_by_one"]

# Mean and standard deviation of the colours of ImageNet, white = 1.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Extractor(Protocol):
    """Pictures (N,C,H,W) uint8 to features (N,F) float64, the same ones for the same picture."""

    @property
    def name(self) -> str:
        """Its name for people."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the weights and of every setting that changes a feature."""
        ...

    def features(self, x: Tensor) -> Tensor:
        """Features (N,F) float64 of pictures (N,C,H,W) uint8."""
        ...


def check_pictures(x: Tensor, where: str) -> None:
    """Check that x is pictures (N,1,H,W) or (N,3,H,W) uint8 of at least one pixel.

    Raises:
        UserError: E-SHAPE.
    """
    fits = x.ndim == 4 and x.shape[1] in (1, 3) and min(x.shape[2:]) >= 1
    if not fits or x.dtype != torch.uint8:
        got, takes = f"{tuple(x.shape)} of {x.dtype}", "(N,C,H,W) of torch.uint8, C = 1 or 3"
        raise UserError("E-SHAPE", where=where, got=got, takes=takes)


@dataclass(frozen=True)
class Preparation:
    """Pictures as a colour network wants them: one size, three channels, centred and scaled.

    A picture is fitted as a whole, so its sides may change their ratio; nothing is cut off.

    Attributes:
        size: Rows and columns.
        mean: What is taken off each channel, white = 1.
        std: What each channel is then divided by.
        antialias: Whether shrinking filters first, as Pillow does.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    antialias: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        """Pictures (N,1,H,W) or (N,3,H,W) uint8 as (N,3,size,size) float32."""
        size = (self.size, self.size)
        y = x.to(torch.float32)
        if y.shape[2:] != size:
            y = F.interpolate(y, size=size, mode="bicubic", antialias=self.antialias)
        y = y.clamp(0.0, 255.0).div(255.0).expand(-1, 3, -1, -1)  # bicubic weights overshoot
        return (y - y.new_tensor(self.mean)[:, None, None]) / y.new_tensor(self.std)[:, None, None]


def one_by_one(x: Tensor, work: Callable[[Tensor], Tensor], width: int) -> Tensor:
    """Features (N,width) float64: `work` maps each picture (1,C,H,W) to a row (1,width)."""
    features = torch.empty(len(x), width, dtype=torch.float64)
    for i in range(len(x)):
        with torch.inference_mode():
            row = work(x[i : i + 1]).to("cpu", torch.float64)
        features[i] = row[0]
    return features


def digest(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """SHA-256 of tensors with their names, and of settings as plain data."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode())
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        total.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
