"""What other programs rely on stays: the present interface against the recorded one."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORDED = json.loads((ROOT / "docs" / "interface.json").read_text(encoding="utf-8"))
RUN_IT = "run: python docs/make_interface.py"


@pytest.fixture(scope="module")
def maker():
    place = importlib.util.spec_from_file_location(
        "make_interface", ROOT / "docs" / "make_interface.py"
    )
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def present(maker):
    return json.loads(json.dumps(maker.static()))


@pytest.fixture(scope="module")
def recorded():
    return {key: value for key, value in RECORDED.items() if key != "observed"}


def test_nothing_that_is_recorded_is_gone_or_changed(maker, present, recorded):
    assert not maker.lost(recorded, present)


def test_everything_is_recorded(maker, present, recorded):
    assert not maker.unrecorded(recorded, present), f"new: {RUN_IT}"


@pytest.mark.parametrize(
    "path",
    [
        ("commands", "sample", "--guidance"),
        ("commands", "evaluate"),
        ("errors", "E-GATE"),
        ("steerable.api", "sample"),
    ],
)
def test_what_is_taken_away_or_added_is_seen(maker, recorded, path):
    fewer = copy.deepcopy(recorded)
    place = fewer
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    assert maker.lost(recorded, fewer) == ["." + ".".join(path)]
    assert maker.unrecorded(fewer, recorded) and not maker.unrecorded(recorded, fewer)


def test_a_changed_type_default_or_name_is_seen(maker, recorded):
    for key, value in (("type", "str"), ("default", 3), ("names", ["--weight"])):
        changed = copy.deepcopy(recorded)
        changed["commands"]["sample"]["--guidance"][key] = value
        assert len(maker.lost(recorded, changed)) == 1, key
    changed = copy.deepcopy(recorded)
    changed["errors"]["E-GATE"]["exit"] = 8
    assert maker.lost(recorded, changed) == [".errors.E-GATE.exit: 9 is now 8"]


def test_an_object_that_lacks_changes_or_adds_a_key_is_seen(maker):
    value = {"a": 1.5, "b": [{"c": None}, {"c": "x", "d": 2}], "labels": {"cat": 1}}
    shape = maker.shape(value)
    assert not maker.faults(value, shape, "here")
    assert not maker.faults({**value, "a": 2, "labels": {"dog": 3}}, shape, "here")
    assert maker.faults({**value, "e": 1}, shape, "here") == ["here: adds e"]
    assert maker.faults({"a": 1.5, "b": []}, shape, "here") == ["here: lacks labels"]
    assert maker.faults({**value, "a": {}}, shape, "x") == ["x.a: changes number into object"]
    assert maker.faults({**value, "b": [{"d": 1}]}, shape, "x") == ["x.b[]: lacks c"]
    assert maker.faults({**value, "labels": {"cat": "x"}}, shape, "x")


def test_the_keys_that_evaluate_always_had_are_recorded():
    keys = RECORDED["observed"]["printed"]["evaluate"]
    for key in ("accuracy", "frechet", "frechet_floor", "n", "judge_accuracy", "seconds"):
        assert key in keys["required"]
        assert {"number", "integer"} & set(keys["keys"][key]["type"]), key


@pytest.mark.slow
def test_every_command_prints_and_writes_what_is_recorded(maker, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "cache"))
    said, files, names = maker.outputs(tmp_path)
    found = []
    for kind, values in (("printed", said), ("written", files)):
        known = RECORDED["observed"][kind]
        assert set(values) == set(known), RUN_IT
        for name, each in values.items():
            found += [f for value in each for f in maker.faults(value, known[name], name)]
    assert not found, RUN_IT
    assert not maker.lost(RECORDED["observed"]["files"], names)
    assert not maker.unrecorded(RECORDED["observed"]["files"], names), RUN_IT
