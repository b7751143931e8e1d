"""Shapes against their exact areas and moments, and read back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerable.intake.drawing import SHAPES, colour, covered, seen


@pytest.mark.parametrize("shape", SHAPES)
def test_area_and_centroid_are_those_asked_for(shape):
    rng = np.random.default_rng(0)
    centre, scale = 0.5 * 48 + rng.uniform(-4, 4, (40, 2)), rng.uniform(12, 20, 40)
    cover = covered(shape, centre, scale, size=(48, 48))
    area = cover.sum((1, 2), dtype=np.float64)
    # An edge along the samples is off by an eighth of a pixel at most. The cross has the most edge:
    # 5.4 roots of its area, so 0.5 * 5.4 / (8 * 12) of its scale. On average, nothing is off.
    assert np.abs(np.sqrt(area) / scale - 1).max() < 0.03
    assert abs((np.sqrt(area) / scale - 1).mean()) < 0.005
    line = np.arange(48) + 0.5
    found = np.stack([cover.sum(1) @ line, cover.sum(2) @ line], 1) / area[:, None]
    assert np.abs(found - centre).max() < 0.15


def test_second_moments_are_those_of_geometry():
    """Polar moment over area^2: 1/2pi for a disc, 1/6 for a square, and so on."""
    wanted = {
        "disc": 1 / (2 * math.pi),
        "square": 1 / 6,
        "triangle": 1 / (3 * math.sqrt(3)),
        "ring": (1 - 0.36**2) / (2 * math.pi * (1 - 0.36) ** 2),
        "bar": (1 + 0.3**2) / (12 * 0.3),
        "diamond": (1 + 0.65**2) / (12 * 0.65),
        # Two bars of 2 by 2/3 less the square in the middle, over the area 20/9 squared.
        "cross": (2 * (4 / 3) * (4 + 4 / 9) / 12 - (2 / 3) ** 4 / 6) / (20 / 9) ** 2,
    }
    line = np.arange(64) - 31.5
    for shape, moment in wanted.items():
        cover = covered(shape, np.full((1, 2), 32.0), np.array([26.0]), size=(64, 64))[0]
        second = (cover * (line[:, None] ** 2 + line[None] ** 2)).sum() / cover.sum() ** 2
        assert second == pytest.approx(moment, rel=0.02), shape


def test_a_square_on_whole_pixels_is_exact_and_half_pixels_are_half():
    cover = covered("square", np.array([[5.0, 4.0]]), np.array([4.0]), size=(10, 12))[0]
    wanted = np.zeros((10, 12))
    wanted[2:6, 3:7] = 1
    np.testing.assert_array_equal(cover, wanted)
    cover = covered("square", np.array([[5.5, 4.0]]), np.array([4.0]), size=(10, 12))[0]
    assert cover[3, 3] == cover[3, 7] == 0.5 and cover[3, 4] == 1 and cover[3, 8] == 0


def test_which_way_round_things_are():
    def drawn(shape):
        return covered(shape, np.full((1, 2), 16.0), np.array([14.0]), size=(32, 32))[0]

    assert drawn("triangle").any(1).argmax() < 8  # its tip is up: it reaches far above its centroid
    width = (drawn("triangle") > 0.5).sum(1)
    assert width[width > 0][0] < width[width > 0][-1]
    heart = (drawn("heart") > 0.5).sum(1)
    assert heart[heart > 0][-1] < heart[heart > 0][0]
    bar = drawn("bar") > 0.5
    assert bar.any(0).sum() > 3 * bar.any(1).sum()
    assert drawn("ring")[16, 16] == 0
    crescent = drawn("crescent")  # open to the right: its horns reach there, its middle does not
    assert crescent[7, 18:].sum() > 1 and crescent[16, 18:].sum() == 0


def test_the_hues_of_the_wheel():
    found = colour(np.array([0, 1 / 6, 1 / 3, 0.5, 2 / 3, 5 / 6, 1, 1 / 12]))
    wanted = [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0)]
    np.testing.assert_allclose(found, [*wanted, (1, 0.5, 0)], atol=1e-5)


def test_seen_reads_a_hand_made_picture():
    x = np.zeros((2, 3, 10, 20), np.uint8)
    x[0, 0, 2:6, 12:18], x[0, 1, 2:6, 12:18] = 250, 125
    found = seen(x)
    np.testing.assert_allclose(found.centre[0], (15, 4))
    np.testing.assert_allclose(found.scale[0], math.sqrt(24))
    np.testing.assert_allclose(found.paint[0], (1, 0.5, 0))
    assert np.isnan(found.scale[1]) and np.isnan(found.paint[1]).all()
