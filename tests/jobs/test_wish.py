"""Conditions as people write them: names in any case, numbers, words, and what is refused."""

from __future__ import annotations

import unicodedata

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Spec
from steerable.jobs import wish as job
from steerable.jobs.wish import Wish, all_asked, asked, batches, conditioned, parsed, wishes

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


def test_a_label_with_a_bar_is_either_drawn_for_each_picture_by_its_seed():
    n = 4000
    spec = Spec("toys", (1, 8, 8), {"label": ("Cat", "Dog", "Cow"), "colour": ("red", "blue")})
    found = wishes(spec, ["cat | DOG"], n, 5)
    assert [w.seed for w in found] == list(range(5, n + 5))
    cats = sum(w.label == "Cat" for w in found)
    assert {w.label for w in found} == {"Cat", "Dog"}
    assert abs(cats - n / 2) < 4 * (n / 4) ** 0.5, f"{cats} of {n}"
    again = wishes(spec, ["Cat|Dog"], 10, 100)
    assert again == found[95:105], "the class is a function of the seed"
    both = wishes(spec, ["cat|dog"], n, 5, {"colour": "red|blue"})
    assert [w.label for w in both] == [w.label for w in found]
    red = sum(w.cond["colour"] == "red" for w in both if w.label == "Cat")
    assert abs(red - cats / 2) < 4 * (cats / 4) ** 0.5, "two draws of one picture depend"
    three = wishes(spec, ["cat|dog|cow"], n, 0)
    for name in ("Cat", "Dog", "Cow"):
        assert abs(sum(w.label == name for w in three) - n / 3) < 4 * (2 * n / 9) ** 0.5
    plain = wishes(spec, ["dog", "cat|dog"], 1, 3)
    assert plain[0] == Wish({"label": "Dog"}, 3) and plain[1].label in ("Cat", "Dog")


def _of_the_noise(found):
    """Correlation of being a cat with the first number of the picture's own noise."""
    first = Noise(torch.tensor([w.seed for w in found])).normal(torch.zeros(len(found), 1))[:, 0]
    cat = torch.tensor([w.label == "Cat" for w in found], dtype=torch.float32)
    return float(torch.corrcoef(torch.stack([cat, first.abs()]))[0, 1])


def test_the_drawn_class_says_nothing_of_the_noise_of_the_picture(monkeypatch):
    n = 4000
    assert abs(_of_the_noise(wishes(SPEC, ["cat|dog"], n, 0))) < 4 / n**0.5

    # A mutant: the class is drawn from the stream that draws the noise.
    monkeypatch.setattr(job, "mix", lambda word: word - 1)
    assert abs(_of_the_noise(wishes(SPEC, ["cat|dog"], n, 0))) > 0.5, "a mutant survives"


def test_a_bar_in_a_class_name_is_no_choice_and_wrong_names_are_refused():
    spec = Spec("toys", (1, 8, 8), {"label": ("a|b", "a", "b")})
    assert {w.label for w in wishes(spec, ["a|b"], 20, 0)} == {"a|b"}
    with pytest.raises(UserError) as caught:
        wishes(spec, ["a|c"], 1, 0)
    assert caught.value.code == "E-LABEL"
    for label, got in (("cat|mouse", "'mouse'"), ("cat|", "''")):
        with pytest.raises(UserError, match=got) as caught:
            wishes(SPEC, [label], 1, 0)
        assert caught.value.code == "E-LABEL"
    with pytest.raises(UserError, match="not a word"):
        wishes(SPEC, [], 1, 0, {"prompt": "green|red"})


def test_wishes_are_sampled_in_batches_or_only_with_their_like():
    wanted = wishes(SPEC, ["dog", "cat"], 3, 0) + wishes(SPEC, ["dog"], 2, 50)
    assert batches(wanted, 5) == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert batches(wanted, 64, alike=True) == [[0, 1, 2, 6, 7], [3, 4, 5]]
    assert batches(wanted, 2, alike=True) == [[0, 1], [2, 6], [7], [3, 4], [5]]
    image = torch.full((1, 2, 2), float("nan"))
    given = [Wish({}, i, {"image": image.clone()}) for i in range(2)]
    given.append(Wish({}, 2, {"image": torch.zeros(1, 2, 2)}))
    assert batches(given, 9, alike=True) == [[0, 1], [2]]


ACCENTS = Spec(
    "menu",
    (3, 8, 8),
    {"label": ("Café noir", "Thé", "straße"), "größe": ("klein", "groß")},
    tokens={"prompt": ("brûlée", "c++", "crème", "red", "wide")},
)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKD"])
@pytest.mark.parametrize("change", [str, str.upper, str.lower, str.casefold])
def test_accents_match_in_every_unicode_form_and_case(form, change):
    def typed(text):
        return unicodedata.normalize(form, change(text))

    for label in ACCENTS.labels["label"]:
        assert asked(ACCENTS, "label", typed(label)) == label
        assert wishes(ACCENTS, [typed(label)], 1, 0)[0].label == label
    found = wishes(ACCENTS, [], 1, 0, {typed("größe"): typed("groß")})
    assert found[0].cond == {"größe": "groß"}
    assert conditioned(ACCENTS, found)["größe"].tolist() == [1]
    assert asked(ACCENTS, typed("prompt"), typed("Crème, brûlée!")) == ("crème", "brûlée")
    either = wishes(ACCENTS, [typed("Thé") + "|" + typed("straße")], 20, 0)
    assert {w.label for w in either} == {"Thé", "straße"}
    assert all_asked(ACCENTS, {typed("größe"): typed("klein")}) == {"größe": "klein"}


def test_prompts_are_split_as_the_words_of_the_data_were():
    assert asked(ACCENTS, "prompt", "red c++") == ("red", "c++")
    assert asked(ACCENTS, "prompt", "red + wide") == ("red", "wide")
    assert asked(ACCENTS, "prompt", "red_wide") == ("red", "wide")


def test_two_classes_that_differ_by_case_are_not_guessed_between():
    spec = Spec("pair", (1, 8, 8), {"label": ("Cat", "cat")})
    assert asked(spec, "label", "cat") == "cat"
    with pytest.raises(UserError):
        asked(spec, "label", "CAT")


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, "3", None])
def test_a_seed_is_a_whole_number_from_nought_on(seed):
    for made in (lambda: Wish({}, seed), lambda: job.check_seed(seed)):
        with pytest.raises(UserError) as caught:
            made()
        assert caught.value.code == "E-LIMIT"
    assert Wish({}, 2**63 - 1).seed == 2**63 - 1


def test_a_condition_is_not_asked_to_be_two_things():
    for labels, cond in ((["Dog"], {"label": "Cat"}), (["Cat", "Dog"], {"label": "Cat"})):
        with pytest.raises(UserError, match="both") as caught:
            wishes(SPEC, labels, 1, 0, cond)
        assert caught.value.code == "E-CONFIG"
    assert wishes(SPEC, ["dog"], 1, 0, {"label": "Dog"})[0].label == "Dog"
    with pytest.raises(UserError, match="both"):
        parsed(["pose=0 0", "pose=1 1"])
    assert parsed(["label=a", "label=a"]) == {"label": "a"}
