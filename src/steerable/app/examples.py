"""Examples of every command, which its --help ends with, and names that help lists.

Names of parts are those of the files in their folder, so that help needs no part of the library.
"""

from __future__ import annotations

from pathlib import Path
from pkgutil import iter_modules

import steerable

__all__ = ["BUILT_IN", "EXAMPLES", "PRESETS", "epilogue"]

_HERE = Path(steerable.__file__).parent


def _files(folder: str) -> list[str]:
    """The kinds that a folder of parts holds, found without importing any."""
    return sorted(m.name for m in iter_modules([str(_HERE / folder)]) if m.name[0] != "_")


BUILT_IN = ", ".join(name for name in _files("datasets") if name != "images")
PRESETS = ", ".join(name.replace("_", "-") for name in _files("recipes/presets"))

EXAMPLES: dict[str, tuple[str, ...]] = {
    "train": (
        "train photos --budget 10m",
        "train fashion --run runs/clothes --budget 1h --size m",
        "train scenes --preset attention-score --budget '20000 iterations'",
        "train photos --set training.lr=1e-3 --dry-run",
    ),
    "sample": (
        "sample runs/photos --label cat -n 16",
        "sample runs/photos --label 'cat|dog' --guidance 3 --seed 7",
        "sample runs/scenes --cond prompt='red circle, blue square'",
        "sample runs/photos --sampler 'DPM++ 2M Karras' --steps 20 --json",
    ),
    "edit": (
        "edit runs/photos --image cat.png --mask hole.png --label cat",
        "edit runs/photos --image cat.png --to-label dog",
        "edit runs/photos --image small.png --upscale 2 -n 4",
        "edit runs/photos --image sketch.png --strength 0.6 --out results",
        "edit runs/photos --replay results/0.png --image sketch.png",
    ),
    "evaluate": (
        "evaluate runs/photos",
        "evaluate runs/photos --budget 3m --json",
        "evaluate runs/photos --fail-under accuracy=0.9 --fail-over kid=0.01",
        "evaluate model.safetensors --against photos -n 500",
    ),
    "compare": ("compare runs/first runs/second", "compare runs/first runs/second --json"),
    "sweep": (
        "sweep runs/photos --guidance 1:5",
        "sweep runs/photos --steps 8,12 --sampler dpmpp_2m,unipc --keep",
    ),
    "encode": (
        "encode runs/photos cat.png dog.png --out noise",
        "encode runs/photos cat.png --label cat --steps 100",
    ),
    "interpolate": ("interpolate runs/photos cat.png dog.png --count 9 --out between",),
    "likelihood": (
        "likelihood runs/photos -n 200",
        "likelihood model.safetensors --data photos --probes 4",
    ),
    "look": ("look runs/photos", "look runs/photos --label cat -n 100 --out inside.html"),
    "average": (
        "average runs/photos --width 0.06",
        "average runs/photos --at 0.3 --out weak.safetensors",
    ),
    "grid": ("grid runs/photos --steps 4,6,8 --dry-run", "grid runs/photos --no-refine"),
    "data": ("data check photos --page data-check.html", "data check photos --fail-on problem"),
    "info": ("info runs/photos", "info model.safetensors --json"),
    "parts": ("parts samplers", "parts backbones --size s --shape 3x32x32", "parts --json"),
    "tour": ("tour --out tour.html",),
    "demo": ("demo --budget 5m", "demo --run runs/clothes -n 500 --json"),
}


def epilogue(command: str) -> str:
    """The last lines of a command's help."""
    return "\n".join(["Examples:", *(f"  steerable {line}" for line in EXAMPLES[command])])
