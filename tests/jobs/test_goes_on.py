"""Coming back to a run folder: nothing better is ever replaced, and a new run may begin with it."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from steerable.app.train import run_training
from steerable.core.errors import UserError
from steerable.datasets.digits import digits
from steerable.jobs import checkpoint, durable
from steerable.jobs.beside import model_iterations
from steerable.jobs.model import Model
from steerable.jobs.planned import Request, prepared_with, reading_for
from steerable.jobs.prepare import prepare
from steerable.jobs.reading import finished as drained
from steerable.jobs.start import LINEAGE, Start
from steerable.jobs.train import train
from steerable.recipes.recipe import from_yaml
from steerable.recipes.store import open_model

from .tiny import TINY, finish, tiny


def prepared(data, run, **choices):
    request = Request(data, run, **choices)
    return prepared_with(request, drained(reading_for(request)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    finish(prepare(tiny(15), run))
    return run


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def content(run):
    """Every file of a folder with its bytes and its time of change, and every folder."""
    return {
        path.relative_to(run).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        if path.is_file()
        else None
        for path in run.rglob("*")
    }


def refused(recipe, run, code="E-CONFIG"):
    """The message of a refusal that changes nothing, before and under the lease."""
    before = content(run)
    with pytest.raises(UserError) as caught:
        finish(prepare(recipe, run))
    assert caught.value.code == code, caught.value
    after = content(run)
    assert {k: v for k, v in after.items() if not k.startswith("lease")} == {
        k: v for k, v in before.items() if not k.startswith("lease")
    }
    return str(caught.value)


@pytest.mark.parametrize(
    "budget", ["10 iterations", "1 iteration", "15 iterations", "100 images", "240 images"]
)
def test_a_used_budget_changes_no_byte(run, budget):
    before = content(run)
    assert list(train(prepare(tiny().with_set([f"training.budget={budget}"]), run))) == []
    assert content(run) == before


@pytest.mark.slow
def test_a_used_budget_of_time_changes_no_byte(tmp_path):
    run = tmp_path / "run"
    ticks = iter(range(10_000))
    steps = list(
        train(prepare(tiny().with_set(["training.budget=30s"]), run), clock=lambda: next(ticks))
    )
    before = content(run)
    for budget in ("30s", "0.5m", "20s", "1s", "5 iterations", f"{16 * len(steps)} images"):
        job = prepare(tiny().with_set([f"training.budget={budget}"]), run)
        assert list(train(job, clock=lambda: next(ticks))) == [], budget
        assert content(run) == before, budget


def test_that_the_budget_is_used_is_said(run, capsys):
    from steerable.app.console import Bar, Stop

    done = run_training(prepare(tiny(10), run), Bar(), Stop())
    said = capsys.readouterr().err
    assert "15 iterations" in said and "10 iterations" in said and "nothing was changed" in said
    assert done["model"].endswith("model.safetensors")


@pytest.mark.parametrize("how", ["gone", "empty", "model only"])
@pytest.mark.parametrize("budget", [15, 30])
def test_a_model_without_its_checkpoints_is_not_trained_over(run, how, budget):
    shutil.rmtree(run / "checkpoints")
    if how == "empty":
        (run / "checkpoints").mkdir()
    if how == "model only":
        (run / "recipe.yaml").unlink()
    said = refused(tiny(budget), run)
    assert "--from" in said
    assert ("recipe.yaml" if how == "model only" else "15 iterations") in said


def test_damaged_checkpoints_are_not_trained_over(run):
    for file in run.glob("checkpoints/*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    assert "--from" in refused(tiny(30), run, "E-CKPT-HASH")


@pytest.mark.parametrize("model", [True, False])
def test_checkpoints_without_a_recipe_are_refused(run, model):
    (run / "recipe.yaml").unlink()
    if not model:
        (run / "model.safetensors").unlink()
    assert "no recipe.yaml" in refused(tiny(30), run)


def test_a_lost_model_file_is_written_again(run):
    before = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").unlink()
    assert list(train(prepare(tiny(15), run))) == []
    assert (run / "model.safetensors").read_bytes() == before
    (run / "model.safetensors").unlink()
    assert [s.i for s in finish(prepare(tiny(17), run))] == [16, 17]
    assert model_iterations(run / "model.safetensors") == 17


@pytest.mark.slow
def test_a_longer_model_is_kept_where_a_checkpoint_was_lost(run):
    finish(prepare(tiny(20), run))
    best = open_model(run / "model.safetensors")[0]
    shutil.rmtree(run / "checkpoints" / "iter-00000020")
    durable.tally.clear()
    steps = train(prepare(tiny(20), run))
    assert next(steps).i == 16
    steps.close()
    assert model_iterations(run / "model.safetensors") == 16
    aside = open_model(run / "model-20-iterations.safetensors")[0]
    assert all(torch.equal(aside[name], best[name]) for name in best)
    assert any("20 iterations" in name for name in durable.tally)
    finish(prepare(tiny(20), run))
    again = open_model(run / "model.safetensors")[0]
    assert all(torch.equal(again[name], best[name]) for name in best), "the same run, to the bit"


def test_a_recipe_of_another_run_is_seen(run, tmp_path):
    """A recipe.yaml that was put in the place of the run's own, of the same network."""
    other = tiny(15, "training.lr=0.01")
    (run / "recipe.yaml").write_text(
        from_yaml(run / "recipe.yaml").with_set(["training.lr=0.01"]).yaml()
    )
    assert "training.lr" in refused(
        other.with_set(["training.budget=20 iterations"]), run, "E-CONFIG-DIFF"
    )


def test_a_run_that_was_killed_before_its_first_save_begins_again(tmp_path):
    run = tmp_path / "run"
    steps = train(prepare(tiny(15), run))
    next(steps)
    folder = shutil.copytree(run, tmp_path / "killed")
    (folder / "lease.json").unlink()
    steps.close()
    assert not any((folder / "checkpoints").iterdir())
    assert finish(prepare(tiny(15), folder))[0].i == 1


# Starting from the weights of a model.


def test_a_new_run_begins_with_the_weights_of_another(finished, tmp_path):
    run, old = tmp_path / "new", Model.load(finished)
    start = Start.of(finished)
    job = prepared(None, run, budget="6 iterations", start=start)
    for name, value in old.network.state_dict().items():
        assert torch.equal(job.denoiser.state_dict()[name], value)
    steps = train(job)
    first = next(steps)
    zero = checkpoint.load(run / "checkpoints" / "iter-00000000")
    for part in ("model", "ema"):
        assert all(torch.equal(zero.parts[part][k], v) for k, v in old.network.state_dict().items())
    assert first.i == 1 and not zero.parts["optimiser"]
    finish_rest = list(steps)
    assert finish_rest[-1].i == 6
    sha, made = old.about["sha256"], Model.load(run)
    assert any(
        n.startswith(LINEAGE) and sha in n and "15 iterations" in n for n in made.recipe.notes
    )
    known = json.loads((run / "environment.json").read_text())
    assert known["from"] == {"model": "model.safetensors", "sha256": sha, "iterations": 15}
    assert made.about["training"]["iterations"] == 6


def test_the_same_command_resumes_a_run_that_began_with_weights(finished, tmp_path):
    ends = []
    for name, stop in (("whole", 99), ("parted", 3)):
        run = tmp_path / name
        steps = train(prepared(None, run, budget="6 iterations", start=Start.of(finished)))
        next((s for s in steps if s.i == stop), None)
        steps.close()
        again = prepared(None, run, start=Start.of(finished) if name == "parted" else None)
        list(train(again))
        ends.append(open_model(run / "model.safetensors")[0])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_run_killed_before_its_first_save_wants_its_weights_again(finished, tmp_path):
    run = tmp_path / "run"
    next(train(prepared(None, run, budget="6 iterations", start=Start.of(finished))))
    shutil.rmtree(run / "checkpoints")
    (run / "model.safetensors").unlink()
    with pytest.raises(UserError, match="--from"):
        prepared(None, run)
    list(train(prepared(None, run, start=Start.of(finished))))
    assert model_iterations(run / "model.safetensors") == 6


def test_other_weights_for_a_run_that_is_there_are_refused(finished, run, tmp_path):
    with pytest.raises(UserError, match="no weights of a model") as caught:
        prepared(None, run, start=Start.of(finished))
    assert caught.value.code == "E-CONFIG-DIFF"


@pytest.mark.parametrize(
    ("data", "settings", "code"),
    [
        (None, ["backbone.channels=[8, 24]"], "E-CKPT-ARCH"),
        (None, ["backbone.width=32"], "E-CKPT-ARCH"),
        ("fashion", ["data.source=embedded"], "E-CKPT-ARCH"),
    ],
)
def test_weights_that_do_not_fit_are_refused(finished, tmp_path, data, settings, code):
    with pytest.raises(UserError) as caught:
        prepared(data, tmp_path / "new", settings=settings, start=Start.of(finished))
    assert caught.value.code == code and not (tmp_path / "new").exists()


def test_a_model_file_away_from_its_run_wants_data_it_cannot_find(finished, tmp_path):
    shutil.copy(finished / "model.safetensors", tmp_path / "m.safetensors")
    job = prepared(
        None, tmp_path / "new", budget="2 iterations", start=Start.of(tmp_path / "m.safetensors")
    )
    assert not job.resumes, "the digits come with the package"
    start = Start.of(tmp_path / "m.safetensors")
    away = dataclasses.replace(start, own_data=False)
    with pytest.raises(UserError, match="train DATA"):
        away.base(None, None)
    assert away.base("digits", "2m").training.budget == "2m"


def test_other_data_for_the_weights_may_have_other_pictures(finished, tmp_path):
    splits = digits()
    fewer = dataclasses.replace(splits, train=splits.train.take(torch.arange(200)))
    start = Start.of(finished)
    job = prepare(start.base("digits", "3 iterations"), tmp_path / "new", splits=fewer, start=start)
    assert finish(job)[-1].i == 3 and TINY
