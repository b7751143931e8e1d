"""Names that are the same to a reader are the same to us, and no others are."""

from __future__ import annotations

import itertools
import unicodedata

import numpy as np
import pytest

from steerable.intake.names import Names, folded


@pytest.mark.parametrize(
    "name", ["café", "Ärger", "ΌΣΟΣ", "straße", "ấ ệ", "가나", "İstanbul", "猫"]
)
def test_every_form_and_case_is_the_same(name):
    known = Names([name, "other"])
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    for text in forms:
        assert known.find(text) == name and folded(text) == folded(name)
        assert known.find(text.casefold()) == name
    assert known.find(name + "x") is None


def test_an_exact_name_comes_before_one_that_is_alike():
    known = Names(["Cat", "cat", "CAT", "dog"])
    assert [known.find(n) for n in ("Cat", "cat", "CAT", "DOG")] == ["Cat", "cat", "CAT", "dog"]
    assert known.find("cAt") is None  # not clear which
    composed, apart = "é", unicodedata.normalize("NFD", "é")
    both = Names([composed, apart])
    assert both.find(composed) == composed and both.find(apart) == apart
    assert Names(["é", "É"]).find(unicodedata.normalize("NFD", "É")) == "É"


def test_random_names_are_found_in_each_form_and_case():
    rng = np.random.default_rng(0)
    letters = [chr(c) for c in (*range(0x41, 0x5B), *range(0xC0, 0x180), *range(0x391, 0x3CA))]
    letters = [c for c in letters if unicodedata.category(c)[0] == "L"]
    for _ in range(300):
        name = "".join(rng.choice(letters, 6))
        known = Names([name])
        for form, change in itertools.product(("NFC", "NFD"), (str.lower, str.upper, str.title)):
            text = unicodedata.normalize(form, change(name))
            assert (known.find(text) == name) == (folded(text) == folded(name))
            if change(name).casefold() == name.casefold():
                assert known.find(text) == name
