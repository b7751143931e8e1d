"""Damaged files beside the weights stop nothing: skipped or set aside, counted and said."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from steerable.core.errors import UserError
from steerable.datasets.digits import digits
from steerable.jobs import averaging, durable
from steerable.jobs.beside import RECORD, parsed, records_in, sound
from steerable.jobs.board import Board, _picture
from steerable.jobs.compare import compare
from steerable.jobs.data import fingerprint, own_splits
from steerable.jobs.eyes import JUDGE, NOTE, eyes_for, kept_judge
from steerable.jobs.inside import look
from steerable.jobs.items import Items, read_items, write_items
from steerable.jobs.lease import Lease
from steerable.jobs.model import Model
from steerable.jobs.prepare import prepare
from steerable.jobs.report import FOLDER, _loss_curve, _sweep
from steerable.jobs.run import Run
from steerable.jobs.train import train
from steerable.jobs.trouble import fresh
from steerable.jobs.watch import records, troubles_of

from .tiny import finish, tiny

CASES = 520
SETTINGS = ("training.ema_kind=power", "training.checks=auto")


def recipe(iterations):
    return tiny(iterations, *SETTINGS)


def quick(iterations):
    """The same run without what takes time; its settings are free to change."""
    return tiny(iterations, SETTINGS[0], "training.checks=off", "sampler.steps=2")


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small finished run with everything that may lie in one."""
    run = tmp_path_factory.mktemp("finished") / "run"
    finish(prepare(recipe(52), run))
    found = Run(run)
    found.append(RECORD, {"event": "trouble", "iteration": 52, **told()})
    found.append("log.txt", "finished: 52 iterations")
    wanted = torch.arange(20) % 10
    labels = torch.arange(40) % 10
    write_items(run / FOLDER, Items(draw(20, 4), draw(40, 4), wanted, wanted.clone(), labels))
    report = {
        "settings": {"n": 20, "seed": 1},
        "reference": {"fingerprint": "f"},
        "extractor": {"sha256": "e"},
        "judge": {"sha256": "j"},
    }
    durable.write(run / FOLDER / "report.json", json.dumps(report).encode())
    sweep = run / "samples" / "sweep-001"
    durable.folder(sweep)
    durable.write(sweep / "sweep.json", json.dumps({"best": "guidance 2"}).encode())
    shutil.copy(next((run / "samples").glob("preview-*.png")), sweep / "curves.png")
    durable.write(run / FOLDER / NOTE, json.dumps({"data": "d", "file": "f"}).encode())
    durable.write(run / FOLDER / JUDGE, b"no judge")
    card = {"pid": 2**22, "started": 1, "boot": "x", "space": "y", "heartbeat": 1.0}
    durable.write(run / "lease.json", json.dumps(card).encode())
    return run


def told():
    return {"kind": "overfit", "sentence": "it falls", "advice": "stop"}


def named(run):
    """Every file beside the weights and the checkpoints."""
    own = ("checkpoints", "model.safetensors")
    paths = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    names = sorted(path.as_posix() for path in paths if path.parts[0] not in own)
    snapshots = [name for name in names if name.startswith("snapshots")]
    return [name for name in names if name not in snapshots[2:-2]]  # one is as another


# Ways to damage a file. Each takes the bytes and a source of chance, and gives new ones.

WRONG = [None, [], {}, 7, -3, "x", [[[]]], True, {"iteration": "7"}, {"a": [1, {"c": None}]}]


def flipped(data, chance):
    data = bytearray(data)
    for _ in range(chance.choice([1, 3, 30])):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def mistyped(data, chance):
    """A value anywhere in the JSON of a file, or of a line of it, becomes one of another type."""

    def change(value):
        if isinstance(value, dict) and value and chance.random() < 0.8:
            key = chance.choice(sorted(value))
            return {**value, key: change(value[key])}
        if isinstance(value, list) and value and chance.random() < 0.8:
            at = chance.randrange(len(value))
            return [*value[:at], change(value[at]), *value[at + 1 :]]
        return chance.choice([*WRONG, float("nan"), float("inf"), 10**400, -0.5])

    lines = data.split(b"\n")
    for k in chance.sample(range(len(lines)), min(len(lines), 3)):
        try:
            lines[k] = json.dumps(change(json.loads(lines[k]))).encode()
        except ValueError:
            continue
    try:
        return json.dumps(change(json.loads(data))).encode()
    except ValueError:
        return b"\n".join(lines)


def missing(data, chance):
    """A key anywhere in a JSON object is gone."""
    lines = data.split(b"\n")
    for k, line in enumerate(lines):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and value and chance.random() < 0.5:
            value.pop(chance.choice(sorted(value)))
            lines[k] = json.dumps(value).encode()
    return b"\n".join(lines)


WAYS = {
    "truncated": lambda data, chance: data[: chance.randrange(len(data) + 1)],
    "flipped": flipped,
    "empty": lambda data, chance: b"",
    "binary": lambda data, chance: chance.randbytes(chance.choice([1, 100, 5000])),
    "zeros": lambda data, chance: bytes(len(data)),
    "not UTF-8": lambda data, chance: b"\xff\xfe\n".join([data[:99], data[99:]]),
    "wrong": lambda data, chance: json.dumps(chance.choice(WRONG)).encode() + b"\n",
    "deep": lambda data, chance: b"[" * 100_000 + b"\n" + data,
    "long": lambda data, chance: data + b'{"iteration": 1, "loss": ' + b"9" * 200_000 + b"}\n",
    "doubled": lambda data, chance: data + data,
    "mistyped": mistyped,
    "missing": missing,
}


def damage(path, chance):
    """Damage one file of a run; says how."""
    way = chance.choice([*WAYS, *["mistyped", "missing"] * 3, "gone", "a folder", "a link"])
    if way in WAYS:
        path.write_bytes(WAYS[way](path.read_bytes(), chance))
        return way
    path.unlink()
    if way == "a folder":
        path.mkdir()
        (path / "inside").write_text("x")
    if way == "a link":
        path.symlink_to("nothing")
    return way


def looked_at(run, model):
    """What evaluation, comparison, `look`, `average` and `info` read of a run folder."""

    def drain(steps):
        for _ in steps:
            pass

    yield "records", lambda: (fresh(records(run)), troubles_of(run))
    yield "items", lambda: read_items(run / FOLDER)
    yield "compare", lambda: drain(compare(run, run))
    yield "sweep", lambda: _sweep(run)
    yield "judge", lambda: kept_judge(run / FOLDER, "d")
    here = dataclasses.replace(model, path=run / "model.safetensors")
    yield "splits", lambda: own_splits(here, digits(), True)
    yield "average", lambda: averaging.write_averaged(run, 0.1, run.parent / "averaged.safetensors")
    yield "info", lambda: Model.load(run).about
    yield "recipe", lambda: Run(run).recipe()


def holds(work):
    """Whether a work ends well; a clear refusal is none, and anything else is raised."""
    try:
        work()
    except UserError as error:
        assert error.where and error.got and len(" ".join(str(error).split())) < 2000
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_no_damage_beside_the_weights_raises_anything_but_a_clear_refusal(finished, tmp_path):
    """Every file in turn, in every way; training goes on where only the recipe is not concerned."""
    model = Model.load(finished)
    names, stopped = named(finished), []
    for case in range(CASES):
        chance = random.Random(case)
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(finished, run)
        name = names[case % len(names)]
        way = damage(run / name, chance)
        where = f"case {case}: {name}, {way}"
        try:
            for _, work in looked_at(run, model):
                holds(work)
            went = holds(lambda at=run: finish(prepare(quick(54), at)))
            assert went or name == "recipe.yaml", where
        except Exception as error:
            raise AssertionError(where) from error
        if went:
            assert Model.load(run).about["training"]["iterations"] == 54, where
            left = [parsed(line) for line in (run / RECORD).read_bytes().splitlines()]
            assert all(record is not None and sound(record) for record in left), where
        else:
            stopped.append(name)
    assert set(stopped) <= {"recipe.yaml"} and stopped, "a damaged recipe is refused"


FILES = [
    "metrics.jsonl",
    "times.jsonl",
    "data-report.json",
    "environment.json",
    "log.txt",
    "lease.json",
    "lease.lock",
    "samples",
    "snapshots",
    "board",
]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_of_another_kind_is_set_aside(finished, tmp_path, name):
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("a file")
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
        (path / "inside").write_text("x")
    durable.tally.clear()
    finish(prepare(recipe(53), run))
    if name != "board":
        aside = run / f"{name}.damaged-1"
        assert aside.exists() and any(aside.name in said for said in durable.tally), durable.tally
        assert name in ("lease.json", "lease.lock", "log.txt") or path.exists()
    assert not (run / f"{name}.damaged-2").exists()


def test_damaged_lines_are_dropped_and_the_whole_file_is_kept_aside(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / RECORD
    lines = path.read_bytes().splitlines(keepends=True)
    mixed = [lines[0], b"\xff\xfe\n", lines[1], b'{"iteration": 20, "loss": NaN}\n', *lines[2:]]
    path.write_bytes(b"".join(mixed))
    durable.tally.clear()
    assert len(records(run)) == len(lines)
    assert durable.tally["damaged lines of metrics.jsonl skipped"] == 2
    steps = train(prepare(recipe(53), run))
    next(steps)
    assert (run / "metrics.jsonl.damaged-1").read_bytes() == b"".join(mixed)
    steps.close()
    assert len(records(run)) >= len(lines)


def test_a_torn_last_line_is_no_damage(tmp_path):
    path = tmp_path / "times.jsonl"
    path.write_bytes(b'{"iteration": 1}\n{"iterat')
    durable.tally.clear()
    assert records_in(path) == [{"iteration": 1}] and not durable.tally


@pytest.mark.parametrize("data", [b"", b"\xff\n", b'{"iteration": 1}\n{"event": "validation"}\n'])
def test_the_curve_of_the_report_does_without_damaged_lines(tmp_path, data):
    (tmp_path / RECORD).write_bytes(data)
    assert _loss_curve(tmp_path).startswith("data:image")


def test_records_that_training_writes_are_sound(finished):
    raw = [json.loads(line) for line in (finished / RECORD).read_text().splitlines()]
    assert records(finished) == raw
    assert {"start", "validation", "check", "trouble", None} <= {r.get("event") for r in raw}


@pytest.mark.slow
def test_a_lost_report_of_the_data_is_made_again_if_the_data_is_the_same(finished, tmp_path):
    for how in ("gone", "damaged", "other"):
        run = shutil.copytree(finished, tmp_path / how)
        before = (run / "data-report.json").read_bytes()
        if how == "gone":
            (run / "data-report.json").unlink()
        else:
            bad = before.replace(b'"train": "', b'"train": "0', 1) if how == "other" else b"{"
            (run / "data-report.json").write_bytes(bad)
        finish(prepare(recipe(53), run))
        assert (run / "data-report.json").read_bytes() == before, how
        assert (run / "data-report.json.damaged-1").exists() == (how != "gone")
    run = shutil.copytree(finished, tmp_path / "changed")
    (run / "data-report.json").unlink()
    splits = digits()
    fewer = dataclasses.replace(splits, train=splits.train.take(torch.arange(1000)))
    with pytest.raises(UserError) as caught:
        prepare(recipe(53), run, splits=fewer)
    assert caught.value.code == "E-DATA-CHANGED"


def test_a_damaged_lease_is_taken_over(finished, tmp_path):
    bad = [b"", b"[]", b"\xff", b"[" * 100_000, b'{"pid": 5}']
    card = {"pid": 1, "started": 1, "boot": "x", "space": "y", "heartbeat": 1.0}
    bad += [json.dumps({**card, **change}).encode() for change in (
        {"pid": 10**300}, {"pid": -5}, {"heartbeat": 10**400}, {"heartbeat": float("nan")}
    )]  # fmt: skip
    for data in bad:
        (tmp_path / "lease.json").write_bytes(data)
        with Lease(tmp_path):
            assert json.loads((tmp_path / "lease.json").read_bytes())["pid"] > 0


BAD = [b"", b"\xff", b"a: [", b"[1, 2]", b"2001-99-99", b"x: !!python/object:os.x {}", b"data: 1\n"]


@pytest.mark.parametrize("data", [*BAD, b"[" * 5000])
def test_a_damaged_recipe_is_one_clear_line(finished, tmp_path, data):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "recipe.yaml").write_bytes(data)
    with pytest.raises(UserError) as caught:
        prepare(recipe(53), run)
    assert caught.value.code == "E-CONFIG" and "recipe.yaml" in caught.value.where
    assert caught.value.kept and "\n" not in str(caught.value)


def test_a_damaged_snapshot_is_left_out_of_an_average(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    whole, _ = averaging.recombined(run, 0.08)
    files = sorted((run / "snapshots").iterdir())
    files[2].write_bytes(files[2].read_bytes()[:-3])
    durable.tally.clear()
    found, _ = averaging.recombined(run, 0.08)
    assert durable.tally["damaged snapshots passed over"] == 1
    assert all(torch.allclose(found[k], whole[k], rtol=0.1, atol=0.02) for k in whole)
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(UserError, match="all damaged"):
        averaging.recombined(run, 0.08)


@pytest.mark.slow
def test_a_damaged_judge_is_trained_anew(tmp_path):
    """The next evaluation has eyes again, and keeps them."""
    splits = digits()
    few = dataclasses.replace(splits, train=splits.train.take(torch.arange(60)))
    eyes = eyes_for(few, tmp_path)
    of = fingerprint(few.train)
    assert kept_judge(tmp_path, of).sha256 == eyes.judge.sha256
    bad = ((NOTE, b"[]"), (NOTE, b"{}"), (NOTE, b"\xff"), (JUDGE, b""), (JUDGE, b"x" * 99))
    for name, data in bad:
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data)
        assert kept_judge(tmp_path, of) is None
        (tmp_path / name).write_bytes(before)
    (tmp_path / NOTE).unlink()
    (tmp_path / NOTE).mkdir()
    assert kept_judge(tmp_path, of) is None
    again = eyes_for(few, tmp_path)
    assert again.judge.n == eyes.judge.n and (tmp_path / NOTE).is_file()
    assert (tmp_path / f"{NOTE}.damaged-1").is_dir()


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\nxxxx", b"\xff" * 300])
def test_a_board_shows_what_is_whole(finished, tmp_path, data):
    pytest.importorskip("torch.utils.tensorboard")
    run = shutil.copytree(finished, tmp_path / "run")
    for file in (run / "samples").glob("preview-*.png"):
        file.write_bytes(data)
    with (run / RECORD).open("ab") as file:
        file.write(b'\xff\n{"event": "trouble", "iteration": 3}\n[]\n')
    shutil.rmtree(run / "board", ignore_errors=True)
    (run / "board").write_text("a file")
    board = Board(run)
    board.follow()
    board.close()
    assert (run / "board").is_dir() and (run / "board.damaged-1").is_file()


def test_looking_inside_does_without_the_run_beside_the_model(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for path in run.iterdir():
        if path.is_file() and path.name not in ("model.safetensors", "recipe.yaml"):
            path.write_bytes(b"\xff\x00")
    *_, last = look(Model.load(run), digits(), items=4)
    assert last.inside is not None and Path(run).is_dir()


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\nxxxx", b"\xff" * 300])
def test_a_damaged_preview_is_no_picture_for_the_board(finished, tmp_path, data):
    whole = next((finished / "samples").glob("preview-*.png")).read_bytes()
    file = tmp_path / "preview.png"
    file.write_bytes(whole)
    assert _picture(file).shape[0] == 3
    for broken in (data, whole[: len(whole) // 2] + data):
        file.write_bytes(broken)
        durable.tally.clear()
        assert _picture(file) is None and durable.tally["damaged previews passed over"] == 1
