"""Who may import whom: downwards only, rooms and their files not each other."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from .source import ROOT, dotted, imports, trees, typing_only

ROOMS = (
    "processes",
    "backbones",
    "classifiers",
    "conditions",
    "guidance",
    "constraints",
    "samplers",
    "grids",
    "autoencoders",
    "datasets",
    "extractors",
    "metrics",
    "operators",
    "oracles",
)
FLOORS = ("core", "nn", "intake", "rooms", "recipes", "jobs", "api", "app")  # from the ground up
HEAVY = {"matplotlib", "jinja2", "scipy", "PIL", "transformers", "torch_fidelity"}


def floor(module):
    """The floor of a module of ours, None for the package itself and its entry point."""
    parts = module.split(".")[1:]
    if not parts or parts[0] in {"__init__", "__main__"}:
        return None
    return "rooms" if parts[0] in ROOMS else parts[0]


def ours(name, tree):
    """(line, imported module of ours) of a file; the names of the package itself are the api."""
    for line, module, imported, _ in imports(name, tree):
        if module == "steerable" and imported and imported != "__version__":
            inner = (ROOT / imported).is_dir() or (ROOT / f"{imported}.py").exists()
            yield line, f"{module}.{imported}" if inner else "steerable.api"
        elif module.startswith("steerable."):
            yield line, module
    for node in ast.walk(tree):
        of_package = isinstance(node, ast.Attribute) and dotted(node).startswith("steerable.")
        if of_package and node.attr != "__version__":
            yield node.lineno, "steerable.api"


def module_of(name):
    return "steerable." + name.removesuffix(".py").replace("/", ".")


def test_every_folder_has_its_floor():
    known = {*FLOORS, *ROOMS, "data"}
    for path in ROOT.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert path.name in known, f"{path.name} belongs to no layer"


@pytest.mark.parametrize("name", trees())
def test_imports_go_downwards(name):
    here = floor(module_of(name))
    if here is None:
        return
    for line, module in ours(name, trees()[name]):
        there = floor(module)
        assert there in FLOORS, f"{name}:{line} imports {module}"
        assert FLOORS.index(there) <= FLOORS.index(here), f"{name}:{line} imports {module} above it"


@pytest.mark.parametrize("name", [n for n in trees() if n.split("/")[0] in ROOMS])
def test_files_of_rooms_do_not_import_each_other(name):
    for line, module in ours(name, trees()[name]):
        assert floor(module) != "rooms", f"{name}:{line}: shared code goes down to nn or core"


@pytest.mark.parametrize("name", [n for n in trees() if n.startswith("core/")])
def test_the_core_imports_torch_and_the_standard_library_only(name):
    for line, module, _, _ in imports(name, trees()[name]):
        top = module.split(".")[0]
        allowed = top in {"torch", "steerable"} or top in sys.stdlib_module_names
        assert allowed, f"{name}:{line} imports {module}"


@pytest.mark.parametrize("name", trees())
def test_heavy_libraries_are_imported_where_they_are_used(name):
    if name.startswith("intake/"):
        return
    annotations = typing_only(trees()[name])
    for line, module, _, inside in imports(name, trees()[name]):
        heavy = module.split(".")[0] in HEAVY and line not in annotations
        assert inside or not heavy, f"{name}:{line} imports {module} at the top of the file"


def test_the_core_works_without_the_rest():
    """In a fresh process: no numpy is asked for by us, and nothing above the core is loaded."""
    code = (
        "import sys, pkgutil, importlib, steerable.core as c\n"
        "for m in pkgutil.iter_modules(c.__path__, 'steerable.core.'):\n"
        "    importlib.import_module(m.name)\n"
        "print(*sorted(m for m in sys.modules if m.startswith('steerable')))\n"
        "print(*({'PIL', 'scipy', 'matplotlib', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    loaded, heavy = run.stdout.split("\n")[:2]
    assert all(m == "steerable" or m.startswith("steerable.core") for m in loaded.split())
    assert heavy == "", f"the core loads {heavy}"
