"""The doors through which plain data becomes a recipe: each says whose code it may name."""

from __future__ import annotations

import ast

from .source import dotted, trees

# Where a recipe is made of plain data, and the origin that it is given there. A new door stands
# here with its origin, and in tests/app/test_foreign_code.py if what comes through is an artefact.
DOORS = {
    # what the user has written
    ("jobs/planned.py", "_recipe", "checked", "OWN"),
    ("jobs/planned.py", "_own", "from_yaml", "OWN"),
    ("jobs/planned.py", "_own", "checked", "artefact(file.name, self._modules() | own.code)"),
    # model files, run folders, pictures
    ("jobs/model.py", "read_about", "checked", "artefact(where, allow_code)"),
    ("jobs/run.py", "recipe", "from_yaml", "origin"),
    ("jobs/edited.py", "replayed", "checked", "artefact(path.name, model.recipe.trusted)"),
    ("jobs/regrid.py", "_with_tables", "checked", "recipe.origin"),
    # a recipe of before, changed by what is typed
    ("jobs/edit.py", "planned", "checked", "steer.origin.naming(grid)"),
    ("jobs/sample.py", "steered", "checked", "recipe.origin.naming(sampler, grid_kind)"),
    ("jobs/steering.py", "with_classifier", "checked", "recipe.origin"),
    ("recipes/recipe.py", "with_set", "checked", "origin"),
    ("recipes/recipe.py", "from_yaml", "checked", "origin or artefact(path.name)"),
}
MAKERS = {"checked", "from_yaml"}
# Readers of plain data whose result is no recipe: a new one is looked at before it stands here.
RECIPES_MADE_DIRECTLY = {("jobs/planned.py", "with_own_settings")}


def _calls():
    """(file, function, called name, call) of every call inside of a function."""
    for name, tree in trees().items():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Call):
                    yield name, function.name, dotted(node.func), node


def _origin(call):
    named = [k.value for k in call.keywords if k.arg == "origin"]
    given = named or call.args[1:2]
    return ast.unparse(given[0]) if given else "none given"


def test_every_door_of_recipes_says_whose_code_it_lets_in():
    found = {
        (name, function, made, _origin(call))
        for name, function, made, call in _calls()
        if made in MAKERS and not name.startswith(("backbones/", "classifiers/", "intake/"))
        if not (name.startswith("nn/") or name == "datasets/images.py")
    }
    assert found == DOORS


def test_recipes_are_validated_in_one_place():
    """Nothing else makes one of plain data; presets and bare parts are code, not data."""
    found = {
        (name, function)
        for name, function, made, _ in _calls()
        if made in {"Recipe", "Recipe.model_validate", "Recipe.model_construct", "Recipe.parse_obj"}
        and not name.startswith("recipes/presets/")
    }
    assert found == RECIPES_MADE_DIRECTLY | {("recipes/recipe.py", "checked")}


def test_code_of_others_is_imported_in_one_place():
    """By a name that is not written in the source: only a kind that was let in is imported so."""
    found = {
        (name, function, ast.unparse(call.args[0]))
        for name, function, made, call in _calls()
        if made in {"importlib.import_module", "import_module", "__import__"}
    }
    assert found == {
        ("recipes/part.py", "_own", "module"),
        ("recipes/part.py", "kinds", "f'steerable.{ROOMS[room]}'"),
        ("recipes/part.py", "find", "f'steerable.{ROOMS[room]}.{kind}'"),
        ("recipes/presets/__init__.py", "find_preset", "f\"{__name__}.{name.replace('-', '_')}\""),
        ("__init__.py", "__getattr__", "'steerable.api'"),
    }
