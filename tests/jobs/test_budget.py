"""A budget of time under a clock of our own, which runs as a machine that slows down does."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from steerable.core.types import Spec
from steerable.jobs import checkpoint
from steerable.jobs.pace import Pace
from steerable.jobs.plan import measure
from steerable.jobs.prepare import prepare
from steerable.jobs.short import too_short
from steerable.jobs.state import fresh, restore
from steerable.jobs.train import train

from .tiny import tiny

BUDGET = 20.0
TICK = 0.02  # seconds of every look at the clock; an iteration looks four times
LR = 2e-3
QUICK = "cooldownwarmup"
SCHEDULES = ("cooldown", "constant", "cosine", "linear", "step", "exponential")


class Machine:
    """A clock on which each call takes time, and more where a look or a save was made before it.

    From the middle of the budget on everything takes `slower` times as long. What was done is seen
    from the files of the run.
    """

    def __init__(self, run, *, slower=5.0, look=0.3, save=0.1):
        self.run, self.slower, self.costs = run, slower, {"samples": look, "checkpoints": save}
        self.seconds = self.start = 1000.0
        self.files = set()

    @property
    def used(self):
        return self.seconds - self.start

    def __call__(self):
        now = self.slower if self.used >= BUDGET / 2 else 1.0
        self.seconds += TICK * now
        for folder, cost in self.costs.items():
            files = set((self.run / folder).glob("*-[0-9]*"))
            self.seconds += cost * now * len(files - self.files)
            self.files |= files
        return self.seconds


def timed(*more):
    return tiny(1, "training.decay=0.9", "training.every=1", *more).with_set(
        [f"training.budget={BUDGET:g}s", "training.checkpoint_seconds=4"]
    )


def ended(run, recipe, **machine):
    clock = Machine(run, **machine)
    job = dataclasses.replace(prepare(recipe, run), spent=0.0)
    return list(train(job, clock=clock)), clock


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        pytest.param(
            schedule,
            kind,
            marks=() if (schedule, kind) == ("cooldown", "warmup") else pytest.mark.slow,
        )
        for schedule in SCHEDULES
        for kind in ("warmup", "power")
    ],
)
def test_a_machine_that_slows_down_costs_iterations_and_no_time(tmp_path, schedule, kind):
    settings = [f"training.schedule={schedule}", f"training.ema_kind={kind}"]
    steps, clock = ended(tmp_path / "run", timed(*settings))
    slow = 5 * 4 * TICK  # an iteration at the end
    assert BUDGET - 3 * slow < clock.used <= BUDGET + slow + 5 * clock.costs["checkpoints"]
    shares, left = [s.share for s in steps], [s.left for s in steps]
    assert shares == sorted(shares) and shares[-1] == 1.0 and min(shares) > 0
    assert left == sorted(left, reverse=True) and left[0] < BUDGET
    assert [s.total is None for s in steps] == [True] * (len(steps) - 1) + [False]
    assert 100 < len(steps) < 160, "half the time at full speed, half at a fifth of it"
    last = {
        "cooldown": 3 * slow / (0.3 * BUDGET),
        "linear": 3 * slow / BUDGET,
        "cosine": (3 * slow / BUDGET) ** 2 * math.pi**2 / 4,
    }.get(schedule, 1.0)
    assert steps[-1].lr <= last * LR
    looks = [s.i for s in steps if any(e["event"] == "validation" for e in s.events)]
    assert looks == [50, 100, steps[-1].i], "the last look is within the time too"
    found, _ = checkpoint.newest(tmp_path / "run")
    assert found.iteration == len(steps) and found.state["over"]


@pytest.mark.slow
@pytest.mark.parametrize("slower", [1.0, 0.2])
def test_a_machine_as_fast_as_ever_or_faster_uses_its_time(tmp_path, slower):
    steps, clock = ended(tmp_path / "run", timed(), slower=slower)
    assert BUDGET - 0.5 < clock.used <= BUDGET + 0.3
    assert steps[-1].lr <= LR * 3 * 4 * TICK / (0.3 * BUDGET)
    rates = [s.lr for s in steps if s.seconds > 0.75 * BUDGET]
    assert all(a >= b for a, b in itertools.pairwise(rates))


@pytest.mark.slow
def test_looks_and_saves_that_are_too_dear_are_left_out(tmp_path):
    """A look of 8 of 20 s, found out at the first one, is not made again, and that is said."""
    steps, clock = ended(tmp_path / "run", timed(), look=8.0, slower=1.0)
    assert clock.used <= BUDGET + 1.0
    said = [(e["event"], s.i) for s in steps for e in s.events if "look" in e["event"]]
    assert ("look_skipped", steps[-1].i) in said


@pytest.mark.parametrize("stop", [7, pytest.param(60, marks=pytest.mark.slow)])
def test_the_next_rate_is_a_function_of_what_was_saved(tmp_path, stop):
    """Stopped and resumed, the next iteration has the rate that it has unbroken, to the bit."""
    whole = []
    job = dataclasses.replace(prepare(timed(), tmp_path / "whole"), spent=0.0)
    for step in train(job, clock=Machine(tmp_path / "whole")):
        whole.append(step)
        if step.i > stop:
            break
    run = tmp_path / "run"
    job = dataclasses.replace(prepare(timed(), run), spent=0.0)
    steps = train(job, clock=Machine(run))
    next(s for s in steps if s.i == stop)
    steps.close()
    clock = Machine(run)
    clock.files |= set(run.glob("*/*-[0-9]*"))
    resumed = next(train(prepare(timed(), run), clock=clock))
    assert resumed.i == stop + 1 and resumed.lr == whole[stop].lr
    assert resumed.loss == whole[stop].loss


@pytest.mark.slow
def test_a_run_that_was_killed_keeps_to_the_time_in_all(tmp_path):
    run = tmp_path / "run"
    seconds = 0.0
    for stop in (0.2, 0.5, 0.8, 2.0):
        steps = train(prepare(timed(), run), clock=Machine(run, slower=1.0))
        for step in steps:
            assert step.seconds > seconds
            seconds = step.seconds
            if step.share > stop:
                steps.close()
                break
    assert step.share == 1.0 and BUDGET - 1.5 < seconds < BUDGET + 0.5 and step.lr < 0.1 * LR


# As `asdict(plan)` wrote it before a plan knew of the clock.
OPEN = {"warmup": 4, "cooldown": None, "total": None, "schedule": "cooldown", "floor": 0.0}
OPEN |= {"decay": 0.98, "every": 10, "batch": 16, "items": 1437}
OLD = {
    "open": ("20s", OPEN),
    "closing": ("20s", {**OPEN, "cooldown": 8, "total": 15}),
    "closed": ("20s", {**OPEN, "cooldown": 4, "total": 10}),
    "cosine": ("20s", {**OPEN, "schedule": "cosine", "total": 15}),
    "counted": ("15 iterations", {**OPEN, "cooldown": 10, "total": 15}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OLD)
def test_a_checkpoint_of_an_older_version_resumes(tmp_path, kind):
    budget, plan = OLD[kind]
    run, schedule = tmp_path / "run", f"training.schedule={plan['schedule']}"
    recipe = tiny(1, schedule).with_set([f"training.budget={budget}"])
    steps = train(prepare(recipe, run), clock=Machine(run))
    next(s for s in steps if s.i == 10)
    steps.close()
    found, _ = checkpoint.newest(run)
    state = {k: v for k, v in found.state.items() if k != "over"} | {"plan": plan}
    facts = {k: v for k, v in found.facts.items() if k in ("versions", "threads")}
    checkpoint.save(run, 10, parts=found.parts, state=state, facts=facts)
    job = prepare(recipe, run)
    back = fresh(job)
    restore(back, checkpoint.newest(run)[0], job.recipe.training)
    if kind == "open":
        assert (back.plan.seconds, back.plan.fall, back.plan.total) == (20.0, 0.3, None)
    else:
        assert {k: v for k, v in dataclasses.asdict(back.plan).items() if k in plan} == plan
    rest = list(train(prepare(recipe, run), clock=Machine(run)))
    if kind == "closed":
        assert rest == []
    elif kind == "open":
        assert rest[0].i == 11 and rest[-1].share == 1.0 and rest[-1].lr < 0.1 * LR
    else:
        assert [s.i for s in rest] == [11, 12, 13, 14, 15]
        shares = [s.share for s in rest]
        assert shares == sorted(shares) and shares[-1] == 1.0
    assert list(train(prepare(recipe, run))) == []


@pytest.mark.slow
def test_preparing_counts_but_leaves_most_of_the_time(tmp_path):
    for name, spent, used in (("quick", 2.0, 2.0), ("slow", 100.0, 5.0)):
        run = tmp_path / name
        job = dataclasses.replace(prepare(timed(), run), spent=spent)
        steps = train(job, clock=Machine(run))
        assert next(steps).seconds == pytest.approx(used, abs=0.5)
        steps.close()


def measured(job, size, **limits):
    """The rate, and how many items the network was asked about in each call."""
    items = []
    hook = job.denoiser.backbone.register_forward_pre_hook(
        lambda _, args: items.append(len(args[0]))
    )
    batch = job.splits.train.batch(torch.arange(size))
    rate = measure(job.denoiser, batch, job.recipe.training, **limits)
    hook.remove()
    return rate, items


def test_measuring_a_huge_network_is_bounded(tmp_path):
    """An iteration that takes longer than may be spent is measured on a part of the batch."""
    job = prepare(tiny(4, "training.batch=512"), tmp_path / "run")
    rate, items = measured(job, 512, seconds=0.0)
    assert rate > 0 and items == [2, 2]


def test_measuring_stops_after_enough_iterations(tmp_path):
    job = prepare(tiny(4), tmp_path / "run")
    rate, items = measured(job, 16, seconds=100.0, most=3)
    assert rate > 0 and items == [2, 2, 8, 8, 16, 16, 16, 16]


def test_a_hopeless_budget_says_what_would_do(tmp_path):
    recipe = tiny().with_set(["training.budget=20s"])
    job = prepare(recipe, tmp_path / "run")
    assert job.facts["warnings"] == [], "hundreds of iterations"
    flop = int(1e6 * job.facts["forward_mflop"])
    spec = Spec("digits", (1, 8, 8))
    said = too_short(recipe, spec, 0.5, flop)
    assert "about 10 iterations" in said and "--budget 17m" in said, said  # 500 / 0.5 s
    wide = recipe.with_set(["backbone.channels=[256,512]", "backbone.width=1024"])
    huge = prepare(wide.with_set(["training.budget=10s", "training.batch=2048"]), tmp_path / "huge")
    assert huge.facts["warnings"] and "--size" in huge.facts["warnings"][0]
    images = too_short(recipe.with_set(["training.budget=200 images"]), spec, 5.0, flop)
    assert '--budget "8000 images"' in images
    assert too_short(recipe.with_set(["training.budget=10 iterations"]), spec, 5.0, flop) == ""


def test_a_look_is_counted_in_iterations_of_its_moment():
    times = iter([0.0, *range(1, 100)])
    pace = Pace(lambda: next(times), budget=100.0)
    for _ in range(20):
        pace.stepped(0.1)
    pace.looked(1.0)
    assert pace.look == pytest.approx(10) and pace.reserve == pytest.approx(1.1)
    for _ in range(20):
        pace.stepped(0.5)
    assert pace.reserve == pytest.approx(5.5), "five times slower, five times as long"
    for _ in range(20):
        pace.stepped(3.0)
    assert pace.reserve == pytest.approx(3.0), "a look that is more than a fifth is left out"
