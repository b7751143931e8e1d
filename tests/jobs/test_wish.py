"""Conditions as people write them: names in any case, numbers, words, and what is refused."""

from __future__ import annotations

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.jobs.wish import Wish, asked, conditioned, parsed, wishes

SPEC = Spec(
    "toys",
    (3, 8, 8),
    {"label": ("Cat", "Dog"), "colour": ("red", "blue")},
    vectors={"pose": ("x", "y")},
    tokens={"prompt": ("red", "blue", "circle", "square")},
)


def test_every_kind_of_condition_becomes_its_tensor_and_a_missing_one_is_absent():
    wanted = [
        Wish({"label": "Dog", "pose": (0.5, -1.0)}, 1),
        Wish({"prompt": ("blue", "square", "red")}, 2),
        Wish({}, 3),
    ]
    cond = conditioned(SPEC, wanted)
    assert sorted(cond) == ["label", "pose", "prompt"]
    assert cond["label"].tolist() == [1, -1, -1]
    assert cond["pose"][0].tolist() == [0.5, -1.0] and bool(cond["pose"][1:].isnan().all())
    assert cond["prompt"].tolist() == [[-1, -1, -1], [1, 3, 0], [-1, -1, -1]]
    assert cond["pose"].dtype == torch.float32 and cond["label"].dtype == torch.int64
    assert conditioned(SPEC, [Wish({}, 1)]) == {}


def test_text_is_read_as_the_data_means_it():
    assert asked(SPEC, "colour", "BLUE") == "blue"
    assert asked(SPEC, "pose", "0.5, -1") == (0.5, -1.0)
    assert asked(SPEC, "pose", [0.5, -1]) == (0.5, -1.0)
    assert asked(SPEC, "prompt", "Red circle, blue square!") == ("red", "circle", "blue", "square")
    assert parsed(["colour=red", "prompt=a = b"]) == {"colour": "red", "prompt": "a = b"}


@pytest.mark.parametrize(
    ("name", "value", "code", "says"),
    [
        ("colour", "reed", "E-LABEL", "Did you mean 'red'"),
        ("color", "red", "E-CONFIG", "Did you mean 'colour'"),
        ("pose", "1", "E-CONFIG", "2 numbers"),
        ("pose", "1 nan", "E-CONFIG", "2 numbers"),
        ("pose", "30 1", "E-CONFIG", "least and most of training"),
        ("pose", "left right", "E-CONFIG", "x, y"),
        ("prompt", "green circle", "E-LABEL", "red, blue"),
        ("prompt", " , ", "E-LABEL", "one word"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_what_can(name, value, code, says):
    with pytest.raises(UserError, match=says) as caught:
        asked(SPEC, name, value)
    assert caught.value.code == code


def test_an_assignment_needs_its_sign():
    with pytest.raises(UserError, match="NAME=VALUE"):
        parsed(["red"])


def test_wishes_are_n_of_each_label_with_the_other_conditions_on_all():
    found = wishes(SPEC, ["dog", "cat"], 2, 10, {"colour": "red"})
    assert [(w.label, w.seed) for w in found] == [
        ("Dog", 10),
        ("Dog", 11),
        ("Cat", 12),
        ("Cat", 13),
    ]
    assert all(w.cond["colour"] == "red" for w in found) and found[0].title == "Dog, red"
    assert [w.label for w in wishes(SPEC, [], 1, 0)] == ["Cat", "Dog"]
    only = wishes(SPEC, [], 3, 0, {"prompt": "red square"})
    assert len(only) == 3 and only[0].label is None and only[0].title == "red square"
    assert wishes(Spec("none", (1, 8, 8)), [], 2, 0) == [Wish({}, 0), Wish({}, 1)]
    with pytest.raises(UserError, match="trained without"):
        wishes(Spec("none", (1, 8, 8)), ["cat"], 1, 0)
