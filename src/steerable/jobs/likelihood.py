"""Likelihood of pictures: bits per dimension of dequantised bytes under a trained model."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Cond, Dataset, Spec

from .data import splits_for
from .density import Density, Integral, log_p
from .model import Model

__all__ = ["Progress", "bits", "dequantised", "integral_for", "likelihood"]

BATCH = 50  # items integrated together
CHEAP = 16  # most numbers an item may have for the exact trace to be the default
WIDTH = 2.0 / 255.0  # of the bin of one grey level, on the scale from -1 to 1
SEED = 2_000_000  # of the dequantisation and the probes


def integral_for(
    spec: Spec, trace: str = "auto", *, probes: int = 1, tolerance: float = 1e-5
) -> Integral:
    """How to integrate for items of some data; `auto` is exact where that is affordable.

    Raises:
        UserError: E-CONFIG or E-LIMIT for what cannot be taken.
    """
    exact = math.prod(spec.shape) <= CHEAP
    kind = trace if trace != "auto" else "exact" if exact else "hutchinson"
    return Integral(kind, probes=probes, tolerance=tolerance)


def dequantised(x: Tensor, noise: Noise) -> Tensor:
    """Bytes (B,*S) uint8 as floats, spread over their bins: (b + u - 1/2) / 127.5 - 1.

    The bins are centred on b / 127.5 - 1, which is what models are trained on. A density at bytes
    has no meaning, as points can be made as likely as one wants; but with u uniform in (0, 1),
    log P(b) >= E log p(x) + D log(2 / 255) by Jensen's inequality, and the right side is what is
    reported. Source: Theis et al., arXiv 1511.01844, section 3.1.
    """
    u = torch.special.ndtr(noise.normal(x.to(torch.float64)))
    return ((x.to(torch.float64) + u - 0.5) / 127.5 - 1.0).to(torch.float32)


def bits(log_p: Tensor, dims: int) -> Tensor:
    """Bits per dimension of bytes from the log density of their dequantised floats, (B,)."""
    return -(log_p + dims * math.log(WIDTH)) / (dims * math.log(2.0))


@dataclass(frozen=True)
class Progress:
    """Items done of all, and on the last one the result as plain data."""

    done: int
    of: int
    result: dict[str, Any] | None = None


def _items(model: Model, data: Dataset, n: int, conditional: bool) -> tuple[Dataset, list[str]]:
    """The first n held-out items in a fixed, mixed order, and the conditions to tell."""
    if not 2 <= n <= 100_000:
        raise UserError("E-LIMIT", where="n", got=str(n), takes="2 to 100,000")
    if data.spec.shape != model.spec.shape or len(data) < 2:
        got, takes = f"{len(data)} items {data.spec.shape}", f"2 items {model.spec.shape} or more"
        raise UserError("E-DATA", where=data.spec.name, got=got, takes=takes)
    names = [name for name in model.recipe.conditions if name in data.cond] if conditional else []
    for name in names:
        for kind in ("labels", "vectors", "tokens"):
            if getattr(data.spec, kind).get(name) != getattr(model.spec, kind).get(name):
                got = f"other {kind} of '{name}' than the model's"
                raise UserError("E-DATA", where=data.spec.name, got=got, do="--no-conditional")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(SEED))
    return data.take(order[:n]), names


def likelihood(
    model: Model,
    data: str | Dataset | None = None,
    *,
    n: int = 100,
    integral: Integral | None = None,
    conditional: bool = True,
) -> Iterator[Progress]:
    """Bits per dimension of held-out items, without guidance; the last item holds the result.

    Args:
        model: From `load`.
        data: The data: a data set, a folder or a name; the held-out part of the one that the model
            was trained on by default.
        n: Number of items, at most all of them.
        integral: How to integrate, from `integral_for`; one probe by default, and the exact trace
            for items of up to 16 numbers.
        conditional: Whether the model is told the conditions of the items.

    Raises:
        UserError: E-DATA for data that does not fit the model, E-LIMIT for a number out of range,
            E-EXTRA without torchdiffeq, E-NUM for broken weights.
    """
    started, dims = time.monotonic(), math.prod(model.spec.shape)
    how = integral or integral_for(model.spec)
    given = data if isinstance(data, Dataset) else splits_for(model, data).held_out
    items, names = _items(model, given, n, conditional)
    values, calls = [], 0
    for i in range(0, len(items), BATCH):
        index = torch.arange(i, min(i + BATCH, len(items)))
        cond = {name: items.cond[name][index] for name in names}
        density = _batch(model, items.x[index], cond, how, Noise(SEED + index))
        values.append(bits(density.log_p, dims).cpu())
        calls += density.calls * len(index)
        if len(index) + i < len(items):
            yield Progress(i + len(index), len(items))
    every = torch.cat(values)
    result = {
        "bpd": float(every.mean()),
        "bpd_error": float(every.std() / len(every) ** 0.5),
        "n": len(every),
        "dims": dims,
        "calls_per_item": round(calls / len(every), 1),
        "conditions": names,
        "trace": how.trace,
        "probes": how.probes if how.trace == "hutchinson" else None,
        "sigma_start": how.low,
        "seconds": round(time.monotonic() - started, 1),
    }
    yield Progress(len(every), len(every), result)


def _batch(model: Model, x: Tensor, cond: Cond, how: Integral, noise: Noise) -> Density:
    """The densities of one batch of bytes (B,*S)."""
    net = model.denoiser
    device = next(net.parameters()).device
    told = {name: value.to(device) for name, value in cond.items()}
    return log_p(
        partial(net, cond=told),
        dequantised(x, noise).to(device),
        schedule=net.process.schedule,
        data_std=net.process.target.data_std,
        integral=how,
        noise=noise,
    )
