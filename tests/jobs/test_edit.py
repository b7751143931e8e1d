"""Editing against exact answers: what is known stays, what is asked for comes, and again so."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from steerable.core.errors import UserError
from steerable.jobs import edit as job
from steerable.jobs import edited as disk
from steerable.jobs.edit import Edit, edit, planned
from steerable.jobs.output import Place
from steerable.jobs.pictures import bytes_of, png
from steerable.jobs.steering import times_of
from steerable.nn.resizing import down

from ..mutants import altered
from .exact import STDS, drawn, exact, means

HALF = torch.zeros(1, 8, 8)
HALF[:, :, 4:] = 1.0


@pytest.fixture(scope="module")
def model():
    return exact()


@pytest.fixture(scope="module")
def colours():
    return exact((3, 8, 8))


def made(model, wanted, **settings):
    *_, last = edit(model, planned(model, wanted, **settings), wanted)
    return last.edited


def written(model, wanted, out, **settings):
    """The files of an edit, as the command writes them, in order."""
    doing = job.task(model, planned(model, wanted, **settings), wanted)
    with disk.claim_edits(doing, Place(out)) as folder:
        list(disk.write_edits(folder, doing))
    return [out / f"{i}.png" for i in range(len(doing.wishes))]


def every_byte(n=4):
    """Pictures (n,1,8,8) uint8 that hold all 256 values, each of them in the left half of one."""
    x = torch.zeros(2 * n, 1, 8, 4, dtype=torch.uint8)
    x.flatten()[:256] = torch.arange(256, dtype=torch.uint8)[torch.randperm(256)]
    return torch.cat([x[:n], x[n:]], 3), torch.cat([x[n:], x[:n]], 3)


def files(folder, x, names=None):
    """Pictures (n,C,H,W) uint8 as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"{i}.png" for i in range(len(x))]
    for name, picture in zip(names, x, strict=True):
        (folder / name).write_bytes(png(picture))
    return [folder / name for name in names]


def read(path):
    """Pixels (C,H,W) uint8 of a file."""
    pixels = np.array(Image.open(path))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def check_known(model, method, out, **settings):
    """Every one of the 256 bytes comes back from the files where it is known."""
    torch.manual_seed(0)
    for x in every_byte():
        wanted = Edit(image=x, mask=HALF, method=method)
        paths = written(model, wanted, **settings, out=out)
        for path, before in zip(paths, x, strict=True):
            assert torch.equal(read(path)[:, :, :4], before[:, :, :4]), method


METHODS = {
    "keep": {"sampler": "ancestral", "steps": 8},
    "repaint": {"steps": 8, "settings": ["sampler.grid.jump=4", "sampler.grid.repeats=2"]},
    "diffpir": {"steps": 6},
    "dps": {"steps": 6},
    "posterior": {"steps": 6},
}


@pytest.mark.parametrize("method", METHODS)
def test_known_pixels_come_back_bit_by_bit_from_the_files(model, method, tmp_path):
    check_known(model, method, tmp_path, **METHODS[method])
    assert set(METHODS) == set(job.METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_hidden_pixels_are_never_read(model, method):
    x = drawn(3, 0)
    results = []
    for hidden in (x, -x, torch.full_like(x, math.nan), torch.full_like(x, 1.0)):
        image = torch.where(HALF > 0, hidden, x)
        wanted = Edit(image=image, mask=HALF, method=method, n=2)
        results.append(made(model, wanted, **METHODS[method]).x)
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert not torch.equal(results[0][0], results[0][1]), "two variants are two answers"


FILLS = {  # the methods that agree with what is known; plain replacement is biased
    "repaint": {"steps": 24, "settings": ["sampler.grid.repeats=5"]},
    "posterior": {"steps": 16},
}


def check_fill(model):
    """The known half tells the class, so the hidden half is drawn from it and from no other."""
    image = means((1, 8, 8)).float().reshape(2, 1, 8, 8)
    for method, settings in FILLS.items():
        got = made(model, Edit(image=image, mask=HALF, n=24, method=method), **settings).x
        got = (got / 127.5 - 1.0).reshape(2, 24, 8, 8)[..., 4:]
        for k in range(2):
            off = (got[k] - image[k, :, :, 4:]).mean() / (STDS[k] / math.sqrt(24 * 32))
            assert abs(float(off)) < 5, f"{method}: {off:.1f} standard errors off"


def check_measured(model):
    """What is measured is the picture where it is known, and 0 where it is not."""
    x = drawn(2, 0)
    for piece, whole in zip(made(model, Edit(image=x, mask=HALF), steps=2).pieces, x, strict=True):
        assert torch.equal(piece.given["measured"], whole * (1 - HALF))


def test_what_is_measured_is_what_is_known(model):
    check_measured(model)


def test_what_is_held_to_something_known_takes_a_sampler_that_draws_noise(model):
    """The usual settings, which any that are given replace."""
    masked, guided = Edit(image=GREY, mask=HALF), Edit(reference=GREY)
    for wanted in (masked, guided, Edit(image=GREY[..., ::2, ::2], upscale=2)):
        plan = planned(model, wanted)
        assert (plan.sampler.kind, plan.sampler.steps) == ("er_sde", 50)
    assert [part.kind for part in planned(model, masked).guidance][-1] == "posterior"
    plan = planned(model, guided, sampler="heun", steps=7)
    assert (plan.sampler.kind, plan.sampler.steps) == ("heun", 7)
    own = planned(model, Edit(image=GREY, strength=0.5)).sampler
    assert own.kind == model.recipe.sampler.kind and own.steps == model.recipe.sampler.steps


def test_what_is_hidden_is_drawn_from_what_is_known(model):
    check_fill(model)


def distance(strength, k):
    """Exact mean square of x - x', x' from the ODE down from x noised at t, for class k alone."""
    alpha, sigma = 1e-4 + (1 - 2e-4) * (1 - strength), 1e-4 + (1 - 2e-4) * strength
    v = STDS[k] ** 2
    gain = math.sqrt(v / (alpha**2 * v + sigma**2))
    return v * (1 - alpha * gain) ** 2 + (gain * sigma) ** 2


def check_strength(model):
    """SDEdit goes exactly as far from the picture as the formula says, further the stronger."""
    x, found = drawn(32, 1, seed=3), []
    for strength in (0.02, 0.3, 0.7, 1.0 - 1e-6):
        wanted = Edit(image=x, strength=strength, cond={"label": "right"})
        wishes = made(model, wanted, steps=32).x  # bytes: their rounding is far below
        square = (wishes / 127.5 - 1.0 - x).square()
        found.append(float(square.mean()))
        want = distance(strength, 1)
        # a mean of 2048 squares of normal numbers, and 5 % for the steps
        assert abs(found[-1] / want - 1) < 4 * math.sqrt(2 / 2048) + 0.05, strength
    assert found == sorted(found)


def test_the_strength_is_how_far_a_picture_goes(model):
    check_strength(model)


def test_a_strength_near_zero_returns_the_picture(model):
    x = bytes_of(drawn(4, 0))
    got = made(model, Edit(image=x, strength=1e-3)).x
    assert int((got.int() - x.int()).abs().max()) <= 1


def check_translation(model):
    """Up as one Gaussian and down as the other is the linear map between them."""
    x, (a, b) = drawn(6, 0, seed=1), means((1, 8, 8)).float()
    wanted = Edit(image=x, from_label="left", to_label="right")
    got = made(model, wanted, steps=24).x / 127.5 - 1.0
    want = (b + STDS[1] / STDS[0] * (x - a)).clamp(-1, 1)
    assert float((got - want).abs().mean()) < 0.01
    back = made(model, Edit(image=x, from_label="left", to_label="LEFT"), steps=24).x / 127.5 - 1.0
    psnr = -10 * math.log10(float((back - x).square().mean()) / 4)
    assert psnr > 35, f"target = source returns the picture: {psnr:.1f} dB"


def test_a_translation_is_the_map_between_the_classes(model):
    check_translation(model)


def test_a_translation_goes_further_the_higher_it_begins(model):
    x = drawn(4, 0, seed=2)
    moved = []
    for strength in (0.1, 0.5, 1.0):
        wanted = Edit(image=x, from_label="left", to_label="right", strength=strength)
        moved.append(float((made(model, wanted, steps=12).x / 127.5 - 1.0 - x).square().mean()))
    assert moved == sorted(moved) and moved[0] < 0.05 * moved[-1]


MUTANTS = {
    "the mask inverted": (
        ("jobs.edit_given", 'given["mask"] = hidden.to', 'given["mask"] = (~hidden).to'),
        ("pieces",),
        lambda model, out: check_fill(model),
    ),
    "known pixels not put back": (
        ("jobs.edit", 'tree["constraints"].append({"kind": "keep"})', "pass"),
        ("planned",),
        lambda model, out: check_known(model, "keep", out),
    ),
    "nothing measured": (
        ("jobs.edit_given", "whole.masked_fill(hidden, 0.0)", "torch.zeros_like(whole)"),
        ("pieces",),
        lambda model, out: check_measured(model),
    ),
    "strength ignored": (
        ("jobs.edit", 'tree["sampler"]["strength"] = wanted.strength', "pass"),
        ("planned",),
        lambda model, out: check_strength(model),
    ),
    "up without the label": (
        ("jobs.edit", "if wanted.from_label is not None:", "if False:"),
        ("edit",),
        lambda model, out: check_translation(model),
    ),
    "down with the label of the picture": (
        ("jobs.edit", 'told["label"] = wanted.to_label', 'told["label"] = wanted.from_label'),
        ("edit",),
        lambda model, out: check_translation(model),
    ),
    "a translation that starts from noise": (
        ("jobs.edit", '"start": start}', '"begin": start}'),
        ("edit",),
        lambda model, out: check_translation(model),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name, model, tmp_path, monkeypatch):
    edits, names, check = MUTANTS[name]
    copy = altered(*edits)
    for known in names:
        monkeypatch.setattr(job, known, getattr(copy, known))
        if known in globals():
            monkeypatch.setitem(globals(), known, getattr(copy, known))
    with pytest.raises((AssertionError, UserError)):
        check(model, tmp_path)


def test_below_strength_one_the_hole_is_begun_from_what_is_in_it(model):
    """As much of it is left as the strength leaves; the rest is known, and stays."""
    x = bytes_of(drawn(2, 1))
    low, high = (
        made(model, Edit(image=x, mask=HALF, strength=t, method="keep")).x for t in (1e-3, 0.6)
    )
    assert int((low.int() - x.int()).abs().max()) <= 1
    assert torch.equal(high[..., :4], x[..., :4]) and not torch.equal(high, low)
    again = Edit(image=x, mask=HALF, strength=0.55, method="repaint")
    recipe = planned(model, again, steps=24)
    times = times_of(model.denoiser, recipe)
    assert float(times[0]) == 0.55 and bool((times.diff() != 0).all()) and float(times.max()) < 0.56
    assert torch.equal(made(model, again, steps=24).x[..., :4], x[..., :4])


def test_mask_reference_and_guidance_in_one_call(model):
    x, y = bytes_of(drawn(2, 0)), bytes_of(drawn(1, 1, seed=5))
    wanted = Edit(
        image=x, mask=HALF, reference=y, factor=2, cond={"label": "right"}, n=2, method="diffpir"
    )
    both = made(model, wanted, guidance=3.0, sampler="ancestral", steps=20)
    kinds = [part.kind for part in both.sample.recipe.guidance]
    assert kinds == ["cfg", "diffpir"] and both.sample.recipe.guidance[0].options["weight"] == 3.0
    assert [part.kind for part in both.sample.recipe.constraints] == ["ilvr", "keep"]
    assert both.sample.wishes[3].seed == 3 and both.sample.wishes[3].label == "right"
    for i, got in enumerate(both.x):
        assert torch.equal(got[:, :, :4], x[i // 2][:, :, :4])
        # the low band of the reference where whole blocks are hidden, to the rounding of bytes
        low = down(torch.stack([got, y[0]]).float(), 2, "box")[..., 2:]
        clipped = bool(((got == 0) | (got == 255))[:, :, 4:].any())
        assert clipped or float((low[0] - low[1]).abs().max()) <= 1.0
    plain = made(model, wanted, guidance=1.0, sampler="ancestral", steps=20)
    assert not torch.equal(plain.x, both.x), "guidance is at work"


def test_a_small_picture_is_the_mean_of_the_large_one(model):
    x = drawn(3, 1)
    small = bytes_of(down(x, 2, "box"))
    for method in ("diffpir", "posterior"):
        wanted = Edit(image=small, upscale=2, method=method, cond={"label": "right"})
        got = made(model, wanted, steps=10).x
        rest = down(got.float(), 2, "box") - small
        assert float(rest.abs().mean()) < 0.5 and float(rest.abs().max()) < 20  # clipped pixels
        spread_in_block = (got.float() - got.float().mean((2, 3), keepdim=True)).std()
        assert float(spread_in_block) > 0.5 * STDS[1] * 127.5


def test_a_grey_picture_gets_colours_of_its_own_brightness(colours):
    x = bytes_of(0.6 * drawn(3, 0, (3, 8, 8)))
    grey = (x.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    grey = grey.round().to(torch.uint8)
    got = made(
        colours, Edit(image=grey, colourise=True, cond={"label": "left"}), steps=10
    ).x.float()
    luma = (got * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    assert float((luma - grey).abs().max()) < 1.5
    assert float((got.amax(1) - got.amin(1)).mean()) > 5, "it has colours"


@pytest.mark.parametrize(("place", "corner"), [("centre", (1, 2)), ((3, 0), (3, 0))])
def test_outpainting_keeps_the_picture_where_it_stands(model, place, corner, tmp_path):
    x = bytes_of(drawn(2, 0))[:, :, :5, :4]
    paths = written(model, Edit(image=x, outpaint=place), steps=8, out=tmp_path)
    top, left = corner
    for path, before in zip(paths, x, strict=True):
        assert torch.equal(read(path)[:, top : top + 5, left : left + 4], before)


def test_outpainting_may_repaint_a_part_of_the_picture_too(model):
    x, mask = bytes_of(drawn(1, 0))[:, :, :4, :4], torch.zeros(4, 4)
    mask[0] = 1.0
    found = made(model, Edit(image=x, mask=mask, outpaint=(4, 4))).pieces[0].given["mask"]
    assert int(found.sum()) == 48 + 4 and bool((found[0, 4, 4:] == 1).all())


def masks_of(model, **given):
    wanted = Edit(image=given.pop("image"), **given)
    from steerable.jobs.edit_given import pieces

    return [piece.given["mask"] for piece in pieces(wanted, model.spec)]


def test_a_mask_may_have_the_size_of_the_picture_or_of_the_model(model, tmp_path):
    """A picture twice as large and wider is scaled and cut, and its mask goes the same way."""
    wide = torch.full((1, 16, 24), 100, dtype=torch.uint8)
    hole = torch.zeros(1, 16, 24, dtype=torch.uint8)
    hole[:, :8, 4:12] = 255  # the left upper quarter of what is not cut away
    (picture,), (mask,) = files(tmp_path / "a", wide[None]), files(tmp_path / "b", hole[None])
    (large,) = masks_of(model, image=picture, mask=mask)
    want = torch.zeros(1, 8, 8)
    want[:, :4, :4] = 1
    assert torch.equal(large, want)
    (small,) = masks_of(model, image=picture, mask=(want * 255).to(torch.uint8))
    assert torch.equal(small, want)
    levels = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).expand(1, 8, 4).repeat(1, 1, 2)
    (cut,) = masks_of(model, image=picture, mask=levels)
    assert torch.equal(cut[0, 0], torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1]))
    truth = masks_of(model, image=drawn(1, 0), mask=want[0] > 0)
    assert torch.equal(truth[0], want)


def test_folders_go_by_names(model, tmp_path):
    x = bytes_of(drawn(3, 0))
    files(tmp_path / "in", x, ["a.png", "b.png", "c.png"])
    masks = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    for i in range(3):
        masks[i, :, i] = 255
    files(tmp_path / "m", masks, ["c.png", "a.png", "b.png"])
    found = masks_of(model, image=tmp_path / "in", mask=tmp_path / "m")
    assert [int(m[0, :, 0].argmax()) for m in found] == [1, 2, 0]
    (tmp_path / "m" / "b.png").unlink()
    with pytest.raises(UserError, match=r"named as b.png"):
        masks_of(model, image=tmp_path / "in", mask=tmp_path / "m")
    with pytest.raises(UserError, match="2 for 3"):
        masks_of(model, image=tmp_path / "in", mask=masks[:2])


def test_a_white_mask_repaints_everything_and_says_so(model):
    wanted = Edit(image=drawn(1, 0), mask=torch.ones(8, 8), method="diffpir")
    done = made(model, wanted, steps=8)
    assert any("everything is repainted" in note for note in done.pieces[0].notes)
    assert not torch.equal(done.x, made(model, Edit(image=drawn(1, 0), mask=HALF), steps=8).x)


def test_a_reference_alone_steers_new_pictures(model):
    y = bytes_of(drawn(2, 0))
    got = made(model, Edit(reference=y, factor=4, n=3, cond={"label": "left"}), steps=8).x
    rest = down(got.float(), 4, "box") - down(y.float(), 4, "box").repeat_interleave(3, 0)
    assert got.shape[0] == 6 and float(rest.abs().max()) < 2


def test_replaying_gives_the_same_bytes(model, tmp_path):
    x, y = bytes_of(drawn(3, 0)), bytes_of(drawn(1, 1))
    images = files(tmp_path / "in", x)
    (mask,) = files(tmp_path / "mask", (HALF[None] * 255).to(torch.uint8))
    (reference,) = files(tmp_path / "y", y)
    given = {"mask": mask, "reference": reference}
    wanted = Edit(image=tmp_path / "in", **given, cond={"label": "left"}, n=2, seed=11)
    paths = written(model, wanted, guidance=2.0, steps=6, out=tmp_path / "out")
    for i, path in enumerate(paths):
        data, _ = disk.replayed(path, model, image=images[i // 2], **given)
        assert data == path.read_bytes(), i
    (other,) = files(tmp_path / "other", x[:1], ["other-name.png"])
    data, x0 = disk.replayed(paths[1], model, image=other, **given)
    assert data == paths[1].read_bytes() and torch.equal(x0, read(paths[1]))
    for wrong in ({"image": images[1], **given}, {"image": images[0], "mask": mask}):
        with pytest.raises(UserError) as caught:
            disk.replayed(paths[0], model, **wrong)
        assert caught.value.code == "E-DATA-CHANGED"
    with pytest.raises(UserError, match=r"replay · no image \("):
        disk.replayed(paths[0], model, **given)
    with pytest.raises(UserError, match="1 to replay"):
        disk.replayed(paths[0], model, image=images, **given)
    foreign = exact()
    foreign.about["sha256"] = "1" * 64
    with pytest.raises(UserError, match="model"):
        disk.replayed(paths[0], foreign, image=images[0], **given)


@pytest.mark.parametrize(
    "what",
    [
        {"strength": 0.5, "cond": {"label": "right"}},
        {"from_label": "left", "to_label": "right", "strength": 0.8},
        {"upscale": 2},
        {"outpaint": (2, 1)},
        {"mask": HALF, "method": "repaint"},
    ],
)
def test_every_way_can_be_replayed(model, what, tmp_path):
    x = bytes_of(drawn(3, 0))
    x = down(x.float(), 2, "box").to(torch.uint8) if "upscale" in what else x
    x = x[:, :, :5, :5] if "outpaint" in what else x
    images = files(tmp_path / "in", x)
    short = {"steps": 6}
    if "method" in what:
        short["settings"] = ["sampler.grid.jump=2", "sampler.grid.repeats=2"]
    paths = written(model, Edit(image=images, **what), **short, out=tmp_path / "out")
    data, _ = disk.replayed(paths[1], model, image=images[1], mask=what.get("mask"))
    assert data == paths[1].read_bytes()


def test_the_record_of_an_edit(model, tmp_path):
    images = files(tmp_path / "in", bytes_of(drawn(2, 0)))
    wanted = Edit(image=images, mask=HALF, n=2, strength=0.5)
    written(model, wanted, steps=4, out=tmp_path / "out")
    lines = (tmp_path / "out" / "edits.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["edit"]["image"]["file"] for r in records] == ["0.png", "0.png", "1.png", "1.png"]
    assert records[0]["edit"]["mask"]["file"] == "tensor" and records[0]["edit"]["strength"] == 0.5
    inside = Image.open(io.BytesIO((tmp_path / "out" / "2.png").read_bytes()))
    assert json.loads(inside.text["steerable"]).items() <= records[2].items()
    assert (tmp_path / "out" / "grid.png").is_file()


RED = torch.zeros(3, 8, 8, dtype=torch.uint8)
RED[0] = 200
GREY = torch.full((1, 1, 8, 8), 99, dtype=torch.uint8)

REFUSED = {
    "a mask of another size": ({"image": GREY, "mask": torch.ones(9, 8)}, "E-SHAPE", "8 x 8"),
    "an empty mask": ({"image": GREY, "mask": torch.zeros(8, 8)}, "E-CONFIG", "nothing to repaint"),
    "a coloured reference": ({"reference": RED}, "E-SHAPE", "a grey one"),
    "channels": ({"image": torch.zeros(2, 8, 8), "mask": HALF}, "E-SHAPE", "2 channels"),
    "a factor": ({"reference": GREY, "factor": 3}, "E-LIMIT", "2, 4, 8"),
    "a factor of one": ({"reference": GREY, "factor": 1}, "E-LIMIT", "2, 4, 8"),
    "a target": ({"image": GREY, "to_label": "rigth"}, "E-LABEL", "Did you mean 'right'"),
    "a source": ({"image": GREY, "to_label": "left", "from_label": "x"}, "E-LABEL", "left, right"),
    "a source alone": ({"image": GREY, "from_label": "left", "mask": HALF}, "E-CONFIG", "to_label"),
    "two targets": (
        {"image": GREY, "to_label": "left", "cond": {"label": "left"}},
        "E-CONFIG",
        "with label",
    ),
    "variants of a translation": ({"image": GREY, "to_label": "left", "n": 2}, "E-LIMIT", "noise"),
    "strength 0": ({"image": GREY, "strength": 0.0}, "E-LIMIT", "above 0"),
    "strength above 1": ({"image": GREY, "strength": 1.2}, "E-LIMIT", "up to 1"),
    "upscale of the whole size": ({"image": GREY, "upscale": 2}, "E-SHAPE", "4 x 4"),
    "upscale by 3": ({"image": GREY, "upscale": 3}, "E-LIMIT", "2, 4, 8"),
    "colourise grey": ({"image": GREY, "colourise": True}, "E-SHAPE", "3 channels"),
    "nothing": ({"image": GREY}, "E-CONFIG", "mask"),
    "no picture": ({"mask": HALF}, "E-CONFIG", "a picture"),
    "two measurements": ({"image": GREY, "mask": HALF, "upscale": 2}, "E-CONFIG", "one of them"),
    "a method": ({"image": GREY, "mask": HALF, "method": "magic"}, "E-CONFIG", "diffpir"),
    "keep what": ({"image": GREY, "upscale": 2, "method": "keep"}, "E-CONFIG", "diffpir"),
    "a canvas too small": ({"image": GREY, "outpaint": "centre"}, "E-SHAPE", "less than"),
    "beside the canvas": ({"image": GREY[..., :4], "outpaint": (0, 5)}, "E-LIMIT", "0,4"),
    "nothing to begin from": (
        {"image": GREY[..., :4], "outpaint": "centre", "strength": 0.5},
        "E-CONFIG",
        "begin from",
    ),
    "another size": ({"image": GREY[..., :7], "mask": HALF}, "E-SHAPE", "8 x 8"),
    "floats out of range": ({"image": GREY.float(), "mask": HALF}, "E-LIMIT", "-1, 1"),
    "NaN where known": ({"image": GREY * math.nan, "mask": HALF}, "E-CONFIG", "finite"),
    "no dimension": ({"image": torch.zeros(3), "mask": HALF}, "E-SHAPE", "n,C,H,W"),
    "no pictures": ({"image": [], "mask": HALF}, "E-DATA", "a picture"),
    "n": ({"image": GREY, "mask": HALF, "n": 0}, "E-LIMIT", "1 to"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_edited_is_refused_with_what_can(model, name):
    what, code, says = REFUSED[name]
    with pytest.raises(UserError, match=says) as caught:
        made(model, Edit(**what))
    assert caught.value.code.startswith(code), str(caught.value)


def test_settings_that_cannot_be_taken(model):
    masked = Edit(image=GREY, mask=HALF, method="repaint")
    with pytest.raises(UserError, match="ancestral"):
        planned(model, masked, sampler="heun")
    with pytest.raises(UserError, match="2 steps"):
        made(model, masked, steps=1)
    assert planned(model, masked, steps=10).sampler.grid.options["jump"] == 4
    with pytest.raises(UserError, match="sampler"):
        planned(model, masked, settings=["backbone.width=3"])
    with pytest.raises(UserError, match="strength of the edit"):
        planned(model, masked, settings=["sampler.strength=0.5"])
    with pytest.raises(UserError, match="draws fresh noise"):
        planned(model, Edit(image=GREY, to_label="left"), sampler="ancestral")
    assert planned(model, masked).sampler.kind == "ancestral"
    assert planned(model, masked, sampler="dpmpp_2m_sde").sampler.kind == "dpmpp_2m_sde"


def test_files_that_are_no_pictures(model, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    for path, says in (
        (tmp_path / "text.png", "not a PNG"),
        (tmp_path / "none.png", "does not exist"),
        (tmp_path / "empty", "without pictures"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            made(model, Edit(image=path, mask=HALF))
        assert caught.value.code == "E-DATA"
    with pytest.raises(UserError, match="no settings"):
        disk.replayed(*files(tmp_path / "plain", GREY), model, image=GREY)
    with pytest.raises(UserError, match="not a PNG"):
        disk.replayed(tmp_path / "text.png", model, image=GREY)


def test_a_grey_reference_for_a_model_of_colours(colours, tmp_path):
    (grey,) = files(tmp_path, GREY)
    got = made(colours, Edit(reference=grey, factor=8), steps=4).x.float()
    assert float((got.mean((2, 3)) - 99).abs().max()) < 1
