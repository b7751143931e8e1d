"""Every option of every part: its checks pass, its mistakes are noticed, none is without one."""

from __future__ import annotations

import pytest
import torch

from ..mutants import noticed, planted
from .options import (
    backbones,
    conditions,
    grids,
    guidance,
    measures,
    processes,
    samplers,
    training,
)
from .worlds import Kit

SUBJECTS = (grids, processes, guidance, samplers, measures, backbones, conditions, training)
CHECKS = [check for subject in SUBJECTS for check in subject.CHECKS]
CHECKS += [pytest.param(check, marks=pytest.mark.slow) for check in training.SLOW]
MUTANTS = {
    f"{room} {kind} {option} {i}".replace("  ", " "): mistake
    for subject in SUBJECTS
    for (room, kind, option), mistakes in subject.MUTANTS.items()
    for i, mistake in enumerate(mistakes)
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check(check):
    check(Kit())


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mistake_is_noticed(name):
    check, module, *edits = MUTANTS[name]
    with planted(module, *edits):
        kit = Kit()
        # Layers that do not fit, a number that is none, and what `pytest.raises` waits for.
        faults = (
            RuntimeError,
            TypeError,
            ValueError,
            pytest.fail.Exception,
            kit("core.errors").UserError,
        )
        assert noticed([check], kit, *faults) is not None, f"{name}: {edits} lives"


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check_passes_in_a_copy_without_a_mistake(check):
    with planted("core.types"):
        torch.manual_seed(0)
        check(Kit())
