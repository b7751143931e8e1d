"""The unaltered library passes every check that the mutants are put through."""

from __future__ import annotations

import pytest

from .battery import CHECKS
from .worlds import Kit


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_library_passes(check):
    check(Kit())
