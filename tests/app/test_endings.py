"""However a command ends: one object with --json, one line without, advice that fits."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from steerable.app.cli import COMMANDS, _fault, main
from steerable.core.errors import UserError
from steerable.jobs import disk, durable
from steerable.jobs.model import Model
from steerable.jobs.pictures import png
from steerable.recipes import store

from .cli import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("endings") / "run"
    words = ["train", "digits", "--run", str(path), "--budget", "2 iterations", *TINY]
    with pytest.raises(SystemExit):
        main(words)
    return path


def ended(capsys, *words):
    """The exit code, the one object and standard error."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "--json"])
    shown = capsys.readouterr()
    return end.value.code, json.loads(shown.out), shown.err


USAGE = {name: ["data", "check"] if name == "data" else [name] for name in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_usage_error_of_any_command_is_one_object(command, capsys):
    code, found, errors = ended(capsys, *USAGE[command], "--no-such-option", "x")
    assert code == 2 and found["error"] == "E-CONFIG"
    assert set(found) == {"error", "where", "got", "takes", "kept", "do"}
    assert errors.count("error[") == 1 and errors.count("\n") == 1
    assert command in found["do"]


@pytest.mark.parametrize("written", ["--json=true", "--json=yes", "--json=1"])
def test_json_may_be_written_with_a_value(written, capsys):
    with pytest.raises(SystemExit):
        main(["sample", "nothing", written])
    assert json.loads(capsys.readouterr().out)["error"] == "E-CONFIG"
    with pytest.raises(SystemExit):
        main(["sample", "nothing", "--json=false"])
    assert not capsys.readouterr().out


def test_a_missed_bar_of_the_data_stands_beside_the_findings(tmp_path, capsys):
    for k, label in enumerate("ab"):
        (tmp_path / label).mkdir()
        for i in range(12):
            x = torch.full((3, 8, 8), 9 * i + 4 * k, dtype=torch.uint8)
            durable.write(tmp_path / label / f"{i}.png", png(x))
    words = ("--quick", "--fail-on", "warning")
    code, found, errors = ended(capsys, "data", "check", tmp_path, *words)
    assert code == 9, errors
    assert found["error"] == "E-GATE" and found["findings"] and found["n_train"]
    assert errors.count("error[E-GATE]") == 1


@pytest.mark.slow
def test_a_missed_bar_stands_beside_the_whole_report(run, capsys):
    bar = ("--fail-under", "accuracy=0.999")
    code, found, errors = ended(capsys, "evaluate", run, "-n", 20, "--steps", 2, *bar)
    assert code == 9 and found["error"] == "E-GATE" and "accuracy" in found["got"]
    assert found["measures"] and found["accuracy"] < 0.999 and found["kept"] == "the report"
    assert errors.count("error[") == 1


@pytest.mark.parametrize(
    "bar", ["accuracy=nan", "accuracy=inf", "accuracy=-inf", "accuracy=1e400", "accuracy=", "=1"]
)
@pytest.mark.parametrize("option", ["--fail-under", "--fail-over"])
def test_a_bar_is_a_finite_number(run, option, bar, capsys):
    code, found, _ = ended(capsys, "evaluate", run, option, bar)
    assert code == 2 and found["error"] == "E-CONFIG"


def test_bars_that_exclude_each_other_are_refused_before_the_work(run, capsys):
    bars = ("--fail-under", "accuracy=0.9", "--fail-over", "accuracy=0.5")
    code, found, _ = ended(capsys, "evaluate", run, *bars)
    assert code == 2 and "at least 0.9 and at most 0.5" in found["got"]


def test_ctrl_c_is_one_object_and_one_line(run, tmp_path, capsys):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        words = ("sample", run, "-n", 2000, "--label", 3, "--out", tmp_path / "out")
        code, found, errors = ended(capsys, *words)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert code == 130 and "error[" not in errors and "Traceback" not in errors
    assert found.get("error", "SIGINT") == "SIGINT"


def test_memory_advice_fits_the_command():
    training = _fault(MemoryError(), "train")
    assert training is not None and training.code == "E-MEM" and "training.batch" in training.do
    assert "run folder" in training.kept
    for command in [*COMMANDS, "nonsense"]:
        found = _fault(RuntimeError("can't allocate memory: you tried"), command)
        assert found is not None and found.code == "E-MEM" and found.do, command
        if command != "train":
            assert "training" not in found.do and "run folder" not in found.kept, command
    assert "-n" in _fault(MemoryError(), "sample").do


def test_nothing_but_training_promises_to_resume():
    """The text of a disk fault comes up in every command that writes."""
    for number in (5, 13, 28):
        fault = disk.fault(OSError(number, "x"), Path("a.png"), need=1, free=0, kept="")
        assert "resume" not in str(fault)


def test_other_numbers_of_equal_shape_are_said_as_such(run, tmp_path):
    tensors, about = store.open_model(run / "model.safetensors")
    name = next(iter(tensors))
    wrong = {**tensors, name: tensors[name].to(torch.float64)}
    durable.write(tmp_path / "m.safetensors", store.pack(wrong, about))
    with pytest.raises(UserError, match="numbers of float64 instead of float32") as caught:
        Model.load(tmp_path / "m.safetensors")
    assert caught.value.code == "E-CKPT-ARCH"


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "{run}", "--label", "3", "--cond", "label=4"],
        ["sample", "{run}", "--cond", "label=3", "--cond", "label=4"],
        ["look", "{run}", "--label", "3", "--cond", "label=4"],
        ["encode", "{run}", "a.png", "--label", "3", "--cond", "label=4"],
        ["sample", "{run}", "--steps", "4", "--set", "sampler.steps=5"],
        ["sample", "{run}", "--sampler", "ddim", "--set", "sampler.kind=heun"],
        ["sample", "{run}", "--sampler", "Euler a", "--set", "sampler.kind=heun"],
        ["sample", "{run}", "--guidance", "2", "--set", "guidance.weight=3"],
        ["sample", "{run}", "--guidance", "2", "--set", "guidance.cfg.weight=3"],
        ["sample", "{run}", "--guidance", "2", "--set", "guidance=[]"],
        ["sample", "{run}", "--grid", "karras", "--set", "sampler.grid.kind=uniform"],
        ["sample", "{run}", "--interval", "0.2:0.4", "--set", "guidance.start=0.6"],
        ["edit", "{run}", "--image", "a.png", "--steps", "4", "--set", "sampler.steps=5"],
        ["edit", "{run}", "--replay", "a.png", "--image", "a.png", "--steps", "4"],
        ["train", "digits", "--seed", "1", "--set", "training.seed=2"],
        ["train", "digits", "--seed", "1", "--set", "training={{seed: 2}}"],
        ["train", "digits", "--budget", "10s", "--set", "training.budget=20s"],
        ["train", "digits", "--preset", "edm", "--set", "preset=flow"],
        ["train", "digits", "--config", "x.yaml", "--preset", "flow"],
        ["data", "check", "digits", "--quick", "--seconds", "9"],
        ["likelihood", "{run}", "--trace", "exact", "--probes", "3"],
    ],
)
def test_options_that_contradict_each_other_are_refused(words, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, found, _ = ended(capsys, *[word.format(run=run) for word in words])
    assert code == 2 and found["error"] == "E-CONFIG", found
    assert not list(tmp_path.iterdir())


def test_the_same_said_twice_is_taken(run, tmp_path, capsys):
    both = ("--label", "3", "--cond", "label=3", "--steps", 2, "--set", "sampler.steps=2")
    more = ("--sampler", "Euler a", "--set", "sampler.kind=ancestral", "--guidance", 2)
    weight = ("--set", "guidance.weight=2.0", "-n", 1, "--out", tmp_path / "out")
    code, found, _ = ended(capsys, "sample", run, *both, *more, *weight)
    assert code == 0 and found["n"] == 1 and found["sampler"]["steps"] == 2


@pytest.mark.parametrize("seed", ["-1", str(2**63), "9" * 30])
@pytest.mark.parametrize(
    "words",
    [
        ["train", "digits", "--dry-run"],
        ["sample", "{run}"],
        ["edit", "{run}", "--image", "{run}/samples", "--strength", "0.5"],
        ["evaluate", "{run}"],
        ["look", "{run}"],
        ["sweep", "{run}"],
        ["tour"],
    ],
)
def test_a_seed_is_no_other_number(words, seed, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, found, _ = ended(capsys, *[w.format(run=run) for w in words], "--seed", seed)
    assert code == 2 and found["error"] == "E-LIMIT" and found["where"] == "seed", found
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e400", "true", "NaN"])
@pytest.mark.parametrize(
    "words",
    [
        ["sample", "r", "--guidance"],
        ["sample", "r", "--classifier-scale"],
        ["edit", "r", "--strength"],
        ["encode", "r", "p", "--guidance"],
        ["average", "r", "--width"],
        ["average", "r", "--at"],
        ["grid", "r", "--guidance"],
        ["likelihood", "r", "--tolerance"],
        ["data", "check", "digits", "--seconds"],
        ["sweep", "r", "--guidance"],
        ["sweep", "r", "--steps"],
        ["sample", "r", "--interval"],
        ["train", "digits", "--budget"],
        ["demo", "--budget"],
    ],
)
def test_no_option_takes_what_is_no_finite_number(words, number, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, found, _ = ended(capsys, *words, number)
    assert code == 2 and found["error"] == "E-CONFIG"


def test_pictures_too_small_for_a_judge_are_refused_in_one_line(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 255, (60, 2, 2, 3), dtype=np.uint8), np.array(["a", "b"] * 30)
    np.savez(tmp_path / "two.npz", images=x, labels=labels)
    words = ["--budget", "2 iterations", "--set", "backbone.channels=[8]"]
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path / "two.npz"), "--run", str(tmp_path / "run"), *words])
    capsys.readouterr()
    for command in ("evaluate", "sweep"):
        code, found, _ = ended(capsys, command, tmp_path / "run", "-n", 20)
        assert code == 3 and found["error"] == "E-EVAL" and "4 x 4" in found["takes"]
