"""Known mistakes, put into copies of a module one at a time: the machine of every mutant test.

A mutant is the source of one module with a text of it replaced. The text must occur exactly once,
so that a mutant cannot go stale unnoticed, and a check that passes on the library must fail on it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType

import torch


class StaleError(Exception):
    """The text to alter is not there once; no test takes this for a mutant that was noticed."""


def edited(source, name, edits):
    """The source of a module with edits: old, new, old, new ..."""
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        if source.count(old) != 1:
            raise StaleError(f"{source.count(old)} times {old!r} in {name}")
        source = source.replace(old, new)
    return source


def altered(name, *edits):
    """A copy of the module `steerable.<name>` with edits in its source: old, new, old, new ..."""
    path = Path(importlib.import_module(f"steerable.{name}").__file__)
    source = edited(path.read_text("utf-8"), name, edits)
    module = ModuleType(f"mutant.{name}")
    module.__package__ = f"steerable.{name}".rpartition(".")[0]  # its neighbours are the real ones
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, f"<mutant of {name}>", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


class _Edited(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module and loads it from the source with its edits."""

    def __init__(self, name, edits):
        self.name, self.edits = name, edits

    def find_spec(self, fullname, path, target=None):
        if fullname != f"steerable.{self.name}":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        spec.loader = self
        return spec

    def get_source(self, fullname):
        package, _, last = fullname.rpartition(".")
        path = Path(sys.modules[package].__path__[0]) / f"{last}.py"
        return edited(path.read_text("utf-8"), self.name, self.edits)


@contextlib.contextmanager
def planted(name, *edits):
    """The whole package imported anew with edits in one module, as long as the block lasts.

    What is imported inside the block is the copy, whoever imports it; what was imported before
    stays what it was. So a mistake reaches all that is built on the module, a whole run included.
    """
    before = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "steerable"}
    finder = _Edited(name, edits)
    for each in before:
        del sys.modules[each]
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(f"steerable.{name}")  # a text that is not there is told at once
        yield
    finally:
        sys.meta_path.remove(finder)
        for each in [n for n in sys.modules if n.partition(".")[0] == "steerable"]:
            del sys.modules[each]
        sys.modules.update(before)


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
