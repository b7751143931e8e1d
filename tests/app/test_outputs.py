"""What a command writes goes nowhere near the files of the user, and survives being stopped."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest
import torch
from PIL import Image

import steerable
from steerable.app.cli import main
from steerable.core.errors import UserError
from steerable.jobs import output
from steerable.jobs.output import PAGE, Place, check_file, claim
from steerable.jobs.prepare import prepare
from steerable.jobs.sample_files import claim_samples, write_samples
from steerable.jobs.wish import wishes

from ..jobs.tiny import finish, tiny
from .cli import command, environment

QUICK = ("-n", "1", "--steps", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run on pictures of one's own, whose folder the run knows."""
    root = tmp_path_factory.mktemp("home")
    for name, shade in (("cats", 40), ("dogs", 200)):
        (root / "pets" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), shade + i).save(root / "pets" / name / f"{i}.png")
    recipe = steerable.recipe(str(root / "pets"), budget="4 iterations", settings=_tiny())
    finish(prepare(recipe, root / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


def _tiny():
    return [*tiny.__globals__["TINY"], "training.ema_kind=power"]


def code_of(*words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code


def hashes(root):
    """Every file below a folder by its content, without what holds no content of anybody."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".steerable")
    }


NAMES = ["0.png", "1.png", "grid.png", "samples.jsonl", "edits.jsonl", "strip.png", "sweep.json"]
NAMES += ["noise.safetensors", "notes.txt", "inside.html", "inside.json", "tour.html", "a.html"]
NAMES += ["model.safetensors", "recipe.yaml", "film.webp", "curves.png", "thesis.pdf", ".hidden"]


def scattered(root, rng):
    """A tree of somebody's files, some with the names of results."""
    folders = [root / "mine"]
    for _ in range(rng.randrange(3)):
        folders.append(rng.choice(folders) / rng.choice(["u", "v", "samples", "0.png.d"]))
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in rng.sample(NAMES, rng.randrange(4)):
            if rng.random() < 0.5 and name.endswith(".png"):
                Image.new("L", (8, 8), rng.randrange(256)).save(folder / name)
            else:
                (folder / name).write_bytes(rng.randbytes(rng.randrange(1, 60)))
    return folders


def places(root, folders, rng):
    """Where a command may be told to write: folders, files, what is read, what is not there."""
    inside = [path for folder in folders for path in folder.iterdir()]
    there = [*folders, *inside, root, root / "run", root / "pets", root / "pets" / "cats"]
    there += [root / "run" / "model.safetensors", root / "run" / "recipe.yaml", root / "a.png"]
    there += [root / "run" / "checkpoints", root / "pets" / "cats" / "3.png", "", ".", "mine"]
    there += [folder / rng.choice(["new", "new/deeper", *NAMES]) for folder in folders]
    return rng.choice(there)


COMMANDS = [
    ("sample", "run", *QUICK, "--out"),
    ("sample", "run", *QUICK, "--film", "--out"),
    ("edit", "run", "--image", "a.png", "--strength", "0.5", *QUICK, "--out"),
    ("edit", "run", "--image", "mine", "--strength", "0.5", *QUICK, "--out"),
    ("edit", "run", "--image", "pets/cats/0.png", "--strength", "0.5", *QUICK, "--out"),
    ("encode", "run", "a.png", "--steps", "1", "--out"),
    ("interpolate", "run", "a.png", "b.png", "--count", "2", "--steps", "1", "--out"),
    ("average", "run", "--width", "0.05", "--out"),
    ("sweep", "run", "-n", "1", "--out"),  # too few: refused after its place was looked at
    ("look", "run", "-n", "0", "--out"),  # likewise
    ("data", "check", "nowhere", "--quick", "--page"),
    ("tour", "--seed", "-1", "--out"),
]


def tried(root, number, *, force):
    rng = random.Random(number)
    folders = scattered(root, rng)
    words = (*rng.choice(COMMANDS), places(root, folders, rng), *(["--force"] if force else []))
    before = hashes(root)
    code = code_of(*words)
    after = hashes(root)
    changed = [str(path.relative_to(root)) for path in before if after.get(path) != before[path]]
    read = ("run", "pets", *(w for w in words[:-2] if w in ("a.png", "b.png", "mine")))
    if force:  # what lies there with a result's name is given up, but never what is read
        changed = [name for name in changed if name.startswith(read) or name.endswith("tensors")]
    assert not changed, f"{words} has changed {changed}"
    for path in after.keys() - before.keys():
        path.unlink(missing_ok=True)
    shutil.rmtree(root / "mine", ignore_errors=True)
    return code


def prepare_place(root):
    for name, shade in (("a", 10), ("b", 200)):
        Image.new("L", (8, 8), shade).save(root / f"{name}.png")


@pytest.mark.parametrize("force", [False, True])
def test_no_command_changes_a_file_of_the_user_in_some_cases(home, force, capsys):
    prepare_place(home)
    codes = {tried(home, number, force=force) for number in range(40)}
    assert codes <= {0, 2, 3, 5, 7} and 2 in codes


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("force", [False, True])
def test_no_command_changes_a_file_of_the_user(home, force, capsys):
    """600 random trees, places and commands without force and 600 with it."""
    prepare_place(home)
    codes = [tried(home, 1000 + number, force=force) for number in range(600)]
    assert set(codes) <= {0, 2, 3, 5, 7} and codes.count(0) > 30


def refused(code, *words, **more):
    with pytest.raises(UserError) as caught:
        claim(*words, **more).release()
    assert caught.value.code == code
    return str(caught.value)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_ones_own_results_is_known_by_its_record(tmp_path):
    out, request = tmp_path / "out", {"n": 1}
    with claim(Place(out), "sample", "set", request) as folder:
        folder.write({"0.png": b"a", "1.png": b"b"}, calls=3)
        folder.finish()
    assert names_in(out) == [".steerable.jsonl", "0.png", "1.png"]
    with claim(Place(out), "sample", "set", {"n": 2}) as folder:
        assert not folder.done
        folder.write({"0.png": b"new"})
        assert (out / "1.png").read_bytes() == b"b", "it goes when the new ones are all there"
        folder.finish()
    assert names_in(out) == [".steerable.jsonl", "0.png"]
    assert "not made" in refused("E-CONFIG", Place(out), "edit", "edit", request)
    (out / "0.png").write_bytes(b"painted over")
    assert "0.png" in refused("E-CONFIG", Place(out), "sample", "set", request)
    (out / "0.png").write_bytes(b"new")
    (out / "letter.txt").write_bytes(b"dear")
    assert "letter.txt" in refused("E-CONFIG", Place(out), "sample", "set", request)
    with claim(Place(out, force=True), "sample", "set", request) as folder:
        folder.write({"0.png": b"c"})
        folder.finish()
    assert (out / "letter.txt").read_bytes() == b"dear"


def test_what_was_begun_goes_on_and_what_was_cut_off_is_made_again(tmp_path):
    out, request = tmp_path / "out", {"n": 1}
    with claim(Place(out), "sample", "set", request) as folder:
        folder.write({"0.png": b"a"}, calls=3)
        folder.append("samples.jsonl", ["{}"])
        folder.write({"1.png": b"b"}, calls=4)
    (out / "1.png").unlink()  # recorded, and killed before it was there
    (out / ".2.png.tmp-1073741824-1-0").write_bytes(b"of a dead process")
    with claim(Place(out), "sample", "set", request) as folder:
        assert sorted(folder.done) == ["0.png", "samples.jsonl"]
        assert [told.get("calls") for told in folder.facts if "calls" in told] == [3, 4]
    assert ".2.png.tmp-1073741824-1-0" not in names_in(out)
    with (out / ".steerable.jsonl").open("a") as file:
        file.write('{"files": {"9.png": "torn')
    with claim(Place(out), "sample", "set", request) as folder:
        assert sorted(folder.done) == ["0.png", "samples.jsonl"]
        folder.write({"1.png": b"b"})
    with claim(Place(out), "sample", "set", request) as folder:
        assert sorted(folder.done) == ["0.png", "1.png", "samples.jsonl"], "after a torn line"


def test_nothing_is_left_of_what_did_not_begin(tmp_path):
    with pytest.raises(KeyboardInterrupt), claim(Place(None, tmp_path), "sample", "set", {}):
        raise KeyboardInterrupt
    assert names_in(tmp_path / "samples") == []
    for place in (tmp_path / "a" / "b", tmp_path / "a"):
        claim(Place(place), "sample", "set", {}).release()
        assert not place.exists()


def test_default_folders_are_claimed_by_one_each(tmp_path):
    """16 claims at once of different requests, and a stopped one that is gone on with."""
    taken, faults, barrier = [], [], threading.Barrier(16)

    def take(number):
        barrier.wait()
        try:
            folder = claim(Place(None, tmp_path), "sample", "set", {"n": number})
            folder.write({"0.png": bytes([number])})
            taken.append(folder)
        except UserError as error:
            faults.append(error)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and len({folder.path for folder in taken}) == 16
    for folder in taken:
        folder.release()
    mine = taken[5].path
    number = (mine / "0.png").read_bytes()[0]
    with claim(Place(None, tmp_path), "sample", "set", {"n": number}) as folder:
        assert folder.path == mine and sorted(folder.done) == ["0.png"]
        with claim(Place(None, tmp_path), "sample", "set", {"n": number}) as other:
            assert other.path != mine, "the first is at work there"
    assert refused_while_held(tmp_path)


def refused_while_held(tmp_path):
    with claim(Place(tmp_path / "x"), "sample", "set", {}):
        refused("E-LOCK", Place(tmp_path / "x"), "sample", "set", {})
    return True


@pytest.mark.parametrize("name", ["page.html", "photo.png", "model.safetensors", "notes.txt"])
def test_a_single_file_is_written_over_its_own_kind_only(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"<html>mine")
    marks = PAGE if name == "page.html" else [b"of mine"]
    with pytest.raises(UserError) as caught:
        check_file(path, Place(None), marks=marks)
    assert caught.value.code == "E-CONFIG" and name in str(caught.value)
    if name == "model.safetensors":
        with pytest.raises(UserError, match="a model file"):
            check_file(path, Place(None, force=True), marks=marks)
    else:
        check_file(path, Place(None, force=True), marks=marks)
        inputs = (tmp_path / "." / name,)
        with pytest.raises(UserError, match="an input"):
            check_file(path, Place(None, force=True, inputs=inputs), marks=marks)
    path.write_bytes(b'<head><meta name="generator" content="steerable">')
    if name == "page.html":
        check_file(path, Place(None))
    for wrong, said in ((tmp_path, "a folder"), (tmp_path / "a.png", "a page")):
        with pytest.raises(UserError, match=said):
            check_file(wrong, Place(None))


def test_an_evaluation_replaces_its_own_files_only(home, tmp_path, capsys):
    alone = tmp_path / "alone"
    (alone / "evaluation").mkdir(parents=True)
    (alone / "model.safetensors").write_bytes((home / "run" / "model.safetensors").read_bytes())
    for name in ("report.json", "report.html", "items.safetensors", "judge.safetensors"):
        (alone / "evaluation" / name).write_bytes(b"of mine")
        assert code_of("evaluate", alone, "--data", "pets", "-n", "10") == 2
        assert name in capsys.readouterr().err
        assert (alone / "evaluation" / name).read_bytes() == b"of mine"
        (alone / "evaluation" / name).unlink()


def test_links_to_inputs_are_the_inputs(tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"photo")
    out = tmp_path / "out"
    out.mkdir()
    for link in (os.link, os.symlink):
        link(photo, out / "0.png")
        with pytest.raises(UserError):
            claim(Place(out, force=True, inputs=(photo,)), "sample", "set", {}, names=["0.png"])
        (out / "0.png").unlink()
    (tmp_path / "alias").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match="inside the data"):
        claim(Place(tmp_path / "alias" / "new", data=(tmp_path,)), "sample", "set", {})


@pytest.mark.skipif(os.geteuid() != 0 and not os.access("/", os.W_OK), reason="needs a mount")
def test_a_full_or_read_only_place_is_noticed_before_the_work(tmp_path, home, capsys):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert code_of("sample", "run", "-n", "1", "--out", blocked / "below") == 5
    assert "E-DISK" in capsys.readouterr().err
    with pytest.raises(UserError) as caught:
        claim(Place(tmp_path / "o"), "sample", "set", {}, need=2**60)
    assert caught.value.code == "E-DISK" and not (tmp_path / "o").exists()


def made(path, model, n, finished=None):
    """Samples into a folder, stopped after a number of batches."""
    wanted = wishes(model.spec, [], n, 0)
    recipe = steerable.jobs.sample.steered(model.recipe, steps=2)
    with claim_samples(model, recipe, wanted, Place(path)) as folder:
        steps, batches = write_samples(folder, model, recipe, wanted), 0
        for progress in steps:
            batches += progress.part is not None
            if batches == finished and progress.part is not None:
                steps.close()
                return batches
    return batches


def test_stopped_sampling_goes_on_to_the_same_bytes(home, tmp_path):
    model = steerable.load("run")
    assert made(tmp_path / "whole", model, 100) == 4
    assert made(tmp_path / "parts", model, 100, finished=2) == 2
    lines = (tmp_path / "parts" / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 128 and (tmp_path / "parts" / "127.png").is_file()
    assert not (tmp_path / "parts" / "grid.png").exists()
    (tmp_path / "parts" / "70.png").unlink()  # as if it had been cut off
    assert made(tmp_path / "parts", model, 100) == 3, "only the first batch was whole"
    whole = {p.name: p.read_bytes() for p in (tmp_path / "whole").glob("[!.]*")}
    assert whole == {p.name: p.read_bytes() for p in (tmp_path / "parts").glob("[!.]*")}
    records = [json.loads(line) for line in whole["samples.jsonl"].splitlines()]
    assert [record["index"] for record in records] == list(range(200))


def test_another_request_replaces_the_log_of_the_one_before(home, tmp_path):
    model = steerable.load("run")
    made(tmp_path / "o", model, 40)
    made(tmp_path / "o", model, 3)
    lines = (tmp_path / "o" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(6))
    assert sorted(p.name for p in (tmp_path / "o").glob("*.png")) == [
        *(f"{i}.png" for i in range(6)),
        "grid.png",
    ]


@pytest.mark.slow
def test_memory_holds_one_batch(home, tmp_path, monkeypatch):
    """Pictures of the batches before are freed: their tensors are gone when the next are made."""
    import gc
    import weakref

    from steerable.jobs import sample_files

    model, alive, most = steerable.load("run"), [], 0
    wanted = wishes(model.spec, [], 160, 0)
    recipe = steerable.jobs.sample.steered(model.recipe, steps=1)
    with claim_samples(model, recipe, wanted, Place(tmp_path / "o")) as folder:
        for progress in sample_files.write_samples(folder, model, recipe, wanted):
            alive.append(weakref.ref(progress.part.x))
            del progress
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == 5 and most <= 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_keeps_what_is_there_and_the_same_command_goes_on(home, tmp_path, number):
    words = ("sample", "run", "-n", "400", "--steps", "6", "--out", tmp_path / "out", "--json")
    started = subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(), cwd=home,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not (tmp_path / "out" / "samples.jsonl").is_file() and time.monotonic() < end:
        time.sleep(0.01)
    started.send_signal(number)
    out, err = started.communicate(timeout=120)
    there = sorted((tmp_path / "out").glob("*.png"))
    assert 0 < len(there) < 800, f"{len(there)} {err}"
    kept = {path: path.stat().st_mtime_ns for path in there}
    if number != signal.SIGKILL:
        assert started.returncode == 128 + number
        told = json.loads(out)
        assert told["stopped"] and told["n"] == len(there)
    again = subprocess.run(
        command(*words), capture_output=True, text=True, env=environment(), cwd=home, check=False
    )
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert told["n"] == 800 and told["resumed"] >= len(there) - 64 and not told["stopped"]
    same = [path for path in there if path.stat().st_mtime_ns == kept[path]]
    assert len(same) >= len(there) - 64, "what is finished is not made again"
    records = (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in records] == list(range(800))


def test_two_rewrites_of_a_model_file_lose_neither(home, tmp_path):
    from steerable.jobs import regrid, sweep
    from steerable.jobs.sweep import Setting

    path = tmp_path / "model.safetensors"
    path.write_bytes((home / "run" / "model.safetensors").read_bytes())
    first, second = steerable.load(path), steerable.load(path)
    regrid.write(first, first.recipe, {4: [3.0, 1.0, 0.0, -2.0]})
    sweep.keep(second, Setting(guidance=3.5))
    now = steerable.load(path).recipe
    assert now.sampler.grid.kind == "optimised", "the tables of the first"
    assert now.guidance[0].options["weight"] == 3.5, "the setting of the second"


def test_a_model_in_training_is_not_rewritten(home):
    from steerable.jobs import lease
    from steerable.jobs.lease import Lease, rewriting

    with pytest.MonkeyPatch.context() as patch, Lease(home / "run"):
        patch.setattr(lease, "WAIT", 0.1)
        with pytest.raises(UserError) as caught, rewriting(home / "run" / "model.safetensors"):
            pass
    assert caught.value.code == "E-LOCK"


def test_one_record_says_who_made_a_folder(home, tmp_path):
    wanted = wishes(steerable.load("run").spec, ["cats"], 1, 0)
    model = steerable.load("run")
    with claim_samples(model, model.recipe, wanted, Place(tmp_path / "o")) as folder:
        list(write_samples(folder, model, model.recipe, wanted))
    head, *rest = (tmp_path / "o" / output.RECORD).read_text().splitlines()
    assert json.loads(head)["made_by"] == "steerable sample"
    assert json.loads(rest[-1]) == {"finished": True}
    listed = {n: d for line in rest for n, d in json.loads(line).get("files", {}).items()}
    assert listed.keys() == {"0.png", "samples.jsonl", "grid.png"}
    assert listed["0.png"] == hashlib.sha256((tmp_path / "o" / "0.png").read_bytes()).hexdigest()
    assert torch.equal(
        steerable.jobs.sample_files.read_png(tmp_path / "o" / "0.png"),
        steerable.sample(model, "cats", n=1).x[0],
    )
