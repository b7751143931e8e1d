"""What a user sees while data is read: progress, an end within a second, and no lack of memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from steerable.app.cli import _no_memory
from steerable.app.reading import _text, shown
from steerable.intake.reading import Reading

from .cli import command, environment

COUNT = 600


@pytest.fixture(scope="module")
def slow_set(tmp_path_factory):
    """One large picture of noise under many names, which takes long to read."""
    root = tmp_path_factory.mktemp("slow") / "pictures"
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    for c in "ab":
        (root / c).mkdir(parents=True)
    first = root / "a" / "0.jpg"
    Image.fromarray(pixels).save(first, quality=95)
    for i in range(1, COUNT):
        os.link(first, root / "ab"[i % 2] / f"{i}.jpg")
    return root


def interrupted(words, number, folder):
    """Run a command, send it a signal while it reads pictures; its code and all that it said."""
    child = subprocess.Popen(
        command(*words),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**environment(), "STEERABLE_CACHE": str(folder / "cache")},
    )
    said = ""
    while " pictures, " not in said:
        line = child.stderr.readline()
        assert line, f"it ended by itself: {said}"
        said += line
    child.send_signal(number)
    out, rest = child.communicate(timeout=30)
    return child.returncode, said, rest, out


CASES = [
    (["train", "{data}", "--run", "run"], signal.SIGINT, 130),
    pytest.param(["train", "{data}"], signal.SIGTERM, 143, marks=pytest.mark.slow),
    pytest.param(["data", "check", "{data}"], signal.SIGINT, 130, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("words", "number", "code"), CASES)
def test_an_interruption_while_reading_leaves_at_once(slow_set, tmp_path, words, number, code):
    full = [word.replace("{data}", str(slow_set)) for word in words]
    left, said, rest, out = interrupted(full, number, tmp_path)
    assert left == code, said + rest
    assert rest.count("\n") == 1 and "nothing was written" in rest, rest
    assert out == "" and "Traceback" not in said
    shares = [int(n) for n in re.findall(r"(\d+)% \d+ of \d+ pictures", said + rest)]
    assert shares and max(shares) < 50, "it read on"
    assert re.search(rf"\d+ of {COUNT} pictures, \d[\d.]*/s, \d.* left", said)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert not (tmp_path / "run").exists() and not (tmp_path / "runs").exists()


SCARCE = """
import resource, sys
import steerable.api
from steerable.app.cli import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, resource.RLIM_INFINITY))
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(
    "words", [["data", "check"], pytest.param(["train"], marks=pytest.mark.slow)]
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, words):
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 64, 64, 3), np.uint8)  # 123 MB
    np.savez(tmp_path / "many.npz", images=pixels)
    done = subprocess.run(
        [sys.executable, "-c", SCARCE, *words, str(tmp_path / "many.npz")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 5 and lines[-1].startswith("error[E-MEM]"), done.stderr
    assert len([line for line in lines if "%" not in line]) == 1
    assert "10000 pictures" in lines[-1] and "MB are free" in lines[-1]
    assert "data.size" in lines[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["many.npz"]


def test_progress_says_how_much_how_fast_and_how_long():
    assert _text(Reading("pictures", 120, 200), 60.0) == "120 of 200 pictures, 2/s, 40 s left"
    assert _text(Reading("pictures", 170, 200), 2.0) == "170 of 200 pictures, 85/s, 0 s left"
    assert _text(Reading("pictures", 1, 100), 4.0).endswith("0.25/s, 6 min 36 s left")
    assert _text(Reading("files", 2000, 0), 2.0) == "2000 files, 1000/s"
    assert _text(Reading("headers", 0, 9), 0.0) == "0 of 9 headers"


def test_quick_readings_say_nothing_and_slow_ones_end_their_line(capsys):
    shown(Reading("pictures", i, 3) for i in range(4))
    assert capsys.readouterr().err == ""

    def slowly():
        for i in range(4):
            time.sleep(0.3)
            yield Reading("pictures", i, 3)

    shown(slowly())
    assert "of 3 pictures, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "error", "says"),
    [
        ("train", MemoryError("Unable to allocate 1.50 GiB for an array"), "another 1.50 GiB"),
        ("train", RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate "
         "240 bytes."), "another 240 bytes"),
        ("sample", MemoryError(), "none left"),
        ("grid", MemoryError(), "none left"),
    ],
)  # fmt: skip
def test_a_lack_of_memory_names_what_helps_this_command(command, error, says):
    fault = _no_memory(command, error)
    assert says in fault.got and "are free" in fault.got and command in fault.where
    assert ("training.batch" in fault.do) == (command == "train")
    assert ("checkpoint" in fault.kept) == (command == "train")
    assert fault.do and ("-n" in fault.do) == (command == "sample")
