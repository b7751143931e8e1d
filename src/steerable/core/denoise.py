"""The denoiser: a backbone behind the preconditioner, so that it speaks x0-hat and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .condition import Condition, counted
from .errors import UserError
from .process import Process
from .types import Cond, Estimate, Slots, spread

__all__ = ["Autoencoder", "Backbone", "Denoiser"]


class Backbone(nn.Module, ABC):
    """A network (x (B,*S), slots) -> (B,*S) that knows neither schedule nor target."""

    accepts: ClassVar[frozenset[str]]  # the slots that it reads
    width: int  # D of the slots `vector` and `tokens`

    @staticmethod
    @abstractmethod
    def sized(shape: tuple[int, ...], base: int) -> dict[str, Any]:
        """The options that suit items of this shape at a base width."""

    @abstractmethod
    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """The raw answer F of the network."""


class Autoencoder(nn.Module, ABC):
    """encode (B,*S) -> (B,*Z) with unit-std latents, and decode back. Never inside a sampler."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Latents of items."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Items of latents."""


class Denoiser(nn.Module):
    """(x_t (B,*S), t () or (B,), cond) -> Estimate, always answered in the dtype of x_t.

    Raises:
        UserError: E-CONFIG when `cond` holds a name that the model was not built with, or when the
            backbone does not read the slot of a condition.
    """

    def __init__(
        self, process: Process, backbone: Backbone, conditions: Mapping[str, Condition]
    ) -> None:
        super().__init__()
        self.process, self.backbone = process, backbone
        self.conditions = nn.ModuleDict(dict(conditions))
        for name, condition in conditions.items():
            if condition.slot not in backbone.accepts:
                got = f"writes the slot '{condition.slot}', which the backbone does not read"
                takes = ", ".join(sorted(backbone.accepts))
                raise UserError("E-CONFIG", where=f"condition '{name}'", got=got, takes=takes)

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Estimate:
        alpha, sigma = self.process.schedule(t)
        c_in, c_skip, c_out = (spread(c, x_t) for c in self.process.target(alpha, sigma))
        level = torch.log(sigma / alpha).to(x_t).expand(len(x_t))
        answer = self.backbone(c_in * x_t, self._slots(x_t, level, cond)).to(x_t.dtype)
        return Estimate(c_skip * x_t + c_out * answer, x_t, alpha, sigma)

    def _slots(self, x_t: Tensor, level: Tensor, cond: Cond) -> Slots:
        unknown = sorted(set(cond) - set(self.conditions))
        if unknown:
            takes = ", ".join(self.conditions) or "no condition"
            raise UserError("E-CONFIG", where="conditions", got=f"'{unknown[0]}'", takes=takes)
        written: dict[str, list[Tensor]] = {"vector": [], "tokens": [], "planes": []}
        masks: list[Tensor] = []
        for name, condition in self.conditions.items():
            assert isinstance(condition, Condition)
            value, null = cond.get(name), condition.null.expand(len(x_t), *condition.null.shape)
            encoded = null if value is None else condition(value.to(level.device))
            if condition.slot == "planes":  # a null is one number a plane
                encoded = encoded.expand(*encoded.shape[:2], *x_t.shape[2:])
            written[condition.slot].append(encoded)
            if condition.slot == "tokens":
                ones = torch.ones(null.shape[:2], dtype=torch.bool, device=level.device)
                masks.append(ones if value is None else counted(value.to(level.device)))
        return Slots(
            level,
            vector=torch.stack(written["vector"]).sum(0) if written["vector"] else None,
            tokens=torch.cat(written["tokens"], 1) if written["tokens"] else None,
            mask=torch.cat(masks, 1) if masks else None,
            planes=torch.cat(written["planes"], 1) if written["planes"] else None,
        )
