"""Learning-rate schedules against numbers computed by hand, and as training uses them."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from steerable.core.errors import UserError
from steerable.jobs.plan import Plan, first_plan, reopened
from steerable.jobs.prepare import prepare
from steerable.recipes.training import Training

from .tiny import finish, tiny

# 10 iterations after a warm-up of 2, 2 iterations an epoch, a step every 2 epochs; each row is
# written out from the formula: cos(pi k / 8), k / 8, powers of 0.5 by epoch and by step.
COS = [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
GOLDEN = {
    "constant": [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    "cooldown": [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25],
    "cosine": [0.5, 1, *COS],
    "linear": [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125],
    "step": [0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25],
    "exponential": [0.5, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625],
}


def plan(schedule, **more):
    cooldown = 6 if schedule == "cooldown" else None
    sizes = {"decay": 0.5, "every": 2, "batch": 4, "items": 8}
    return Plan(2, cooldown, 10, schedule=schedule, **{**sizes, **more})


@pytest.mark.parametrize("schedule", GOLDEN)
def test_golden_values(schedule):
    got = [plan(schedule).factor(i) for i in range(10)]
    assert got == pytest.approx(GOLDEN[schedule], abs=1e-12)


@pytest.mark.parametrize("schedule", GOLDEN)
def test_the_floor_holds_after_the_warm_up(schedule):
    got = [plan(schedule, floor=0.4).factor(i) for i in range(10)]
    rise = [0.5] + [1.0] * 9
    want = [r * max(0.4, g / r) for r, g in zip(rise, GOLDEN[schedule], strict=True)]
    assert got == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(("floor", "decay"), [(0.2, 0.98), (0.5, 0.995)])
def test_published_decays(floor, decay):
    """max(0.2, 0.98^epoch) and max(0.5, 0.995^epoch), constant within an epoch."""
    training = Training(
        budget="30000 iterations",
        batch=100,
        warmup=0,
        schedule="exponential",
        floor=floor,
        decay=decay,
    )
    made = first_plan(training, 1.0, items=5000)
    for epoch in (0, 1, 10, 80, 81, 138, 139, 599):
        want = max(floor, decay**epoch)
        assert made.factor(50 * epoch) == made.factor(50 * epoch + 49) == pytest.approx(want)


@pytest.mark.parametrize("schedule", [s for s in GOLDEN if s != "constant"])
def test_mutant_a_schedule_stepped_twice_or_one_early_is_seen(schedule):
    made = plan(schedule)
    want = pytest.approx(GOLDEN[schedule], abs=1e-12)
    for wrong in (lambda i: 2 * i, lambda i: i + 1):
        assert [made.factor(min(wrong(i), 9)) for i in range(10)] != want


# 100 s of which 20 are kept at the end, the last 30 % of the 80 fall: at 0, 40, 56, 68 and 80 s.
AT = (0, 40, 56, 68, 80)
BY_TIME = {
    "constant": [1, 1, 1, 1, 1],
    "cooldown": [1, 1, 1, 0.5, 0],
    "linear": [1, 0.5, 0.3, 0.15, 0],
    "cosine": [0.5 * (1 + math.cos(math.pi * t / 80)) for t in AT],
    "step": [0.5**10, 0.5**10, 0.5**10, 0.5**10, 0.5**10],
    "exponential": [0.5**100] * 5,
}


@pytest.mark.parametrize("schedule", BY_TIME)
@pytest.mark.parametrize("floor", [0.0, 0.4])
def test_under_a_budget_of_time_the_clock_decides(schedule, floor):
    training = Training(budget="100s", schedule=schedule, decay=0.5, floor=floor, batch=10)
    made = dataclasses.replace(first_plan(training, rate=7.5, items=100), reserve=20.0)
    assert (made.total, made.cooldown, made.seconds) == (None, None, 100.0)
    for iteration in (1000, 1009):  # whatever the speed: 100 epochs, ten steps of the rate
        got = [made.factor(iteration, t) for t in AT]
        assert got == pytest.approx([max(floor, want) for want in BY_TIME[schedule]], abs=1e-12)
    assert made.done(1, 80.0) and not made.done(10**9, 79.9)
    assert made.factor(10**6, 200.0) == made.factor(10**6, 80.0), "late, but never below"


def test_a_warm_up_ends_after_a_tenth_of_the_time():
    """Measured at 1,000 iterations a second, trained at one: 5 % of the iterations never come."""
    made = first_plan(Training(budget="100s", warmup=5000, schedule="constant"), rate=1000.0)
    assert made.warmup == 5000
    assert [made.factor(t, t) for t in (0, 5, 10, 90)] == pytest.approx([1 / 5000, 0.5, 1, 1])


def test_a_plan_survives_json_and_an_old_one_means_what_it_meant():
    made = plan("cosine", floor=0.1)
    assert Plan(**json.loads(json.dumps(dataclasses.asdict(made)))) == made
    old = Plan(**{"warmup": 4, "cooldown": 14, "total": 20})
    assert [old.factor(i) for i in (0, 3, 14, 19)] == [0.25, 1.0, 1.0, 1 / 6]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_training_uses_the_plan_once_an_iteration(tmp_path, schedule):
    more = [f"training.schedule={schedule}", "training.decay=0.5", "training.every=1"]
    recipe = tiny(12, "training.batch=512", "training.floor=0.2", *more)
    steps = finish(prepare(recipe, tmp_path / "run"))
    epochs = [i * 512 // 1437 for i in range(12)]
    assert epochs[-1] == 3, "the digits have 1,437 training items"
    curve = {
        "cosine": [0.5 * (1 + math.cos(math.pi * max(0, i - 1) / 11)) for i in range(12)],
        "step": [0.5**e for e in epochs],
    }[schedule]
    assert [s.lr for s in steps] == pytest.approx([2e-3 * max(0.2, c) for c in curve])


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_every_schedule_ends_a_budget_of_time(tmp_path, schedule):
    recipe = tiny().with_set(["training.budget=1s", f"training.schedule={schedule}"])
    steps = finish(prepare(recipe, tmp_path / "run"))
    assert steps[0].total is None and steps[-1].share == 1.0


def test_unknown_settings_are_refused():
    for bad in ("training.schedule=cosin", "training.floor=1.5", "training.decay=0"):
        with pytest.raises(UserError, match=bad.split("=")[0]):
            tiny(4, bad)


def test_another_budget_opens_the_plan_again_past_its_warm_up():
    done = first_plan(Training(budget="10m", schedule="cosine"), rate=10.0)
    now = first_plan(Training(budget="20m", schedule="cosine"), rate=1.0)
    assert (done.warmup, now.warmup) == (100, 60)
    more = reopened(done, now)
    assert (more.warmup, more.seconds) == (100, 1200.0)
    assert more.factor(6000, 600.0) == pytest.approx(0.5), "half of the new time is used"
    counted = first_plan(Training(budget="9000 iterations", schedule="cosine"), rate=1.0)
    assert reopened(done, counted).total == 9000
