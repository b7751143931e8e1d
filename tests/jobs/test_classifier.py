"""A classifier of noised pictures: trained as every other preset, and what it may guide."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

import steerable
from steerable.core.errors import UserError
from steerable.core.types import Dataset, Spec, Splits
from steerable.jobs import checkpoint
from steerable.jobs import sample as job
from steerable.jobs.classified import by_level, by_level_lines, classified, labelled
from steerable.jobs.feed import drawn
from steerable.jobs.model import Model
from steerable.jobs.prepare import prepare
from steerable.jobs.steering import askable, with_classifier
from steerable.jobs.train import train
from steerable.jobs.wish import Wish, wishes
from steerable.nn.noisy_classifier import NoisyClassifier
from steerable.recipes.assembly import network
from steerable.recipes.store import open_model

from .tiny import TINY, finish

STEP = 13  # in bytes: the pictures are all 0.1 or all -0.1, up to rounding
TONE = 2 * STEP / 255


def recipe(iterations, *more):
    return steerable.recipe(
        "digits",
        preset="noisy-classifier",
        budget=f"{iterations} iterations",
        settings=[*TINY, *more],
    )


def tones(n, names=("dark", "bright")):
    """Pictures of one tone or of its opposite, in turn: the best possible accuracy is known."""
    label = torch.arange(n) % len(names)
    x = (127.5 + (2 * (torch.arange(n) % 2) - 1) * STEP).to(torch.uint8).reshape(n, 1, 1, 1)
    spec = Spec("tones", (1, 8, 8), {"label": names}, std=TONE)
    return Dataset(spec, x.expand(n, 1, 8, 8).contiguous(), {"label": label})


def two_tones(*names):
    return Splits(tones(256, *names), tones(600, *names))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs that several tests look at: an unconditional model, classifiers, a conditional model."""
    root = tmp_path_factory.mktemp("runs")
    finish(prepare(recipe(20), root / "digits"))
    settings = [*TINY, "process.kind=flow"]
    plain = steerable.recipe(
        "digits", preset="unconditional-ddpm", budget="20 iterations", settings=settings
    )
    finish(prepare(plain, root / "plain"))
    return root


def test_interrupted_and_resumed_equals_unbroken(folder, tmp_path):
    run = tmp_path / "run"
    steps = train(prepare(recipe(20), run))
    for step in steps:
        if step.i == 13:
            steps.close()
            break
    finish(prepare(recipe(20), run))
    one, other = (open_model(r / "model.safetensors")[0] for r in (run, folder / "digits"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    ends = [checkpoint.newest(r)[0].parts["optimiser"] for r in (run, folder / "digits")]
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
    logs = [(r / "metrics.jsonl").read_bytes() for r in (run, folder / "digits")]
    assert logs[0] == logs[1] and b'"event": "accuracy"' in logs[0]
    assert not list((run / "samples").glob("preview*")), "a classifier has nothing to show"


def test_training_pictures_are_moved_and_labels_stay(tmp_path):
    """Crops of up to an eighth of the side, a function of seed and position alone."""
    work = prepare(recipe(20), tmp_path / "run")
    positions = torch.arange(200)
    items = positions % len(work.splits.train)
    batch, _ = drawn(work, positions, items)
    still = work.splits.train.batch(items)
    assert torch.equal(batch.cond["label"], still.cond["label"]) and set(batch.cond) == {"label"}
    moves = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    inner = still.x[:, :, 1:-1, 1:-1]
    found = torch.zeros(200, dtype=torch.int64)
    for dy, dx in moves:
        part = batch.x[:, :, 1 + dy : 7 + dy, 1 + dx : 7 + dx]
        found += (part == inner).flatten(1).all(1)
    assert bool((found >= 1).all()), "a move by one of eight pixels at most, and nothing else"
    assert float((batch.x == still.x).flatten(1).all(1).float().mean()) < 0.3
    again, _ = drawn(work, positions[50:60], items[50:60])
    assert torch.equal(again.x, batch.x[50:60])


def test_accuracy_falls_with_noise_as_it_must(tmp_path):
    """Two tones a known distance apart: no classifier is right more often than Phi(a sqrt(D) / r).

    r = sigma / alpha, a the tone and D the number of pixels.
    """
    made = recipe(40, "training.lr=0.02", "training.batch=32")
    splits = two_tones()
    hidden = splits.train.cond["label"].clone()
    hidden[10:50] = -1
    some = dataclasses.replace(splits.train, cond={"label": hidden})
    work = prepare(made, tmp_path / "run", splits=Splits(some, splits.held_out))
    assert len(work.splits.train) == 216, "items without a label are left out"
    *_, last = train(work)
    (event,) = [e for e in last.events if e["event"] == "accuracy"]
    rows = event["levels"]
    assert [row["t"] for row in rows] == [(k + 0.5) / 10 for k in range(10)]
    for row in rows:
        best = 0.5 * math.erfc(-TONE * 8.0 / math.exp(row["level"]) / math.sqrt(2.0))
        error = math.sqrt(best * (1 - best) / row["n"])
        assert row["n"] == 512
        assert row["accuracy"] < best + 4 * error + 1e-9, f"better than possible at t {row['t']}"
        assert row["accuracy"] > best - 4 * error - 0.05, (
            f"{row['accuracy']} of {best} at {row['t']}"
        )
    assert rows[0]["accuracy"] > 0.99 and rows[-1]["accuracy"] < 0.6
    net = steerable.load(tmp_path / "run").network
    found = by_level(net, tones(600), items=100)
    assert found["n"] == 100 and all(row["n"] == 100 for row in found["levels"])
    text = by_level_lines(found)
    assert len(text) == 11 and all("n = 100" in line for line in text[1:])


def test_evaluation_of_a_classifier_is_its_accuracy(folder):
    model = steerable.load(folder / "digits")
    assert isinstance(model.network, NoisyClassifier)
    found = steerable.evaluate(model, n=30)
    assert found.sample is None and json.loads(json.dumps(found.result)) == found.result
    assert found.result["n"] == 30 and len(found.result["levels"]) == 10
    with pytest.raises(UserError) as caught:
        classified(model, two_tones(), n=50)
    assert caught.value.code == "E-DATA"
    with pytest.raises(UserError, match="1 or more"):
        classified(model, two_tones(), n=0)


def test_data_without_a_single_label_is_refused():
    splits = two_tones()
    nobody = dataclasses.replace(splits.train, cond={"label": torch.full((256,), -1)})
    for train_part in (nobody, dataclasses.replace(splits.train, cond={})):
        with pytest.raises(UserError) as caught:
            labelled(Splits(train_part, splits.held_out), "label")
        assert caught.value.code == "E-DATA"


def test_what_cannot_be_classified_is_refused(tmp_path):
    for change, code in (
        ("classifies=colour", "E-CONFIG"),
        ("backbone.kind=unet", "E-CONFIG"),
        ("conditions.label.kind=label", "E-CONFIG"),
    ):
        with pytest.raises(UserError) as caught:
            prepare(recipe(20, change), tmp_path / "run")
        assert caught.value.code == code
    with pytest.raises(UserError) as caught:
        prepare(recipe(20), tmp_path / "run", splits=two_tones(("dark",)))
    assert caught.value.code == "E-DATA"


def test_a_label_guides_a_model_that_was_trained_without(folder):
    model, run = steerable.load(folder / "plain"), str(folder / "digits")
    assert model.labels == () and not model.denoiser.conditions
    free = steerable.sample(model, n=2, steps=4)
    off = steerable.sample(model, "3", n=2, steps=4, classifier=run, classifier_scale=0)
    assert torch.equal(off.x, free.x) and off.wishes[0].label == "3"
    made = [
        steerable.sample(model, label, n=2, steps=4, classifier=run, classifier_scale=80)
        for label in ("3", "8")
    ]
    assert not torch.equal(made[0].x, free.x) and not torch.equal(made[0].x, made[1].x)
    assert made[0].calls == free.calls == 4, "the network itself is asked no more often"
    settings = job.settings_of(made[0].recipe, model, made[0].wishes[0])
    (part,) = [p for p in settings["guidance"] if p["kind"] == "classifier"]
    assert part["run"] == run and part["scale"] == 80 and settings["label"] == "3"
    every = steerable.sample(model, n=1, steps=2, classifier=run)
    assert [w.label for w in every.wishes] == [str(k) for k in range(10)]
    nobody = [Wish({}, 5), Wish({"label": "3"}, 6)]
    *_, last = job.sample(model, made[0].recipe, nobody)
    *_, alone = job.sample(model, model.recipe.with_set(["sampler.steps=4"]), [Wish({}, 5)])
    assert torch.equal(last.sample.x[0], alone.sample.x[0]), "an item without a label is left alone"


def test_where_the_classifier_stands_and_what_its_settings_are(folder):
    model, run = steerable.load(folder / "plain"), folder / "digits"
    made = with_classifier(model, run, 2.5)
    kinds = [part.kind for part in made.guidance]
    assert kinds == ["classifier", "threshold"], "what clips comes after"
    again = with_classifier(dataclasses.replace(model, recipe=made), None, 4)
    assert again.guidance[0].options["scale"] == 4 and len(again.guidance) == 2
    timed = job.steered(made, interval=(0.1, 0.7), settings=["guidance.classifier.clip=1"])
    assert timed.guidance[0].options["stop"] == 0.1 and timed.guidance[0].options["start"] == 0.7
    assert timed.guidance[0].options["clip"] == 1 and len(timed.guidance) == 2
    assert askable(model, made).labels["label"] == tuple(str(k) for k in range(10))
    assert askable(model, model.recipe) is model.spec
    with pytest.raises(UserError, match="trained without"):
        job.steered(made, guidance=2.0)


def changed(model, *settings, **facts):
    """The model with another network, which was not trained, or other facts of its data."""
    recipe, spec = model.recipe.with_set(settings), dataclasses.replace(model.spec, **facts)
    return dataclasses.replace(model, network=network(recipe, spec), recipe=recipe, spec=spec)


def test_a_classifier_that_does_not_fit_is_refused(folder):
    plain = steerable.load(folder / "plain")
    run = folder / "digits"
    for model, path, code, words in (
        (plain, folder / "plain", "E-CONFIG", "a model that cleans"),
        (plain, folder / "nowhere", "E-CONFIG", "does not exist"),
        (changed(plain, "process.kind=ddpm"), run, "E-CONFIG", "same process"),
        (changed(plain, shape=(1, 8, 9)), run, "E-SHAPE", "8, 9"),
        (changed(plain, labels={"label": ("boot", "bag")}), run, "E-CONFIG", "boot, bag"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            steerable.sample(model, n=1, steps=2, classifier=path)
        assert caught.value.code == code
    for scale, words in ((101, "100"), (float("nan"), "finite")):
        with pytest.raises(UserError, match=words):
            steerable.sample(plain, n=1, classifier=run, classifier_scale=scale)
    with pytest.raises(UserError, match="no classifier"):
        steerable.sample(plain, n=1, classifier_scale=2)
    with pytest.raises(UserError, match="no condition"):
        steerable.sample(plain, "3", n=1)
    with pytest.raises(UserError) as caught:
        steerable.sample(plain, "boot", n=1, classifier=run)
    assert caught.value.code == "E-LABEL"


def test_a_classifier_itself_makes_nothing_and_says_what_it_is_for(folder):
    model = steerable.load(folder / "digits")
    for ask in (
        lambda: steerable.sample(model, "3", n=1),
        lambda: steerable.sample(model, n=1, guidance=2.0),
        lambda: steerable.sample(model, n=1, classifier=folder / "digits"),
        lambda: model.denoiser,
    ):
        with pytest.raises(UserError, match="--classifier") as caught:
            ask()
        assert caught.value.code == "E-CONFIG"


def test_any_score_guides_in_three_lines(folder):
    model = steerable.load(folder / "plain")
    free = steerable.sample(model, n=4, steps=6)
    bright = steerable.guide(lambda x0: x0[:, :, :4].flatten(1).mean(1), 20.0)
    made = steerable.sample(model, n=4, steps=6, guide=[bright])
    tops = [float(s.x[:, :, :4].float().mean()) for s in (free, made)]
    assert tops[1] > tops[0] + 5, f"the upper half should be brighter: {tops}"
    off = steerable.sample(model, n=4, steps=6, guide=[steerable.guide(lambda x0: x0.sum(), 0.0)])
    assert torch.equal(off.x, free.x)
    for options in ({"scale": float("inf")}, {"scale": 1.0, "start": 1.5}):
        with pytest.raises(UserError):
            steerable.guide(lambda x0: x0.sum(), **options)


def test_labels_of_a_classifier_beside_those_of_the_model(folder):
    """A model with another label keeps its own: both may be asked for."""
    model = steerable.load(folder / "plain")
    spec = dataclasses.replace(model.spec, labels={"colour": ("red", "blue")})
    made = with_classifier(model, folder / "digits", None)
    both = askable(Model(model.network, model.recipe, spec, {}, model.path), made)
    wanted = wishes(both, ["3"], 1, 0, {"colour": "red"})
    assert wanted[0].cond == {"label": "3", "colour": "red"}
