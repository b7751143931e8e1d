"""Warnings while training: said where something is wrong, and never of a run that is well."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from steerable.core.types import Splits
from steerable.datasets.digits import digits
from steerable.jobs import averaging, trouble
from steerable.jobs.prepare import prepare
from steerable.jobs.train import train
from steerable.jobs.trouble import fresh, troubles
from steerable.jobs.watch import records

from ..mutants import altered

# Recorded: digits, preset mlp-diffusion, 1000 iterations; the columns are those of COLUMNS.
COLUMNS = (
    *("iteration", "validation_loss", "validation_loss_raw", "gain", "gain_error"),
    *("spread", "spread_error", "tint", "tint_error", "memorisation", "memorisation_error"),
)
HEALTHY = (
    (50, 0.5486, 0.5499, 0.0014, 0.0006, 3.1358, 0.0376, 9.7495, 0.8264, 1.96, 0.027),
    (100, 0.4727, 0.4698, 0.0237, 0.0024, 3.1709, 0.0382, 8.5208, 0.7444, 1.73, 0.026),
    (200, 0.3863, 0.3858, 0.1418, 0.0081, 2.3647, 0.0364, 7.0666, 0.7102, 1.54, 0.022),
    (500, 0.3256, 0.3293, 0.1882, 0.0094, 2.2686, 0.0745, 5.9969, 0.7160, 1.37, 0.022),
    (1000, 0.3008, 0.3021, 0.2197, 0.0095, 2.5701, 0.0698, 5.0, 0.7138, 1.33, 0.022),
)
STEADY = {
    **{"n": 128, "broken": 0, "gain_n": 229, "spread_real": 3.3216, "spread_real_error": 0.0304},
    **{"dead": 0.0, "dead_error": 0.0, "dead_real": 0.0, "dead_real_error": 0.0},
    **{"near_copies": 0.0, "near_copies_error": 0.0093},
    **{"control_memorisation": 1.16, "control_memorisation_error": 0.035},
    **{"control_near_copies": 0.0, "control_near_copies_error": 0.0107},
}


def healthy():
    """The records of a run that is well, with a judge that knows its classes."""
    found = [{"event": "start", "iteration": 0, "validation_loss_raw": 0.857}]
    rows = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in HEALTHY}
    generator = torch.Generator().manual_seed(0)
    for i in range(10, 1001, 10):
        noise = 0.02 * float(torch.randn((), generator=generator))
        found.append({"iteration": i, "loss": 0.29 + 2.0 / (i / 10 + 4) + noise, "lr": 1e-3})
        if i not in rows:
            continue
        row = rows[i]
        losses = {key: row.pop(key) for key in ("validation_loss", "validation_loss_raw")}
        found.append({"event": "validation", "iteration": i, **losses})
        right = min(0.9, 0.1 + i / 500)
        judged = {"accuracy": right, "accuracy_error": 0.04, "chance": 0.1}
        judged |= {"judge_accuracy": 0.97, "judge_n": 360}
        found.append({"event": "check", **STEADY, **row, **judged})
    return found


def with_checks(**changes):
    """The healthy records with other numbers in all checks."""
    found = healthy()
    for record in found:
        if record.get("event") == "check":
            record.update(changes)
    return found


def with_losses(held_out, training=None, raw=None):
    """The healthy records with other losses, as functions of the iteration."""
    found = healthy()
    for r in found:
        i = r["iteration"]
        if r.get("event") == "validation":
            r["validation_loss"] = held_out(i)
            r["validation_loss_raw"] = (raw or held_out)(i)
        elif "loss" in r and training is not None:
            r["loss"] = training(i) + 0.01 * ((i // 10) % 3 - 1)
    return found


def falling(i):
    return 0.3 + 5.0 / (i + 10)


DAMAGED = {
    "diverging": with_losses(lambda i: falling(i) if i < 900 else 1.5, lambda i: 0.4 + (i > 700)),
    "nothing_learnt": with_losses(lambda i: 0.857, lambda i: 0.86),
    "ema_slow": with_losses(lambda i: 0.85, falling, raw=falling),
    "overfit": with_losses(lambda i: 0.33 + max(0, i - 100) * 2e-4, falling),
    "label_ignored": with_checks(gain=0.001, gain_error=0.0008, accuracy=0.14),
    "tinted": with_checks(tint=30.0, tint_error=1.5),
    "dead": with_checks(dead=0.4, dead_error=0.04),
    "collapsed": with_checks(spread=0.9),
    "copying": with_checks(memorisation=0.6, memorisation_error=0.02, near_copies=0.1),
}


def test_a_run_that_is_well_is_never_warned_of():
    whole = healthy()
    for end in range(1, len(whole) + 1):
        assert troubles(whole[:end]) == [], whole[end - 1]


@pytest.mark.parametrize("kind", DAMAGED)
def test_each_trouble_is_told_by_itself(kind):
    found = troubles(DAMAGED[kind])
    assert [t.kind for t in found] == [kind]
    assert found[0].sentence and found[0].advice


@pytest.mark.parametrize("kind", DAMAGED)
def test_it_is_said_once_and_not_to_a_young_network(kind):
    said, beginnings = [], []
    for record in DAMAGED[kind]:
        said.append(record)
        for found in fresh(said):
            beginnings.append((found.kind, record["iteration"]))
            said.append(found.record(record["iteration"]))
    assert [name for name, _ in beginnings] == [kind]
    # Copies are copies at any age, and an average that has not moved has not moved.
    assert beginnings[0][1] >= {"copying": 50, "ema_slow": 200, "overfit": 200}.get(kind, 500)
    json.dumps(said, allow_nan=False)


def test_numbers_within_their_errors_are_no_trouble():
    assert troubles(with_checks(tint=30.0, tint_error=6.0)) == []
    assert troubles(with_checks(gain=0.001, gain_error=0.0002, accuracy=0.12)) == []
    assert troubles(with_checks(spread=1.5, spread_error=0.1)) == []
    assert troubles(with_checks(memorisation=0.8, memorisation_error=0.05)) == []
    # Blurred samples are as near to pictures that nobody trained on.
    assert troubles(with_checks(memorisation=0.6, control_memorisation=0.62)) == []
    assert troubles(with_checks(near_copies=0.2, control_near_copies=0.2)) == []
    # What real pictures are too.
    assert troubles(with_checks(dead=0.2, dead_error=0.03, dead_real=0.2)) == []


def test_a_judge_that_cannot_tell_the_classes_says_nothing():
    blind = with_checks(accuracy=0.1, judge_accuracy=0.15)
    for record in blind:
        record.pop("gain", None)
    assert troubles(blind) == []
    seeing = copy.deepcopy(blind)
    for record in seeing:
        if record.get("event") == "check":
            record["judge_accuracy"] = 0.97
    assert [t.kind for t in troubles(seeing)] == ["label_ignored"]


def test_updates_that_were_skipped_are_told():
    skipped = [
        {"event": "skipped", "iteration": i, "reason": "not finite"} for i in range(400, 440)
    ]
    assert [t.kind for t in troubles(healthy() + skipped)] == ["diverging"]
    assert troubles(healthy() + skipped[:5]) == []


WRONG = {
    "said again and again": ("if found.kind not in said]", "]"),
    "errors forgotten": ("SURE = 3.0", "SURE = 0.0"),
    "young networks looked at": ("YOUNG = 500", "YOUNG = 0", "EARLY = 200", "EARLY = 0"),
    "blur taken for copies": ('fair = min(1.0, r["control_memorisation"])', "fair = 1.0"),
    "raw and EMA exchanged": ("history.start - ema > LAGGING", "history.start - raw > LAGGING"),
    "overfitting called divergence": ("if both and now -", "if both or now -"),
    "a blind judge believed": ('"gain" not in r and not _trusted(r)', "not r"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rules_are_noticed(name, monkeypatch):
    mutant = altered("jobs.trouble", *WRONG[name])
    checks = [test_a_run_that_is_well_is_never_warned_of]
    checks += [test_numbers_within_their_errors_are_no_trouble]
    checks += [test_a_judge_that_cannot_tell_the_classes_says_nothing]
    pairs = [(test_each_trouble_is_told_by_itself, kind) for kind in DAMAGED]
    pairs += [(test_it_is_said_once_and_not_to_a_young_network, kind) for kind in DAMAGED]
    for rule in ("troubles", "fresh"):
        monkeypatch.setitem(globals(), rule, getattr(mutant, rule))
    with pytest.raises((AssertionError, KeyError)):
        for check in checks:
            check()
        for check, kind in pairs:
            check(kind)


def _trained(run, *, iterations, splits=None, settings=()):
    import steerable

    made = steerable.recipe(
        "digits", preset="mlp-diffusion", budget=f"{iterations} iterations", settings=list(settings)
    )
    for _ in train(prepare(made, run, splits=splits)):
        pass
    said = records(run)
    return [r["kind"] for r in said if r.get("event") == "trouble"], said


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_trainings_that_are_well(tmp_path, seed):
    kinds, _ = _trained(tmp_path / "run", iterations=600, settings=[f"training.seed={seed}"])
    assert kinds == []


@pytest.mark.slow
def test_shuffled_labels(tmp_path):
    def shuffled(data, seed):
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        return replace(data, cond={"label": data.cond["label"][order]})

    plain = digits()
    splits = Splits(shuffled(plain.train, 1), shuffled(plain.held_out, 2), plain.report)
    kinds, _ = _trained(tmp_path / "run", iterations=600, splits=splits)
    assert kinds == ["label_ignored"]


@pytest.mark.slow
def test_an_average_that_does_not_move(tmp_path, monkeypatch):
    """The warm-up keeps this from happening, so it is taken out."""
    slow = altered("jobs.averaging", "min(limit, (1.0 + k) / (10.0 + k))", "limit")
    monkeypatch.setattr(averaging, "averages", slow.averages)
    kinds, _ = _trained(tmp_path / "run", iterations=300, settings=["training.ema=0.99999"])
    assert kinds == ["ema_slow"]


@pytest.mark.slow
def test_thirty_pictures(tmp_path):
    splits = digits()
    few = replace(splits, train=splits.train.take(torch.arange(30)))
    kinds, said = _trained(
        tmp_path / "run", iterations=700, splits=few, settings=["training.batch=32"]
    )
    assert set(kinds) == {"copying", "overfit"}
    last = [r for r in said if r.get("event") == "check"][-1]
    assert last["memorisation"] < 0.5 < last["control_memorisation"]


@pytest.mark.slow
def test_a_rate_of_nothing(tmp_path):
    kinds, _ = _trained(tmp_path / "run", iterations=500, settings=["training.lr=1e-9"])
    assert kinds == ["nothing_learnt"]


def test_the_rules_need_no_start():
    """A run that was begun without checks has no loss from before its first update."""
    later = healthy()[1:]
    assert troubles(later) == []
    assert [t.kind for t in trouble.troubles(DAMAGED["tinted"][1:])] == ["tinted"]
