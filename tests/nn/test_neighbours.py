"""Nearest rows and balls equal brute force: ties, copies and tables far from the origin too."""

import pytest
import torch

from steerable.nn import neighbours

from ..mutants import altered, noticed


def _draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _grid(seed, n, side=4):
    """Points of a grid of side^2 places: most have copies, and distances tie exactly."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(side, (n, 2), generator=generator).double()


def _pairs():
    """Tables (a, b) on which rounding, ties or copies are hard."""
    far = 1e7 + _draw(0, 40, 3)
    yield "plain", _draw(1, 37, 5), _draw(2, 61, 5)
    yield "wide", _draw(3, 6, 784), _draw(4, 14, 784)
    yield "grid", _grid(5, 50), _grid(6, 70)
    yield "one place", torch.ones(9, 3).double(), torch.ones(30, 3).double()
    yield "far off", far, far[torch.arange(39, -1, -1)] + 1e-3 * _draw(7, 40, 3)
    yield "copies", _draw(8, 20, 6), torch.cat([_draw(8, 20, 6), _draw(9, 20, 6)])


def _brute(a, b, k, itself):
    distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    if itself:
        distance.fill_diagonal_(torch.inf)
    order = distance.argsort(dim=1, stable=True)[:, :k]
    return distance.gather(1, order), order


def check_nearest(room):
    """Among others and among themselves, with as many neighbours as there are at most."""
    for _, a, b in _pairs():
        for x, y, itself in ((a, b, False), (b, b, True)):
            for k in (1, len(y) - itself):
                distance, which = room.nearest(x, y, k, itself=itself)
                wanted, _ = _brute(x, y, k, itself)
                torch.testing.assert_close(distance, wanted, rtol=1e-12, atol=0)
                if itself:
                    assert not bool((which == torch.arange(len(y))[:, None]).any())
                # Where two distances differ by rounding only, either order is right.
                again = (x[:, None] - y[which]).square().sum(2).sqrt()
                torch.testing.assert_close(again, wanted, rtol=1e-12, atol=0)
                assert all(len(set(line)) == k for line in which.tolist())


def check_ties(room):
    """Distances that tie exactly stand in the order of the rows."""
    for x, y, itself in ((_grid(5, 50), _grid(6, 70), False), (_grid(6, 70), _grid(6, 70), True)):
        for k in (1, 3, 20):
            assert torch.equal(room.nearest(x, y, k, itself=itself)[1], _brute(x, y, k, itself)[1])


def check_by_hand(room):
    """On a line: 0, 1, 3 and 7."""
    b = torch.tensor([[0.0], [1.0], [3.0], [7.0]]).double()
    distance, which = room.nearest(b, b, 2, itself=True)
    assert distance.tolist() == [[1, 3], [1, 2], [2, 3], [4, 6]]
    assert which.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    a = torch.tensor([[2.0], [3.0]]).double()
    distance, which = room.nearest(a, b, 2)
    assert distance.tolist() == [[1, 1], [0, 2]] and which.tolist() == [[1, 2], [2, 1]]
    radius = torch.tensor([2.0, 0, 1, 3]).double()
    assert room.inside(a, b, radius).tolist() == [2, 1]
    assert room.inside(b, b, radius).tolist() == [1, 2, 1, 1]


def check_balls(room):
    """Also balls that reach exactly to an item, and those of no size at all."""
    for _, a, b in _pairs():
        x = torch.cat([a, b])  # the neighbours that give the radii are among those who ask
        distance = (x[:, None] - b).square().sum(2).sqrt()
        for radius in (room.nearest(b, b, 2, itself=True)[0][:, -1], torch.zeros(len(b)).double()):
            counts = room.inside(x, b, radius)
            assert torch.equal(counts, (distance <= radius).sum(1))
            # Each ball holds itself and two neighbours at the least.
            assert int(counts[len(a) :].sum()) >= (3 if float(radius.max()) else 1) * len(b)


CHECKS = check_nearest, check_ties, check_by_hand, check_balls


@pytest.mark.parametrize("check", CHECKS)
def test_equals_brute_force(check):
    check(neighbours)


@pytest.mark.parametrize("entries", [1, 700])
def test_a_few_rows_at_a_time_are_the_same(entries):
    parts = altered("nn.neighbours", "ENTRIES = 1 << 22", f"ENTRIES = {entries}")
    for name, a, b in _pairs():
        if name in ("plain", "grid"):
            for x, k, itself in ((a, 3, False), (b, 2, True)):
                ours = neighbours.nearest(x, b, k, itself=itself)
                found = parts.nearest(x, b, k, itself=itself)
                assert all(torch.equal(*pair) for pair in zip(found, ours, strict=True))
            radius = ours[0][:, -1]
            assert torch.equal(parts.inside(b, b, radius), neighbours.inside(b, b, radius))


def test_no_rows_have_no_neighbours():
    none, b = torch.zeros(0, 3).double(), _draw(1, 7, 3)
    assert [x.shape for x in neighbours.nearest(none, b, 2)] == [(0, 2), (0, 2)]
    assert neighbours.inside(none, b, torch.ones(7).double()).shape == (0,)


def test_more_neighbours_than_rows_are_refused():
    b = _draw(1, 4, 3)
    for k, itself in ((0, False), (5, False), (4, True)):
        with pytest.raises(AssertionError):
            neighbours.nearest(b, b, k, itself=itself)


SMALL = ("ENTRIES = 1 << 22", "ENTRIES = 700")  # so that there is more than one part
WRONG = {
    "itself is a neighbour": ("rough[row, number * step + row] = torch.inf", "pass"),
    "of the first part only": (*SMALL, "number * step + row", "row"),
    "one too few": ("stable=True)[:, :k]", "stable=True)[:, 1 : k + 1]"),
    "candidates as rounding left them": (
        "near, which = _ordered(part, b, columns.sort(1).values, k)",
        "near, which = values[:, :k].clamp(min=0).sqrt(), columns[:, :k]",
    ),
    "no second look": ("in torch.nonzero(values[:, -1] <= limit)[:, 0].tolist()", "in ()"),
    "second look among too few": (
        "torch.nonzero(rough[i] <= limit[i])",
        "torch.nonzero(rough[i] <= near[i, -1] ** 2)",
    ),
    "candidates in any order": ("columns.sort(1).values", "columns.sort(1).values.flip(1)"),
    "far from the rows": (".add_(a.square().sum(1)[:, None])", ""),
    "edge outside": ("<= radius[j]", "< radius[j]"),
    "edge as rounding has it": ("beyond.abs() <= slack", "beyond.abs() < 0"),
    "radius not squared": ("radius.square()", "radius"),
    "balls of others": ("b[j]) <= radius[j]", "b[j]) <= radius[i % len(radius)]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_noticed(name):
    assert noticed(CHECKS, altered("nn.neighbours", *WRONG[name]), RuntimeError, IndexError)
