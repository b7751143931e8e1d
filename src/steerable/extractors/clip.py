"""CLIP: a vision transformer that learned which caption belongs to which picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import final

from torch import Tensor

from steerable.nn.extraction import Preparation, check_pictures, digest, one_by_one
from steerable.nn.vision import vision_model

__all__ = ["Clip"]

# What shapes a feature and cannot be seen from the shapes of the weights.
BESIDE = ("num_attention_heads", "layer_norm_eps", "hidden_act", "patch_size")
# Source: the published pre-processing of CLIP, white = 1.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@final
class Clip:
    """The picture's side of CLIP, projected to where captions lie, from weights on this disk.

    Needs `pip install "steerable[vision-transformers]"` and the weights. The rows are as the
    network gives them, not scaled to length one.

    Source: Radford et al., arXiv 2103.00020; for evaluation: Jayasumana et al., arXiv 2401.09603.

    Args:
        path: Folder with config.json and model.safetensors, as published on model hubs.
    """

    def __init__(self, *, path: str = "") -> None:
        types = ("clip", "clip_vision_model")
        self.net = vision_model("CLIPVisionModelWithProjection", path, types=types, where="clip")
        config = self.net.config
        self.name = f"CLIP (width {config.hidden_size}, {config.num_hidden_layers} layers)"
        self.preparation = Preparation(config.image_size, MEAN, STD)
        settings = {"extractor": "clip", **asdict(self.preparation)}
        settings |= {key: getattr(config, key) for key in BESIDE}
        self.sha256 = digest(self.net.state_dict(), settings)

    def features(self, x: Tensor) -> Tensor:
        """Features (N,F) float64 of pictures (N,C,H,W) uint8, C = 1 or 3, F of the projection.

        Raises:
            UserError: E-SHAPE for anything else.
        """
        check_pictures(x, self.name)
        return one_by_one(x, self._row, self.net.config.projection_dim)

    def _row(self, x: Tensor) -> Tensor:
        return self.net(pixel_values=self.preparation(x)).image_embeds
