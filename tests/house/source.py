"""The package as syntax trees, for the tests of the house."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import steerable

ROOT = Path(steerable.__file__).parent
REPOSITORY = Path(__file__).parents[2]


@lru_cache(maxsize=1)
def trees():
    """Path inside the package -> syntax tree, for every file."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8"), str(path))
        for path in sorted(ROOT.rglob("*.py"))
    }


def dotted(node):
    """`a.b.c` of an attribute or name, with `?` for what is neither; else the empty string."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value) or '?'}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imports(name, tree):
    """(line, full module name, imported name or None, inside a function) of every import."""
    package = ["steerable", *name.split("/")[:-1]]
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, module, alias.name, id(node) in inside


def typing_only(tree):
    """Lines that are imported for annotations alone."""
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING"):
            lines.update(child.lineno for child in ast.walk(node) if hasattr(child, "lineno"))
    return lines
