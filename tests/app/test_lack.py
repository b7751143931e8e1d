"""What is lacking on the machine: memory, an optional library, whole checkpoints."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch

import steerable
from steerable.core.errors import UserError
from steerable.jobs import checkpoint
from steerable.jobs.effort import Effort
from steerable.jobs.evaluate import evaluate
from steerable.jobs.prepare import prepare
from steerable.jobs.report import write_report
from steerable.jobs.train import train
from steerable.recipes.part import Part, build
from tests.jobs.tiny import finish, tiny

from .cli import environment

MEMORY = """
import resource, sys, torch
import steerable.api
from steerable.app.cli import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000, resource.RLIM_INFINITY))
main(["train", "digits", "--run", sys.argv[1], "--set", "training.batch=60000"])
"""


@pytest.mark.slow
def test_too_little_memory_is_one_line_with_a_setting_that_helps(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "error[E-MEM]" in done.stderr and "training.batch" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    run = tmp_path / "run"
    finish(prepare(tiny(5), run))
    model = steerable.load(run)
    splits = build("data", Part(kind="digits"))
    *_, last = evaluate(model, splits, recipe=model.recipe, effort=Effort(n=40))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match=r'pip install "steerable\[eval\]"') as caught:
        write_report(run, model, last.evaluation, proceed="")
    assert caught.value.code == "E-EXTRA" and caught.value.exit_code == 2
    assert not (run / "evaluation" / "report.html").exists()


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    finish(prepare(tiny(30), whole))
    for stop in (10, 20):
        steps = train(prepare(tiny(30), run))
        next(step for step in steps if step.i == stop)
        steps.close()
    damaged = run / "checkpoints" / "iter-00000020" / "ema.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-9] ^= 4
    damaged.write_bytes(data)
    finish(prepare(tiny(30), run))
    assert "iter-00000020" in (run / "log.txt").read_text()
    ends = [checkpoint.newest(r)[0].parts["ema"] for r in (run, whole)]
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
    shutil.rmtree(run / "checkpoints" / "iter-00000020", ignore_errors=True)
