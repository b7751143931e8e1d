"""The words of a report on recorded figures, and that no number stands without its n."""

from __future__ import annotations

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
