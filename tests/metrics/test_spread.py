import json

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics.spread import Spread


def _seen(features, labels, classes=3):
    metric = Spread(classes)
    metric.update(features, labels)
    return metric.value()


def _gaussian(n, std, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return labels[:, None] * 10.0 + std * torch.randn(n, 5, generator=g), labels


def test_by_hand():
    features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [5.0, 9.0]])
    value = _seen(features, torch.tensor([0, 0, 1, 1]))
    assert value["spread"] == pytest.approx(((2.0 + 8.0) / 2) ** 0.5)
    assert value["n"] == 4 and json.loads(json.dumps(value)) == value


def test_gaussians_have_the_spread_they_should_within_the_stated_error():
    """sqrt(5) std, whatever the means; 2 standard errors hold in most of 100 repeats."""
    inside = 0
    for seed in range(100):
        value = _seen(*_gaussian(600, 0.7, seed))
        inside += abs(value["spread"] - 0.7 * 5**0.5) < 2 * value["spread_error"]
    assert inside >= 88  # 95 expected; a binomial falls below 88 once in a thousand


def test_a_collapsed_class_and_one_whose_mean_is_off():
    features, labels = _gaussian(300, 1.0)
    same = _seen(features, labels)["spread"]
    assert _seen(features + 50.0, labels)["spread"] == pytest.approx(same)
    assert _seen(labels[:, None] * 10.0 + torch.zeros(300, 5), labels)["spread"] < 1e-6
    mixed = labels[torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    assert _seen(features, mixed)["spread"] > 2 * same


def test_merge_equals_one_pass():
    features, labels = _gaussian(200, 1.0)
    whole, parts = Spread(3), Spread(3)
    whole.update(features, labels)
    for rows, kinds in zip(features.split(17), labels.split(17), strict=True):
        part = Spread(3)
        part.update(rows, kinds)
        parts.merge(part)
    assert parts.value() == pytest.approx(whole.value(), abs=1e-9)


def test_copies_do_not_shrink_the_error():
    features, labels = _gaussian(120, 1.0)
    once = _seen(features, labels)["spread_error"]
    assert _seen(features.repeat(10, 1), labels.repeat(10))["spread_error"] > 0.7 * once


def test_too_few_are_refused():
    with pytest.raises(UserError, match="2 or more"):
        _seen(torch.zeros(3, 2), torch.arange(3))
    with pytest.raises(UserError):
        Spread(2).value()
