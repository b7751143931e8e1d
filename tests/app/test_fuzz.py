"""Random command lines end with a documented code, in one line, and with one object if asked."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys

import pytest

from steerable.app.cli import _wants_json, main

from .cli import TINY, environment
from .lines import line, options, places

DOCUMENTED = {0, 2, 3, 4, 5, 6, 7, 9}
PRINTERS = {"--help", "-h", "--version"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run and a picture that lines may name; each test gets its own copy."""
    path = tmp_path_factory.mktemp("fuzz")
    words = ["train", "digits", "--run", str(path / "run"), "--budget", "2 iterations", *TINY]
    with pytest.raises(SystemExit):
        main(words)
    picture = [str(path / "run"), "-n", "1", "--label", "3", "--steps", "1"]
    with pytest.raises(SystemExit):
        main(["sample", *picture, "--out", str(path / "pictures")])
    shutil.copy(path / "pictures" / "0.png", path / "0.png")
    assert (path / "run" / "model.safetensors").is_file() and (path / "0.png").is_file()
    return path


def fault_of(words, code, out, err):
    """What is wrong with the end of a command line; empty if nothing."""
    errors = [row for row in err.splitlines() if row.startswith("error[")]
    if code not in DOCUMENTED:
        return f"exit code {code!r}: {err[-800:]}"
    if "Traceback" in err or len(errors) != (code != 0):
        return f"{len(errors)} error lines with exit code {code}: {err[-800:]}"
    if _wants_json(words) and not PRINTERS & set(words):
        try:
            found = json.loads(out)
        except ValueError:
            return f"not one object: {out[:200]!r}"
        if not isinstance(found, dict if words[:1] != ["parts"] else dict | list):
            return f"no object: {out[:200]!r}"
        if code and not {"error", "where", "got", "takes", "kept", "do"} <= set(found):
            return f"no fault in the object: {out[:200]!r}"
    return ""


def tried(rng, count, paths, capsys):
    """Every wrong end of so many lines, and how often each exit code came."""
    known, wrong, codes = options(), [], dict.fromkeys(DOCUMENTED, 0)
    for _ in range(count):
        words = line(rng, paths, known)
        with pytest.raises(SystemExit) as end:
            main(words)
        shown = capsys.readouterr()
        fault = fault_of(words, end.value.code, shown.out, shown.err)
        if fault:
            wrong.append(f"{[word[:80] for word in words]}: {fault}")
        else:
            codes[end.value.code] += 1
    return wrong, codes


@pytest.mark.parametrize(
    ("seed", "count"),
    [(0, 120), *(pytest.param(k, 190, marks=pytest.mark.slow) for k in range(1, 6))],
)
@pytest.mark.timeout(600)
def test_no_command_line_ends_in_a_traceback(seed, count, trained, tmp_path, monkeypatch, capsys):
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copy(trained / "0.png", tmp_path / "0.png")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "80")
    paths = places(tmp_path / "here", tmp_path / "run", tmp_path / "0.png")
    wrong, codes = tried(random.Random(seed), count, paths, capsys)
    assert not wrong, "\n".join(wrong)
    assert codes[0] > count // 30 and codes[2] > count // 4 and codes[3] and codes[4], codes


MANY = """
import json, random, sys
from steerable.app.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        print("\\nend", end.code, file=sys.stderr, flush=True)
"""


@pytest.mark.slow
def test_no_command_line_needs_assertions(trained, tmp_path):
    """With `python -O`, which drops every `assert`, the same lines end alike."""
    (tmp_path / "here").mkdir()
    shutil.copytree(trained / "run", tmp_path / "run")
    paths = places(tmp_path / "here", tmp_path / "run", trained / "0.png")
    rng, known = random.Random(9), options()
    lines = [line(rng, paths, known) for _ in range(80)]
    lines = [[w for w in words if "\0" not in w and "\udcff" not in w] for words in lines]
    done = subprocess.run(
        [sys.executable, "-O", "-W", "error::UserWarning", "-c", MANY, json.dumps(lines)],
        capture_output=True,
        text=True,
        cwd=tmp_path / "here",
        env=environment(),
        check=False,
    )
    ends = [int(row.split()[1]) for row in done.stderr.splitlines() if row.startswith("end ")]
    assert len(ends) == len(lines) and set(ends) <= DOCUMENTED, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
