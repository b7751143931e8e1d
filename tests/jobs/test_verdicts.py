"""The words of a report on recorded figures, and that no number stands without its n."""

from __future__ import annotations

import random
import re

import pytest

from steerable.jobs.verdicts import verdicts


def figure(value, error=0.01, n=2000, **more):
    return {"value": value, "error": error, "n": n, **more}


def report(**changed):
    """Figures of a good model, recorded on Fashion pictures, with some of them changed."""
    measures = {
        "accuracy": figure(0.95, 0.005, real=0.928, real_error=0.003, real_n=10_000, chance=0.1),
        "frechet": figure(1.2, 0.05, floor=0.35, floor_std=0.02),
        "precision": figure(0.88, 0.01, floor=0.87, floor_std=0.01),
        "recall": figure(0.84, 0.01, floor=0.87, floor_std=0.01),
        "coverage": figure(0.93, 0.01, floor=0.967, floor_std=0.004),
        "spread": figure(0.93, 0.01, floor=1.0),
        "two_sample": figure(0.56, 0.01, floor=0.5, floor_std=0.01),
        "repeats": figure(0.012, 0.004, floor=0.01, floor_std=0.004),
        "memorisation": figure(0.98, 0.02, floor=1.0, n_train=6000, n_unseen=1000),
        "near_copies": figure(0.011, 0.003, floor=0.01, n_train=6000, n_unseen=1000),
        "contrast": figure(0.98, 0.01, floor=1.0),
        "tint": figure(1.4, 0.6, floor=0.5),
        "dead": figure(0.0, 0.001, floor=0.0),
    }
    per_class = {
        "bag": {"accuracy": figure(0.99, 0.01, 200), "spread": figure(0.9, 0.03, 200)},
        "shirt": {"accuracy": figure(0.61, 0.03, 200), "spread": figure(0.8, 0.03, 200)},
    }
    measures |= {name: value for name, value in changed.items() if value is not None}
    for name in [name for name, value in changed.items() if value is None]:
        del measures[name]
    return {"measures": measures, "per_class": per_class}


def answers(told):
    return {v["question"]: (v["answer"], v["sentence"]) for v in verdicts(told)}


GOOD = {
    "does it obey?": "yes",
    "does it look real?": "yes",
    "is it diverse?": "yes",
    "does it copy?": "no",
    "are colours and pictures sound?": "yes",
    "where is it weak?": "told",
}

CASES = {
    # what is recorded: the measures that differ, the question, its answer, words of the sentence
    "labels shuffled in training": (
        {"accuracy": figure(0.106, 0.007, real=0.928, real_error=0.003, real_n=10_000, chance=0.1)},
        ("does it obey?", "no", "ignored"),
    ),
    "half of the way": (
        {"accuracy": figure(0.61, 0.01, real=0.928, real_error=0.003, real_n=10_000, chance=0.1)},
        ("does it obey?", "partly", "0.61"),
    ),
    "a judge that knows nothing": (
        {"accuracy": figure(0.1, 0.02, real=0.12, real_error=0.03, real_n=100, chance=0.1)},
        ("does it obey?", "unknown", "hardly better than chance"),
    ),
    "words that are not heeded": (
        {"retrieval of prompt": figure(0.07, 0.02, real=0.99, real_n=300, chance=1 / 16)},
        ("does it obey?", "no", "ignored"),
    ),
    "numbers that are not heeded": (
        {"r2 of size": figure(0.02, 0.02, real=0.95, real_n=300)},
        ("does it obey?", "no", "r2 of size"),
    ),
    "one picture for each class": (
        {
            "coverage": figure(0.04, 0.01, floor=0.967, floor_std=0.01),
            "spread": figure(0.1, 0.01, floor=1.0),
            "repeats": figure(0.99, 0.01, floor=0.01, floor_std=0.01),
        },
        ("is it diverse?", "no", "repeats itself"),
    ),
    "strong guidance": (
        {"spread": figure(0.72, 0.01, floor=1.0)},
        ("is it diverse?", "partly", "0.72"),
    ),
    "trained for long on 100 pictures": (
        {
            "memorisation": figure(0.08, 0.01, floor=1.0, n_train=90, n_unseen=10),
            "near_copies": figure(0.93, 0.01, floor=0.01, n_train=90, n_unseen=10),
        },
        ("does it copy?", "yes", "0.08"),
    ),
    "a few copies among many": (
        {"near_copies": figure(0.2, 0.01, floor=0.01, n_train=6000, n_unseen=1000)},
        ("does it copy?", "yes", "Near-copies"),
    ),
    "the reference handed back": (
        {"two_sample": figure(0.02, 0.01, floor=0.5, floor_std=0.01)},
        ("does it copy?", "yes", "reference itself"),
    ),
    "out of focus": (
        {"contrast": figure(0.8, 0.01, floor=1.0)},
        ("does it look real?", "partly", "blurred"),
    ),
    "negatives": (
        {
            "precision": figure(0.0, 0.01, floor=0.87, floor_std=0.01),
            "two_sample": figure(1.0, 0.001, floor=0.5, floor_std=0.01),
        },
        ("does it look real?", "no", "A nearest neighbour tells 1.00"),
    ),
    "black pictures": (
        {"dead": figure(0.05, 0.005, floor=0.0)},
        ("are colours and pictures sound?", "no", "blank"),
    ),
    "tinted": (
        {"tint": figure(24.0, 1.0, floor=0.5)},
        ("are colours and pictures sound?", "no", "tinted"),
    ),
    "a distance far above the floor that two of three neighbours see": (
        {
            "frechet": figure(6.7 * 0.35, 0.1, floor=0.35, floor_std=0.02),
            "two_sample": figure(0.65, 0.012, floor=0.5, floor_std=0.01),
        },
        ("does it look real?", "partly", "6.7 times"),
    ),
    "the same distance of few samples": (
        {"frechet": figure(6.7 * 2.5, 1.9, 130, floor=2.5, floor_std=0.3)},
        ("does it look real?", "partly", "2.50 apart"),
    ),
    "the same neighbours of few samples": (
        {"two_sample": figure(0.65, 0.045, 130, floor=0.5, floor_std=0.04)},
        ("does it look real?", "partly", "A nearest neighbour tells 0.65"),
    ),
    "as far as a dozen real items": (
        {"frechet": figure(75.0, 0.5, floor=0.35, floor_std=0.02)},
        ("does it look real?", "no", "214.3 times"),
    ),
    "hard contrast": (
        {"contrast": figure(1.4, 0.02, floor=1.0)},
        ("does it look real?", "partly", "too hard"),
    ),
    "no contrast at all": (
        {"contrast": figure(0.0, 0.001, floor=1.0)},
        ("does it look real?", "no", "washed out"),
    ),
    "outside of the real ones": (
        {"precision": figure(0.3, 0.02, floor=0.87, floor_std=0.01)},
        ("does it look real?", "no", "lie among real items"),
    ),
    "nothing that is compared with real items": (
        {"frechet": None, "precision": None, "two_sample": None},
        ("does it look real?", "unknown", ""),
    ),
    "near-copies that are many, but uncertain": (
        {"near_copies": figure(0.3, 0.09, 130, floor=0.036, n_train=250, n_unseen=28)},
        ("does it copy?", "partly", "0.300"),
    ),
    "near the training items, but uncertain": (
        {"memorisation": figure(0.6, 0.1, 130, floor=1.0, n_train=250, n_unseen=28)},
        ("does it copy?", "partly", "0.60"),
    ),
    "as near-copied as real items by the error": (
        {"near_copies": figure(0.12, 0.08, 30, floor=0.036, n_train=250, n_unseen=28)},
        ("does it copy?", "no", "0.120"),
    ),
    "no ratio to unseen items": (
        {"memorisation": None},
        ("does it copy?", "unknown", "not at hand"),
    ),
    "repeats that are many, but uncertain": (
        {"repeats": figure(0.2, 0.06, 60, floor=0.02, floor_std=0.01)},
        ("is it diverse?", "partly", "repeats itself"),
    ),
    "few real items have a sample near": (
        {"coverage": figure(0.3, 0.02, floor=0.967, floor_std=0.004)},
        ("is it diverse?", "no", "have a sample near"),
    ),
    "a class that pixels show to be alike": (
        {"spread_pixels": figure(0.6, 0.02, floor=1.0)},
        ("is it diverse?", "partly", "in pixels"),
    ),
    "a tint that is uncertain": (
        {"tint": figure(12.0, 2.5, 40, floor=0.5)},
        ("are colours and pictures sound?", "partly", "tinted"),
    ),
    "colours without a tint": (
        {"dead": None, "tint": None},
        ("are colours and pictures sound?", "unknown", ""),
    ),
    "no training data at hand": (
        {"memorisation": None, "near_copies": None},
        ("does it copy?", "unknown", "not at hand"),
    ),
}


def test_a_good_model():
    assert {q: answer for q, (answer, _) in answers(report()).items()} == GOOD


@pytest.mark.parametrize("name", CASES)
def test_recorded_cases(name):
    changed, (question, answer, words) = CASES[name]
    found = answers(report(**changed))
    assert found[question][0] == answer, found[question]
    assert words in found[question][1]
    others = {q: a for q, (a, _) in found.items() if q != question}
    assert others == {q: a for q, a in GOOD.items() if q != question}


def test_uncertainty_is_given_the_benefit():
    """What 30 samples say is not held against a model that 2,000 would condemn."""
    few = figure(0.7, 0.084, 30, real=0.928, real_error=0.003, real_n=10_000, chance=0.1)
    many = figure(0.7, 0.01, 2000, real=0.928, real_error=0.003, real_n=10_000, chance=0.1)
    assert answers(report(accuracy=few))["does it obey?"][0] == "yes"
    assert answers(report(accuracy=many))["does it obey?"][0] == "partly"


@pytest.mark.parametrize("name", [*CASES, ""])
def test_every_measured_number_stands_with_its_n(name):
    changed = CASES[name][0] if name else {}
    for _, sentence in answers(report(**changed)).values():
        for match in re.finditer(r"\d[\d.]* ± [\d.]+", sentence):
            rest = sentence[match.end() : match.end() + 40]
            assert re.match(r"( %)?[a-z ]*\(n = [\d,]+\)| % above", rest), sentence


def drawn(dice):
    """Random figures, good, middling and bad, of few samples and of many."""
    n = dice.choice([30, 130, 500, 2000])

    def share(floor, **more):
        value = floor * dice.uniform(0.0, 1.1)
        return figure(value, dice.uniform(0.05, 1.5) / n**0.5, n, floor=floor, **more)

    def above(floor, most, **more):
        value = floor + dice.uniform(0.0, most)
        return figure(value, dice.uniform(0.05, 1.5) * most / n**0.5, n, floor=floor, **more)

    return {
        "frechet": figure(0.3 * dice.uniform(1, 60), dice.uniform(0.01, 1), n, floor=0.3),
        "precision": share(0.87),
        "two_sample": figure(dice.uniform(0.5, 1), dice.uniform(0.3, 1) / n**0.5, n, floor=0.5),
        "contrast": share(1.0),
        "coverage": share(0.967),
        "recall": share(0.85),
        "spread": share(1.0),
        "repeats": above(0.01, 0.3),
        "memorisation": share(1.0, n_train=250, n_unseen=28),
        "near_copies": above(0.036, 0.4, n_train=250, n_unseen=28),
        "tint": above(0.5, 30.0),
        "dead": above(0.0, 0.05),
    }


def ranks(found):
    """Questions with how bad the answer is, 0 for unknown."""
    bad, copied = ("unknown", "yes", "partly", "no"), ("unknown", "no", "partly", "yes")
    return {
        question: (copied if "copy" in question else bad).index(answer)
        for question, (answer, _) in found.items()
        if question != "where is it weak?"
    }


def test_an_answer_is_that_of_its_worst_figure():
    """With every figure on its own the same question has the answer of one of them, the worst."""
    for seed in range(500):
        measures = drawn(random.Random(seed))
        together = ranks(answers({"measures": measures}))
        alone = [ranks(answers({"measures": {name: value}})) for name, value in measures.items()]
        for question, rank in together.items():
            assert rank == max(one[question] for one in alone), (seed, question)


def test_a_worse_figure_never_makes_a_better_answer():
    for seed in range(200):
        dice = random.Random(seed)
        measures = drawn(dice)
        before = ranks(answers({"measures": measures}))
        for name, value in measures.items():
            up = name in ("frechet", "two_sample", "repeats", "near_copies", "tint", "dead")
            worse = {**value, "value": value["value"] * (dice.uniform(1, 3) if up else 0.5)}
            after = ranks(answers({"measures": {**measures, name: worse}}))
            worst = [q for q, rank in before.items() if after[q] < rank]
            assert not worst, (seed, name, worst)


def test_the_sentence_of_the_worst_figure_comes_first():
    told = answers(report(contrast=None, two_sample=figure(0.8, 0.01, floor=0.5)))
    assert told["does it look real?"][1].startswith("A nearest neighbour tells 0.80")
