"""The page of a report: names of any kind, many classes, sizes, failures, words for lay readers."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
import torch

import steerable
from steerable.jobs.evaluate import Evaluation
from steerable.jobs.page import rendered
from steerable.jobs.prepare import prepare
from steerable.jobs.report import MEANS, write_numbers, write_report
from steerable.jobs.sample import Sample
from steerable.jobs.verdicts import verdicts
from steerable.jobs.wish import Wish

from .test_verdicts import figure
from .test_verdicts import report as recorded
from .tiny import finish, tiny

EVIL = [
    *("猫", "运动鞋", "$x$", "a\\b", "<b>bold</b>", "<script>alert(1)</script>", "Ünïcødé", "🐱"),
    *("سلام", "x" * 100 + "y" * 100, '"><img src=x onerror=alert(1)>', "\x1b[31mred", "\u202eevil"),
    *("{{ 7 * 7 }}", "/* fonts */", "</style><b>", "\udc80", "a\nb"),
]  # fmt: skip


class Seen(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.places, self.words, self._style = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.places += attrs
        self._style = tag in ("style", "script")

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        if not self._style:
            self.words.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    finish(prepare(tiny(2), folder))
    return folder


def evaluation(model, names, n=60):
    """An evaluation as it would be of these classes, the second taken for the first."""
    classes = len(names)
    result = recorded(near_copies=figure(0.3, 0.09, 130, floor=0.036, n_unseen=28))
    each = max(1, n // classes)
    counts = torch.eye(classes, dtype=torch.int64) * each
    counts[1] = 0
    counts[1, 0] = each
    result |= {
        "schema": 1,
        "settings": {"n": each * classes, "seed": 0, "calls_per_sample": 3},
        "reference": {"n": 100, "part": "held-out items"},
        "extractor": {"name": "a judge", "sha256": "0" * 64},
        "model": {"parameters": 1234},
        "labels": list(names),
        "confusion": counts.tolist(),
        "per_class": {name: {"accuracy": figure(0.5, 0.1, each)} for name in names},
        "skipped": {"likelihood": "left out for a reason"},
        "nearest": [],
    }
    result["verdicts"] = verdicts(result)
    wishes = tuple(Wish({"label": name}, i) for i in range(each) for name in names)
    x = torch.randint(0, 255, (len(wishes), 1, 8, 8), dtype=torch.uint8)
    return Evaluation(result, Sample(x, wishes, model.recipe, 3), seconds={"samples": 1.0})


def page_of(run, names, n=60):
    model = steerable.load(run)
    found = evaluation(model, names, n)
    return write_report(run, model, found, proceed="steerable train").read_text("utf-8"), found


def test_names_of_any_kind_are_text_in_the_page(run):
    page, _ = page_of(run, EVIL)
    seen = Seen(page)
    assert seen.tags.count("script") == 1 and "b" in seen.tags
    assert not any(name.startswith("on") for name, _ in seen.places)
    for name, value in seen.places:
        if name in ("src", "href"):
            assert not value or value.startswith("data:")
    text = "".join(seen.words)
    assert "<script>alert(1)</script>" in text and "{{ 7 * 7 }}" in text and "$x$" in text
    assert "\\x1b[31mred" in text and "\\u202eevil" in text and "\\udc80" in text
    assert not re.search("[\x00-\x08\x1b\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    titles = [value for name, value in seen.places if name == "title"]
    assert "x" * 100 + "y" * 100 in titles, "the whole name is a tooltip"
    assert not any(len(word) > 150 and word.startswith("xxx") for word in seen.words)


def test_the_page_brings_the_hanzi_that_it_shows(run):
    page, _ = page_of(run, EVIL)
    assert page.count("@font-face") == 1 and "Steerable Sans CJK" in page
    plain, _ = page_of(run, ["boot", "shirt"])
    assert len(plain) < len(page) and "Steerable Sans CJK" not in plain
    first = page.index("@font-face")
    assert first < page.index("<title>"), "before anything that is named by others"


def test_a_name_cannot_take_the_place_of_the_fonts():
    page = rendered("report.html.j2", **dict.fromkeys(("a",), 1), **blank("/* fonts */")).decode()
    assert page.index("font-family") < page.index("<title>")
    assert "<title>steerable: /* fonts */" in page


def blank(name):
    """What the page needs, without figures."""
    return {
        "name": name, "date": "2000-01-01 00:00 UTC", "marks": [], "grid": "", "grid_shown": 0,
        "grid_rows": 0, "grid_of": 0, "failed": [], "figures": [], "rows": [], "many": False,
        "confused": [], "map": "", "listed": [], "nearest": "", "levels": "", "curve": "",
        "sweep": None, "versions": {}, "seconds": {}, "speed": 1, "recipe": "", "proceed": "",
        "data": {"train": 1, "held_out": 1, "shape": (1, 8, 8), "classes": 0},
        "training": {"images": 1, "iterations": 1, "seconds": 1, "skipped": 0},
        "result": {
            "settings": {"n": 1, "calls_per_sample": 1}, "reference": {"n": 1, "part": "x"},
            "extractor": {"name": "x", "sha256": "0" * 64}, "model": {"parameters": 1},
            "verdicts": [], "labels": [], "nearest": [],
        },
    }  # fmt: skip


def test_sizes_date_failures_and_words(run):
    page, found = page_of(run, ["boot", "shirt"])
    text = " ".join("".join(Seen(page).words).split())
    report = json.loads((run / "data-report.json").read_text())
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    assert f"{report['n_train']:,} items for training, {report['n_held_out']:,} held out" in text
    assert "8 x 8 pixels, grey, 10 classes" in text
    assert "likelihood" in text and "left out for a reason" in text
    for name in found.result["measures"]:
        assert MEANS[name] in text and "Good" in MEANS[name]
    assert "answer fair" in page, "partly a copy is neither green nor red"


def test_unread_files_and_trouble_are_listed(run, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    report = json.loads((folder / "data-report.json").read_text())
    report["bad"] = [{"name": f"坏{i}.png", "reason": "not a picture"} for i in range(30)]
    (folder / "data-report.json").write_text(json.dumps(report))
    page, _ = page_of(folder, ["boot", "shirt"])
    assert "坏3.png" in page and "not a picture" in page and "10 more" in page
    (folder / "data-report.json").write_text("{")
    page, _ = page_of(folder, ["boot", "shirt"])
    assert "cannot be read" in page and "for training" not in page


@pytest.mark.parametrize("classes", [2, 20, 21, 600])
def test_confusions_of_many_classes_stay_readable(run, classes):
    names = [f"类别 {i}" for i in range(classes)]
    page, _ = page_of(run, names, n=classes)
    seen = Seen(page)
    text = " ".join("".join(seen.words).split())
    assert ["Confused", "most", "asked", "for"][0] in text
    assert re.search(r"类别 1 ?类别 0 ?100 %", text), "the pair that is confused"
    assert ("confusion matrix of" in page) == (classes > 20)
    assert seen.tags.count("td") < 2000, "no table of thousands of cells"
    assert len(page) < 3_000_000


def test_the_numbers_know_no_clock(run, tmp_path):
    model = steerable.load(run)
    torch.manual_seed(0)
    found = evaluation(model, ["boot", "猫"])
    one, two = (write_numbers(tmp_path / k, found).read_bytes() for k in "ab")
    assert one == two and "猫".encode() in one and not re.search(rb"\d{4}-\d\d-\d\d", one)
