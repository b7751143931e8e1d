"""What a user types, what comes back, and with which exit code."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from steerable.app.cli import main

from .cli import TINY, command, environment, steerable


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    done = steerable("train", "digits", "--run", path, "--budget", "30 iterations", *TINY, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["iterations"] == 30
    for word in ("data ", "network ", "MFLOP", "speed ", "pictures/s", "plan "):
        assert word in done.stderr
    return path


def inside(capsys, *words):
    """Standard output of a command that succeeds, run in this process."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    assert end.value.code == 0, shown.err
    return shown.out


def test_help_and_version_leave_torch_alone():
    for words in (["--help"], ["--version"], ["train", "--help"], ["parts", "--help"]):
        script = (
            "import sys\n"
            f"sys.argv = ['steerable', *{words!r}]\n"
            "from steerable.app.cli import main\n"
            "try:\n    main()\n"
            "except SystemExit as end:\n    assert not end.code\n"
            "heavy = {'torch', 'numpy', 'PIL', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_sample_writes_the_named_files(run, tmp_path):
    out = tmp_path / "out"
    words = ["--label", "3", "--label", "7", "-n", "2", "--guidance", "2", "--steps", "4"]
    done = steerable(
        "sample", run, *words, "--sampler", "ddim", "--seed", "9", "--out", out, "--film", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calls"] == 4 + 3, "one of four steps lies above t = 0.8"
    records = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [(r["index"], r["label"], r["seed"]) for r in records] == [
        (0, "3", 9),
        (1, "3", 10),
        (2, "7", 11),
        (3, "7", 12),
    ]
    assert all((out / r["file"]).is_file() for r in records)
    assert (out / "grid.png").is_file() and (out / "film.webp").is_file()


@pytest.mark.slow
def test_the_same_request_gives_the_same_bytes_in_another_process(run, tmp_path, capsys):
    assert steerable("sample", run, "-n", 1, "--out", tmp_path / "a").returncode == 0
    inside(capsys, "sample", run, "-n", 1, "--out", tmp_path / "b")
    names = sorted(p.name for p in (tmp_path / "a").glob("[!.]*"))
    assert len(names) == 12
    assert all(
        (tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names
    )


@pytest.mark.slow
def test_a_folder_with_the_model_alone_is_evaluated_too(run, tmp_path, capsys):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    inside(capsys, "evaluate", tmp_path / "alone", "-n", 40)
    written = sorted(p.name for p in (tmp_path / "alone").iterdir())
    assert written == ["evaluation", "model.safetensors"]


@pytest.mark.slow
def test_evaluate_prints_one_object_with_the_promised_keys(run, capsys):
    found = json.loads(inside(capsys, "evaluate", run, "-n", 100, "--json"))
    keys = {"measures", "verdicts", "per_class", "levels", "skipped", "reference", "seconds"}
    old = {"accuracy", "frechet", "frechet_floor", "n", "judge_accuracy", "seconds"}
    assert keys | old <= set(found) and found["settings"]["n"] == found["n"] == 100
    assert all(isinstance(found[key], int | float) for key in old), "numbers, as they always were"
    for key in ("accuracy", "frechet"):
        assert found[key] == found["measures"][key]["value"]
        assert found[f"{key}_error"] == found["measures"][key]["error"]
    assert found["frechet_floor"] == found["measures"]["frechet"]["floor"]
    assert abs(found["seconds"] - sum(found["stages"].values())) < 0.1 and found["stages"]
    assert sum(map(sum, found["confusion"])) == 100
    assert found["judge"]["accuracy"] > 0.9, "the judge of the digits"
    told = json.loads((run / "evaluation" / "report.json").read_text())
    assert all(found[key] == value for key, value in told.items())
    assert not {"seconds", "stages"} & set(told), "the report is the same to the byte each time"
    page = (run / "evaluation" / "report.html").read_text()
    assert "(n = 100)" in page and "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_a_bar_that_is_missed_leaves_with_its_own_code_and_keeps_the_report(run):
    bars = ("--fail-under", "accuracy=0.99", "--fail-over", "dead=1")
    done = steerable("evaluate", run, "-n", 40, *bars)
    assert done.returncode == 9 and "error[E-GATE]" in done.stderr
    assert "accuracy" in done.stderr and "(n = 40)" in done.stderr and "dead" not in done.stderr
    assert "does it obey?" in done.stdout and (run / "evaluation" / "report.json").is_file()
    for wrong in ("accuracy", "accuracy=high", "beauty=1"):
        assert steerable("evaluate", run, "--fail-under", wrong).returncode == 2


@pytest.mark.slow
def test_two_runs_are_compared(run, tmp_path, capsys):
    inside(capsys, "evaluate", run, "-n", 40)
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (other / "evaluation" / "report.json").unlink()
    assert steerable("compare", run, other).returncode == 3, "not evaluated yet"
    inside(capsys, "evaluate", other, "-n", 40)
    done = steerable("compare", run, other, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["measure"] for row in rows} >= {"accuracy", "frechet", "kid", "coverage"}
    assert all(row["difference"] == 0 and row["better"] == "undecided" for row in rows)


def test_parts_lists_kinds_as_json(capsys):
    found = json.loads(inside(capsys, "parts", "samplers", "--json"))
    assert {"ancestral", "ddim", "dpmpp_2m", "euler", "heun"} <= {p["kind"] for p in found}
    assert all(p["doc"] for p in found)
    assert "eta = 1.0 (float in [0, 1])" in inside(capsys, "parts", "samplers")


def test_info_tells_what_the_file_knows(run, capsys):
    found = json.loads(inside(capsys, "info", run / "model.safetensors", "--json"))
    assert found["spec"]["labels"]["label"] == list("0123456789")
    assert found["training"]["iterations"] == 30 and found["recipe"]["preset"] == "flow"


def test_data_check_reports_and_names_bad_files(tmp_path, capsys):
    for label in ("red cat", "蓝 dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(30):
            noise = np.random.default_rng(i).integers(0, 255, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(noise + len(label)).save(tmp_path / "pets" / label / f"{i}.png")
    (tmp_path / "pets" / "red cat" / "notes.png").write_text("not a picture")
    shown = inside(capsys, "data", "check", tmp_path / "pets", "--quick", "--json")
    found = json.loads(shown)
    assert set(found["classes"]) == {"red cat", "蓝 dog"}
    assert [b["name"] for b in found["bad"]] == ["red cat/notes.png"]
    assert str(tmp_path) not in shown


@pytest.mark.slow
def test_dry_run_writes_nothing(tmp_path):
    done = steerable(
        "train", "digits", "--run", tmp_path / "r", "--dry-run", "--json", "--budget", "9m"
    )
    assert done.returncode == 0 and json.loads(done.stdout)["parameters"] > 0
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["train", "no/such/folder"], "E-DATA", 3),
        (["train", "{empty}"], "E-DATA", 3),
        (["train", "digits", "--budget", "soon"], "E-CONFIG", 2),
        (["train", "digits", "--preset", "flwo"], "E-CONFIG", 2),
        (["train", "digits", "--set", "training.lr=fast"], "E-CONFIG", 2),
        (["train", "digits", "--set", "nonsense"], "E-CONFIG", 2),
        (["train"], "E-CONFIG", 2),
        (["train", "digits", "--config", "no.yaml"], "E-CONFIG", 2),
        (["sample", "no-run"], "E-CONFIG", 2),
        (["sample", "{run}", "--label", "eleven"], "E-LABEL", 2),
        (["sample", "{run}", "--guidance", "abc"], "E-CONFIG", 2),
        (["sample", "{run}", "--guidance", "nan"], "E-CONFIG", 2),
        (["sample", "{run}", "--steps", "0"], "E-LIMIT", 2),
        (["sample", "{run}", "--interval", "0.9:0.1"], "E-CONFIG", 2),
        (["sample", "{run}", "--sampler", "huen"], "E-CONFIG", 2),
        (["sample", "{run}", "-n", "0"], "E-LIMIT", 2),
        (["sample", "{run}", "--seed", "-1"], "E-LIMIT", 2),
        (["sample", "{text}"], "E-CKPT-HEADER", 4),
        (["evaluate", "{run}", "-n", "3"], "E-EVAL", 3),
        (["parts", "nothing"], "E-CONFIG", 2),
        (["train", "digits", "--size", "xxl"], "E-CONFIG", 2),
        (["train", "digits", "--size", "s", "--budget", "abc"], "E-CONFIG", 2),
        (["train", "digits", "--set", "backbone.channels=[]"], "E-LIMIT", 2),
        (["train", "digits", "--run", "{text}/x"], "E-DISK", 5),
        (
            ["train", "digits", "--run", "{run}", "--preset", "flow", "--size", "l"],
            "E-CONFIG-DIFF",
            2,
        ),
        (["train", "digits", "--config", "{run}/recipe.yaml", "--size", "l"], "E-CONFIG", 2),
        (["sample", "{run}", "--set", "training.lr=0.5"], "E-CONFIG", 2),
        (["sample", "x" * 300], "E-CONFIG", 2),
        (["evaluate", "{run}", "--seed", "99999999999999999999"], "E-LIMIT", 2),
        (["evaluate", "{run}", "--seed", "-5"], "E-LIMIT", 2),
        (["nonsense"], "E-CONFIG", 2),
        (["sample", "{run}", "--nonsense"], "E-CONFIG", 2),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(
    run, tmp_path, monkeypatch, capsys, words, code, exit_code
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.safetensors").write_text("this is no model at all, only some words")
    places = {"run": run, "empty": tmp_path / "empty", "text": tmp_path / "model.safetensors"}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([*[word.format(**places) for word in words], "--json"])
    assert end.value.code == exit_code
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("error[")]
    assert len(errors) == 1 and errors[0].startswith(f"error[{code}]"), shown.err
    assert "Traceback" not in shown.err
    found = json.loads(shown.out)
    assert found["error"] == code and found["where"] and found["got"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "model.safetensors"]


def pictures(folder, labels=("a", "b"), n=20):
    for k, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for i in range(n):
            noise = np.random.default_rng([k, i]).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(noise).save(folder / label / f"{i}.png")
    return folder


@pytest.mark.slow
def test_a_folder_however_it_is_written_resumes(tmp_path, monkeypatch, capsys):
    pictures(tmp_path / "pets 😀")
    monkeypatch.chdir(tmp_path)
    words = ["--run", "r", *TINY, "--preset", "flow", "--budget"]
    inside(capsys, "train", "pets 😀", *words, "2 iterations")
    for again, count in (("pets 😀/", 3), (str(tmp_path / "pets 😀"), 4), ("./pets 😀", 5)):
        shown = inside(capsys, "train", again, *words, f"{count} iterations", "--json")
        assert json.loads(shown)["iterations"] == count
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = json.loads(inside(capsys, "evaluate", tmp_path / "r", "-n", 10, "--json"))
    assert found["settings"]["n"] == 10
    alone = tmp_path / "elsewhere" / "m.safetensors"
    alone.write_bytes((tmp_path / "r" / "model.safetensors").read_bytes())
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(alone)])
    assert end.value.code == 3 and "--data" in capsys.readouterr().err
    inside(capsys, "evaluate", alone, "--data", tmp_path / "pets 😀", "-n", 10)


def test_a_run_folder_among_the_pictures_is_refused(tmp_path, monkeypatch, capsys):
    pictures(tmp_path / "pets")
    monkeypatch.chdir(tmp_path / "pets")
    with pytest.raises(SystemExit) as end:
        main(["train", ".", *TINY, "--budget", "2 iterations"])
    assert end.value.code == 2 and "inside the data" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "pets").iterdir()) == ["a", "b"]


@pytest.mark.slow
def test_one_class_trains_with_a_warning(tmp_path):
    (tmp_path / "one" / "only").mkdir(parents=True)
    for i in range(40):
        Image.new("L", (8, 8 + i % 2), 5 * i).save(tmp_path / "one" / "only" / f"{i}.png")
    words = ["--budget", "3 iterations", "--run", tmp_path / "r", *TINY]
    done = steerable("train", tmp_path / "one", *words)
    assert done.returncode == 0, done.stderr
    assert "one class" in done.stderr


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(getattr(signal, "SIGHUP", signal.SIGTERM), marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, number):
    path = tmp_path / "run"
    words = ["train", "digits", "--run", path, "--budget", "3000 iterations", *TINY]
    child = subprocess.Popen(
        command(*words), stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    deadline = time.monotonic() + 60
    while not (path / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 128 + number, errors.decode()
    assert b"stopped and saved at iteration" in errors
    saved = [p.name for p in (path / "checkpoints").iterdir() if p.name.startswith("iter-")]
    assert saved and (path / "model.safetensors").is_file()
    at = int(saved[-1].removeprefix("iter-"))
    again = steerable(*[*words[:5], f"{at + 5} iterations", *TINY])
    assert again.returncode == 0 and "resumes" in again.stderr
    assert not (path / "lease.json").exists()


@pytest.mark.slow
def test_two_trainers_on_one_run(tmp_path):
    path = tmp_path / "run"
    words = ["train", "digits", "--run", path, "--budget", "20000 iterations", *TINY]
    first = subprocess.Popen(
        command(*words), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment()
    )
    try:
        deadline = time.monotonic() + 60
        while not (path / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        second = steerable(*words)
        assert second.returncode == 7 and "E-LOCK" in second.stderr
    finally:
        first.send_signal(signal.SIGTERM)
        first.wait(60)
    assert first.returncode == 143


def test_a_run_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    done = steerable("train", "digits", "--run", tmp_path / "home", "--budget", "2 iterations")
    assert done.returncode == 2 and "thesis.txt" in done.stderr
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.txt"]
