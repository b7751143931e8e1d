"""steerable: diffusion models that do as they are told.

The names below are imported on first use, so `import steerable` is light.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

__all__ = [
    "Edit",
    "Model",
    "Recipe",
    "UserError",
    "__version__",
    "edit",
    "evaluate",
    "guide",
    "inspect_data",
    "load",
    "parts",
    "recipe",
    "sample",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("steerable.api"), name)
    raise AttributeError(f"module 'steerable' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
