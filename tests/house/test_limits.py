"""Sizes that keep the house small, names that keep it honest, classes that keep it flat."""

from __future__ import annotations

import ast

import pytest

from .source import ROOT, dotted, trees
from .test_layers import ROOMS

BANNED = {"util", "utils", "helper", "helpers", "common", "misc", "shared", "tools", "base"}


def _lines(name):
    return len((ROOT / name).read_text("utf-8").splitlines())


def _functions(tree):
    """Every function with the class that holds it, or None."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child, node if isinstance(node, ast.ClassDef) else None


def _documented(function):
    """Lines of the docstring, which may be as long as it has something to say."""
    first = function.body[0]
    if isinstance(first, ast.Expr) and _text(first.value):
        return first.end_lineno - first.lineno + 1
    return 0


def test_the_core_has_at_most_a_thousand_lines():
    sizes = {name: _lines(name) for name in trees() if name.startswith("core/")}
    assert sum(sizes.values()) <= 1000, f"{sum(sizes.values())} lines: {sizes}"


@pytest.mark.parametrize("name", trees())
def test_files_are_short_and_say_what_they_are(name):
    assert _lines(name) <= 700, f"{_lines(name)} lines"
    assert ast.get_docstring(trees()[name]), "no module docstring"
    assert not (set(name.removesuffix(".py").split("/")) & BANNED), "a name that says nothing"


@pytest.mark.parametrize("name", trees())
def test_functions_are_short_and_take_few_arguments(name):
    for function, owner in _functions(trees()[name]):
        lines = function.end_lineno - function.lineno + 1 - _documented(function)
        assert lines <= 80, f"{name}:{function.lineno} {function.name} has {lines} lines"
        a = function.args
        named = [*a.posonlyargs, *a.args, *a.kwonlyargs]
        static = any(dotted(d) == "staticmethod" for d in function.decorator_list)
        count = len(named) - (1 if owner is not None and not static else 0)
        if name.split("/")[0] in ROOMS:  # the data fills in what has no default
            own = 1 if owner is not None and not static else 0
            if owner is None or function.name == "__init__":
                count -= len(a.posonlyargs) + len(a.args) - len(a.defaults) - own
        if (name.startswith("app/") or name == "api.py") and not function.name.startswith("_"):
            continue  # the arguments of a command are its options, and so are those of the door
        assert count <= 7, f"{name}:{function.lineno} {function.name} takes {count} arguments"


@pytest.mark.parametrize("name", trees())
def test_functions_are_annotated(name):
    for function, owner in _functions(trees()[name]):
        a = function.args
        named = [*a.posonlyargs, *a.args, *a.kwonlyargs]
        static = any(dotted(d) == "staticmethod" for d in function.decorator_list)
        if owner is not None and not static:
            named = named[1:]
        bare = [x.arg for x in named if x.annotation is None]
        assert not bare, f"{name}:{function.lineno} {function.name}: {bare}"
        assert function.returns is not None, f"{name}:{function.lineno} {function.name}"


def _classes():
    found = {}
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append((name, node))
    return found


def _is_abstract(node):
    marks = {dotted(b) for b in node.bases} | {dotted(k.value) for k in node.keywords}
    members = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    decorated = {dotted(d) for m in members for d in m.decorator_list}
    return any("ABC" in m or m.endswith("Protocol") for m in marks) or "abstractmethod" in decorated


def test_classes_are_abstract_or_final():
    """Nobody inherits from a concrete class of ours, and the tree is two levels deep."""
    classes = _classes()
    for name, nodes in classes.items():
        for path, node in nodes:
            for base in node.bases:
                last = dotted(base).split(".")[-1]
                parents = [n for p, n in classes.get(last, []) if p == path or last[0] != "_"]
                for parent in parents:
                    assert _is_abstract(parent), f"{path}: {name} inherits from concrete {last}"


@pytest.mark.parametrize("name", trees())
def test_nothing_is_swallowed_and_nothing_is_left_undone(name):
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.ExceptHandler):
            only = [n for n in node.body if not (isinstance(n, ast.Expr) and _text(n.value))]
            silent = all(isinstance(n, ast.Pass) for n in only)
            assert node.type is not None, f"{name}:{node.lineno}: bare except"
            wide = dotted(node.type) in {"Exception", "BaseException"}
            assert not (silent and wide), f"{name}:{node.lineno}: swallows every exception"
    text = (ROOT / name).read_text("utf-8")
    for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"):
        assert word not in text, f"{name}: {word}"


def _text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
