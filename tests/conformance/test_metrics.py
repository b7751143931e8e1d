"""Every metric: merged sets equal one pass, in two processes too; plain JSON, errors, refusals."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from steerable.core.errors import UserError
from steerable.datasets.scenes import scenes
from steerable.datasets.shapes import shapes

from .rooms import files, part

KINDS = files("metrics")


def _measured(first, *others):
    return first.value(*others)


@dataclass(frozen=True)
class Feed:
    """How to feed one kind.

    Attributes:
        sets: The samples, then what they are measured against; each is what `update` takes.
        least: Items of every set that suffice; with one less there is no value.
        options: Of the constructor.
        paper: Whether its formula is somebody's, so that its docstring must say whose.
        bare: Numbers that are no measures of these samples, or whose error is elsewhere.
        value: Of the metrics of all sets.
    """

    sets: Callable[[], list[tuple[torch.Tensor, ...]]]
    least: int
    options: dict[str, object]
    paper: bool = False
    bare: frozenset[str] = frozenset()
    value: Callable[..., dict[str, object]] = _measured


def _rows(*sizes, width=3):
    """Features of samples, and then of sets whose law is a little apart."""
    generator = torch.Generator().manual_seed(5)
    gap = [0.0, *[0.3] * (len(sizes) - 1)]
    return [
        (torch.randn(n, width, generator=generator, dtype=torch.float64) + g,)
        for n, g in zip(sizes, gap, strict=True)
    ]


def _labelled(classes=2, n=60):
    generator = torch.Generator().manual_seed(6)
    wanted = torch.arange(n) % classes
    wrong = torch.rand(n, generator=generator) < 0.3
    return wanted, torch.where(wrong, (wanted + 1) % classes, wanted)


def _features():
    (features,) = _rows(60)[0]
    return [(features, _labelled()[0])]


def _told():
    (told,), (noise,) = _rows(60, 60)
    told[7] = torch.nan
    told[::9, 1] = torch.nan
    read = told.nan_to_num(0.0) + 0.3 * noise
    return [(told[torch.arange(60) != 7], read[torch.arange(60) != 7])]


def _scored():
    (scores,) = _rows(60, width=5)[0]
    return [(scores.round(decimals=0), torch.arange(60) % 5)]


def _pictures(cond, data):
    return [(data.x[:60], data.cond[cond][:60])]


def _brightnesses():
    generator = torch.Generator().manual_seed(8)
    x = torch.randint(0, 256, (2, 60, 3, 4, 4), generator=generator, dtype=torch.uint8)
    x[0, :3] = 0
    x[1] = x[1] // 2 + 40
    return [(x[0],), (x[1],)]


WORDS = scenes(count=100).train.spec.tokens["prompt"]

FEEDS = {
    "accuracy": Feed(lambda: [_labelled()], 1, {"classes": 2}),
    "binding": Feed(
        lambda: _pictures("prompt", scenes(count=100).train),
        1,
        {"words": WORDS},
        bare=frozenset({"swapped_floor"}),  # of the prompts
    ),
    "colours": Feed(_brightnesses, 16, {"channels": 3}, paper=True),
    "density_coverage": Feed(lambda: _rows(60, 60), 12, {}, paper=True),
    "factors": Feed(
        lambda: _pictures("label", shapes(size=16, count=100).train), 1, {"classes": 10}
    ),
    "frechet": Feed(
        lambda: _rows(60, 70),
        2,
        {},
        paper=True,
        bare=frozenset({"mean_norm", "variance", "distance"}),  # `redrawn` has the error
        value=lambda first, other: {**first.value(), "distance": first.distance(other)},
    ),
    "kid": Feed(lambda: _rows(60, 70), 4, {}, paper=True),
    "memorisation": Feed(
        lambda: _rows(60, 70, 50), 10, {}, paper=True, bare=frozenset({"near_copies_unseen"})
    ),
    "precision_recall": Feed(lambda: _rows(60, 60), 12, {}, paper=True),
    "regression": Feed(_told, 16, {"attributes": 3}),
    "repeats": Feed(lambda: _rows(60, 60), 10, {}),
    "retrieval": Feed(_scored, 1, {"candidates": 5}, paper=True, bare=frozenset({"chance"})),
    "spread": Feed(_features, 3, {"classes": 2}),
    "two_sample": Feed(lambda: _rows(60, 60), 2, {}, paper=True),
}


def _filled(kind, rows, index):
    """A metric that has seen the items `index` of a set."""
    metric = part("metrics", kind)(**FEEDS[kind].options)
    numbers = {"items": index} if "items" in inspect.signature(metric.update).parameters else {}
    metric.update(*(column[index] for column in rows), **numbers)
    return metric


def _whole(kind, n=None):
    """The metrics of all sets of a kind in one pass, of their first n items."""
    sets = FEEDS[kind].sets()
    return [_filled(kind, rows, torch.arange(len(rows[0]) if n is None else n)) for rows in sets]


def _value(kind, metrics):
    return FEEDS[kind].value(*metrics)


def assert_same(found, expected, where=""):
    """Equal, counts and words exactly and other numbers to 1e-6."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_same(a, b, f"{where}/{i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6), where
    else:
        assert type(found) is type(expected) and found == expected, where


def test_every_metric_is_fed():
    unfed, stale = sorted({*KINDS} - {*FEEDS}), sorted({*FEEDS} - {*KINDS})
    assert not unfed, f"without a feed in this file: {unfed}"
    assert not stale, f"fed, but gone: {stale}"


FED = sorted({*KINDS} & {*FEEDS})


@pytest.mark.parametrize("kind", FED)
def test_one_class_a_file_that_says_what_it_is(kind):
    thing, module = part("metrics", kind), inspect.getmodule(part("metrics", kind))
    assert inspect.isclass(thing) and module.__all__ == [thing.__name__]
    assert thing.__name__.lower() == kind.replace("_", "")
    public = [thing, thing.update, thing.merge, thing.value]
    assert module.__doc__ and all(item.__doc__ for item in public)
    text = inspect.getsource(module)
    assert "E-EVAL" in text
    assert "Source: " in text or not FEEDS[kind].paper


def check_merge(kind):
    """Sets that were filled in random parts of any size, in any order, and one of nothing."""
    generator = torch.Generator().manual_seed(2)
    expected = _value(kind, _whole(kind))
    for cuts in ([30], [1, 2, 40], [59]):
        merged = []
        for rows in FEEDS[kind].sets():
            order = torch.randperm(len(rows[0]), generator=generator)
            first, *others = order.tensor_split(cuts)
            metric = _filled(kind, rows, first)
            for index in [*others, order[:0]]:
                metric.merge(_filled(kind, rows, index))
            merged.append(metric)
        assert_same(_value(kind, merged), expected)


@pytest.mark.parametrize("kind", FED)
def test_merged_parts_equal_one_pass(kind):
    check_merge(kind)


@pytest.mark.parametrize("kind", FED)
def test_a_merge_that_forgets_is_noticed(kind, monkeypatch):
    monkeypatch.setattr(part("metrics", kind), "merge", lambda self, other: None)
    with pytest.raises((AssertionError, UserError)):
        check_merge(kind)


@pytest.mark.parametrize("kind", ["colours", "regression"])
def test_forgotten_numbers_of_items_are_noticed(kind, monkeypatch):
    thing = part("metrics", kind)
    real = thing.update
    monkeypatch.setattr(thing, "update", lambda self, *rows, items=None: real(self, *rows))
    with pytest.raises(AssertionError):
        check_merge(kind)


@pytest.mark.parametrize("kind", FED)
def test_every_measure_has_its_error_and_there_is_an_n(kind):
    metrics = _whole(kind)
    value = _value(kind, metrics)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert type(value["n"]) is int and value["n"] == len(FEEDS[kind].sets()[0][0])
    measures = {k for k, v in value.items() if isinstance(v, float) and not k.endswith("_error")}
    assert FEEDS[kind].bare <= measures, "bare, but not there"
    for name in measures - FEEDS[kind].bare:
        error = value.get(f"{name}_error")
        assert isinstance(error, float) and 0 <= error < math.inf, f"{name}: {error}"
    lonely = {k for k in value if k.endswith("_error") and k.removesuffix("_error") not in value}
    assert not lonely, lonely
    assert _value(kind, metrics) == value, "asking changes nothing"


@pytest.mark.parametrize("kind", FED)
def test_too_few_items_are_refused_with_their_number(kind):
    least = FEEDS[kind].least
    assert json.dumps(_value(kind, _whole(kind, least)), allow_nan=False)
    for n in {0, least - 1}:
        with pytest.raises(UserError) as caught:
            _value(kind, _whole(kind, n))
        fault = caught.value
        assert fault.code == "E-EVAL" and str(n) in fault.got and fault.takes
    empty = [part("metrics", kind)(**FEEDS[kind].options) for _ in FEEDS[kind].sets()]
    with pytest.raises(UserError) as caught:
        _value(kind, empty)
    assert caught.value.code == "E-EVAL"


def _process(rank, folder):
    """One of two processes: it sees every other item, all merge, the first writes the values."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    mine = {
        kind: [
            _filled(kind, rows, torch.arange(rank, len(rows[0]), 2)) for rows in FEEDS[kind].sets()
        ]
        for kind in FED
    }
    every = [None, None]
    torch.distributed.all_gather_object(every, mine)
    if rank == 0:
        for kind in FED:
            for metric, other in zip(mine[kind], every[1][kind], strict=True):
                metric.merge(other)
        values = {kind: _value(kind, metrics) for kind, metrics in mine.items()}
        (folder / "values.json").write_text(json.dumps(values, allow_nan=False))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    torch.multiprocessing.spawn(_process, (tmp_path,), nprocs=2)
    found = json.loads((tmp_path / "values.json").read_text())
    assert sorted(found) == FED
    for kind in FED:
        assert_same(found[kind], _value(kind, _whole(kind)), kind)
