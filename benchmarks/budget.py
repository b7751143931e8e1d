"""Is a budget of time kept on a machine that gets busy halfway? One JSON object a line.

    python benchmarks/budget.py [--budget 60s] [--times 10] [--busy 6] [--preset flow]

Trains on the pictures in the package in a process of its own. When half of the budget has passed,
counted from its first iteration, that many busy processes start. `wall` is the time of the whole
command, `overrun` by how much it is longer than the budget, `lr` the last learning rate as a share
of the highest. The last line says how many of the runs ended in time, at most ten seconds after the
budget, at a learning rate of at most a tenth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from steerable.recipes.training import Budget

LATE = 10.0  # seconds: the command starts, reads and writes too
COOLED = 0.1
BUSY = [sys.executable, "-c", "while True: pass"]


def trained(run, options, seconds):
    """One run; its record."""
    words = ["train", "fashion", "--run", run, "--budget", options.budget, "--json"]
    words += ["--preset", options.preset, "--set", "data.source=embedded"]
    command = [sys.executable, "-m", "steerable", *map(str, words)]
    start, busy = time.monotonic(), []
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        while child.poll() is None:
            begun = (run / "metrics.jsonl").exists() or time.monotonic() - start > seconds / 4
            half = time.monotonic() - start > seconds / 2
            if begun and half and not busy:
                busy = [subprocess.Popen(BUSY) for _ in range(options.busy)]
            time.sleep(0.05)
        wall = time.monotonic() - start
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert child.returncode == 0 and child.stdout is not None, "training failed"
    return json.loads(child.stdout.read()), wall


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--busy", type=int, default=6)
    parser.add_argument("--preset", default="flow")
    options = parser.parse_args()
    seconds, kept = Budget.parse(options.budget).seconds, 0
    assert seconds, "a budget of time"
    for number in range(options.times):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            done, wall = trained(run, options, seconds)
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rates = [record["lr"] for record in lines if "lr" in record]
        share = done["lr"] / max([*rates, done["lr"]])
        good = wall <= seconds + LATE and share <= COOLED
        kept += good
        print(
            json.dumps(
                {
                    "run": number,
                    "budget": seconds,
                    "wall": round(wall, 1),
                    "overrun": round(wall - seconds, 1),
                    "trained": done["seconds"],
                    "iterations": done["iterations"],
                    "lr": round(share, 4),
                    "kept": good,
                }
            ),
            flush=True,
        )
    print(json.dumps({"kept": kept, "of": options.times}))


if __name__ == "__main__":
    main()
