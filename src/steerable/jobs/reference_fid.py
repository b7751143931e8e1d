"""The FID of publications, by the reference tool; nothing else in this package is called FID."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.metrics.frechet import Frechet
from steerable.nn.extraction import check_pictures
from steerable.nn.jackknife import group_of, jackknife
from steerable.recipes.part import find

from .features import features_of

__all__ = ["reference_fid"]

MINIMUM = 64  # items a side; publications take 10,000 to 50,000
GROUPS = 8  # of samples that are left out in turn, each at the price of one more distance


def reference_fid(
    samples: Tensor | Path, real: Tensor | Path, *, weights: str = "", cache: Path | None = None
) -> dict[str, Any]:
    """Frechet inception distance between samples and real pictures, as torch-fidelity gives it.

    Network, resizing and formula are the tool's. The error is that of the samples alone, with the
    real pictures fixed, by a jackknife over eight groups. Fewer samples give higher values: compare
    those of the same n only.

    Args:
        samples: Pictures (N,C,H,W) uint8, or a folder of PNG, JPEG or WebP files of one size, all
            levels deep. Grey is taken as colour; transparency is laid over white.
        real: The same.
        weights: File of the network's weights; by default where torch keeps downloads.
        cache: Folder of kept features, or None.

    Returns:
        `fid`, `fid_error`, `n`, `n_real` and `protocol`, a text to print beside the number.

    Raises:
        UserError: E-EXTRA without torch-fidelity; E-CONFIG without weights or for a folder that is
            none; E-CKPT-HASH for other weights; E-DATA for files that are no pictures; E-SHAPE for
            pictures of unlike sizes; E-EVAL for less than 64 items on a side.
    """
    extractor = find("extractor", "inception")(path=weights)
    rows = []
    for source, where in ((samples, "samples"), (real, "real pictures")):
        x = _pictures(source, where) if isinstance(source, Path) else source
        check_pictures(x, where)
        if len(x) < MINIMUM:
            takes = f"{MINIMUM} or more"
            raise UserError("E-EVAL", where=where, got=f"n = {len(x)}", takes=takes)
        rows.append(features_of(extractor, x, cache=cache))
    value, version = _published(*rows)
    return {
        "fid": value,
        "fid_error": _error(*rows),
        "n": len(rows[0]),
        "n_real": len(rows[1]),
        "protocol": f"FID by torch-fidelity {version}: {extractor.name}, 2048 features, resized to "
        "299 x 299 without a filter as in TensorFlow 1; publications take 10,000 to 50,000 items",
    }


def _published(samples: Tensor, real: Tensor) -> tuple[float, str]:
    """The tool's own formula on its own float32 features, and its version."""
    import torch_fidelity
    from torch_fidelity import metric_fid

    statistics = [metric_fid.fid_features_to_statistics(rows.float()) for rows in (samples, real)]
    found = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    return float(found[torch_fidelity.KEY_METRIC_FID]), str(torch_fidelity.__version__)


def _error(samples: Tensor, real: Tensor) -> float:
    """Standard error of the distance over the choice of the samples."""
    group = group_of(torch.arange(len(samples))) % GROUPS
    parts = [_summed(samples[group == g]) for g in range(GROUPS)]
    mean, covariance = _summed(real).moments()
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0.0).sqrt()

    def value(kept: Tensor) -> Tensor:
        total = Frechet()
        for g in kept.nonzero()[:, 0].tolist():
            total.merge(parts[g])
        return _distance(total, mean, root)[None]

    return float(jackknife(value, torch.bincount(group, minlength=GROUPS))[0])


def _summed(rows: Tensor) -> Frechet:
    total = Frechet()
    total.update(rows)
    return total


def _distance(samples: Frechet, mean: Tensor, root: Tensor) -> Tensor:
    """The distance to a Gaussian of covariance root root^T, whose root is found only once.

    Rounding costs a few digits that an error can spare, and saves nine tenths of the time.
    """
    own_mean, own = samples.moments()
    mixed = torch.linalg.eigvalsh(root.T @ own @ root).clamp(min=0.0).sqrt().sum()
    return (own_mean - mean).square().sum() + own.trace() + root.square().sum() - 2.0 * mixed


def _pictures(folder: Path, where: str) -> Tensor:
    """All pictures (N,3,H,W) of a folder, in the order of their names."""
    from steerable.intake.pictures import SUFFIXES, PictureError, read, with_channels

    if not folder.is_dir():
        got, takes = f"no folder {folder.name}", "a folder of pictures"
        raise UserError("E-CONFIG", where=where, got=got, takes=takes)
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        try:
            pixels = with_channels(read(path)[0], 3, (255, 255, 255))
        except PictureError as error:
            raise UserError("E-DATA", where=f"{where}, {path.name}", got=error.reason) from error
        if found and pixels.shape != found[0].shape:
            got, takes = (f"{a.shape[0]} x {a.shape[1]}" for a in (pixels, found[0]))
            takes = f"{takes}, as the first one"
            raise UserError("E-SHAPE", where=f"{where}, {path.name}", got=got, takes=takes)
        found.append(pixels)
    if not found:
        raise UserError("E-EVAL", where=where, got="n = 0", takes=f"{MINIMUM} or more")
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()
