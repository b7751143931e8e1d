"""Two-object scenes read back: real ones, wrong ones and ones from another pencil."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from steerable.core.errors import UserError
from steerable.datasets.scenes import scenes
from steerable.metrics.binding import Binding


@pytest.fixture(scope="module")
def data():
    return scenes(count=1500).train


def measured(data, x=None, prompts=None):
    metric = Binding(data.spec.tokens["prompt"])
    metric.update(data.x if x is None else x, data.cond["prompt"] if prompts is None else prompts)
    return metric.value()


def test_real_scenes_are_read(data):
    found = measured(data)
    assert found["accuracy"] >= 0.98 and found["whole"] >= 0.98 and found["n"] == 1200
    assert min(found["attributes"].values()) >= 0.98
    assert sum(row["n"] for row in found["per_prompt"].values()) == 1200
    assert all(row["accuracy"] >= 0.9 for row in found["per_prompt"].values())


def test_faint_and_noisy_scenes_are_read(data):
    noise = 15 * torch.randn(data.x.shape, generator=torch.Generator().manual_seed(0))
    x = (0.9 * data.x + 5 + noise).clamp(0, 255).to(torch.uint8)
    assert measured(data, x)["accuracy"] >= 0.98


def test_scenes_drawn_by_another_hand_are_read(data):
    words = data.spec.tokens["prompt"]
    paints = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    paints["yellow"] = (255, 255, 0)
    pictures, prompts = [], []
    for i in range(16):
        colour, form = words[i % 4], words[4 + i // 4]
        image = Image.new("RGB", (256, 128))
        pen = ImageDraw.Draw(image)
        for left, paint in ((32, paints[colour]), (160, paints["blue"])):
            if form == "circle" or left == 160:
                pen.ellipse((left, 32, left + 64, 96), fill=paint)
            elif form == "square":
                pen.rectangle((left, 36, left + 56, 92), fill=paint)
            elif form == "triangle":
                pen.polygon([(left + 36, 24), (left, 88), (left + 72, 88)], fill=paint)
            else:
                pen.rectangle((left, 54, left + 72, 76), fill=paint)
                pen.rectangle((left + 25, 29, left + 47, 101), fill=paint)
        small = np.asarray(image.resize((32, 16), Image.Resampling.BOX))
        pictures.append(torch.from_numpy(small.copy()).permute(2, 0, 1))
        prompts.append([words.index(w) for w in (colour, form, "blue", "circle")])
    assert measured(data, torch.stack(pictures), torch.tensor(prompts))["accuracy"] == 1


def test_exchanged_objects_and_wrong_prompts_are_seen(data):
    mirrored = torch.cat([data.x[..., 16:], data.x[..., :16]], -1)
    real, found = measured(data), measured(data, mirrored)
    assert found["swapped"] == real["accuracy"] and found["accuracy"] == real["swapped"]
    assert real["swapped"] == pytest.approx(real["swapped_floor"], abs=0.02)
    assert real["swapped_floor"] <= 0.3
    shuffled = data.cond["prompt"][torch.randperm(1200, generator=torch.manual_seed(0))]
    # Four words a place, but the held pairs tie colour and shape a little.
    assert measured(data, prompts=shuffled)["accuracy"] == pytest.approx(0.25, abs=0.04)


def test_blank_halves_are_wrong_and_counts_are_exact(data):
    x = data.x.clone()
    x[:600, :, :, 16:] = 0
    found = measured(data, x)
    assert found["attributes"]["left colour"] >= 0.98
    assert found["attributes"]["right shape"] == pytest.approx(0.5, abs=0.02)
    assert found["whole"] == pytest.approx(0.5, abs=0.02)
    one, two = (Binding(data.spec.tokens["prompt"]) for _ in range(2))
    one.update(x[:333], data.cond["prompt"][:333])
    two.update(x[333:], data.cond["prompt"][333:])
    one.merge(two)
    assert one.value() == found
    assert (two.read(x[:2])[:, 2:] == -1).all()


def test_refusals():
    with pytest.raises(UserError, match="no word 'blue'"):
        Binding(("red", "green", "yellow", "circle"))
    words = ("red", "green", "blue", "yellow", "circle", "square", "triangle", "cross")
    with pytest.raises(UserError, match="0 pictures"):
        Binding(words).value()
