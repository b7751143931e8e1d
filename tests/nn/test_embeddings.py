"""Codes of levels and places: told apart, never repeated, frozen and stored."""

from __future__ import annotations

import math

import torch
from torch import nn

from steerable.nn.embeddings import RandomLevelEmbedding, grid_code, line_code


def test_frequencies_are_frozen_and_stored():
    torch.manual_seed(1)
    first = RandomLevelEmbedding(8, features=64)
    assert "frequencies" in first.state_dict()
    assert "frequencies" not in dict(first.named_parameters())
    kept = first.frequencies.clone()
    level = torch.linspace(-4, 4, 5)
    first(level).square().sum().backward()
    torch.optim.SGD(first.parameters(), lr=1.0).step()
    assert torch.equal(first.frequencies, kept)
    second = RandomLevelEmbedding(8, features=64)
    assert not torch.equal(second.frequencies, kept)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(level), first(level))


def test_features_correlate_as_the_gaussian_law_of_their_frequencies_says():
    """cos(2 pi f d) over f ~ N(0, scale^2) has the mean exp(-(2 pi scale d)^2 / 2)."""
    for scale in (0.25, 0.5, 2.0):
        embedding = RandomLevelEmbedding(8, features=20_000, scale=scale)
        for distance in (0.05, 0.1, 0.3, 1.0):
            level = torch.tensor([0.7, 0.7 + distance])
            first, second = embedding.features(level)
            want = math.exp(-((2 * math.pi * scale * distance) ** 2) / 2)
            # One standard error of 10,000 frequencies is below 0.01.
            assert abs(float((first * second).mean()) - want) < 0.04
            assert abs(float(first.square().mean()) - 1.0) < 1e-4


def test_levels_a_tenth_apart_differ_at_the_default_scale_and_no_two_levels_share_a_code():
    levels = torch.linspace(-8, 8, 161)
    for seed in range(3):
        torch.manual_seed(seed)
        features = RandomLevelEmbedding(8).features(levels)
        apart = (features[:, None] - features).square().mean(-1).sqrt()
        assert float((apart + 9.0 * torch.eye(161)).min()) > 0.2
        # Smooth all the same: a hundredth is a tenth of that.
        near = RandomLevelEmbedding(8).features(torch.tensor([0.0, 0.01]))
        assert float((near[0] - near[1]).square().mean().sqrt()) < 0.05


def test_no_two_places_share_a_code():
    for channels in (9, 16, 64):
        for height, width in ((1, 1), (3, 5), (16, 16), (1, 40)):
            code = grid_code(height, width, channels)
            assert code.shape == (height * width, channels)
            far = torch.cdist(code, code) + 9.0 * torch.eye(len(code))
            assert float(far.min()) > 0.2
    far = torch.cdist(line_code(600, 64), line_code(600, 64)) + 9.0 * torch.eye(600)
    assert float(far.min()) > 0.2


def test_the_grid_is_numbered_row_by_row_and_does_not_depend_on_its_size():
    code, larger = grid_code(4, 6, 32), grid_code(9, 8, 32)
    for y, x in ((0, 0), (1, 3), (3, 5)):
        assert torch.equal(code[6 * y + x], larger[8 * y + x])
        assert torch.equal(code[6 * y + x, :16], line_code(4, 16)[y])
        assert torch.equal(code[6 * y + x, 16:], line_code(6, 16)[x])


def test_a_frequency_of_the_code_is_a_rotation():
    """The code of p + 1 is the code of p turned by one angle a frequency, the same for all p."""
    code = line_code(50, 12)
    sine, cosine = code[:, ::2], code[:, 1::2]
    angle = torch.exp(-math.log(100.0) * torch.linspace(0, 1, 6))
    turned = sine[:-1] * angle.cos() + cosine[:-1] * angle.sin()
    assert float((turned - sine[1:]).abs().max()) < 1e-5


@torch.no_grad()
def test_the_random_embedding_is_a_network_of_its_features():
    embedding = RandomLevelEmbedding(8, features=16)
    first, second = (m for m in embedding.net if isinstance(m, nn.Linear))
    level = torch.tensor([-1.0, 2.0])
    angle = 2 * math.pi * level[:, None] * embedding.frequencies
    features = math.sqrt(2) * torch.cat([torch.sin(angle), torch.cos(angle)], 1)
    hidden = first.weight @ features.T + first.bias[:, None]
    want = second.weight @ (hidden / (1 + torch.exp(-hidden))) + second.bias[:, None]
    assert float((embedding(level) - want.T).abs().max()) < 1e-5
