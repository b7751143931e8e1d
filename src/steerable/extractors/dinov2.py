"""DINOv2: a vision transformer that learned from pictures without labels."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, final

from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.types import Range
from steerable.nn.extraction import IMAGENET, Preparation, check_pictures, digest, one_by_one
from steerable.nn.vision import vision_model

__all__ = ["Dinov2"]

# What shapes a feature and cannot be seen from the shapes of the weights.
BESIDE = ("num_attention_heads", "layer_norm_eps", "hidden_act", "patch_size")


@final
class Dinov2:
    """The class token of DINOv2 after its last norm, from a folder of weights on this disk.

    Needs `pip install "steerable[vision-transformers]"` and the weights. Distances of these
    features agree with people better than those of classifiers; published figures take ViT-L/14.

    Source: Oquab et al., arXiv 2304.07193; for evaluation: Stein et al., arXiv 2306.04675.

    Args:
        path: Folder with config.json and model.safetensors, as published on model hubs.
        size: Rows and columns that pictures are brought to, a multiple of the patch.
    """

    def __init__(self, *, path: str = "", size: Annotated[int, Range(14, 1022)] = 224) -> None:
        self.net = vision_model("Dinov2Model", path, types=("dinov2",), where="dinov2")
        config = self.net.config
        if size % config.patch_size:
            takes = f"a multiple of the patch, {config.patch_size}"
            raise UserError("E-LIMIT", where="dinov2, size", got=str(size), takes=takes)
        self.name = f"DINOv2 (width {config.hidden_size}, {config.num_hidden_layers} layers)"
        self.preparation = Preparation(size, *IMAGENET)
        settings = {"extractor": "dinov2", **asdict(self.preparation)}
        settings |= {key: getattr(config, key) for key in BESIDE}
        self.sha256 = digest(self.net.state_dict(), settings)

    def features(self, x: Tensor) -> Tensor:
        """Features (N,F) float64 of pictures (N,C,H,W) uint8, C = 1 or 3, F the width.

        Raises:
            UserError: E-SHAPE for anything else.
        """
        check_pictures(x, self.name)
        return one_by_one(x, self._row, self.net.config.hidden_size)

    def _row(self, x: Tensor) -> Tensor:
        return self.net(pixel_values=self.preparation(x)).pooler_output
