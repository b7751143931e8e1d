"""The command line in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TINY = [
    *("--set", "backbone.channels=[8, 16]"),
    *("--set", "backbone.width=16"),
    *("--set", "training.batch=16"),
    *("--set", "training.checks=off"),
]


def environment() -> dict[str, str]:
    own = ("STEERABLE_CACHE",)  # of the tests, so that none uses that of the user
    clean = {k: v for k, v in os.environ.items() if not k.startswith("STEERABLE_") or k in own}
    return {**clean, "OMP_NUM_THREADS": "1", "CI": "true"}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "steerable", *map(str, words)]


def steerable(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), capture_output=True, text=True, cwd=cwd, env=environment(), check=False
    )
