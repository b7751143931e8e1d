"""A real full disk and a real read-only one, on a small file system of the test's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .cli import TINY, environment

ROOT = Path(__file__).parents[2]


def mounted(script: str, folder: Path, size: str) -> dict[str, object]:
    """Run a script whose current folder is a fresh file system of that size; its last JSON line."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on this machine")
    line = f'mount -t tmpfs -o size={size} none "$0" && cd "$0" && exec "$1" -c "$2"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", line, str(folder), sys.executable, script],
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        check=False,
    )
    if "mount" in done.stderr and not done.stdout:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


FULL = f"""
import json, os, pathlib, signal, subprocess, sys, time
from tests.app.cli import command, environment, steerable
from steerable.jobs import checkpoint
words = ["train", "digits", "--run", "run", "--budget", "600 iterations", *{TINY!r},
         "--set", "training.checkpoint_seconds=0.3"]
run = pathlib.Path("run")
child = subprocess.Popen(command(*words), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                         env=environment())
end = time.monotonic() + 90
while not list(run.glob("checkpoints/iter-*/manifest.sha256")) and time.monotonic() < end:
    time.sleep(0.02)
child.send_signal(signal.SIGSTOP)
with open("filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError as error:
        assert error.errno == 28
child.send_signal(signal.SIGCONT)
errors = child.communicate(timeout=120)[1].decode()
kept, skipped = checkpoint.newest(run)
os.unlink("filler")
again = steerable(*words)
final, _ = checkpoint.newest(run)
print(json.dumps({{"code": child.returncode, "errors": errors, "kept": kept.iteration,
    "skipped": skipped, "again": again.returncode, "final": final.iteration,
    "left": [str(p) for p in run.rglob("*.tmp-*")]}}))
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_the_last_checkpoint_and_the_run_goes_on(tmp_path):
    found = mounted(FULL, tmp_path, "6m")
    assert found["code"] == 5, found["errors"]
    assert "error[E-DISK]" in found["errors"] and "Traceback" not in found["errors"]
    assert found["kept"] > 0 and not found["skipped"]
    assert found["again"] == 0 and found["final"] == 600 and not found["left"]


SMALL = f"""
import json
from tests.app.cli import steerable
done = steerable("train", "digits", "--run", "run", "--budget", "5 iterations", *{TINY!r})
print(json.dumps({{"code": done.returncode, "errors": done.stderr}}))
"""


@pytest.mark.slow
def test_a_disk_too_small_for_two_checkpoints_is_refused_before_training(tmp_path):
    found = mounted(SMALL, tmp_path, "1m")
    assert found["code"] == 5 and "needs" in found["errors"]
    assert "nothing was started" in found["errors"]


READ_ONLY = f"""
import json, os, subprocess
from tests.app.cli import steerable
os.mkdir("run")
subprocess.run(["mount", "-o", "remount,ro", "."], check=True)
done = steerable("train", "digits", "--run", "run", "--budget", "5 iterations", *{TINY!r})
print(json.dumps({{"code": done.returncode, "errors": done.stderr}}))
"""


@pytest.mark.slow
def test_a_read_only_run_folder_is_one_line(tmp_path):
    found = mounted(READ_ONLY, tmp_path, "8m")
    assert found["code"] == 5 and "error[E-DISK]" in found["errors"]
    assert "read-only" in found["errors"].lower() and "Traceback" not in found["errors"]
