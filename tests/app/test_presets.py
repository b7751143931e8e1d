"""Every preset trains and samples from the command line, and says what it scaled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerable.recipes.presets import presets

from .cli import steerable


@pytest.mark.slow
@pytest.mark.parametrize("preset", presets())
def test_a_preset_trains_and_samples_from_the_command_line(preset, tmp_path):
    run = tmp_path / "run"
    words = ("train", "digits", "--run", run, "--preset", preset, "--budget", "12 iterations")
    done = steerable(*words, "--size", "xs", "--set", "training.batch=16", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["iterations"] == 12
    assert preset == "flow" or "scaled   iterations" in done.stderr
    again = steerable(*words[:-1], "15 iterations", "--size", "xs", "--dry-run")
    assert again.returncode == 0 and "resumes" in again.stderr
    assert "E-CONFIG-DIFF" in steerable(*words, "--size", "s", "--dry-run").stderr
    if preset == "noisy-classifier":
        refused = steerable("sample", run)
        assert refused.returncode == 2 and "--classifier" in refused.stderr
        return
    made = steerable("sample", run, "-n", 1, "--steps", 3, "--json")
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found["n"] == (1 if preset == "unconditional-ddpm" else 10)
    if preset == "unconditional-ddpm":
        assert steerable("sample", run, "--label", "3").returncode == 2


@pytest.mark.slow
def test_a_classifier_guides_from_the_command_line(tmp_path):
    run, judge = tmp_path / "run", tmp_path / "classifier"
    tiny = ("--budget", "12 iterations", "--size", "xs", "--set", "training.batch=16")
    flow = ("--preset", "unconditional-ddpm", "--set", "process.kind=flow")
    assert steerable("train", "digits", "--run", run, *flow, *tiny).returncode == 0
    named = ("train", "digits", "--run", judge, "--preset", "noisy-classifier")
    done = steerable(*named, *tiny, "--json")
    assert done.returncode == 0, done.stderr
    levels = json.loads(done.stdout)["accuracy"]["levels"]
    assert len(levels) == 10 and all(row["n"] == 360 for row in levels)
    ask = ("sample", run, "-n", 2, "--steps", 3)
    made = steerable(*ask, "--classifier", judge, "--classifier-scale", 4, "--label", "3", "--json")
    assert made.returncode == 0, made.stderr
    text = (Path(json.loads(made.stdout)["out"]) / "samples.jsonl").read_text("utf-8")
    first = json.loads(text.splitlines()[0])
    assert first["label"] == "3" and first["guidance"][0]["scale"] == 4.0
    for wrong in (("--classifier", run), ("--classifier-scale", 4), ("--label", "3")):
        refused = steerable(*ask, *wrong)
        assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    told = steerable("evaluate", judge, "-n", 50)
    assert told.returncode == 0 and told.stdout.count("n = 50") == 10
    assert json.loads((judge / "evaluation" / "report.json").read_text())["n"] == 50
    assert steerable("evaluate", judge, "--steps", 3).returncode == 2
    assert steerable("info", judge).returncode == 0


@pytest.mark.slow
def test_prompts_and_other_conditions_from_the_command_line(tmp_path):
    run = tmp_path / "run"
    words = ("train", "scenes", "--run", run, "--preset", "attention-score", "--size", "xs")
    done = steerable(*words, "--budget", "12 iterations", "--set", "training.batch=16")
    assert done.returncode == 0, done.stderr
    ask = ("sample", run, "-n", 2, "--steps", 3)
    made = steerable(*ask, "--cond", "prompt=red circle, blue square", "--json")
    assert made.returncode == 0, made.stderr
    text = (Path(json.loads(made.stdout)["out"]) / "samples.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows[0]["cond"] == {"prompt": ["red", "circle", "blue", "square"]}
    for wrong in ("prompt=purple circle", "colour=red", "prompt"):
        refused = steerable(*ask, "--cond", wrong)
        assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_another_averaging_width_is_written_after_the_run(tmp_path):
    run = tmp_path / "run"
    words = ("train", "digits", "--run", run, "--budget", "80 iterations", "--size", "xs")
    done = steerable(*words, "--set", "training.ema_kind=power", "--set", "training.batch=16")
    assert done.returncode == 0, done.stderr
    made = steerable("average", run, "--width", 0.06, "--json")
    assert made.returncode == 0, made.stderr
    assert steerable("info", json.loads(made.stdout)["model"]).returncode == 0
    assert steerable("average", run, "--width", 0.6).returncode == 2
