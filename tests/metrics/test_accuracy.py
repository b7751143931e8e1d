import json

import pytest
import torch

from steerable.core.errors import UserError
from steerable.metrics.accuracy import Accuracy


def test_counts_rates_and_error():
    metric = Accuracy(3)
    metric.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]))
    value = metric.value()
    assert value["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert value["accuracy"] == 0.75 and value["n"] == 4
    assert value["accuracy_error"] == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert value["per_class"] == [pytest.approx(2 / 3), 1.0, None]
    assert json.loads(json.dumps(value)) == value


def test_merge_equals_one_pass():
    generator = torch.Generator().manual_seed(0)
    predicted, wanted = torch.randint(5, (2, 99), generator=generator)
    whole, parts = Accuracy(5), Accuracy(5)
    whole.update(predicted, wanted)
    for p, w in zip(predicted.split(10), wanted.split(10), strict=True):
        part = Accuracy(5)
        part.update(p, w)
        parts.merge(part)
    assert parts.value() == whole.value()
    assert whole.value()["accuracy"] == float((predicted == wanted).double().mean())


def test_nothing_counted_is_refused():
    with pytest.raises(UserError) as caught:
        Accuracy(2).value()
    assert caught.value.code == "E-EVAL"
