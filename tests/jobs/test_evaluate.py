"""Evaluation: what it compares, with what, and when it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import steerable
from steerable.core.errors import UserError
from steerable.core.types import Splits
from steerable.datasets.fashion import fashion
from steerable.jobs.evaluate import distance, evaluate, obedience, reference
from steerable.jobs.judge import shipped_judge
from steerable.jobs.prepare import prepare
from steerable.jobs.sample import Sample
from steerable.jobs.wish import Wish
from tests.jobs.tiny import finish, tiny


@pytest.fixture(scope="module")
def clothes():
    return fashion(source="embedded")


def as_sample(data):
    names = data.spec.labels["label"]
    wishes = tuple(
        Wish({"label": names[int(label)]}, i) for i, label in enumerate(data.cond["label"])
    )
    return Sample(data.x, wishes, None, 12)


def test_a_perfect_model_of_unbalanced_data_is_at_the_floor(clothes):
    """Fresh real pictures, equally many a class, against data with ten times more of one class."""
    judge = shipped_judge(clothes.train.spec)
    labels = clothes.train.cond["label"]
    rare = torch.cat([torch.nonzero(labels == c)[: 600 if c == 3 else 60, 0] for c in range(10)])
    pool = Splits(clothes.train.take(rare), clothes.held_out.take(torch.arange(30)), {})
    real, part = reference(pool, 300, seed=0)
    assert part == "train" and len(real) == 600
    assert torch.bincount(real.cond["label"]).tolist() == [60] * 10
    fresh = as_sample(clothes.held_out.take(torch.arange(300)))
    found = distance(judge, fresh, real, part)
    assert found["frechet_n"] == 300
    assert found["frechet"] < 2.5 * found["frechet_floor"], found
    same_class = as_sample(
        clothes.held_out.take(torch.nonzero(clothes.held_out.cond["label"] == 3)[:, 0])
    )
    assert distance(judge, same_class, real, part)["frechet"] > 10 * found["frechet_floor"]


def test_real_pictures_obey_and_wrong_labels_do_not(clothes):
    judge = shipped_judge(clothes.train.spec)
    names = clothes.train.spec.labels["label"]
    right = obedience(judge, as_sample(clothes.held_out), names)
    assert 0.88 < right["accuracy"] < 0.97 and sum(map(sum, right["confusion"])) == 1000
    swapped = clothes.held_out.take(torch.arange(1000))
    swapped.cond["label"][:] = (swapped.cond["label"] + 1) % 10
    assert obedience(judge, as_sample(swapped), names)["accuracy"] < 0.05


def test_refusals(clothes, tmp_path):
    finish(prepare(tiny(3), tmp_path / "run"))
    model = steerable.load(tmp_path / "run")
    with pytest.raises(UserError) as caught:
        next(evaluate(model, clothes, recipe=model.recipe, n=100))
    assert caught.value.code == "E-DATA"
    few = Splits(clothes.train.take(torch.arange(9)), clothes.held_out.take(torch.arange(9)), {})
    with pytest.raises(UserError) as caught:
        reference(few, 100, seed=0)
    assert caught.value.code == "E-EVAL" and Path(tmp_path / "run").is_dir()
