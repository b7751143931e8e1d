"""Sampling by name: seeds, batches, records inside the pictures, refusals."""

from __future__ import annotations

import hashlib
import io
import json
import shutil

import pytest
import torch
from PIL import Image

import steerable
from steerable.core.errors import UserError
from steerable.jobs import sample as job
from steerable.jobs.model import Model
from steerable.jobs.output import Place
from steerable.jobs.pictures import bytes_of, labelled_grid, png
from steerable.jobs.prepare import prepare
from steerable.jobs.sample_files import claim_samples, write_samples
from steerable.jobs.wish import asked, wishes
from steerable.recipes import store
from steerable.recipes.recipe import checked

from .tiny import finish, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "run"
    finish(prepare(tiny(60), path))
    return path


@pytest.fixture(scope="module")
def model(run):
    return steerable.load(run)


def test_the_same_seed_gives_the_same_bytes_in_a_new_model(run, model):
    first = steerable.sample(model, "3", n=4, seed=5).x
    assert torch.equal(first, steerable.sample(steerable.load(run), "3", n=4, seed=5).x)
    assert not torch.equal(first, steerable.sample(model, "3", n=4, seed=50).x)
    assert not torch.equal(first, steerable.sample(model, "8", n=4, seed=5).x)


def test_a_picture_does_not_depend_on_its_batch(model):
    wanted = wishes(model.spec, ["1", "4"], 8, 3)
    whole = job.drawn(model.denoiser, model.recipe, model.spec, wanted)
    parts = [job.drawn(model.denoiser, model.recipe, model.spec, [w]) for w in wanted]
    assert (whole - torch.cat(parts)).abs().max() < 1e-5


def test_a_weight_finds_the_guidance_that_has_one(model):
    tree = model.recipe.plain()
    clipped = checked({**tree, "guidance": [{"kind": "threshold"}]})
    assert job.steered(clipped).guidance == clipped.guidance
    kinds = [(p.kind, p.options.get("weight")) for p in job.steered(clipped, guidance=3).guidance]
    assert kinds == [("cfg", 3.0), ("threshold", None)]
    inner = {"estimate": {"kind": "estimate"}, "augmentation": {"kind": "augmentation"}}
    unled = checked({**tree, "conditions": inner, "guidance": [{"kind": "threshold"}]})
    assert job.steered(unled, guidance=1.0).guidance == unled.guidance
    with pytest.raises(UserError, match="without a condition"):
        job.steered(unled, guidance=3.0)


def test_labels_match_in_any_case_and_unknown_ones_name_the_nearest(model):
    spec = steerable.load(model.path).spec
    assert asked(spec, "label", "7") == "7"
    named = type(spec)("x", spec.shape, {"label": ("Ankle Boot", "Bag", "Ölbild")})
    assert asked(named, "label", "ankle boot") == "Ankle Boot"
    assert asked(named, "label", "ÖLBILD") == "Ölbild"
    with pytest.raises(UserError, match="Ankle Boot") as caught:
        asked(named, "label", "ankle boat")
    assert caught.value.code == "E-LABEL" and caught.value.exit_code == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"n": 10**6},
        {"seed": -1},
        {"seed": 2**63},
        {"steps": 0},
        {"steps": 1001},
        {"guidance": float("nan")},
        {"guidance": 1e308},
        {"sampler": "hoin"},
        {"label": ""},
        {"label": "x" * 100_000},
    ],
)
def test_wrong_wishes_are_refused_before_any_work(model, wrong):
    with pytest.raises(UserError) as caught:
        steerable.sample(model, **({"label": "1"} | wrong))
    assert caught.value.exit_code == 2 and len(str(caught.value)) < 600


def test_written_pictures_hold_their_settings_and_can_be_made_again(model, tmp_path):
    recipe = job.steered(model.recipe, guidance=3.0, steps=5, sampler="ancestral")
    wanted = wishes(model.spec, ["2", "9"], 3, 11)
    with claim_samples(model, recipe, wanted, Place(tmp_path), films=True) as folder:
        list(write_samples(folder, model, recipe, wanted, films=True))
    records = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [r["index"] for r in records] == list(range(6))
    assert [r["label"] for r in records] == ["2"] * 3 + ["9"] * 3
    assert [r["seed"] for r in records] == list(range(11, 17))
    for record in records:
        with Image.open(tmp_path / record["file"]) as image:
            image.load()
        inside = json.loads(image.text["steerable"])
        assert {k: inside[k] for k in ("label", "seed", "sampler")} == {
            k: record[k] for k in ("label", "seed", "sampler")
        }
        assert inside["model_sha256"] == hashlib.sha256(model.path.read_bytes()).hexdigest()
        assert image.text["parameters"].endswith("Model: digits")
        assert "Steps: 5, Sampler: ancestral" in image.text["parameters"]
        assert "CFG scale: 3.0" in image.text["parameters"]
        again = steerable.sample(
            model,
            inside["label"],
            n=1,
            seed=inside["seed"],
            guidance=inside["guidance"][0]["weight"],
            steps=inside["sampler"]["steps"],
            sampler=inside["sampler"]["kind"],
        )
        shown = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(8, 8)
        assert (again.x[0, 0].int() - shown.int()).abs().max() <= 1
    with Image.open(tmp_path / "film.webp") as film:
        assert film.n_frames == 5


def test_calls_of_the_network_are_counted_not_declared(model):
    plain = steerable.sample(model, "1", n=2, steps=6, sampler="ddim", guidance=1.0)
    guided = steerable.sample(model, "1", n=2, steps=6, sampler="ddim", guidance=2.0)
    heun = steerable.sample(model, "1", n=2, steps=6, sampler="heun", guidance=1.0)
    guided_steps = sum(t <= 0.8 for t in (1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6))
    assert (plain.calls, guided.calls, heun.calls) == (6, 6 + guided_steps, 11)


def test_guidance_one_is_off_and_the_interval_is_honoured(model):
    off = steerable.sample(model, "5", n=2, guidance=1.0).x
    never = job.steered(model.recipe, guidance=4.0, interval=(0.0, 1e-9))
    *_, last = job.sample(model, never, wishes(model.spec, ["5"], 2, 0))
    assert torch.equal(off, last.sample.x) and last.sample.calls == 12
    always = steerable.sample(model, "5", n=2, guidance=4.0).x
    assert not torch.equal(off, always)


def test_broken_weights_never_give_a_picture(model):
    broken = steerable.load(model.path)
    with torch.no_grad():
        broken.denoiser.backbone.leave.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="step 1 of 12") as caught:
        steerable.sample(broken, "1", n=1)
    assert caught.value.exit_code == 6


def test_a_model_file_alone_is_enough(run, tmp_path, model):
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run / "model.safetensors", alone)
    other = steerable.load(alone)
    assert other.labels == tuple("0123456789") and other.about["training"]["iterations"] == 60
    assert torch.equal(steerable.sample(other, "3", n=2).x, steerable.sample(model, "3", n=2).x)


def test_damaged_and_foreign_files_are_refused(run, tmp_path, monkeypatch):
    data = (run / "model.safetensors").read_bytes()
    tensors, about = store.unpack(data, where="model")

    def refused(content, code):
        path = tmp_path / "bad.safetensors"
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            steerable.load(path)
        assert caught.value.code == code and caught.value.exit_code == 4

    refused(data[:-7], "E-CKPT-HEADER")
    refused(data[:-7] + bytes(7), "E-CKPT-HASH")
    name = next(iter(tensors))
    refused(store.pack({k: v for k, v in tensors.items() if k != name}, about), "E-CKPT-ARCH")
    refused(store.pack({**tensors, name: torch.zeros(3)}, about), "E-CKPT-ARCH")
    recipe = about["recipe"]
    (tmp_path / "evil_trial.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nX = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    evil = {"kind": "evil_trial:X"}
    for changed in (
        {"backbone": evil},
        {"data": evil},
        {"guidance": [evil]},
        {"sampler": {**recipe["sampler"], "grid": evil}},
        {"conditions": {"label": evil}},
    ):
        refused(store.pack(tensors, {**about, "recipe": {**recipe, **changed}}), "E-CKPT-PICKLE")
    assert not (tmp_path / "canary").exists(), "code of a model file has run"
    for broken in ([1], {}, "flow", {**recipe, "process": "nothing"}, {**recipe, "sampler": 3}):
        refused(store.pack(tensors, {**about, "recipe": broken}), "E-CKPT-ARCH")
    unknown = {**recipe, "backbone": {**recipe["backbone"], "new_option": 1}}
    refused(store.pack(tensors, {**about, "recipe": unknown}), "E-CKPT-ARCH")
    with pytest.raises(UserError) as caught:
        Model.load(tmp_path / "none")
    assert caught.value.exit_code == 2


def test_the_path_of_the_data_stays_at_home(tmp_path):
    from steerable.core.types import Spec
    from steerable.jobs.model import pack_model
    from steerable.recipes.part import Part

    recipe = tiny().model_copy(
        update={"data": Part(kind="images", options={"path": "/data/someone/secret/cats"})}
    )
    packed = pack_model({"w": torch.zeros(1)}, recipe, Spec("cats", (1, 8, 8)), {})
    assert b"someone" not in packed and b"cats" in packed


def test_pictures_round_and_grids_stand_where_they_should():
    x = torch.tensor([-3.0, -1.0, -0.001, 0.0, 1.0, 9.0])
    assert bytes_of(x).tolist() == [0, 0, 127, 128, 255, 255]
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 255
    page = labelled_grid([red, 255 - red], ["red", "cyan"])
    assert page.getpixel((page.width - 10, 20)) == (255, 0, 0)
    assert page.getpixel((page.width - 10, page.height - 10)) == (0, 255, 255)
    image = Image.open(io.BytesIO(png(red[0], {"a": "ü"})))
    assert image.getpixel((0, 0)) == (255, 0, 0) and image.text["a"] == "ü"


def test_names_of_other_programs_are_taken_and_resolved_in_the_record(model):
    found = job.steered(model.recipe, sampler="DPM++ 2M Karras").sampler
    assert (found.kind, found.grid.kind) == ("dpmpp_2m", "karras")
    found = job.steered(model.recipe, sampler="euler_a", grid_kind="cosine").sampler
    assert (found.kind, found.grid.kind) == ("ancestral", "cosine")
    found = job.steered(model.recipe, sampler="dpmpp_2m_sde_heun").sampler
    assert found.kind == "dpmpp_2m_sde" and found.options["solver"] == "heun"
    with pytest.raises(UserError, match="take"):
        job.steered(model.recipe, sampler="dpm_fast")
