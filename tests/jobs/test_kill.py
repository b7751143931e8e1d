"""kill -9 at random moments: the same command resumes to the same bits."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest
import torch

from steerable.jobs import checkpoint
from tests.app.cli import TINY, command, environment, steerable

TRIALS = 20
FAST_SAVES = ["--set", "training.checkpoint_seconds=0.2"]


def words(run):
    return ["train", "digits", "--run", run, "--budget", "250 iterations", *TINY, *FAST_SAVES]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_of_twenty_kills_resume_bit_identically(tmp_path):
    whole = tmp_path / "whole"
    began = time.monotonic()
    assert steerable(*words(whole)).returncode == 0
    took = time.monotonic() - began
    expected, _ = checkpoint.newest(whole)
    chance = random.Random(0)
    at = set()
    for trial in range(TRIALS):
        run = tmp_path / f"run{trial}"
        child = subprocess.Popen(
            command(*words(run)),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment(),
        )
        time.sleep(chance.uniform(0.3, 0.98) * took)
        child.send_signal(signal.SIGKILL)
        child.wait()
        found = sorted(run.glob("checkpoints/iter-*"))
        at.add(found[-1].name if found else "none")
        again = steerable(*words(run))
        assert again.returncode == 0, again.stderr
        got, skipped = checkpoint.newest(run)
        assert not skipped and got.iteration == 250
        for part, tensors in expected.parts.items():
            assert all(torch.equal(v, got.parts[part][k]) for k, v in tensors.items()), (
                trial,
                part,
            )
        for log in ("metrics.jsonl",):
            assert (run / log).read_bytes() == (whole / log).read_bytes(), trial
        left = [p.name for p in run.rglob("*.tmp-*")]
        assert not left, left
    assert len(at) >= 5, f"the kills hit too few moments: {at}"
