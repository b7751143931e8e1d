"""Every option of every part: its checks pass, its mistakes are noticed, none is without one."""

from __future__ import annotations

import pytest
import torch

from steerable.recipes.part import describe, kinds
from steerable.recipes.training import Training

from ..mutants import noticed, planted
from .options import (
    augmentations,
    backbones,
    conditions,
    grids,
    guidance,
    inverse,
    measures,
    processes,
    rates,
    samplers,
    stages,
    training,
)
from .worlds import Kit

SUBJECTS = (
    augmentations,
    backbones,
    conditions,
    grids,
    guidance,
    inverse,
    measures,
    processes,
    rates,
    samplers,
    stages,
    training,
)
ROOMS = (
    "backbone",
    "classifier",
    "condition",
    "constraint",
    "grid",
    "guidance",
    "operator",
    "process",
    "sampler",
)
CHECKS = [check for subject in SUBJECTS for check in subject.CHECKS]
CHECKS += [pytest.param(check, marks=pytest.mark.slow) for check in training.SLOW]
OF_OPTION: dict = {}
for subject in SUBJECTS:
    for key, mistakes in subject.MUTANTS.items():
        OF_OPTION[key] = [*OF_OPTION.get(key, []), *mistakes]
MUTANTS = {
    f"{' '.join(filter(None, key))} {i}": mistake
    for key, mistakes in OF_OPTION.items()
    for i, mistake in enumerate(mistakes)
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check(check):
    check(Kit())


@pytest.mark.parametrize("room", ROOMS)
def test_every_option_has_a_mistake(room):
    """Of a kind without options one mistake at least; the table names the options as they are."""
    wanted = {
        (room, kind, option["name"])
        for kind in kinds(room)
        for option in describe(room, kind)["options"] or [{"name": ""}]
    }
    listed = {key for key, mistakes in OF_OPTION.items() if key[:2] != (room, "") and mistakes}
    assert not (wanted - listed), f"no mistake for {sorted(wanted - listed)}"
    known = {key for key in listed if key[0] == room}
    assert not (known - wanted), f"no such option: {sorted(known - wanted)}"


def test_every_setting_of_the_training_has_a_mistake():
    assert not set(Training.model_fields) - {key[2] for key in OF_OPTION if key[0] == "training"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mistake_is_noticed(name):
    check, module, *edits = MUTANTS[name]
    with planted(module, *edits):
        kit = Kit()
        # Layers that do not fit, a number that is none, and what `pytest.raises` waits for.
        faults = (RuntimeError, TypeError, ValueError, pytest.fail.Exception)
        user = kit("core.errors").UserError
        assert noticed([check], kit, *faults, user) is not None, f"{name}: {edits} lives"


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check_passes_in_a_copy_without_a_mistake(check):
    with planted("core.types"):
        torch.manual_seed(0)
        check(Kit())
