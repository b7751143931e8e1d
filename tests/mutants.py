"""Known mistakes, put into copies of a module one at a time: the machine of every mutant test.

A mutant is the source of one module with a text of it replaced. The text must occur exactly once,
so that a mutant cannot go stale unnoticed, and a check that passes on the library must fail on it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import torch


class StaleError(Exception):
    """The text to alter is not there once; no test takes this for a mutant that was noticed."""


def altered(name, *edits):
    """A copy of the module `steerable.<name>` with edits in its source: old, new, old, new ..."""
    source = Path(importlib.import_module(f"steerable.{name}").__file__).read_text("utf-8")
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        if source.count(old) != 1:
            raise StaleError(f"{source.count(old)} times {old!r} in {name}")
        source = source.replace(old, new)
    module = ModuleType(f"mutant.{name}")
    module.__package__ = f"steerable.{name}".rpartition(".")[0]  # its neighbours are the real ones
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, f"<mutant of {name}>", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


def noticed(checks, subject, *faults):
    """Name of the first check that fails on the subject, or None: the mutant survives.

    `faults` are what a check may raise besides an AssertionError. Every check draws what it draws
    on the unaltered library.
    """
    for check in checks:
        torch.manual_seed(0)  # as in conftest.py
        try:
            check(subject)
        except (AssertionError, *faults):
            return check.__name__
    return None
