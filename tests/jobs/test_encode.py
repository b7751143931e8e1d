"""Encoding, likelihood and fitted grids on a trained model, and their commands."""

from __future__ import annotations

import io
import json
import shutil

import pytest
import torch
from PIL import Image

import steerable
from steerable import api
from steerable.app.cli import main
from steerable.core.errors import UserError
from steerable.jobs import encode as job
from steerable.jobs import regrid
from steerable.jobs.density import Integral, divergence
from steerable.jobs.pictures import png
from steerable.jobs.prepare import prepare
from steerable.jobs.sample import steered
from steerable.recipes import store

from .tiny import finish, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("encode") / "run"
    finish(prepare(tiny(60), path))
    return path


@pytest.fixture(scope="module")
def model(run):
    return steerable.load(run)


@pytest.fixture
def pictures(model, tmp_path):
    made = steerable.sample(model, ["1", "7"], n=1, steps=4).x
    for i, x in enumerate(made):
        (tmp_path / f"{i}.png").write_bytes(png(x))
    return made, [tmp_path / f"{i}.png" for i in range(2)]


def inside(capsys, *words, code=0):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    assert end.value.code == code, shown.err
    return shown


def test_pictures_come_back(model, pictures):
    x, _ = pictures
    cond = job.rows(model.spec, {"label": "7"}, 2)
    assert cond["label"].tolist() == [7, 7]
    for told in ({}, cond):
        noise = api.encoded(model, x, told)
        back = api.decoded(model, noise, told)
        assert float((back - job.floats_of(x)).square().mean().sqrt()) < 0.02
        assert float((noise - api.encoded(model, x, told)).abs().max()) < 1e-5
        alone = api.encoded(model, x[1:], {k: v[1:] for k, v in told.items()})
        assert float((noise[1:] - alone).abs().max()) < 1e-3 * float(noise.abs().max())
    other = api.decoded(model, api.encoded(model, x), cond)
    assert float((other - job.floats_of(x)).abs().max()) > 0.02, "another condition translates"


def test_what_cannot_be_encoded_is_refused(model, tmp_path):
    with pytest.raises(UserError) as caught:
        api.encoded(model, torch.zeros(1, 1, 9, 9))
    assert caught.value.code == "E-SHAPE"
    with pytest.raises(UserError, match="heun"):
        api.walking(model.recipe, sampler="ancestral")
    with pytest.raises(UserError) as caught:
        job.picture_of(tmp_path / "none.png", model.spec)
    assert caught.value.code == "E-DATA"
    for count in (1, 1001):
        with pytest.raises(UserError, match="2 to 1000"):
            api.interpolated(model, torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), count)


def test_an_interpolation_begins_and_ends_at_its_pictures(model, pictures):
    x, _ = pictures
    strip = api.interpolated(model, x[0], x[1], 5).to(torch.int64)
    assert strip.shape == (5, 1, 8, 8)
    assert int((strip[0] - x[0]).abs().max()) <= 4 and int((strip[-1] - x[1]).abs().max()) <= 4
    steps = (strip[1:] - strip[:-1]).flatten(1).abs().sum(1)
    assert int(steps.min()) > 0, "it moves all the way"


def test_commands_encode_and_interpolate(run, model, pictures, tmp_path, capsys):
    x, paths = pictures
    words = ["--label", "7", "--out", tmp_path / "e", "--json"]
    told = json.loads(inside(capsys, "encode", run, *paths, *words).out)
    assert len(told["rmse"]) == 2 and max(told["rmse"]) < 0.02
    tensors, about = store.open_model(tmp_path / "e" / "noise.safetensors")
    assert tensors["noise"].shape == (2, 1, 8, 8) and about["model_sha256"] == model.about["sha256"]
    back = Image.open(io.BytesIO((tmp_path / "e" / "0.png").read_bytes()))
    near = torch.tensor(list(back.tobytes())).reshape(8, 8) - x[0, 0].to(torch.int64)
    assert int(near.abs().max()) <= 4
    assert "ddim" in inside(capsys, "encode", run, paths[0], "--sampler", "ancestral", code=2).err
    inside(capsys, "encode", run, code=2)
    words = ["--count", "3", "--steps", "12", "--out", tmp_path / "i"]
    inside(capsys, "interpolate", run, *paths, *words)
    names = {path.name for path in (tmp_path / "i").glob("[!.]*")}
    assert names == {"0.png", "1.png", "2.png", "strip.png"}


def measured(model, **more):
    *_, last = api.likelihood(model, n=6, **more)
    return last.result


def test_bits_per_dimension(model):
    told = measured(model, integral=Integral("hutchinson", tolerance=1e-2))
    assert told["n"] == 6 and told["dims"] == 64 and told["conditions"] == ["label"]
    assert told["bpd"] > 0 and told["bpd_error"] > 0 and told["calls_per_item"] > 10
    without = measured(model, conditional=False, integral=Integral("hutchinson", tolerance=1e-2))
    assert without["conditions"] == [] and without["bpd"] != told["bpd"]
    with pytest.raises(UserError) as caught:
        measured(model, data="fashion")
    assert caught.value.code == "E-DATA"


@pytest.mark.slow
def test_the_exact_trace_of_a_network_is_the_mean_of_its_probes(model):
    """Per item and at one noise level: 64 probes against 64 backward passes."""
    net = model.denoiser
    t = torch.tensor(0.4, dtype=torch.float64)
    y = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cond = job.rows(model.spec, {"label": "2"}, 5)
    exact = divergence(net(y, t, cond).x0, y, None)
    signs = torch.randn(64, 5, 1, 8, 8, generator=torch.Generator().manual_seed(1)).sign()
    each = torch.stack([divergence(net(y, t, cond).x0, y, e[None]) for e in signs])
    assert float(((each.mean(0) - exact).abs() / (each.std(0) / 8)).max()) < 4


def test_command_likelihood(run, capsys):
    words = ["-n", "4", "--tolerance", "1e-2", "--json"]
    told = json.loads(inside(capsys, "likelihood", run, *words).out)
    assert told["trace"] == "hutchinson" and told["n"] == 4 and told["bpd"] > 0
    assert "2 to 100,000" in inside(capsys, "likelihood", run, "-n", "1", code=2).err


@pytest.mark.slow
def test_a_fitted_grid_goes_into_the_model_file(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    before = store.open_model(tmp_path / "run" / "model.safetensors")
    words = ["grid", tmp_path / "run", "--steps", "2,3", "--sampler", "ddim", "--json"]
    told = json.loads(inside(capsys, *words).out)
    own = before[1]["recipe"]["sampler"]["steps"]
    assert [row["steps"] for row in told["tables"]] == [2, 3, own] and told["default_steps"] == own
    tensors, about = store.open_model(tmp_path / "run" / "model.safetensors")
    assert tensors.keys() == before[0].keys()
    assert all(torch.equal(tensors[name], value) for name, value in before[0].items())
    assert {k: v for k, v in about.items() if k != "recipe"} == {
        k: v for k, v in before[1].items() if k != "recipe"
    }
    kept = {k: v for k, v in about["recipe"].items() if k != "sampler"}
    assert kept == {k: v for k, v in before[1]["recipe"].items() if k != "sampler"}
    assert about["recipe"]["sampler"]["grid"]["kind"] == "optimised"
    model = steerable.load(tmp_path / "run")
    assert steerable.sample(model, "3", n=2).calls >= own
    three = steerable.sample(model, "3", n=2, steps=3).x
    other = steered(model.recipe, steps=3, grid_kind="karras")
    assert other.sampler.grid.kind == "karras"
    assert steered(model.recipe, grid_kind="optimised") == model.recipe, "its tables are kept"
    assert three.shape == (2, 1, 8, 8)
    with pytest.raises(UserError, match=r"2, 3, .*grid RUN --steps 5"):
        steerable.sample(model, "3", n=1, steps=5)
    regrid.write(model, model.recipe, {4: [3.0, 1.0, 0.0, -2.0]})
    merged = steerable.load(tmp_path / "run").recipe.sampler.grid.options["tables"]
    assert sorted(merged) == [2, 3, 4, own], "beside the tables that are there"


def test_fitting_is_refused_where_it_means_nothing(model, capsys):
    with pytest.raises(UserError, match="ddim"):
        regrid.tables_for(model, steered(model.recipe, sampler="ancestral"), [4])
    for steps in (0, 65):
        with pytest.raises(UserError, match="1 to 64"):
            regrid.tables_for(model, model.recipe, [steps])
    inside(capsys, "grid", model.path, "--steps", "four", code=2)


@pytest.mark.slow
def test_the_search_with_a_multistep_sampler(model, capsys):
    recipe = steered(model.recipe, steps=3, sampler="dpmpp_2m", guidance=2.0)
    tables = regrid.tables_for(model, recipe, [2])
    assert [len(tables[steps]) for steps in (2, 3)] == [2, 3]
    rows = regrid.compared(model, recipe, tables)
    assert [row["steps"] for row in rows] == [2, 3]
    assert all(row["error"] > 0 and row["error_before"] > 0 for row in rows)
    before = model.path.read_bytes()
    words = ["grid", model.path, "--steps", "2", "--no-refine", "--dry-run", "--json"]
    assert json.loads(inside(capsys, *words).out)["file"] is None
    assert model.path.read_bytes() == before
