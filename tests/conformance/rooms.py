"""Lists a room, so that a new file is put through the tests of its room without being named."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil


def files(room):
    """Names of the files of a room."""
    package = importlib.import_module(f"steerable.{room}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_")


def part(room, kind):
    """The one public name of a file."""
    module = importlib.import_module(f"steerable.{room}.{kind}")
    return getattr(module, module.__all__[0])


def assert_well_formed(room, kind):
    """One public name, a docstring that names every option, and no second public class."""
    module = importlib.import_module(f"steerable.{room}.{kind}")
    assert len(module.__all__) == 1, "a part's file has one public name"
    name = module.__all__[0]
    thing = getattr(module, name)
    tree = ast.parse(inspect.getsource(module))
    definitions = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    public = [n.name for n in definitions if not n.name.startswith("_")]
    assert public == [name], f"public in the file: {public}"
    assert name.lower().replace("_", "") == kind.replace("_", ""), "the file name is the kind"
    assert module.__doc__ and thing.__doc__, "the file and the part say what they are"
    text = inspect.getdoc(thing)
    described = text.partition("Args:\n")[2]
    for option in inspect.signature(thing).parameters.values():
        if option.default is not inspect.Parameter.empty and option.name not in INHERITED:
            assert f"    {option.name}: " in described, f"option '{option.name}' has no help"


INHERITED = {"start", "stop"}  # described by the base class of guidance
