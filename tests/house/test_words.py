"""What is published names no machine: no absolute path of anybody's own in any text file."""

from __future__ import annotations

import re
import subprocess

import pytest

from .source import REPOSITORY

HOMES = ("root", "work", r"home/(?!someone\b)\w+", r"Users/\w+", r"mnt/\w+")
MACHINE = re.compile(r"(?<![\w.~*$}/-])/(?:" + "|".join(HOMES) + r")\b")
SKIPPED = {".venv", "node_modules", "__pycache__", "runs", "out", "dist", "build", "site"}


def _tracked():
    """Files that are or would be tracked, or every file where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        found = [p for p in REPOSITORY.rglob("*") if p.is_file()]
        return [p for p in found if not (set(p.relative_to(REPOSITORY).parts) & SKIPPED)]
    return [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name]


def machine_paths(text):
    """Every absolute path of a machine in a text."""
    return [match.group() for match in MACHINE.finditer(text)]


def test_no_text_names_a_machine():
    found, read = {}, 0
    for path in _tracked():
        if not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" in data[:8192]:
            continue
        read += 1
        hits = machine_paths(data.decode("utf-8", "replace"))
        if hits:
            found[path.relative_to(REPOSITORY).as_posix()] = hits[:3]
    assert read > 20 and not found, found


@pytest.mark.parametrize(
    "text", ["'" + "/" + "root/x'", "see " + "/" + "home/ann/a.py", "a=" + "/" + "work/main"]
)
def test_machine_paths_are_seen(text):
    assert machine_paths(text)


@pytest.mark.parametrize(
    "text",
    [".github/" + "workflows/x.yml", "https://a.org/" + "work/b", "./" + "root/x", "/usr/bin/env"],
)
def test_other_paths_are_left_alone(text):
    assert not machine_paths(text)
