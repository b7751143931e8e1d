"""Known mistakes, put into copies of the library one at a time: every one must be noticed.

The same checks pass on the unaltered library (test_checks.py).
"""

from __future__ import annotations

import pytest

from steerable.core.errors import UserError

from ..mutants import StaleError, altered, noticed
from .battery import CHECKS
from .checks import check_ancestral_law
from .mistakes import MUTANTS, OF_SOLVERS
from .solvers import SOLVERS
from .worlds import kit_with


def killer(module, *edits):
    """Name of the first check that notices, or None; a solver's own checks come first."""
    kit = kit_with(module, *edits)
    first = module in OF_SOLVERS
    checks = sorted(CHECKS, key=lambda check: first and check not in SOLVERS)
    return noticed(checks, kit, UserError)


@pytest.mark.parametrize(("text", "times"), [("no such text", 0), ("return", "[2-9]")])
def test_a_mutant_of_a_text_that_is_not_there_once_is_refused(text, times):
    with pytest.raises(StaleError, match=f"^{times} times '{text}' in guidance.cfg$"):
        altered("guidance.cfg", text, "")


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name):
    assert killer(*MUTANTS[name]) is not None, f"'{name}' survives"


@pytest.mark.parametrize(
    "name", ["re-noise x0-hat at the wrong level", "no fresh noise", "fresh noise x 0.7"]
)
def test_the_law_alone_notices_a_broken_sampler(name):
    """Class accuracy stays perfect in these mutants; mode weights and spread do not."""
    with pytest.raises(AssertionError, match=r"mode weights|overall std"):
        check_ancestral_law(kit_with(*MUTANTS[name]), per_class=1000)
