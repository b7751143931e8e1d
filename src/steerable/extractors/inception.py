"""The network behind every published FID, through the reference tool, with its own resizing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.nn.extraction import check_pictures, digest, one_by_one

__all__ = ["Inception"]

FILE = "weights-inception-2015-12-05-6726825d.pth"
# The tool reads this file in a way that could run code, so no other file is ever handed to it.
FILE_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NET, LAYER, WIDTH = "inception-v3-compat", "2048", 2048


@final
class Inception:
    """Inception-v3 of 2015 as torch-fidelity runs it: what FID is defined on.

    Needs `pip install "steerable[eval-ref]"`, which brings torchvision, and the tool's file of
    weights, which is not downloaded. The tool brings pictures to 299 x 299 in the way of
    TensorFlow 1, without a filter.

    Source: Heusel et al., arXiv 1706.08500; torch-fidelity, `inception-v3-compat`.

    Args:
        path: The file weights-inception-2015-12-05-6726825d.pth; by default where torch keeps
            downloads, $TORCH_HOME/hub/checkpoints.
    """

    def __init__(self, *, path: str = "") -> None:
        self.name = "Inception-v3 (torch-fidelity)"
        self.net, version = _network(path)
        tool = {"extractor": "inception", "net": NET, "layer": LAYER, "torch-fidelity": version}
        self.sha256 = digest(self.net.state_dict(), tool)

    def features(self, x: Tensor) -> Tensor:
        """Features (N,2048) float64 of pictures (N,C,H,W) uint8, C = 1 or 3.

        Raises:
            UserError: E-SHAPE for anything else.
        """
        check_pictures(x, self.name)
        return one_by_one(x.expand(-1, 3, -1, -1), self._row, WIDTH)

    def _row(self, x: Tensor) -> Tensor:
        return self.net(x)[0]


def _network(path: str) -> tuple[Any, str]:
    """The network and the version of the tool that runs it."""
    try:
        import torch_fidelity
        from torch_fidelity.utils import create_feature_extractor
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch ends the import
        got, do = f"torch-fidelity: {error}", 'pip install "steerable[eval-ref]"'
        raise UserError("E-EXTRA", where="inception", got=got, do=do) from error
    file = _checked(Path(path) if path else _downloads() / FILE)
    with torch.random.fork_rng(devices=[]):  # it draws weights before it reads them
        net = create_feature_extractor(
            NET, [LAYER], cuda=False, feature_extractor_weights_path=str(file), verbose=False
        )
    return net.eval().requires_grad_(False), str(torch_fidelity.__version__)


def _downloads() -> Path:
    """The folder where torch keeps downloaded weights."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def _checked(file: Path) -> Path:
    if not file.is_file():
        do = f"fetch {FILE} of torch-fidelity's release v0.2.0 and give its place as `path`"
        raise UserError("E-CONFIG", where="inception, path", got=f"no file {file.name}", do=do)
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != FILE_SHA256:
        got, takes = f"SHA-256 {found}", FILE_SHA256
        raise UserError("E-CKPT-HASH", where=file.name, got=got, takes=takes)
    return file
