"""How fast a run goes, what it spends beside its iterations, and what is left of its time.

What is done beside (looking, saving) is counted in iterations of the moment when it was done: a
machine that has become five times slower since then needs five times as long for both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["Pace"]

LOOKING = 0.15  # share of a budget of time that all looks may take
TAIL = 0.2  # share of it that may be kept for the last look and the last save
LAST = 8  # iterations whose speed is that of now


class Pace:
    """The clock of a session of training.

    Args:
        clock: Seconds that only grow, from any beginning.
        budget: Seconds of the budget; None where iterations decide.
        look: What a look costs until one has been made, in iterations.
        rate: Iterations a second until one has been made.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        budget: float | None = None,
        look: float = 0.0,
        rate: float = 0.0,
    ) -> None:
        self.budget, self.look, self.save = budget, look, 0.0
        self._expected = 1.0 / rate if rate > 0.0 else 0.0
        self._clock, self._zero, self._looked = clock, clock(), 0.0
        self._durations: deque[float] = deque(maxlen=64)

    def go_on(self, seconds: float) -> None:
        """Count what was used before this session too."""
        self._zero -= seconds

    def now(self) -> float:
        """Seconds of training, over all sessions."""
        return self._clock() - self._zero

    def stepped(self, seconds: float) -> None:
        """An iteration has taken so long."""
        self._durations.append(seconds)

    def looked(self, seconds: float) -> None:
        """A look has taken so long."""
        self._looked += seconds
        self.look = seconds / self.slowness if self.slowness else self.look

    def saved(self, seconds: float) -> None:
        """A save has taken so long."""
        self.save = seconds / self.slowness if self.slowness else self.save

    @property
    def rate(self) -> float:
        """Iterations a second, what is done beside them left out."""
        total = sum(self._durations)
        return len(self._durations) / total if total > 0.0 else 1.0

    @property
    def slowness(self) -> float:
        """Seconds an iteration takes now."""
        recent = list(self._durations)[-LAST:]
        return sum(recent) / len(recent) if recent else self._expected

    @property
    def reserve(self) -> float:
        """Seconds that the last look and the last save need; without the look if it is too dear.

        An iteration is kept too: it may begin just before the end.
        """
        assert self.budget is not None
        most = TAIL * self.budget
        save = min((self.save + 1.0) * self.slowness, most)
        both = save + self.look * self.slowness
        return both if both <= most else save

    def pays(self, *, last: bool) -> bool:
        """Whether a look is within the time.

        Args:
            last: Whether it is the look after the last iteration, for which time was kept.
        """
        if self.budget is None:
            return True
        cost, left = self.look * self.slowness, self.budget - self.now()
        if last:
            return cost <= max(left, 0.0) + 0.02 * self.budget
        return self._looked + cost <= LOOKING * self.budget and cost + self.reserve <= left
