"""The sweep: its rule for the best, its lists, and a tiny model through all of it."""

from __future__ import annotations

import json

import pytest
import torch

import steerable
from steerable.app.sweep import numbers_of
from steerable.core.errors import UserError
from steerable.jobs.data import splits_for
from steerable.jobs.judge import train_judge
from steerable.jobs.output import Place
from steerable.jobs.prepare import prepare
from steerable.jobs.sweep import Setting, Tried, best, claim_sweep, keep, product, sweep, write

from .tiny import finish, tiny


def _tried(guidance, accuracy, frechet, *, error=0.01, judge=0.92):
    result = {"accuracy": accuracy, "accuracy_error": error, "frechet": frechet}
    return Tried(Setting(guidance), {**result, "judge_accuracy": judge}, torch.empty(0))


def test_the_best_obeys_first_and_is_near_second():
    off, two, four = _tried(1.0, 0.70, 1.0), _tried(2.0, 0.91, 2.0), _tried(4.0, 0.93, 3.0)
    assert best([off, two, four]) is two, "within two errors of the judge's own accuracy"
    assert best([off, _tried(2.0, 0.85, 2.0), four]) is four
    assert best([off]) is off


def test_more_accurate_than_real_pictures_is_not_asked_for():
    two, nine = _tried(2.0, 0.93, 2.0), _tried(9.0, 1.0, 2.5, error=0.0)
    assert best([two, nine]) is two


def test_lists_of_numbers():
    assert numbers_of("1,2,4", "guidance") == [1.0, 2.0, 4.0]
    assert numbers_of("1:5", "guidance") == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert numbers_of("1:2:3", "guidance") == [1.0, 1.5, 2.0]
    assert numbers_of("4:8:9", "steps", whole=True) == [4.0, 5.0, 6.0, 7.0, 8.0]
    assert numbers_of(None, "guidance") == []
    for text in ("a", "1:b", "1:2:3:4", "1:2:1", ""):
        with pytest.raises(UserError, match="LOW:HIGH"):
            numbers_of(text, "guidance")


def test_every_combination_and_no_more_than_can_be_waited_for():
    made = product([1.0, 2.0], [(0.0, 0.8)], [4, 8])
    assert [(s.guidance, s.interval, s.steps) for s in made] == [
        (w, (0.0, 0.8), k) for w in (1.0, 2.0) for k in (4, 8)
    ]
    assert product() == [Setting()] and Setting().title == "as it is"
    assert made[0].title == "guidance 1, in 0:0.8, steps 4"
    with pytest.raises(UserError, match="200"):
        product([1.0] * 15, [], list(range(1, 16)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "run"
    finish(prepare(tiny(), path))
    return path


def test_a_model_is_swept_written_and_keeps_the_best(run, tmp_path):
    model = steerable.load(run)
    settings = product([1.0, 3.0], [], [4])
    splits = splits_for(model, None)
    judge = train_judge(splits.train, splits.held_out, seconds=1.5)
    steps = list(sweep(model, splits, settings, n=40, judge=judge))
    tried = [step.tried for step in steps if step.tried is not None]
    assert [one.setting for one in tried] == settings and steps[-1].done == steps[-1].of == 2
    assert tried[0].result["calls"] == 4 and tried[1].result["calls"] > 4
    assert tried[0].result["n"] == 40 and tried[0].result["spread"] > 0
    with claim_sweep(model, [one.setting for one in tried], Place(tmp_path / "out")) as folder:
        files = {path.name for path in write(folder, model, tried)}
    assert files >= {"sweep.json", "grid.png"}
    told = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert told["best"] == best(tried).setting.title and len(told["settings"]) == 2
    keep(model, Setting(3.0, (0.1, 0.7), 5))
    again = steerable.load(run)
    assert again.recipe.sampler.steps == 5 and again.about["sha256"] != model.about["sha256"]
    options = again.recipe.guidance[0].options
    assert (options["weight"], options["stop"], options["start"]) == (3.0, 0.1, 0.7)
    for mine, kept in zip(model.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.equal(mine, kept)


def test_a_setting_that_cannot_be_taken_is_refused_before_anything_is_drawn(run):
    model = steerable.load(run)
    with pytest.raises(UserError, match="steps"):
        next(sweep(model, splits_for(model, None), [Setting(steps=5000)], n=40))
