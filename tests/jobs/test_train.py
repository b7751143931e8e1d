"""Training: exact resume, the plan, the guard against broken numbers, the EMA."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

import steerable
from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Batch
from steerable.datasets.digits import digits
from steerable.jobs import checkpoint
from steerable.jobs.feed import Order, drawn
from steerable.jobs.plan import Plan, first_plan
from steerable.jobs.prepare import prepare
from steerable.jobs.state import fresh
from steerable.jobs.train import train
from steerable.recipes.recipe import Training, from_yaml
from steerable.recipes.store import open_model

from .tiny import finish, tiny


def weights(run):
    return open_model(run / "model.safetensors")[0]


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run = tmp_path_factory.mktemp("unbroken") / "run"
    steps = finish(prepare(tiny(), run))
    return run, steps


def test_the_run_folder_explains_itself(unbroken):
    run, steps = unbroken
    wanted = "recipe.yaml environment.json metrics.jsonl times.jsonl data-report.json"
    for name in [*wanted.split(), "samples", "checkpoints", "model.safetensors"]:
        assert (run / name).exists(), name
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in records if "loss" in r]
    means = [sum(s.loss for s in steps[k : k + 10]) / 10 for k in range(0, 40, 10)]
    assert losses == pytest.approx(means, abs=0)
    assert steps[-1].images == 40 * 16 and not (run / "lease.json").exists()


@pytest.mark.parametrize("stops", [(1,), (13,), (7, 8, 31)])
def test_interrupted_and_resumed_equals_unbroken(unbroken, tmp_path, stops):
    run = tmp_path / "run"
    for stop in stops:
        steps = train(prepare(tiny(), run))
        for step in steps:
            if step.i == stop:
                steps.close()
                break
    finish(prepare(tiny(), run))
    assert same(weights(run), weights(unbroken[0]))
    for part in ("model", "ema", "optimiser"):
        ends = [checkpoint.newest(r)[0].parts[part] for r in (run, unbroken[0])]
        assert same(*ends), part
    assert (run / "metrics.jsonl").read_bytes() == (unbroken[0] / "metrics.jsonl").read_bytes()


def test_a_finished_run_has_nothing_to_do_and_a_longer_budget_goes_on(unbroken, tmp_path):
    run, _ = unbroken
    before = weights(run)
    assert list(train(prepare(tiny(), run))) == []
    assert same(weights(run), before)
    other = tmp_path / "run"
    finish(prepare(tiny(20), other))
    steps = finish(prepare(tiny(30), other))
    assert [s.i for s in steps] == list(range(21, 31))


def test_a_preset_with_a_longer_budget_is_the_same_run_though_its_notes_differ():
    from steerable.jobs.run import differences

    short, long = (
        steerable.recipe("digits", preset="mlp-diffusion", budget=f"{n} iterations", size="xs")
        for n in (20, 30)
    )
    assert short.plain()["notes"] != long.plain()["notes"]
    assert differences(short, long) == []


def test_another_recipe_is_refused_and_nothing_is_written(unbroken):
    run, _ = unbroken
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    with pytest.raises(UserError) as caught:
        prepare(tiny(40, "training.lr=0.01"), run)
    assert caught.value.code == "E-CONFIG-DIFF" and "training.lr" in caught.value.got
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_every_setting_of_the_recipe_is_free_or_refused(unbroken):
    """No key of a recipe may be accepted in silence: what shapes the weights is refused."""
    from steerable.jobs.run import FREE, _leaves, differences

    old = tiny()
    for path, value in _leaves(old.plain()).items():
        if isinstance(value, bool):
            other = not value
        elif isinstance(value, (int, float)):
            other = value * 0.5 + 0.25 if isinstance(value, float) else value + 1
        elif isinstance(value, list):
            other = [*value, 8]
        else:
            continue
        if path == "schema_version":
            continue
        try:
            new = old.with_set([f"{path}={json.dumps(other)}"])
        except UserError:
            continue
        free = any(path == f or path.startswith(f + ".") for f in FREE)
        assert bool(differences(old, new)) != free, path


def test_changed_data_is_refused(unbroken):
    splits = digits()
    threes = (splits.train.cond["label"] == 3).nonzero()[:, 0]
    kept = torch.ones(len(splits.train), dtype=torch.bool)
    kept[threes[:2]] = False
    fewer = dataclasses.replace(splits, train=splits.train.take(kept.nonzero()[:, 0]))
    with pytest.raises(UserError, match="3: ") as caught:
        prepare(tiny(), unbroken[0], splits=fewer)
    assert caught.value.code == "E-DATA-CHANGED" and caught.value.exit_code == 3


def test_diverged_numbers_stop_before_optimiser_and_ema(tmp_path):
    broken = tiny(
        200, "training.lr=1", "training.clip=1e30", "training.warmup=0", "process.target=x0"
    )
    job = prepare(broken, tmp_path / "run")
    state = fresh(job)
    items = torch.arange(16)
    batch, noise = drawn(job, items, items)
    poisoned = Batch(batch.x * float("nan"), batch.cond)
    from steerable.jobs.train import _step

    before = {k: v.clone() for k, v in state.net.state_dict().items()}
    value, _, _ = _step(state, job, poisoned, noise)
    assert math.isnan(value) and state.skipped == 1
    assert same(before, state.net.state_dict()) and same(before, state.ema.module.state_dict())
    assert not state.optimiser.tensors()


def test_ten_broken_updates_in_a_row_end_the_run_with_a_finite_checkpoint(tmp_path):
    job = prepare(tiny(400), tmp_path / "run")
    steps = train(job)
    for step in steps:
        if step.i == 12:
            break
    steps.close()
    job = prepare(tiny(400), tmp_path / "run")
    with pytest.raises(UserError) as caught:
        for step in train(job):
            if step.i == 20:
                with torch.no_grad():
                    job.denoiser.backbone.enter.weight.fill_(float("inf"))
    assert caught.value.code == "E-NUM" and "item" in caught.value.got
    kept, _ = checkpoint.newest(tmp_path / "run")
    assert kept is not None and kept.iteration == 12
    assert all(torch.isfinite(v).all() for v in kept.parts["ema"].values())


def test_ema_equals_its_closed_form(tmp_path):
    job = prepare(tiny(12), tmp_path / "run")
    state = fresh(job)
    expected = None
    for k in range(12):
        with torch.no_grad():
            for p in state.net.parameters():
                p.add_(0.01 * (k + 1))
        current = state.net.state_dict()["backbone.enter.weight"].clone()
        state.ema.update_parameters(state.net)
        decay = min(0.999, (1 + k) / (10 + k))
        expected = current if expected is None else decay * expected + (1 - decay) * current
    got = state.ema.module.state_dict()["backbone.enter.weight"]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_weight_decay_spares_norms_biases_and_tables(tmp_path):
    job = prepare(tiny(2), tmp_path / "run")
    decayed, spared = fresh(job).optimiser.param_groups
    assert decayed["weight_decay"] > 0 and spared["weight_decay"] == 0
    table = job.denoiser.conditions["label"].table.weight
    assert any(p is table for p in spared["params"])
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(job.denoiser.parameters()))


def test_learning_rate_against_golden_values():
    plan = Plan(warmup=4, cooldown=14, total=20)
    rates = [round(plan.factor(i), 4) for i in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[14:] == [1.0, 0.8333, 0.6667, 0.5, 0.3333, 0.1667]
    fixed = first_plan(Training(budget="1000 iterations", cooldown=0.3), rate=1.0)
    assert (fixed.warmup, fixed.cooldown, fixed.total) == (50, 700, 1000)
    timed = first_plan(Training(budget="100s", cooldown=0.3), rate=10.0)
    assert timed.total is None and not timed.done(10**6, 99.9) and timed.done(1, 100.0)
    assert [timed.factor(10**6, t) for t in (50, 70, 85, 97)] == pytest.approx([1, 1, 0.5, 0.1])


def test_a_budget_of_time_ends_and_cools_down(tmp_path):
    recipe = tiny().with_set(["training.budget=2s"])
    steps = list(train(prepare(recipe, tmp_path / "run")))
    assert steps[-1].total == steps[-1].i
    assert all(s.total is None for s in steps[:-1]), "open: the clock decides"
    falling = [s.lr for s in steps if s.share > 0.8]
    assert len(falling) > 5 and falling[0] < 2e-3 and falling[-1] < 0.2 * 2e-3


def test_order_is_a_fresh_permutation_an_epoch_whatever_the_batch():
    count = 50
    whole = Order(count, 3)(torch.arange(4 * count))
    for batch in (7, 16, 128):
        order = Order(count, 3)
        parts = [order(torch.arange(i, min(i + batch, 200))) for i in range(0, 200, batch)]
        assert torch.equal(torch.cat(parts), whole)
    epochs = whole.reshape(4, count)
    assert all(torch.equal(e.sort().values, torch.arange(count)) for e in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(
        whole, Order(count, 4)(torch.arange(200))
    )


def test_draws_do_not_depend_on_the_batch(tmp_path):
    job = prepare(tiny(4, "training.flip=true", "training.force=true"), tmp_path / "run")
    positions = torch.arange(32)
    items = Order(len(job.splits.train), 0)(positions)
    whole, noise = drawn(job, positions, items)
    z = noise.normal(whole.x)
    part, other = drawn(job, positions[20:], items[20:])
    assert torch.equal(whole.x[20:], part.x)
    assert torch.equal(whole.cond["label"][20:], part.cond["label"])
    assert torch.equal(z[20:], other.normal(part.x))
    flipped = (whole.x != job.splits.train.batch(items).x).flatten(1).any(1)
    assert 5 < int(flipped.sum()) < 27


def test_dropout_hides_the_stated_share_of_labels(tmp_path):
    job = prepare(tiny(4), tmp_path / "run")
    positions = torch.arange(4000)
    batch, _ = drawn(job, positions, positions % len(job.splits.train))
    share = float((batch.cond["label"] == -1).double().mean())
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / 4000) ** 0.5


def test_loss_falls_below_that_of_the_best_constant_answer(unbroken):
    _, steps = unbroken
    assert sum(s.loss for s in steps[-5:]) < 0.9 * sum(s.loss for s in steps[:5])
    assert Noise.of(0, iteration=0, items=torch.arange(2)).uniform(2).unique().numel() == 2


@pytest.mark.slow
def test_a_longer_time_goes_on_after_the_end_and_is_written_down(tmp_path):
    run = tmp_path / "run"
    first = list(train(prepare(tiny().with_set(["training.budget=1s"]), run)))
    longer = tiny().with_set(["training.budget=3s", "sampler.steps=9"])
    second = list(train(prepare(longer, run)))
    assert second[0].i == first[-1].i + 1 and second[-1].seconds >= first[-1].seconds + 1.0
    assert second[0].lr == pytest.approx(2e-3), "past its warm-up, with the plan open again"
    assert second[-1].lr < 1e-3 and second[-1].i == second[-1].total
    kept = from_yaml(run / "recipe.yaml")
    assert (kept.training.budget, kept.sampler.steps) == ("3s", 9)
    assert list(train(prepare(longer, run))) == []


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["1s", "0m1s", "0.5s"])
def test_the_same_or_less_time_leaves_a_finished_run_alone(tmp_path, budget):
    run = tmp_path / "run"
    list(train(prepare(tiny().with_set(["training.budget=1s"]), run)))
    before = weights(run)
    assert list(train(prepare(tiny().with_set([f"training.budget={budget}"]), run))) == []
    assert same(weights(run), before)


def test_dropout_in_the_network_does_not_break_exact_resume(tmp_path):
    dropping = tiny(16, "backbone.dropout=0.3")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    finish(prepare(dropping, whole))
    steps = train(prepare(dropping, parted))
    next(step for step in steps if step.i == 7)
    steps.close()
    torch.rand(5)
    finish(prepare(dropping, parted))
    assert same(weights(whole), weights(parted))


def test_validation_mixes_classes_over_the_times(tmp_path):
    """Held-out items sorted by class must not be measured at sorted times."""
    from steerable.jobs.watch import validation_loss

    job = prepare(tiny(2), tmp_path / "run")
    held_out = job.splits.held_out
    by_class = held_out.take(torch.argsort(held_out.cond["label"], stable=True))
    asked = {}

    class Spy:
        training = False
        process = job.denoiser.process
        eval = staticmethod(lambda: None)
        train = staticmethod(lambda mode: None)

        def __call__(self, x_t, t, cond):
            asked.update(t=t, label=cond["label"])
            return job.denoiser(x_t, t, cond)

    validation_loss(Spy(), by_class)
    correlation = torch.corrcoef(torch.stack([asked["t"], asked["label"].double()]))[0, 1]
    assert abs(float(correlation)) < 4 / len(asked["t"]) ** 0.5


def test_whether_to_compile_is_decided_once_for_a_run(tmp_path):
    run = tmp_path / "run"
    finish(prepare(tiny(3), run))
    assert from_yaml(run / "recipe.yaml").training.compile == "off", "a run of seconds"
    again = prepare(tiny(6), run)
    assert again.resumes and again.recipe.training.compile == "off"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of the compiler
def test_a_compiled_run_learns_the_same(tmp_path):
    ends = []
    for choice in ("off", "on"):
        run = tmp_path / choice
        steps = finish(prepare(tiny(12, f"training.compile='{choice}'"), run))
        ends.append((weights(run), [step.loss for step in steps]))
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-3)
    for name, value in ends[0][0].items():
        torch.testing.assert_close(ends[1][0][name], value, rtol=0.02, atol=2e-3)
