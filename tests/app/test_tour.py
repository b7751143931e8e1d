"""`steerable tour` writes its page and says where."""

from __future__ import annotations

import sys

import pytest

from steerable.app.cli import main

from .cli import steerable


@pytest.mark.slow
def test_the_command_writes_the_file_and_prints_its_path(tmp_path):
    done = steerable("tour", "--seed", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tour.html\n" and "100%" in done.stderr
    assert (tmp_path / "tour.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_the_extra_is_named_when_it_is_missing(library, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit) as end:
        main(["tour", "--out", str(tmp_path / "tour.html")])
    shown = capsys.readouterr()
    assert end.value.code == 2 and "E-EXTRA" in shown.err
    assert library in shown.err and "steerable[eval]" in shown.err
    assert not (tmp_path / "tour.html").exists()
