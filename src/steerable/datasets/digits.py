"""1,797 handwritten digits of 8 x 8 pixels: the smallest real data, for tests and first steps."""

from __future__ import annotations

from importlib import resources
from io import BytesIO

import numpy as np
import torch

from steerable.core.types import Dataset, Spec, Splits

__all__ = ["digits"]


def digits() -> Splits:
    """Grey 8 x 8 digits of 13 writers; every fifth one is held out, so writers are on both sides.

    Source: the test part of "Optical Recognition of Handwritten Digits", UCI.
    """
    stored = resources.files("steerable").joinpath("data", "digits.npz").read_bytes()
    with np.load(BytesIO(stored), allow_pickle=False) as arrays:
        x = torch.from_numpy(arrays["images"])[:, None]
        label = torch.from_numpy(arrays["labels"].astype(np.int64))
    out = torch.arange(len(x)) % 5 == 0
    std = float((x[~out].to(torch.float64) / 127.5).std(correction=0))
    spec = Spec("digits", (1, 8, 8), {"label": tuple("0123456789")}, std=std, flip=False)
    train = Dataset(spec, x[~out], {"label": label[~out]})
    held_out = Dataset(spec, x[out], {"label": label[out]})
    report = {"source": "embedded", "split": "held out: every fifth item"}
    return Splits(train, held_out, report)
