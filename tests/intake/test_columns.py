"""Values of tables: what is missing, what is wrong, and what the training part decides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerable.core.errors import UserError
from steerable.intake.columns import ColumnError, checked, encoded, parsed


@pytest.mark.parametrize("kind", ["label", "vector", "tokens"])
def test_nothing_is_a_missing_value(kind):
    for value in (None, "", "  \t", math.nan):
        assert parsed(kind, value) is None


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (3, (3.0,)),
        ("-1.5e2", (-150.0,)),
        ("1 2\t3", (1.0, 2.0, 3.0)),
        ("1;2 ; 3", (1.0, 2.0, 3.0)),
        ("[1, 2.5]", (1.0, 2.5)),
        ([0, 1], (0.0, 1.0)),
        (True, (1.0,)),
        ("nan", None),
        ([None, None], None),
    ],
)
def test_numbers(value, wanted):
    assert parsed("vector", value) == wanted


@pytest.mark.parametrize(
    "value", ["0,5", "big", "[1,", "[[1]]", "inf", 1e31, 10**400, [], [1] * 257, {"a": 1}, "1;;2"]
)
def test_what_is_no_number(value):
    with pytest.raises(ColumnError) as caught:
        parsed("vector", value)
    assert caught.value.reason and len(caught.value.reason) < 120


def test_words():
    assert parsed("tokens", "A red, BIG circle (left)-Side!") == (
        *("a", "red", "big", "circle", "left", "side"),
    )
    assert parsed("tokens", ["Blue", "two words"]) == ("blue", "two", "words")
    assert parsed("tokens", 7) == ("7",) and parsed("tokens", "...") is None
    assert parsed("tokens", "cafe\u0301 \u00bfqu\u00e9?") == ("caf\u00e9", "qu\u00e9")
    assert parsed("tokens", "\u0939\u093f\u0928\u094d\u0926\u0940") == (
        "\u0939\u093f\u0928\u094d\u0926\u0940",
    )
    assert len(parsed("tokens", "w " * 5000)) == 65
    with pytest.raises(ColumnError):
        parsed("tokens", {"a": 1})


def test_labels():
    assert [parsed("label", v) for v in (3, "x", True, "e\u0301")] == ["3", "x", "true", "\u00e9"]
    for value in (0.5, [1], {"a": 1}):
        with pytest.raises(ColumnError):
            parsed("label", value)


def made(kind, values, out=None):
    return encoded("c", kind, values, out or [False] * len(values), "data")


def test_class_names_come_from_the_training_part():
    column = made("label", ["10", "9", None, "7"], [False, False, False, True])
    assert column.names == ("9", "10") and column.values.tolist() == [1, 0, -1, -1]
    assert column.facts == {"missing": 1, "unknown_in_held_out": 1}


def test_numbers_are_scaled_by_the_training_part():
    values = [(0.0, 5.0), (10.0, 1.0), None, (5.0, math.nan), (20.0, 3.0)]
    column = made("vector", values, [False, False, False, False, True])
    assert column.names == ("c 1", "c 2") and column.values.dtype == np.float32
    wanted = [[-1, 1], [1, -1], [np.nan] * 2, [np.nan] * 2, [3, 0]]
    np.testing.assert_array_equal(column.values, wanted)
    assert column.facts == {
        **{"missing": 1, "incomplete": 1, "outside": 1},
        "from_-1_to_1": {"c 1": [0.0, 10.0], "c 2": [1.0, 5.0]},
    }
    large = made("vector", [(-1e30,), (1e30,), (0.0,)])
    assert large.values[:, 0].tolist() == [-1, 1, 0] and large.names == ("c",)


def test_words_are_counted_cut_and_dropped():
    values = [("b", "a"), None, ("a",) * 65, ("z", "a", "z")]
    column = made("tokens", values, [False, False, False, True])
    assert column.names == ("a", "b") and column.values.shape == (4, 64)
    assert column.values[0, :3].tolist() == [1, 0, -1] and (column.values[1] == -1).all()
    assert column.values[3, :2].tolist() == [0, -1]
    wanted = {"words": 2, "length": 64, "cut": 1, "missing": 1}
    assert column.facts == {**wanted, "rare_words_dropped": 0, "unknown_in_held_out": 2}


def test_the_vocabulary_keeps_the_most_frequent_words():
    values = [(f"w{i:05}",) for i in range(5000)] + [("w04999",), ("w04998", "w04999")]
    column = made("tokens", values)
    assert len(column.names) == 4096 and {"w04999", "w04998", "w00000"} <= set(column.names)
    assert column.facts["rare_words_dropped"] == 904
    assert (column.values[4500] == -1).all() and column.values.max() == 4095


@pytest.mark.parametrize(
    ("kind", "values", "out", "words"),
    [
        ("vector", [(1.0,), (1.0,), (2.0,)], [False, False, True], "'c' is 1 for all"),
        ("vector", [(1.0, 2.0), (2.0, 2.0)], None, "'c 2' is 2 for all"),
        ("vector", [(1.0,), (1.0, 2.0)], None, "1 pictures with 2 numbers"),
        ("vector", [(1.0, math.nan), (math.nan, 2.0)], None, "has all its numbers"),
        ("vector", [None, (1.0,)], [False, True], "no value in the training part"),
        ("tokens", [None, None], None, "no value"),
        ("label", [str(i) for i in range(4097)], None, "4097 different names"),
    ],
)
def test_columns_that_say_nothing_are_refused(kind, values, out, words):
    with pytest.raises(UserError, match=words) as caught:
        made(kind, values, out)
    assert caught.value.code == "E-DATA" and caught.value.do and "'c'" in caught.value.where


def test_names_and_kinds():
    checked({"hair colour": "label", "größe": "vector", "a-b_1": "tokens"})
    for columns in (
        {"a": "text"},
        {"a.b": "label"},
        {"": "label"},
        {"x": "label"},
        {" a": "label"},
    ):
        with pytest.raises(UserError) as caught:
            checked(columns)
        assert caught.value.code == "E-CONFIG"
