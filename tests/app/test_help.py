"""What help says: examples that parse, and every name that may be typed."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys

import pytest

from steerable.app import examples
from steerable.app.cli import COMMANDS, app, main
from steerable.jobs.report import MEANS
from steerable.recipes.part import kinds
from steerable.recipes.presets import presets

from .cli import environment


def helped(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    shown = capsys.readouterr()
    assert not end.value.code and not shown.err
    return shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_that_parse(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = ["data", "check"] if command == "data" else [command]
    shown = helped(capsys, *words)
    lines = shown.partition("Examples:\n")[2].strip().splitlines()
    assert lines and [line.strip().removeprefix("steerable ") for line in lines] == list(
        examples.EXAMPLES[command]
    )
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "steerable" and words[1] == command
        app.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_help_lists_what_may_be_typed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    train, check, evaluate = (
        " ".join(helped(capsys, *words).replace("│", " ").split())
        for words in (["train"], ["data", "check"], ["evaluate"])
    )
    built_in = [name for name in kinds("data") if name != "images"]
    assert {"shapes", "scenes"} <= set(built_in)
    for text in (train, check, evaluate):
        assert ", ".join(built_in) in text
    assert ", ".join(presets()) in train
    assert ", ".join([*MEANS, "r2 of NAME", "retrieval of NAME"]) in evaluate


def test_names_in_help_need_no_part_of_the_library():
    script = (
        "import sys, steerable.app.examples\n"
        "found = [m for m in sys.modules if m.startswith('steerable.')]\n"
        "print(found)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert set(ast.literal_eval(done.stdout)) <= {"steerable.app", "steerable.app.examples"}
