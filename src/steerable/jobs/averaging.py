"""Averages of the weights over training, and other averages made of their snapshots afterwards.

A power-function average weighs update j of k in proportion to j^gamma, so that its width is a fixed
share of the run, however long that gets. Two tracks are kept; since every average is a weighted sum
of the same weights, an average of any other width is nearly a combination of stored snapshots.
Source: Karras et al., arXiv 2312.02696, sections 3.1 and 3.2 and algorithm 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from steerable.core.errors import UserError
from steerable.recipes import store
from steerable.recipes.training import Training

from . import durable

__all__ = [
    "NARROW",
    "WIDE",
    "averages",
    "coefficients",
    "due",
    "forget_after",
    "gamma_of",
    "keep",
    "profile",
    "recombined",
    "write_averaged",
]

NARROW, WIDE = 0.05, 0.10  # widths of the tracks
WIDTHS = (0.03, 0.25)  # what two tracks with 8 to 16 snapshots each can tell apart
FOLDER = "snapshots"

_FILE = re.compile(r"(\d{8,18})-0\.(05|10)\.safetensors")
_CHUNK = 65_536  # updates whose weights are held at once
_FAR = 6e4  # beyond it half precision cannot hold a weight


def gamma_of(width: float) -> float:
    """Exponent of the power-function average whose std is `width` of the run.

    width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).
    """
    inverse = width**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def _warming(limit: float) -> Callable[[int], float]:
    """The decay (1 + k) / (10 + k) up to a limit: short runs are not averaged away."""
    return lambda k: min(limit, (1.0 + k) / (10.0 + k))


def _power(width: float) -> Callable[[int], float]:
    """(1 - 1 / k)^(gamma + 1) of the update k, counted from 1; `k` updates came before it."""
    exponent = gamma_of(width) + 1.0
    return lambda k: (1.0 - 1.0 / (k + 1)) ** exponent


def _averaged(net: nn.Module, decay: Callable[[int], float]) -> AveragedModel:
    @torch.no_grad()
    def update(ema: list[Tensor], current: list[Tensor], k: Tensor | int) -> None:
        torch._foreach_lerp_(ema, current, 1.0 - decay(int(k)))

    step: Any = update  # torch's own annotation of its argument cannot be met
    return AveragedModel(net, multi_avg_fn=step, use_buffers=False)


def averages(net: nn.Module, training: Training) -> tuple[AveragedModel, AveragedModel | None]:
    """The average that goes into the model file, and with `power` the narrow track beside it."""
    if training.ema_kind == "warmup":
        return _averaged(net, _warming(training.ema)), None
    return _averaged(net, _power(WIDE)), _averaged(net, _power(NARROW))


def _gap(iteration: int) -> int:
    """Distance of the snapshots: 8 to 16 of them lie between the start and the iteration."""
    return 2 ** max(0, iteration.bit_length() - 4)


def due(iteration: int, *, last: bool) -> bool:
    """Whether an iteration, counted from 1, has a snapshot: a function of it and the end alone.

    As the run goes on the distance doubles and every second one is dropped, so that no length has
    to be known beforehand.
    """
    return last or iteration % _gap(iteration) == 0


def _files(run: Path) -> list[tuple[int, Path]]:
    found = [
        (int(match[1]), path)
        for path in (run / FOLDER).glob("*.safetensors")
        if (match := _FILE.fullmatch(path.name))
    ]
    return sorted(found)


def keep(run: Path, iteration: int, updates: int, tracks: Mapping[float, nn.Module]) -> None:
    """Store the trained weights of the tracks in half precision, and drop what is too close.

    Raises:
        UserError: E-DISK.
    """
    durable.folder(run / FOLDER)
    for width, net in tracks.items():
        trained = {n: p.detach() for n, p in net.named_parameters() if p.requires_grad}
        tensors = {n: p if bool((p.abs() > _FAR).any()) else p.half() for n, p in trained.items()}
        about = {"width": width, "updates": updates, "iteration": iteration}
        path = run / FOLDER / f"{iteration:08d}-{width:.2f}.safetensors"
        durable.write(path, store.pack(tensors, about))
    for there, path in _files(run):
        if there < iteration and there % _gap(iteration):
            durable.remove(path)


def forget_after(run: Path, iteration: int) -> None:
    """Delete the snapshots of iterations that will be trained again."""
    for there, path in _files(run):
        if there > iteration:
            durable.remove(path)


def profile(first: int, last: int, updates: int, gamma: float) -> Tensor:
    """Weights of the updates first, ..., last (from 1) in an average over `updates`, float64.

    The decays multiply up to (j / k)^(gamma + 1), so the weight of update j is the rise from j - 1
    to j. Exact, where the paper takes the limit of many updates.
    """
    edges = torch.arange(first - 1, last + 1, dtype=torch.float64) / updates
    return edges.clamp_(max=1.0).pow_(gamma + 1.0).diff()


def coefficients(tracks: Sequence[tuple[int, float]], updates: int, gamma: float) -> Tensor:
    """Factors (n,) of stored averages whose sum comes closest to the average asked for.

    Least squares between the weights that both give to every update, under the condition that the
    factors sum to 1, without which a wide average would shrink all that did not change.

    Args:
        tracks: Updates and exponent of each stored average.
        updates: Updates of the average asked for.
        gamma: Its exponent.
    """
    count = len(tracks)
    gram = torch.zeros(count, count, dtype=torch.float64)
    right = torch.zeros(count, dtype=torch.float64)
    for first in range(1, updates + 1, _CHUNK):
        last = min(first + _CHUNK - 1, updates)
        rows = torch.stack([profile(first, last, k, g) for k, g in tracks])
        gram += rows @ rows.mT
        right += rows @ profile(first, last, updates, gamma)
    scale = gram.diagonal().rsqrt()
    unit = scale / scale.norm()
    system = torch.zeros(count + 1, count + 1, dtype=torch.float64)
    system[:count, :count] = scale[:, None] * gram * scale
    system[count, :count] = system[:count, count] = unit
    wanted = torch.cat([scale * right, 1.0 / scale.norm()[None]])[:, None]
    found = torch.linalg.lstsq(system, wanted, rcond=1e-13, driver="gelsd").solution
    return scale * found[:count, 0]


def _until(files: Sequence[tuple[int, Path]], at: float) -> Sequence[tuple[int, Path]]:
    """The files up to the moment of the run with snapshots that is nearest to a share of it."""
    moments = [iteration for iteration, _ in files]
    last = min(moments, key=lambda iteration: abs(iteration - at * moments[-1]))
    return [(iteration, path) for iteration, path in files if iteration <= last]


def _stored(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """A snapshot; None, with a count, if it is damaged: the others do without it."""
    try:
        tensors, about = store.open_model(path)
    except UserError:
        about = {}
    kinds = {"updates": int, "iteration": int, "width": float}
    if all(type(about.get(key)) is kind for key, kind in kinds.items()):
        return tensors, about
    durable.tally["damaged snapshots passed over"] += 1
    return None


def recombined(
    run: Path, width: float, *, at: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The trained weights averaged with another width, and what is known of them.

    Args:
        run: A run folder that was trained with `training.ema_kind=power`.
        width: Std of the average as a share of the run until then.
        at: The moment, as a share of the run; the nearest one with snapshots is taken.

    Raises:
        UserError: E-LIMIT for a width that the snapshots cannot tell, or a moment that is none,
            E-CONFIG if there are none, E-CKPT-HASH if all of them are damaged.
    """
    low, high = WIDTHS
    if not low <= width <= high:
        raise UserError("E-LIMIT", where="width", got=f"{width:g}", takes=f"{low} to {high}")
    if not 0 < at <= 1:
        raise UserError("E-LIMIT", where="at", got=f"{at:g}", takes="above 0, up to 1")
    if not run.is_dir():
        got = "is no folder" if run.exists() else "does not exist"
        raise UserError("E-CONFIG", where=str(run), got=got, takes="a run folder")
    files = _files(run)
    if not files:
        got, do = "no snapshots", "train a run with --set training.ema_kind=power"
        raise UserError("E-CONFIG", where=run.name, got=got, takes="a run that keeps them", do=do)
    files = _until(files, at)
    stored = [found for _, path in files if (found := _stored(path)) is not None]
    if not stored:
        got = f"{len(files)} snapshots, all damaged"
        raise UserError("E-CKPT-HASH", where=run.name, got=got, do="take another moment with --at")
    shapes = [{name: value.shape for name, value in tensors.items()} for tensors, _ in stored]
    if any(shape != shapes[-1] for shape in shapes):
        got, takes = "snapshots of different networks", "those of one run"
        raise UserError("E-CKPT-ARCH", where=run.name, got=got, takes=takes)
    tracks = [(about["updates"], gamma_of(about["width"])) for _, about in stored]
    updates = max(k for k, _ in tracks)
    factors = coefficients(tracks, updates, gamma_of(width))
    sums: dict[str, Tensor] = {}
    for factor, (tensors, _) in zip(factors, stored, strict=True):
        for name, value in tensors.items():
            part = float(factor) * value.to(torch.float64)
            sums[name] = sums[name] + part if name in sums else part
    iterations = max(about["iteration"] for _, about in stored)
    facts = {"ema_width": width, "updates": updates, "iterations": iterations}
    return {name: value.to(torch.float32) for name, value in sums.items()}, facts


def write_averaged(run: Path, width: float, out: Path, *, at: float = 1.0) -> Path:
    """Write the model file of a run with its weights averaged with another width, or earlier.

    Args:
        run: A run folder that was trained with `training.ema_kind=power`.
        width: Std of the average as a share of the run, 0.03 to 0.25; the run's own file has 0.1.
        out: The file to write.
        at: The moment whose average it is, as a share of the run; a model of an early moment is a
            weaker one, as `autoguidance` needs.

    Raises:
        UserError: What `recombined` raises, E-CKPT-ARCH if the snapshots are of another model,
            E-DISK.
    """
    weights, facts = recombined(run, width, at=at)
    tensors, about = store.open_model(run / "model.safetensors")
    odd = [n for n, v in weights.items() if n not in tensors or tensors[n].shape != v.shape]
    if odd:
        got, takes = f"snapshots with {odd[0]}", "snapshots of the model in the folder"
        raise UserError("E-CKPT-ARCH", where=run.name, got=got, takes=takes)
    told = {**about.get("training", {}), **facts, "validation_loss": None}
    durable.folder(out.parent)
    durable.write(out, store.pack({**tensors, **weights}, {**about, "training": told}))
    return out
