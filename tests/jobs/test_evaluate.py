"""Evaluation: what it compares, with what, what it writes, and when it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import steerable
from steerable.core.errors import UserError
from steerable.core.types import Splits
from steerable.datasets.fashion import fashion
from steerable.jobs.data import splits_for
from steerable.jobs.effort import Effort
from steerable.jobs.evaluate import evaluate
from steerable.jobs.judge import shipped_judge
from steerable.jobs.judged import distance, obedience, reference
from steerable.jobs.prepare import prepare
from steerable.jobs.report import write_numbers, write_report
from steerable.jobs.sample import Sample
from steerable.jobs.wish import Wish

from .tiny import finish, tiny


@pytest.fixture(scope="module")
def clothes():
    return fashion(source="embedded")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    finish(prepare(tiny(20), path))
    return path


def done(model, splits, folder, **effort):
    """(evaluation, stages in order) of a run."""
    looks = list(
        evaluate(
            model, splits, recipe=model.recipe, effort=Effort(**effort), own=splits, folder=folder
        )
    )
    assert looks[-1].evaluation is not None
    return looks[-1].evaluation, [look.stage for look in looks]


@pytest.fixture(scope="module")
def found(run):
    model = steerable.load(run)
    return done(model, splits_for(model, None), run / "evaluation", n=120)


def as_sample(data):
    names = data.spec.labels["label"]
    wishes = tuple(
        Wish({"label": names[int(label)]}, i) for i, label in enumerate(data.cond["label"])
    )
    return Sample(data.x, wishes, None, 12)


def test_a_perfect_model_of_unbalanced_data_is_at_the_floor(clothes):
    """Fresh real pictures, equally many a class, against data with ten times more of one class."""
    judge = shipped_judge(clothes.train.spec)
    labels = clothes.train.cond["label"]
    rare = torch.cat([torch.nonzero(labels == c)[: 600 if c == 3 else 60, 0] for c in range(10)])
    pool = Splits(clothes.train.take(rare), clothes.held_out.take(torch.arange(30)), {})
    real, part = reference(pool, 300, seed=0)
    assert part == "train" and len(real) == 600
    assert torch.bincount(real.cond["label"]).tolist() == [60] * 10
    fresh = as_sample(clothes.held_out.take(torch.arange(300)))
    found = distance(judge, fresh, real, part)
    assert found["frechet_n"] == 300
    assert found["frechet"] < 2.5 * found["frechet_floor"], found
    same_class = as_sample(
        clothes.held_out.take(torch.nonzero(clothes.held_out.cond["label"] == 3)[:, 0])
    )
    assert distance(judge, same_class, real, part)["frechet"] > 10 * found["frechet_floor"]


def test_real_pictures_obey_and_wrong_labels_do_not(clothes):
    judge = shipped_judge(clothes.train.spec)
    names = clothes.train.spec.labels["label"]
    right = obedience(judge, as_sample(clothes.held_out), names)
    assert 0.88 < right["accuracy"] < 0.97 and sum(map(sum, right["confusion"])) == 1000
    swapped = clothes.held_out.take(torch.arange(1000))
    swapped.cond["label"][:] = (swapped.cond["label"] + 1) % 10
    assert obedience(judge, as_sample(swapped), names)["accuracy"] < 0.05


def _figures(node):
    """Every figure of a report."""
    if isinstance(node, dict):
        if "value" in node and "error" in node:
            yield node
        for value in node.values():
            yield from _figures(value)


@pytest.mark.slow
def test_every_number_has_its_n_and_its_error(found):
    result = found[0].result
    assert set(result["measures"]) >= {
        "accuracy", "frechet", "kid", "precision", "recall", "density", "coverage", "two_sample",
        "repeats", "spread", "spread_pixels", "memorisation", "near_copies", "colour", "tint",
        "contrast", "dead", "classification_score",
    }  # fmt: skip
    figures = [f for part in ("measures", "per_class") for f in _figures(result[part])]
    assert len(figures) > 30
    assert all(f["n"] >= 8 and f["error"] >= 0 for f in figures)
    for name in ("frechet", "kid", "coverage", "recall"):
        assert result["measures"][name]["floor"] is not None


@pytest.mark.slow
def test_an_untrained_model_does_not_pass(found):
    told = {v["question"]: v["answer"] for v in found[0].result["verdicts"]}
    assert told["does it obey?"] == "no" and told["does it look real?"] != "yes"


@pytest.mark.slow
def test_the_same_run_and_seed_give_the_same_bytes(found, run, tmp_path):
    model = steerable.load(run)
    again, _ = done(model, splits_for(model, None), run / "evaluation", n=120)
    one, two = (write_numbers(tmp_path / name, e) for name, e in (("a", found[0]), ("b", again)))
    assert one.read_bytes() == two.read_bytes()
    assert (run / "evaluation" / "judge.safetensors").is_file(), "the judge is kept"
    other, _ = done(model, splits_for(model, None), run / "evaluation", n=120, seed=7)
    assert other.result != found[0].result


@pytest.mark.slow
def test_a_judge_of_other_data_is_not_taken_over(run, tmp_path, found):
    from steerable.jobs.eyes import eyes_for

    splits = splits_for(steerable.load(run), None)
    fewer = Splits(splits.train.take(torch.arange(200)), splits.held_out)
    kept = eyes_for(splits, run / "evaluation").facts()
    assert kept["judge"] == found[0].result["judge"]
    assert eyes_for(fewer, tmp_path).facts()["judge"]["sha256"] != kept["judge"]["sha256"]


@pytest.mark.slow
def test_the_page_holds_what_was_measured(found, run):
    model = steerable.load(run)
    page = write_report(run, model, found[0], proceed="steerable train").read_text("utf-8")
    for name in found[0].result["measures"]:
        assert name in page
    for verdict in found[0].result["verdicts"]:
        assert verdict["question"] in page
    assert "http" not in page.replace("http://www.w3.org", ""), "nothing is fetched"
    assert page.count("data:image/png") == 2, "samples, and their nearest training items"


@pytest.mark.slow
def test_a_short_budget_leaves_out_the_dearest_and_says_so(run):
    model = steerable.load(run)
    evaluation, _ = done(model, splits_for(model, None), run / "evaluation", n=2000, seconds=30.0)
    result = evaluation.result
    assert "classification score" in result["skipped"]
    assert "30 s" in result["skipped"]["classification score"]
    assert 100 <= result["settings"]["n"] < 2000 and result["settings"]["n"] % 10 == 0
    with pytest.raises(UserError) as caught:
        done(model, splits_for(model, None), run / "evaluation", n=2000, seconds=1.0)
    assert caught.value.code == "E-LIMIT"


@pytest.mark.slow
def test_a_model_without_labels_is_measured_too(run, found, tmp_path):
    recipe = steerable.recipe(
        "digits",
        preset="unconditional-ddpm",
        budget="5 iterations",
        settings=["backbone.channels=[8, 16]", "backbone.width=16", "training.batch=16"],
    )
    finish(prepare(recipe, tmp_path / "run"))
    model = steerable.load(tmp_path / "run")
    evaluation, _ = done(model, splits_for(model, None), run / "evaluation", n=60)
    result = evaluation.result
    assert "accuracy" not in result["measures"] and "frechet" in result["measures"]
    assert result["skipped"]["obedience"] == "the model was trained without classes"
    told = {v["question"]: v["answer"] for v in result["verdicts"]}
    assert told["does it obey?"] == "unknown"
    assert json.dumps(result, allow_nan=False)


def test_refusals(clothes, run):
    model = steerable.load(run)
    with pytest.raises(UserError) as caught:
        next(evaluate(model, clothes, recipe=model.recipe))
    assert caught.value.code == "E-DATA"
    with pytest.raises(UserError) as caught:
        next(evaluate(model, splits_for(model, None), recipe=model.recipe, effort=Effort(n=5)))
    assert caught.value.code == "E-EVAL"
    few = Splits(clothes.train.take(torch.arange(9)), clothes.held_out.take(torch.arange(9)), {})
    with pytest.raises(UserError) as caught:
        reference(few, 100, seed=0)
    assert caught.value.code == "E-EVAL" and Path(run).is_dir()
