"""What is printed: true JSON that cannot steer a terminal, lines with escapes."""

from __future__ import annotations

import json
import re

import pytest

from steerable.app.console import Bar, fail, plain_json, result, whole_grid
from steerable.core.errors import UserError

NAMES = [
    "\x1b[2J",
    "\x9b31m",
    "\u202eevil",
    "a\nb\r",
    "\x7f",
    "\udc80",
    "\u2028",
    '猫 \\ " é',
    "🐱",
]
STEERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("name", NAMES)
def test_json_is_true_and_harmless(name):
    text = plain_json({"label": name, name: [name]})
    assert json.loads(text) == {"label": name, name: [name]}
    assert not STEERS.search(text) and "\n" not in text
    if "猫" in name:
        assert "猫" in text


@pytest.mark.parametrize("name", NAMES)
def test_no_line_steers_a_terminal(name, capsys):
    result({"x": name}, as_json=False, lines=[name, "b"])
    fail(UserError("E-LABEL", where=name, got=name), as_json=True)
    bar = Bar()
    bar.show(1.0, name, last=True)
    bar.say(name)
    out, err = capsys.readouterr()
    assert not STEERS.search(out) and not STEERS.search(err)
    assert len(out.splitlines()) == 3 and json.loads(out.splitlines()[2])["got"] == name


def test_a_grid_that_is_not_whole_is_said():
    assert whole_grid(0) == [] and "1,108" in whole_grid(1108)[0]
