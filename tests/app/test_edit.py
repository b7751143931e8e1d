"""`steerable edit`: what is typed, what is written, what is refused, and the same bytes again."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

import steerable
from steerable.app.cli import main
from steerable.jobs.pictures import png
from steerable.jobs.prepare import prepare

from ..jobs.test_edit import read
from ..jobs.tiny import finish, tiny


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A run and a folder with two pictures, a mask and a reference."""
    path = tmp_path_factory.mktemp("edit")
    finish(prepare(tiny(10), path / "run"))
    x = steerable.sample(steerable.load(path / "run"), ["1", "7"], n=1, steps=3).x
    (path / "in").mkdir()
    for name, picture in zip(("a", "b"), x, strict=True):
        (path / "in" / f"{name}.png").write_bytes(png(picture))
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[:, 2:, 3:] = 255
    (path / "mask.png").write_bytes(png(mask))
    return path, x


def inside(capsys, *words, code=0):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    assert end.value.code == code, shown.err
    return shown


def test_edit_writes_numbered_files_and_each_can_be_replayed(scene, tmp_path, capsys):
    path, x = scene
    given = ["--mask", path / "mask.png", "--reference", path / "in" / "a.png", "--factor", "2"]
    how = ["--label", "3", "--guidance", "3", "--steps", "4", "--sampler", "euler a", "--seed", "5"]
    words = ["--image", path / "in", *given, *how, "-n", "2", "--out", tmp_path / "e", "--json"]
    told = json.loads(inside(capsys, "edit", path / "run", *words).out)
    assert told["n"] == 4 and told["method"] == "posterior"
    assert told["pictures"] == ["a.png", "b.png"]
    assert told["constraints"][-1]["kind"] == "keep" and told["guidance"][0]["weight"] == 3.0
    names = {p.name for p in (tmp_path / "e").glob("[!.]*")}
    assert names == {"0.png", "1.png", "2.png", "3.png", "grid.png", "edits.jsonl"}
    lines = (tmp_path / "e" / "edits.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(r["index"], r["label"], r["seed"]) for r in records] == [
        (i, "3", 5 + i) for i in range(4)
    ]
    for i in range(4):
        got = read(tmp_path / "e" / f"{i}.png")
        assert torch.equal(got[:, :2], x[i // 2][:, :2])
        assert torch.equal(got[:, :, :3], x[i // 2][:, :, :3])
    for i in (0, 3):
        image = ["--image", path / "in" / ("a.png" if i < 2 else "b.png")]
        again = ["--replay", tmp_path / "e" / f"{i}.png", *image, *given[:4]]
        told = json.loads(
            inside(capsys, "edit", path / "run", *again, "--out", tmp_path / "r", "--json").out
        )
        assert told["same"] is True
        one, two = (tmp_path / folder / f"{i}.png" for folder in "er")
        assert one.read_bytes() == two.read_bytes()


def test_edit_translates_and_begins_from_pictures(scene, tmp_path, capsys):
    path, x = scene
    image = ["--image", path / "in" / "a.png"]
    words = ["--to-label", "7", "--from-label", "1", "--strength", "0.5", "--steps", "8"]
    shown = inside(capsys, "edit", path / "run", *image, *words, "--out", tmp_path / "t")
    assert "1 pictures in" in shown.out and "100%" in shown.err
    words = ["--strength", "0.02", "--steps", "4", "--out", tmp_path / "s"]
    inside(capsys, "edit", path / "run", *image, *words)
    near = read(tmp_path / "s" / "0.png").int() - x[0].int()
    assert float(near.abs().float().mean()) < 8
    small = tmp_path / "small.png"
    small.write_bytes(png(x[0][:, :5, :6]))
    words = ["--image", small, "--outpaint", "3,1", "--steps", "4", "--out", tmp_path / "o"]
    inside(capsys, "edit", path / "run", *words)
    assert torch.equal(read(tmp_path / "o" / "0.png")[:, 3:, 1:7], x[0][:, :5, :6])


A, M = ["--image", "in/a.png"], ["--image", "in/a.png", "--mask", "mask.png"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (A, 2, "nothing that is to be done"),
        ([], 2, "no picture"),
        (["--image", "text.png", "--mask", "mask.png"], 3, "not a PNG, JPEG or WebP"),
        (["--image", "none", "--mask", "mask.png"], 3, "does not exist"),
        (["--image", "empty", "--mask", "mask.png"], 3, "without pictures"),
        ([*A, "--mask", "text.png"], 3, "not a PNG, JPEG or WebP"),
        ([*A, "--mask", "small.png"], 2, "5 x 6 · the picture's 8 x 8, or the model's 8 x 8"),
        ([*A, "--mask", "black.png"], 2, "nothing to repaint"),
        ([*M, "--reference", "colour.png"], 2, "a picture with colours"),
        (["--reference", "in/a.png", "--factor", "3"], 2, "does not divide 8 x 8 · 2, 4, 8"),
        (["--reference", "in/a.png", "--factor", "2.5"], 2, 'unable to convert "2.5" into int'),
        ([*A, "--strength", "0"], 2, "above 0"),
        ([*A, "--strength", "1.5"], 2, "up to 1"),
        ([*A, "--to-label", "sevn"], 2, "Did you mean"),
        ([*A, "--to-label", "7", "--from-label", "sevn"], 2, "Did you mean"),
        ([*A, "--upscale", "3"], 2, "does not divide 8 x 8 · 2, 4, 8"),
        ([*M, "--upscale", "2"], 2, "mask and upscale"),
        ([*A, "--outpaint", "left"], 2, "TOP,LEFT"),
        ([*A, "--colourise"], 2, "colour pictures"),
        ([*M, "--sampler", "ddim", "--method", "repaint"], 2, "draws no noise"),
        ([*M, "--classifier", "run"], 2, "--preset noisy-classifier"),
        ([*M, "--set", "backbone.width=2"], 2, "weights"),
        (["--replay", "in/a.png", *A], 3, "no settings of an edit"),
    ],
)
def test_what_is_refused_in_one_line_before_anything_is_written(
    scene, capsys, monkeypatch, words, code, says
):
    path, _ = scene
    monkeypatch.chdir(path)
    (path / "empty").mkdir(exist_ok=True)
    (path / "text.png").write_text("no picture")
    for name, shape in {"black": (1, 8, 8), "small": (1, 5, 6), "colour": (3, 8, 8)}.items():
        x = torch.zeros(shape, dtype=torch.uint8)
        x[1:] = 90
        (path / f"{name}.png").write_bytes(png(x))
    shown = inside(capsys, "edit", "run", *words, "--out", "out", code=code)
    (line,) = shown.err.splitlines()
    assert says in line and line.startswith("error[E-") and not shown.out
    assert not (path / "out").exists()


def test_the_edits_of_the_readme_run(scene, capsys, monkeypatch, tmp_path):
    """Each with the pictures, the label and the model of the tests in place of those it names."""
    path, _ = scene
    monkeypatch.chdir(path)
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    here = {"runs/pets": "run", "tom.jpg": "in/a.png", "hat.png": "mask.png", "corgi": "3"}
    found = re.findall(r"^steerable (edit .*)", text, flags=re.MULTILINE)
    for i, line in enumerate(found):
        words = [here.get(word, word) for word in shlex.split(line, comments=True)]
        inside(capsys, *words, "--steps", "4", "--out", tmp_path / str(i))
        assert (tmp_path / str(i) / "0.png").is_file()
    told = " ".join(found)
    assert all(option in told for option in ("--mask", "--reference", "--to-label"))


def test_a_white_mask_is_taken_and_named(scene, tmp_path, capsys):
    path, _ = scene
    (tmp_path / "white.png").write_bytes(png(torch.full((1, 8, 8), 255, dtype=torch.uint8)))
    words = ["--image", path / "in" / "a.png", "--mask", tmp_path / "white.png", "--steps", "3"]
    shown = inside(capsys, "edit", path / "run", *words, "--out", tmp_path / "w")
    assert "everything is repainted" in shown.err


def test_the_door_edits_too(scene):
    path, x = scene
    model = steerable.load(path / "run")
    wanted = steerable.Edit(image=x, mask=path / "mask.png", cond={"label": "3"}, method="repaint")
    made = steerable.edit(model, wanted, steps=6, guidance=1.0, settings=["sampler.grid.jump=2"])
    assert made.method == "repaint" and torch.equal(made.x[:, :, :2], x[:, :, :2])
    assert made.sample.recipe.sampler.kind == "ancestral"
