"""Parts by name: the constructor is the schema."""

from __future__ import annotations

import json

import pytest

from steerable.core.errors import UserError
from steerable.recipes.part import ROOMS, Part, build, check, describe, find, kinds

EVERY = [(room, kind) for room in ROOMS for kind in kinds(room)]


@pytest.mark.parametrize(("room", "kind"), EVERY)
def test_every_option_is_described_and_its_default_is_taken(room, kind):
    about = describe(room, kind)
    assert about["summary"].strip()
    json.dumps(about, allow_nan=False)
    for option in about["options"]:
        assert option["help"] or room == "grid", f"{kind}.{option['name']} has no help"
    defaults = {o["name"]: o["default"] for o in about["options"] if o["default"] is not None}
    if kind != "images":
        once = check(room, Part(kind=kind, options=defaults))
        plain = json.loads(json.dumps(once.flat()))
        assert check(room, Part.model_validate(plain)) == once


def test_unknown_kind_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'heun'") as caught:
        find("sampler", "huen")
    assert caught.value.exit_code == 2 and "euler" in caught.value.takes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eta": 1.5}, "less than or equal to 1"),
        ({"eta": "much"}, "valid number"),
        ({"eta": float("nan")}, "finite"),
        ({"etta": 0.5}, "Did you mean 'eta'"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        check("sampler", Part(kind="ancestral", options=options))


def test_numbers_that_yaml_reads_as_text_are_repaired():
    assert check("sampler", Part(kind="ancestral", options={"eta": "5e-1"})).options["eta"] == 0.5


def test_context_is_filled_in_and_cannot_be_an_option():
    label = build("condition", Part(kind="label"), width=6, classes=3, unused="x")
    assert label.table.weight.shape == (3, 6)
    with pytest.raises(UserError, match="unknown setting"):
        check("condition", Part(kind="label", options={"width": 6}))
