"""Numbers are finite and no truth values, in every option of every part and of the recipe."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from steerable.core.errors import UserError
from steerable.recipes.part import ROOMS, Part, check, describe, kinds
from steerable.recipes.recipe import Recipe, Sampling, checked
from steerable.recipes.training import Budget, Training

ODD = [True, False, float("nan"), float("inf"), -float("inf"), "1e400", "nan"]


def numeric():
    """Every option of every part whose default is a number."""
    for room in ROOMS:
        for kind in kinds(room):
            for option in describe(room, kind)["options"]:
                if isinstance(option["default"], int | float) and "bool" not in option["type"]:
                    yield room, kind, option["name"]


def test_no_option_of_any_part_takes_what_is_no_finite_number():
    tried = 0
    for room, kind, name in numeric():
        needed = {"path": "x"} if (room, kind) == ("data", "images") else {}
        for odd in ODD:
            with pytest.raises(UserError) as caught:
                check(room, Part(kind=kind, options={**needed, name: odd}))
            assert caught.value.code == "E-CONFIG" and name in caught.value.where
            tried += 1
    assert tried > 500


@pytest.mark.parametrize("odd", [*ODD, [True], {"a": True}], ids=repr)
def test_no_number_of_training_or_sampling_is_a_truth_value_or_not_finite(odd):
    for model in (Training, Sampling):
        for name, field in model.model_fields.items():
            if field.annotation in (int, float):
                with pytest.raises(ValidationError):
                    model.model_validate(
                        {name: odd, "options": {}} if model is Sampling else {name: odd}
                    )


@pytest.mark.parametrize(
    "setting",
    [
        "guidance.weights={label: true}",
        "guidance.weights={label: .nan}",
        "guidance.weights={label: 1e400}",
        "backbone.channels=[true, 8]",
        "backbone.channels=[.inf]",
        "sampler.steps=on",
        "training.lr=yes",
        "training.batch=off",
    ],
)
def test_nor_inside_lists_and_tables(setting):
    parts = {"data": "digits", "process": "flow", "backbone": "unet", "guidance": ["cfg"]}
    recipe = checked({**parts, "conditions": {"label": "label"}})
    assert isinstance(recipe, Recipe)
    with pytest.raises(UserError) as caught:
        recipe.with_set([setting])
    assert caught.value.code == "E-CONFIG"
    assert recipe.with_set(["training.flip=true", "training.compile=on"]).training.compile == "on"


@pytest.mark.parametrize(
    "text",
    [
        *("nan", "inf", "nans", "1e400h", "9" * 400 + "h", "9" * 5000 + " iterations"),
        *("-1s", "0s", "true", "", "9" * 5000 + "s", "0.0h0m"),
    ],
)
def test_a_budget_is_a_finite_amount(text):
    with pytest.raises(UserError) as caught:
        Budget.parse(text)
    assert caught.value.code == "E-CONFIG" and len(str(caught.value)) < 300
