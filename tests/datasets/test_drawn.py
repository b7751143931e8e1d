"""The drawn data sets: balance, independence of the factors, and what is never trained on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from steerable.core.errors import UserError
from steerable.datasets.scenes import scenes
from steerable.datasets.shapes import shapes
from steerable.intake.drawing import covered
from steerable.recipes.part import Part, build

FACTORS = ("hue", "x", "y", "scale")


def both(splits, name):
    return torch.cat([splits.train.cond[name], splits.held_out.cond[name]])


def check(splits, n, out):
    assert (len(splits.train), len(splits.held_out)) == (n - out, out)
    for part in (splits.train, splits.held_out):
        assert part.x.dtype == torch.uint8 and part.x.shape[1:] == part.spec.shape
    values = splits.train.x.to(torch.float64) / 127.5 - 1
    assert splits.train.spec.std == pytest.approx(float(values.std(correction=0)), rel=1e-9)
    rows = {item.numpy().tobytes() for item in splits.train.x}
    assert len(rows) == len(splits.train)
    assert not rows & {item.numpy().tobytes() for item in splits.held_out.x}


def test_shapes_are_balanced_and_the_factors_independent():
    splits = shapes(size=16, count=2000, attributes=True)
    check(splits, 2000, 400)
    spec = splits.train.spec
    assert spec.shape == (3, 16, 16) and len(spec.labels["label"]) == 10
    assert spec.vectors == {"attributes": FACTORS} and not spec.flip
    assert splits.train.cond["label"].bincount().tolist() == [160] * 10
    assert splits.held_out.cond["label"].bincount().tolist() == [40] * 10
    factors, label = both(splits, "attributes").double(), both(splits, "label")
    assert factors.abs().max() <= 1 and splits.train.cond["attributes"].dtype == torch.float32
    # Even in [-1, 1]: mean 0 and variance 1/3, within 4.5 standard errors.
    assert factors.mean(0).abs().max() < 4.5 * (1 / 3 / 2000) ** 0.5
    assert (factors.square().mean(0) - 1 / 3).abs().max() < 4.5 * (4 / 45 / 2000) ** 0.5
    indicators = torch.nn.functional.one_hot(label, 10).double()
    table = torch.corrcoef(torch.cat([factors, indicators], 1).T)
    assert table[:4, :4].fill_diagonal_(0).abs().max() < 4.5 / 2000**0.5
    assert table[:4, 4:].abs().max() < 4.5 / 2000**0.5


def test_no_shape_is_ever_cut():
    """At the ends of all factors the area is what it is in the middle of a larger picture."""
    splits = shapes(size=16, count=100)
    ends = splits.report["factors"]
    corners = np.array(list(itertools.product(ends["x"], ends["y"]))) * 64
    scale = np.full(4, ends["scale"][1] * 64)
    for shape in splits.train.spec.labels["label"]:
        inside = covered(shape, corners + 32, scale, size=(64, 64)).sum((1, 2))
        free = covered(shape, corners + 64, scale, size=(128, 128)).sum((1, 2))
        np.testing.assert_array_equal(inside, free)


def test_shapes_depend_on_the_seed_and_begin_alike():
    small, large = shapes(size=16, count=300), shapes(size=16, count=600)
    assert torch.equal(small.train.x, large.train.x[: len(small.train)])
    assert "attributes" not in small.train.cond and small.train.spec.vectors == {}
    other = shapes(size=16, count=300, seed=1)
    assert not torch.equal(small.train.x, other.train.x)
    assert torch.equal(small.train.cond["label"], other.train.cond["label"])
    assert torch.equal(small.train.x, shapes(size=16, count=300).train.x)


def test_labels_of_shapes_can_be_told_apart_at_the_smallest_size():
    """A nearest-neighbour rule on the cover alone, so no class is a copy of another."""
    splits = shapes(size=16, count=6000)
    train, rest = (p.x.amax(1).flatten(1).float() for p in (splits.train, splits.held_out))
    near = torch.cdist(rest, train).argmin(1)
    right = splits.train.cond["label"][near] == splits.held_out.cond["label"]
    assert right.float().mean() >= 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_scenes_never_train_on_the_held_pairs(seed):
    splits = scenes(count=2000, seed=seed)
    check(splits, 2000, 400)
    words = splits.train.spec.tokens["prompt"]
    assert splits.train.spec.shape == (3, 16, 32) and len(words) == 8
    unseen = {tuple(pair.split()) for pair in splits.report["unseen_pairs"]}
    assert len(unseen) == len({c for c, _ in unseen}) == len({f for _, f in unseen}) == 4

    def pairs(prompt):
        text = [words[i] for i in prompt.tolist()]
        return {tuple(text[:2]), tuple(text[2:])}

    seen = [pairs(prompt) for prompt in splits.train.cond["prompt"]]
    assert not any(found & unseen for found in seen)
    assert len(set().union(*seen)) == 12
    flags = [bool(pairs(prompt) & unseen) for prompt in splits.held_out.cond["prompt"]]
    assert flags == [bool(i % 2) for i in range(400)]
    assert splits.report["held_out_with_unseen_pairs"] == 200
    # Every word is learned on both sides, colours at even places and shapes at odd ones.
    for place in range(4):
        counts = splits.train.cond["prompt"][:, place].bincount(minlength=8)
        assert (counts > 300).tolist() == [place % 2 == 0] * 4 + [place % 2 == 1] * 4


def test_scenes_options():
    first, second = scenes(count=200), scenes(count=200, seed=3)
    assert torch.equal(first.train.x, scenes(count=200).train.x)
    assert not torch.equal(first.train.cond["prompt"], second.train.cond["prompt"])
    two = scenes(count=200, held_pairs=2).report["unseen_pairs"]
    assert two == first.report["unseen_pairs"][:2]
    every = scenes(count=2000, held_pairs=0, size=24)
    assert every.train.spec.shape == (3, 24, 48) and every.report["unseen_pairs"] == []
    prompt = every.train.cond["prompt"]
    assert len((prompt[:, 0] * 8 + prompt[:, 1]).unique()) == 16


@pytest.mark.parametrize("kind", ["shapes", "scenes"])
def test_a_negative_seed_is_one_clear_line(kind):
    with pytest.raises(UserError, match="seed") as caught:
        {"shapes": shapes, "scenes": scenes}[kind](count=100, seed=-1)
    assert caught.value.code == "E-LIMIT"
    with pytest.raises(UserError, match="seed") as caught:
        build("data", Part(kind=kind, options={"count": 100, "seed": -1}))
    assert caught.value.code == "E-CONFIG"
