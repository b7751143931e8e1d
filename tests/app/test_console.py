"""What is printed reaches who reads it, whatever the encoding, and the work outlives its reader."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys

import pytest

from steerable.app import console
from steerable.app.cli import main
from steerable.core.errors import UserError

from .cli import TINY, command, environment, steerable

NAMES = "蓝 é 😀 \x1b[31m \u202e \udcff"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"


def outlet(encoding):
    under = io.TextIOWrapper(io.BytesIO(), encoding)
    return console.Outlet(under), under.buffer


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_text_of_any_kind_is_printed_in_any_encoding(encoding, monkeypatch):
    found, raw = outlet(encoding)
    monkeypatch.setattr(sys, "stdout", found)
    console.result({}, as_json=False, lines=[NAMES])
    shown = raw.getvalue().decode(encoding)
    assert "\x1b" not in shown and "\u202e" not in shown and r"\x1b[31m \u202e \udcff" in shown
    assert shown.startswith("蓝 é 😀" if "utf" in encoding else r"\u84dd ")
    assert ("é" in shown) == (encoding != "ascii") and shown.endswith("\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_an_object_is_json_in_any_encoding(encoding, monkeypatch):
    found, raw = outlet(encoding)
    monkeypatch.setattr(sys, "stdout", found)
    console.print_object({NAMES: [NAMES, 1.5, float("nan")], "b": BIDI})
    shown = raw.getvalue().decode(encoding)
    assert json.loads(shown) == {NAMES: [NAMES, 1.5, None], "b": BIDI}
    assert not set(BIDI + "\x1b\x9b") & set(shown)


def test_control_characters_are_written_out_and_lines_stay():
    codes = [*range(32), *range(127, 160), *map(ord, BIDI), 0xD800, 0xDFFF]
    shown = console._lines("".join(map(chr, codes)))
    assert {c for c in shown if not c.isprintable()} == {"\t", "\n"}
    assert console._lines("plain text, 蓝 é\tand\nmore") == "plain text, 蓝 é\tand\nmore"


@pytest.mark.parametrize("name", ["\x1b[2J", "\u202eevil", "a\nb\r", "\x7f", '猫 \\ " é', "🐱"])
def test_no_line_and_no_object_steers_a_terminal(name, capsys):
    console.result({"x": name}, as_json=False, lines=[name, "b"])
    console.fail(UserError("E-LABEL", where=name, got=name), as_json=True)
    bar = console.Bar()
    bar.show(1.0, name, last=True)
    bar.say(name)
    out, err = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in out + err)
    assert json.loads(out.splitlines()[-1])["got"] == name


def test_a_grid_that_is_not_whole_is_said():
    assert console.whole_grid(0) == [] and "1,108" in console.whole_grid(1108)[0]


class Gone(io.TextIOBase):
    """A stream whose reader has left."""

    encoding = "utf-8"

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    flush = None


@pytest.mark.parametrize("error", [BrokenPipeError(32, "gone"), ValueError("closed file")])
def test_a_reader_that_goes_away_raises_nothing_and_is_no_fault(error):
    found = console.Outlet(Gone(error))
    assert found.write("text") == 4 and found.write("more") == 4
    found.flush()
    assert found.fault is None


def test_a_full_disk_behind_standard_output_is_a_fault(monkeypatch, capsys):
    class Full(Gone):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full(OSError(28, "No space left on device")))
    with pytest.raises(SystemExit) as end:
        main(["parts", "grids"])
    assert end.value.code == 5 and "error[E-DISK] standard output" in capsys.readouterr().err


def test_a_closed_stream_is_dropped():
    found = console.Outlet(None)
    assert found.write("text") == 4 and not found.isatty() and found.encoding == "utf-8"
    found.flush()


def test_the_streams_are_put_back(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(SystemExit):
        main(["parts", "nothing"])
    assert (sys.stdout, sys.stderr) == before


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", ["1", "40", "abc"])
def test_a_bar_keeps_to_one_row_and_only_it_returns_to_the_first_column(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    bar = console.Bar()
    bar.show(0.5, "class \x1b[2J\r" + "x" * 300)
    bar.say("a line")
    shown = stream.getvalue()
    assert shown.count("\r") == 3 and shown.startswith("\r") and shown.endswith("\ra line\n")
    assert "\x1b" not in shown
    assert len(shown.split("\r")[1]) <= (80 if columns == "abc" else 40)


def test_a_bar_is_plain_where_the_encoding_lacks_its_marks(monkeypatch):
    under = Terminal()
    under_ascii = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(under_ascii, "isatty", under.isatty, raising=False)
    monkeypatch.setattr(sys, "stderr", console.Outlet(under_ascii))
    console.Bar().show(0.5, "half", last=True)
    assert b"############------------" in under_ascii.buffer.getvalue()


def test_a_fault_is_one_line_whatever_is_in_its_parts(capsys):
    fault = UserError("E-DATA", where="a\nb\x1b]0;x\x07", got="c\r\nd", do="e\u2028f")
    assert console.fail(fault, as_json=True) == 3
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and "\x1b" not in shown.err and "\r" not in shown.err
    assert json.loads(shown.out) == fault.record()


def piped(script, cwd, **more):
    """A shell pipeline; `$S` is the command line of this package."""
    words = {"S": " ".join(command()), "T": " ".join(f"'{w}'" for w in TINY), **more}
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment(), **words},
        check=False,
    )


def test_training_goes_on_when_nobody_reads(tmp_path, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        words = ["train", "digits", "--run", str(tmp_path / "run"), "--budget", "3 iterations"]
        with pytest.raises(SystemExit) as end:
            main([*words, *TINY])
        assert end.value.code == 0
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "finished: 3 iterations" in log


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs a shell")
@pytest.mark.slow
def test_a_reader_that_goes_away_stops_no_training(tmp_path):
    train = "eval \"$S train digits --run run --budget '8 iterations' $T --set training.threads=1\""
    done = piped(f'{train} 2>&1 | head -1; exit "${{PIPESTATUS[0]}}"', tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "finished: 8 iterations" in log and len(done.stdout.splitlines()) == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs a shell")
@pytest.mark.slow
def test_closed_streams_stop_no_training_and_harm_no_file(tmp_path):
    train = "eval \"$S train digits --run run --budget '8 iterations' $T\""
    done = piped(f"{train} <&- >&- 2>&-", tmp_path)
    assert done.returncode == 0, done.stderr
    assert steerable("info", tmp_path / "run").returncode == 0
    again = piped('eval "$S sample run -n 1 --steps 2 --out out" <&- >&- 2>&-', tmp_path)
    assert again.returncode == 0 and len(list((tmp_path / "out").glob("[!.]*"))) == 12


QUICK = [
    ("$S --help | true", 0),
    ("$S --help > /dev/full", 5),
    ("COLUMNS=1 PYTHONIOENCODING=cp1252 env -u HOME -u TERM $S train --help 2>&-", 0),
]
LONG = [
    ("$S parts | head -1", 0),
    ("$S parts samplers --json | true", 0),
    ("$S sample nothing 2>&1 | true", 2),
    ("$S parts > /dev/full", 5),
    ("$S parts >&-", 0),
    ("$S parts 2>&- | cat", 0),
    ("$S sample nothing --json 2>&-", 2),
    ("COLUMNS=1 $S --help", 0),
    ("COLUMNS=1 $S parts grids", 0),
    ("PYTHONIOENCODING=ascii $S parts", 0),
    ("PYTHONIOENCODING=cp1252 $S train --help", 0),
    ("LANG=C LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 $S sample $'\\u84dd' --json", 2),
    ("env -u HOME -u TERM -u LANG TZ=Nowhere/Odd PYTHONHASHSEED=7 $S parts grids", 0),
    ("PYTHONWARNINGS=error $S parts samplers", 0),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs a shell")
@pytest.mark.parametrize(
    ("script", "code"), [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in LONG)]
)
def test_odd_surroundings_give_no_traceback_and_the_code_of_the_work(script, code, tmp_path):
    done = piped(f'{script}; exit "${{PIPESTATUS[0]}}"', tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert not list(tmp_path.iterdir())
