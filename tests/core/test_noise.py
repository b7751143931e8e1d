"""Noise: right laws, no dependence where none is wanted, and numbers that stay the same."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from steerable.core.noise import Noise, mix

F64 = torch.float64
FROZEN = [0.7677173342778153, -1.9927387709024418, 0.194160007882158]  # of seed 0


def _seeds(n, start=0):
    return torch.arange(n) + start


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 5, 7), (2, 4)])
def test_an_item_does_not_depend_on_its_batch(shape):
    seeds = torch.tensor([3, 99, -7, 2**62, 0])
    like = torch.zeros(5, *shape)
    noise = Noise(seeds)
    together = [noise.normal(like), noise.uniform(5), noise.integers(5, 1000), noise.normal(like)]
    for i in range(5):
        alone = Noise(seeds[i : i + 1])
        one = like[:1]
        draws = [alone.normal(one), alone.uniform(1), alone.integers(1, 1000), alone.normal(one)]
        for whole, part in zip(together, draws, strict=True):
            assert torch.equal(whole[i : i + 1], part)


def test_the_order_of_items_does_not_matter():
    order = torch.tensor([4, 0, 3, 1, 2])
    like = torch.zeros(5, 9)
    assert torch.equal(Noise(_seeds(5)).normal(like)[order], Noise(order).normal(like))


def test_equal_seeds_give_equal_numbers_and_other_seeds_others():
    z = Noise(torch.tensor([7, 7, 8])).normal(torch.zeros(3, 100))
    assert torch.equal(z[0], z[1]) and not bool((z[0] == z[2]).any())


def test_the_numbers_of_a_seed_never_change():
    """A frozen sample: another machine, version or refactoring must draw the same."""
    z = Noise.of(5, iteration=3, items=torch.tensor([0, 1])).normal(torch.zeros(2, 2, dtype=F64))
    again = Noise.of(5, iteration=3, items=torch.tensor([1])).normal(torch.zeros(1, 2, dtype=F64))
    assert torch.equal(z[1:], again)
    first = Noise(torch.tensor([0])).normal(torch.zeros(1, 3, dtype=F64))[0]
    want = torch.tensor(FROZEN, dtype=F64)
    assert float((first - want).abs().max()) < 1e-12


def test_mixing_is_splitmix64():
    """The first outputs of SplitMix64 from seed 0, as published with the generator."""
    gamma = 0x9E3779B97F4A7C15
    words = torch.tensor([gamma - 2**64, 2 * gamma - 2**64])
    got = [int(v) % 2**64 for v in mix(words)]
    assert got == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_normal_numbers_have_the_normal_law():
    z = Noise(_seeds(500)).normal(torch.zeros(500, 401, dtype=F64))
    flat = z.flatten()
    n = len(flat)
    assert stats.kstest(flat.numpy(), "norm").pvalue > 1e-3
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        got = float((flat**power).mean())
        assert abs(got - mean) < 4 * math.sqrt(variance / n), f"moment {power}"
    tail = float((flat.abs() > 3).to(F64).mean())
    assert abs(tail - 0.0026998) < 4 * math.sqrt(0.0027 / n)


def test_uniform_numbers_have_the_uniform_law():
    noise = Noise(_seeds(20_000, 5))
    u = noise.uniform(20_000)
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    assert float(u.min()) > 0 and float(u.max()) < 1 and u.dtype == F64
    assert abs(float(torch.corrcoef(torch.stack([u, noise.uniform(20_000)]))[0, 1])) < 0.03


def test_no_correlation_between_items_places_draws_seeds_and_iterations():
    like = torch.zeros(64, 64, dtype=F64)
    noise = Noise(_seeds(64))
    first, second = noise.normal(like), noise.normal(like)
    room = 4.5 / math.sqrt(64 * 64)
    pairs = {
        "draws": (first, second),
        "neighbouring items": (first[1:], first[:-1]),
        "neighbouring places": (first[:, 1:], first[:, :-1]),
        "the two numbers of a pair": (first[:, ::2], first[:, 1::2]),
        "an item's draw and its neighbour's": (first[1:], second[:-1]),
        "seeds": (
            Noise.of(1, iteration=0, items=_seeds(64)).normal(like),
            Noise.of(2, iteration=0, items=_seeds(64)).normal(like),
        ),
        "iterations": (
            Noise.of(1, iteration=4, items=_seeds(64)).normal(like),
            Noise.of(1, iteration=5, items=_seeds(64)).normal(like),
        ),
    }
    for name, (a, b) in pairs.items():
        factor = math.sqrt(64 * 64 / a.numel())
        assert abs(float((a * b).mean())) < room * factor, name
        assert abs(float((a**2 * b**2).mean()) - 1) < 3 * room * factor, f"{name}, squared"


def test_correlation_matrix_of_many_items_is_that_of_white_noise():
    z = Noise(_seeds(200, 1000)).normal(torch.zeros(200, 2000, dtype=F64))
    c = torch.corrcoef(z) - torch.eye(200, dtype=F64)
    assert float(c.abs().max()) < 5.2 / math.sqrt(2000)


def test_iteration_and_item_are_different_keys():
    a = Noise.of(0, iteration=1, items=torch.tensor([0])).uniform(1)
    b = Noise.of(0, iteration=0, items=torch.tensor([1])).uniform(1)
    c = Noise.of(1, iteration=0, items=torch.tensor([0])).uniform(1)
    assert len({float(a), float(b), float(c)}) == 3


def test_stratified_numbers_split_the_interval_and_keep_their_law():
    u = Noise(_seeds(64)).stratified(64)
    assert (u * 64).floor().tolist() == list(range(64))
    second = Noise(_seeds(32, 32), place=torch.arange(32, 64), total=64).stratified(32)
    assert torch.equal(second, u[32:]), "a shard draws what the whole batch would"
    many = torch.cat([Noise(_seeds(8, 8 * i)).stratified(8) for i in range(1000)])
    assert stats.kstest(many.numpy(), "uniform").pvalue > 1e-3


def test_integers_are_even_and_in_range():
    k = Noise(_seeds(30_000)).integers(30_000, 7)
    counts = torch.bincount(k, minlength=7)
    assert len(counts) == 7 and k.dtype == torch.int64
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert Noise(_seeds(10)).integers(10, 1).tolist() == [0] * 10


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1023])
def test_odd_sizes_are_filled_and_share_their_beginning(size):
    z = Noise(_seeds(4)).normal(torch.zeros(4, size, dtype=F64))
    longer = Noise(_seeds(4)).normal(torch.zeros(4, 2 * size, dtype=F64))
    assert z.shape == (4, size) and bool(torch.isfinite(z).all())
    assert torch.equal(z, longer[:, :size])
    assert len(z.unique()) == z.numel()


def test_the_type_follows_the_tensor():
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert Noise(_seeds(2)).normal(torch.zeros(2, 3, dtype=dtype)).dtype == dtype
