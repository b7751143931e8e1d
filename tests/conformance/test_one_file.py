"""Adding a sampler touches one file: the command line and the conformance tests find it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import steerable

ROOT = Path(__file__).parents[2]
NAME = "midpoint_trial"
SOURCE = '''"""The explicit midpoint rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from steerable.core.noise import Noise
from steerable.core.sample import Sampler
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, Range, spread

__all__ = ["MidpointTrial"]


@dataclass(frozen=True)
class MidpointTrial(Sampler):
    """The midpoint rule in sigma / alpha.

    Source: Karras et al., arXiv 2206.00364, algorithm 3 with alpha = 1/2.

    Args:
        place: Where between the ends the slope is asked for, in log(sigma / alpha).
    """

    place: Annotated[float, Range(0.5, 0.5)] = 0.5

    order: ClassVar[int | None] = ORDER
    stochastic: ClassVar[bool] = False

    def step(
        self,
        ask: Ask,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        schedule: Schedule,
        memory: Any,
        noise: Noise,
    ) -> tuple[Tensor, Any]:
        """One step; two calls of the denoiser."""
        level = schedule.level(t) + self.place * (schedule.level(s) - schedule.level(t))
        m = schedule.time_at(level).to(t.dtype)
        (alpha_t, sigma_t), (alpha_m, sigma_m) = schedule(t), schedule(m)
        alpha_s, sigma_s = schedule(s)

        def moved(alpha: Tensor, sigma: Tensor, slope: Tensor) -> Tensor:
            rise = sigma - alpha / alpha_t * sigma_t
            return spread(alpha / alpha_t, x_t) * x_t + spread(rise, x_t) * slope

        half = moved(alpha_m, sigma_m, ask(x_t, t).noise)
        return moved(alpha_s, sigma_s, ask(half, m).noise), None
'''


def with_the_file(tmp_path, order):
    """A copy of the package with one more file, and the environment that imports it."""
    copy = tmp_path / f"order{order}" / "steerable"
    shutil.copytree(Path(steerable.__file__).parent, copy, ignore=shutil.ignore_patterns("data"))
    (copy / "data").symlink_to(Path(steerable.__file__).parent / "data")
    (copy / "samplers" / f"{NAME}.py").write_text(SOURCE.replace("ORDER", str(order)))
    path = os.pathsep.join([str(copy.parent), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def conformance(environment):
    words = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", NAME, "-m", "not slow"]
    place = str(ROOT / "tests" / "conformance" / "test_samplers.py")
    return subprocess.run(
        [sys.executable, *words, place],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.slow
def test_a_new_file_is_in_the_command_line_and_under_test(tmp_path):
    environment = with_the_file(tmp_path, order=2)
    listed = subprocess.run(
        [sys.executable, "-m", "steerable", "parts", "samplers", "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    found = {part["kind"]: part for part in json.loads(listed.stdout)}
    assert found[NAME]["options"][0]["name"] == "place" and found[NAME]["order"] == 2
    right = conformance(environment)
    assert right.returncode == 0, right.stdout
    passed = int(right.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed >= 4, right.stdout
    wrong = conformance(with_the_file(tmp_path, order=3))
    assert wrong.returncode == 1, "a sampler that claims a higher order must fail"
