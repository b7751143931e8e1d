"""What a run writes down of its data: counts and fingerprints of every kind of condition."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

import steerable
from steerable.core.errors import UserError
from steerable.core.types import Dataset, Spec, Splits
from steerable.datasets.digits import digits
from steerable.datasets.scenes import scenes
from steerable.datasets.shapes import shapes
from steerable.jobs.data import compare, data_report, known_to

from .tiny import TINY

# Computed before vectors and tokens had a part in it.
DIGITS = "a3b87f002f966d8e2869b59e5009470b4f307414c0b1e029b636686487ac1850"
LABELS = {"label": ("a", "b"), "colour": ("b", "c")}


def world():
    """Six items with every kind of condition, some of them absent."""
    spec = Spec("world", (1, 2, 2), LABELS, {"size": ("size",)}, {"text": ("u", "v")})
    x = torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2)
    cond = {
        "label": torch.tensor([0, 0, 1, 1, 0, 1]),
        "colour": torch.tensor([0, -1, 1, 1, -1, -1]),
        "size": torch.tensor([[0.5], [float("nan")], [-1.0], [1.0], [0.0], [0.1]]),
        "text": torch.tensor([[0, 1], [-1, -1], [1, -1], [0, 0], [0, -1], [-1, -1]]),
    }
    every = Dataset(spec, x, cond)
    return Splits(every.take(torch.arange(4)), every.take(torch.arange(4, 6)))


def test_what_is_present_is_counted():
    report = data_report(world())
    assert report["classes"] == {"a": {"train": 2, "held_out": 1}, "b": {"train": 2, "held_out": 1}}
    found = report["conditions"]
    assert {name: part["kind"] for name, part in found.items()} == {
        **{"colour": "label", "size": "vector", "text": "tokens"}
    }
    assert {name: part["present"] for name, part in found.items()} == {
        "colour": {"train": 3, "held_out": 0},
        "size": {"train": 3, "held_out": 2},
        "text": {"train": 3, "held_out": 1},
    }
    assert found["colour"]["classes"]["b"] == {"train": 1, "held_out": 0}
    assert found["size"]["numbers"] == ["size"]
    assert (found["text"]["words"], found["text"]["length"]) == (2, 2)
    assert json.loads(json.dumps(report)) == report


def changed(part, **changes):
    return dataclasses.replace(part, **changes)


@pytest.mark.parametrize("name", ["label", "colour", "size", "text"])
def test_every_value_and_every_name_is_in_the_fingerprint(name):
    before, now = data_report(world()), world()
    assert data_report(world()) == before
    values = now.train.cond[name].clone()
    values[0] = 1
    train = changed(now.train, cond={**now.train.cond, name: values})
    report = data_report(Splits(train, now.held_out))
    assert report["fingerprint"]["train"] != before["fingerprint"]["train"]
    assert report["fingerprint"]["held_out"] == before["fingerprint"]["held_out"]
    with pytest.raises(UserError) as caught:
        compare(before, report, "run")
    assert caught.value.code == "E-DATA-CHANGED"


def test_words_and_numbers_by_another_name_are_other_data():
    before, now = data_report(world()), world()
    for changes in ({"tokens": {"text": ("v", "u")}}, {"vectors": {"size": ("width",)}}):
        spec = dataclasses.replace(now.train.spec, **changes)
        report = data_report(Splits(changed(now.train, spec=spec), now.held_out))
        assert report["fingerprint"] != before["fingerprint"]
    compare(before, data_report(now), "run")


def test_a_column_that_changed_is_named():
    before, now = data_report(world()), world()
    gone = torch.full_like(now.train.cond["size"], float("nan"))
    train = changed(now.train, cond={**now.train.cond, "size": gone})
    with pytest.raises(UserError, match="other values of size"):
        compare(before, data_report(Splits(train, now.held_out)), "run")


def test_labels_alone_keep_their_fingerprint():
    """Runs on disk hold this one; they must resume."""
    report = data_report(digits())
    assert report["conditions"] == {}
    assert report["fingerprint"]["train"] == DIGITS


def test_the_drawn_sets_report_their_conditions():
    report = data_report(shapes(size=16, count=100, attributes=True))
    assert report["conditions"]["attributes"]["numbers"] == ["hue", "x", "y", "scale"]
    assert report["classes"]["heart"] == {"train": 8, "held_out": 2}
    report = data_report(scenes(count=100))
    assert report["conditions"]["prompt"]["present"] == {"train": 80, "held_out": 20}
    assert report["classes"] == {} and len(report["unseen_pairs"]) == 4


def test_inspection_takes_settings_of_the_data_only():
    report = steerable.inspect_data("shapes", settings=["data.count=100", "data.attributes=true"])
    assert (report["n_train"], report["n_held_out"]) == (80, 20)
    assert "attributes" in report["conditions"]
    with pytest.raises(UserError) as caught:
        steerable.inspect_data("digits", settings=["training.lr=1"])
    assert caught.value.code == "E-CONFIG"


def test_pictures_without_labels_train_unconditionally(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    path = tmp_path / "tiles.npz"
    np.savez(path, images=pixels, row_col=np.zeros((40, 2), np.uint8))
    recipe = steerable.recipe(str(path), budget="4 iterations", settings=TINY)
    assert recipe.conditions == {} and recipe.guidance == ()
    list(steerable.train(recipe, tmp_path / "run"))
    made = steerable.sample(steerable.load(tmp_path / "run"), n=2, steps=2)
    assert made.x.shape == (2, 1, 8, 8)


def test_a_model_knows_nothing_of_conditions_that_it_does_not_read():
    splits = shapes(count=100, attributes=True)
    assert sorted(splits.train.cond) == ["attributes", "label"]
    kept = known_to(splits, {"attributes"})
    for part in (kept.train, kept.held_out):
        assert list(part.cond) == ["attributes"] and not part.spec.labels
        assert part.spec.vectors == splits.train.spec.vectors
    assert torch.equal(kept.train.x, splits.train.x)
    assert kept.report == splits.report
