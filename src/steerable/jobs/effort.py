"""How much is measured: as many samples as asked for, or as a budget of time pays for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from steerable.core.errors import UserError
from steerable.recipes.recipe import Recipe

from .model import Model
from .sample import sample
from .stages import STAGES, Stage
from .wish import Wish

__all__ = ["Effort", "Plan", "planned"]

TRIAL = 32  # samples that are drawn to see how fast that is
WRITING = 3.0  # seconds for pictures and page


@dataclass(frozen=True)
class Effort:
    """What is asked for.

    Attributes:
        n: Number of samples, at most.
        seed: Seed of the first one.
        seconds: Time that all may take, or None for as long as `n` takes.
        extractor: Kind of extractor of features; the judge by default.
        inception: Weights for the published FID: a file, "" for where the tool keeps downloads, or
            None for no FID.
    """

    n: int = 2000
    seed: int = 1_000_000
    seconds: float | None = None
    extractor: str = ""
    inception: str | None = None


@dataclass(frozen=True)
class Plan:
    """What will be done.

    Attributes:
        n: Number of samples.
        stages: Names of the stages that will run.
        skipped: Reason by stage that will not.
        seconds: Expected seconds by part.
    """

    n: int
    stages: tuple[str, ...]
    skipped: dict[str, str]
    seconds: dict[str, float]

    def lines(self) -> list[str]:
        """The plan for people."""
        parts = ", ".join(f"{name} {max(1, round(s))} s" for name, s in self.seconds.items())
        total = (
            f"plan     n = {self.n:,} samples, about {sum(self.seconds.values()):.0f} s: {parts}"
        )
        return [total]


def planned(
    model: Model, recipe: Recipe, wishes: list[Wish], needless: dict[str, str], effort: Effort
) -> Plan:
    """As much of the evaluation as the time pays for.

    The first samples are drawn once to see how long one takes. Stages that only add to the report
    go first, the dearest of them; then samples.

    Args:
        model: The model.
        recipe: The sampling settings.
        wishes: What is to be drawn, all of it.
        needless: Reason by stage that is left out in any case.
        effort: What is asked for.

    Raises:
        UserError: E-LIMIT when the time is too short for the fewest samples that say something.
    """
    begun, trial = time.monotonic(), wishes[:TRIAL]
    for _ in sample(model, recipe, trial):
        pass
    each = (time.monotonic() - begun) / len(trial)
    stages = [stage for stage in STAGES if stage.name not in needless]
    skipped, n = dict(needless), len(wishes)
    if effort.seconds is not None:
        least = min(n, max(100, 10 * max(1, len(model.labels))))
        extras = sorted((s for s in stages if not s.essential), key=lambda s: s.seconds(least))
        while extras and _all(stages, least, each) > effort.seconds:
            dearest = extras.pop()
            stages.remove(dearest)
            skipped[dearest.name] = f"it does not fit into {effort.seconds:.0f} s"
        n = _most(stages, n, each, effort.seconds)
        if n < least:
            got = f"{effort.seconds:.0f} s"
            takes = f"{_all(stages, least, each):.0f} s or more here, for n = {least}"
            raise UserError("E-LIMIT", where="budget", got=got, takes=takes)
        n -= n % max(1, len(model.labels))
    spent = {"samples": n * each, **{s.name: s.seconds(n) for s in stages}, "page": WRITING}
    return Plan(n, tuple(s.name for s in stages), skipped, spent)


def _all(stages: list[Stage], n: int, each: float) -> float:
    return n * each + sum(stage.seconds(n) for stage in stages) + WRITING


def _most(stages: list[Stage], n: int, each: float, seconds: float) -> int:
    """The largest number up to n that the time pays for; costs rise with the number."""
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _all(stages, middle, each) <= seconds else (low, middle - 1)
    return low
