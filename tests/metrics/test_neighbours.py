"""Neighbour measures on laws whose answer is known: equal, apart, copied, collapsed."""

from __future__ import annotations

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics.neighbours import Neighbours


def _set(rows):
    made = Neighbours()
    for part in rows.split(70):
        made.update(part)
    return made


def _normal(seed, n=400, dims=4):
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_laws_are_at_chance_and_cover_as_the_formula_says():
    value = _set(_normal(1)).value(_set(_normal(2)))
    assert abs(value["two_sample"] - 0.5) < 4 * value["two_sample_error"]
    error = (0.969 * 0.031 / 400) ** 0.5
    assert abs(value["coverage"] - (1 - 2**-5)) < 5 * error
    assert abs(value["density"] - 1) < 0.15
    assert value["precision"] > 0.8 and value["recall"] > 0.8


def test_laws_apart_are_told_apart():
    value = _set(_normal(1) + 20).value(_set(_normal(2)))
    assert value["two_sample"] == 1.0
    assert value["precision"] == value["recall"] == value["coverage"] == value["density"] == 0.0


def test_copies_are_below_chance_and_collapse_loses_recall_only():
    real = _normal(3)
    assert _set(real + 1e-9).value(_set(real))["two_sample"] == 0.0
    one = real[:1] + 0.01 * _normal(4)
    value = _set(one).value(_set(real))
    assert value["precision"] > 0.95 and value["recall"] < 0.02 and value["coverage"] < 0.05


def test_by_hand_on_a_line():
    """Samples 0, 1, 2 and real 0.4, 10, 11: every neighbour can be read off."""
    a, b = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.4], [10.0], [11.0]])
    value = _set(a).value(_set(b), k=1)
    # 0 -> 0.4 (other), 1 -> 0.4 (0.6, other), 2 -> 1 (own); 0.4 -> 0 (other), 10 and 11 own
    assert value["two_sample"] == pytest.approx(3 / 6)
    # balls around real: 0.4 +- 9.6, 10 +- 1, 11 +- 1 hold 3, 0, 0 samples
    assert value["precision"] == 1.0 and value["density"] == pytest.approx(1.0)
    # balls around samples have radius 1: 0.4 lies in two of them, the others in none
    assert value["recall"] == pytest.approx(1 / 3)
    assert value["coverage"] == pytest.approx(1 / 3)


def test_memorisation_is_zero_for_copies_and_one_for_fresh_items():
    train, unseen = _normal(5, 1500), _normal(6)
    assert _set(train[:300]).copied(_set(train), _set(unseen))["ratio"] == 0.0
    fresh = _set(_normal(7)).copied(_set(train), _set(unseen))
    assert abs(fresh["ratio"] - 1) < 0.12


def test_parts_merge_and_nonsense_is_refused():
    a, b = _normal(1), _normal(2)
    whole, parts = _set(a), _set(a[:150])
    parts.merge(_set(a[150:]))
    assert parts.value(_set(b)) == whole.value(_set(b))
    for other in (_normal(2, 300), _normal(2, 0)):
        with pytest.raises(UserError) as caught:
            whole.value(_set(other))
        assert caught.value.code == "E-EVAL"
    with pytest.raises(UserError):
        whole.copied(Neighbours(), whole)
