"""Checks while training: what they record, that they cost training nothing but time, the board."""

import json
import sys

import pytest
import torch

from steerable.core.errors import UserError
from steerable.datasets.digits import digits
from steerable.jobs.board import Board, numbers, require_board
from steerable.jobs.checks import FORWARDS, FREE, SHARE, Checks
from steerable.jobs.prepare import prepare
from steerable.jobs.train import train
from steerable.jobs.watch import RECORD, _number, milestone, preview_file, records, troubled

from .tiny import finish, tiny

ITERATIONS = 52  # past the first milestone


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    run = tmp_path_factory.mktemp("checked") / "run"
    return run, finish(prepare(tiny(ITERATIONS, "training.checks=auto"), run))


def test_the_record_of_a_check(checked):
    run, steps = checked
    said = records(run)
    assert said[0]["event"] == "start" and said[0]["iteration"] == 0
    looks = [r for r in said if r.get("event") == "check"]
    assert [r["iteration"] for r in looks] == [50, ITERATIONS]
    assert [e for s in steps for e in s.events if e["event"] == "check"] == looks
    for r in looks:
        for name in ("gain", "kid", "spread", "memorisation", "near_copies", "tint", "dead"):
            assert name in r and f"{name}_error" in r, name
        assert r["n"] in (64, 128) and r["broken"] == 0 and r["kid_of"] == "pixels"
        assert "too short to train a judge" in r["missing"]["accuracy"]
    times = [json.loads(line) for line in (run / "times.jsonl").read_text().splitlines()]
    assert sum("check_seconds" in r for r in times) == len(looks)


def test_checks_do_not_touch_the_training(checked, tmp_path):
    quiet = finish(prepare(tiny(ITERATIONS, "training.checks=off"), tmp_path / "off"))
    assert [s.loss for s in quiet] == [s.loss for s in checked[1]]
    assert not {r.get("event") for r in records(tmp_path / "off")} & {"start", "check", "trouble"}


def test_checks_may_be_turned_off_in_a_run_that_goes_on(checked, tmp_path):
    assert prepare(tiny(ITERATIONS, "training.checks=off"), checked[0]).resumes


@pytest.mark.slow
def test_a_resumed_run_has_the_records_of_an_unbroken_one(checked, tmp_path):
    run = tmp_path / "run"
    for stop in (20, 51):
        steps = train(prepare(tiny(ITERATIONS, "training.checks=auto"), run))
        for step in steps:
            if step.i == stop:
                steps.close()
                break
    # What a kill leaves beyond the checkpoint is cut and made again.
    with (run / RECORD).open("a") as file:
        file.write('{"event": "check", "iteration": 52, "n": 1}\n')
    finish(prepare(tiny(ITERATIONS, "training.checks=auto"), run))
    assert (run / RECORD).read_bytes() == (checked[0] / RECORD).read_bytes()


@pytest.mark.parametrize("mflop", [0.1, 3.0, 60.0, 500.0])
def test_checks_keep_to_their_share_of_the_operations(checked, tmp_path, mflop):
    """Counted by hand over the milestones of a run, whatever the network costs."""
    job = prepare(tiny(ITERATIONS, "training.checks=auto"), tmp_path / "run")
    job.facts["forward_mflop"] = mflop
    checks = Checks(job)
    spent, first = 0.0, 0
    for i in (i for i in range(1, 200_001) if milestone(i)):
        n = checks._affordable(job.denoiser, i, _number(i))
        spent += 1e6 * mflop * n * checks._calls
        trained = FORWARDS * 1e6 * mflop * job.recipe.training.batch * i
        assert spent <= SHARE * trained + FREE
        first = first or (i if n else 0)
    assert first == 50 if mflop < 1 else first >= 50, "the cheap ones are made from the start"


def test_a_check_that_is_too_dear_says_so(tmp_path):
    job = prepare(tiny(ITERATIONS, "training.checks=auto"), tmp_path / "run")
    job.facts["forward_mflop"] = 1e6
    found = Checks(job).check(job.denoiser, 50, number=1)
    assert set(found) == {"event", "iteration", "skipped"} and "3%" in found["skipped"]


@pytest.mark.slow
def test_a_judge_is_trained_where_the_run_pays_for_it(tmp_path):
    job = prepare(tiny(ITERATIONS, "training.checks=auto"), tmp_path / "run")
    job.facts["seconds"] = 10_000.0
    found = Checks(job).check(job.denoiser, 5000, number=7)
    assert found["kid_of"] == "judge" and found["judge_accuracy"] > 0.8
    assert abs(found["accuracy"] - found["chance"]) < 5 * found["accuracy_error"] + 0.05
    assert 0.0 < found["chance"] < 0.4 and found["missing"] == {}


def test_too_few_held_out_pictures_are_named(tmp_path):
    from dataclasses import replace

    splits = digits()
    few = replace(splits, held_out=splits.held_out.take(torch.arange(3)))
    job = prepare(tiny(ITERATIONS, "training.checks=auto"), tmp_path / "run", splits=few)
    found = Checks(job).check(job.denoiser, 50, number=1)
    assert {"kid", "colours", "memorisation"} <= set(found["missing"]) and "kid" not in found


def test_milestones_are_counted():
    marks = [i for i in range(1, 10_001) if milestone(i)]
    assert marks == [50, 100, 200, 500, 1000, 2000, 5000, 10_000]
    assert [_number(i) for i in marks] == list(range(1, 9))
    assert _number(52) == 2 and _number(10_001) == 9
    for start in (100, 1000, 30_000):  # never silent for more than 7 %, or 100 iterations
        gap = next(i for i in range(start + 1, 2 * start + 1) if troubled(i)) - start
        assert gap <= max(100, 0.07 * start)


def test_numbers_for_the_board():
    record = {"event": "check", "iteration": 50, "n": 128, "kid": 0.1, "kid_of": "pixels"}
    assert list(numbers(record)) == [("check/kid", 0.1)]
    assert list(numbers({"iteration": 10, "loss": 0.5, "lr": 1e-3, "grad_norm": None})) == [
        ("training/loss", 0.5),
        ("training/lr", 1e-3),
    ]
    assert list(numbers({"event": "skipped", "iteration": 3, "reason": "not finite"})) == []


def test_without_the_extra_the_board_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError) as caught:
        require_board()
    assert caught.value.code == "E-EXTRA" and "steerable[board]" in caught.value.do


def test_the_command_refuses_the_board_before_it_trains(monkeypatch, tmp_path):
    from steerable.app.train import train as command

    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match="--board"):
        command("digits", run=tmp_path / "run", board=True)
    assert not (tmp_path / "run").exists()


def test_the_board_shows_the_record(checked, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra 'board' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    run.mkdir()
    picture = preview_file(run, 50)
    picture.parent.mkdir()
    picture.write_bytes(preview_file(checked[0], 50).read_bytes())
    lines = (checked[0] / RECORD).read_bytes()
    for _ in range(2):  # a second session shows every iteration once all the same
        board = Board(run)
        for end in (len(lines) // 3, len(lines)):  # the first one in the middle of a line
            (run / RECORD).write_bytes(lines[:end])
            board.follow()
        board.close()
    shown = EventAccumulator(str(run / "board"))
    shown.Reload()
    losses = [(r["iteration"], r["loss"]) for r in records(checked[0]) if "loss" in r]
    assert [e.step for e in shown.Scalars("training/loss")] == [i for i, _ in losses]
    values = [e.value for e in shown.Scalars("training/loss")]
    assert values == pytest.approx([loss for _, loss in losses], rel=1e-6)
    assert [e.step for e in shown.Scalars("check/kid")] == [50, ITERATIONS]
    assert [e.step for e in shown.Images("preview")] == [50]
