"""The door as it was agreed: a change of a name or of a parameter must be meant."""

from __future__ import annotations

import inspect

import steerable

DOOR = {
    "Edit": [
        *("image", "mask", "reference", "factor", "strength", "from_label", "to_label", "upscale"),
        *("colourise", "outpaint", "method", "cond", "n", "seed"),
    ],
    "Model": ["network", "recipe", "spec", "about", "path"],
    "Recipe": [
        *("schema_version", "preset", "data", "process", "backbone", "classifies", "conditions"),
        *("training", "sampler", "guidance", "constraints", "operator", "notes"),
    ],
    "UserError": ["code", "where", "got", "takes", "kept", "do"],
    "edit": ["model", "wanted", "guidance", "steps", "sampler", "grid", "settings"],
    "evaluate": ["model", "against", "n", "guidance"],
    "guide": ["score", "scale", "start", "stop"],
    "inspect_data": ["data", "settings"],
    "load": ["path", "device", "allow_code"],
    "parts": ["room", "size", "shape"],
    "recipe": ["data", "preset", "budget", "size", "settings"],
    "sample": [
        *("model", "label", "n", "seed", "guidance", "steps", "sampler"),
        *("classifier", "classifier_scale", "guide"),
    ],
    "train": ["recipe", "run"],
}


def test_names_and_parameters():
    names = {name for name in steerable.__all__ if name != "__version__"}
    found = {name: list(inspect.signature(getattr(steerable, name)).parameters) for name in names}
    assert found == DOOR
    assert steerable.__version__.count(".") == 2


def test_every_name_is_documented():
    for name in DOOR:
        assert len(inspect.getdoc(getattr(steerable, name)).splitlines()) >= 3, name
