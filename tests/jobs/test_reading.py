"""Reading step by step, and what is kept of it: the same data, damaged or not, within bounds."""

from __future__ import annotations

import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steerable.core.errors import UserError
from steerable.jobs import caches, durable, kept
from steerable.jobs.data import compare, data_part, data_report, items_of
from steerable.jobs.prepare import prepare
from steerable.jobs.reading import READER, finished, reading
from steerable.jobs.run import Run
from steerable.jobs.train import train
from steerable.recipes.part import Part, build

from .tiny import finish, tiny


def save(path, seed, *, size=(12, 12), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


def aged(root):
    """All files were changed a while ago, as those of a user were."""
    for path in Path(root).rglob("*"):
        os.utime(path, ns=(10**18, 10**18))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes with a bad file, a copy, an odd kind and an empty class."""
    monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "TICK", 0)
    root = tmp_path / "pictures"
    for c in "ab":
        for i in range(20):
            save(root / c / f"é{i}.png", 100 * ord(c) + i, size=(12 + i % 2, 12))
    save(root / "a" / "copy.png", 100 * ord("a"))
    (root / "b" / "torn.png").write_bytes((root / "b" / "é1.png").read_bytes()[:-20])
    (root / "a" / "notes.txt").write_text("x")
    (root / "empty").mkdir()
    return root


def part(folder, **options):
    return Part(kind="images", options={"path": str(folder), **options})


def entries(tmp_path):
    return sorted((tmp_path / "cache" / "pictures").glob("[0-9a-f]*"))


def same(one, other):
    """Byte for byte: report, names, items and conditions."""
    assert json.dumps(one.report) == json.dumps(other.report)
    for a, b in ((one.train, other.train), (one.held_out, other.held_out)):
        assert a.spec == b.spec and a.names == b.names and torch.equal(a.x, b.x)
        assert list(a.cond) == list(b.cond) and a.x.dtype == b.x.dtype
        for name in a.cond:
            assert torch.equal(a.cond[name].nan_to_num(9), b.cond[name].nan_to_num(9))
            assert a.cond[name].dtype == b.cond[name].dtype
    assert data_report(one)["fingerprint"] == data_report(other)["fingerprint"]


def test_what_was_kept_is_what_was_read(folder, tmp_path):
    plain = build("data", part(folder))
    assert plain.report["bad"] and plain.report["warnings"]
    same(finished(reading(part(folder))), plain)
    assert len(entries(tmp_path)) == 1
    steps = list(reading(part(folder)))
    assert "headers" not in {step.stage for step in steps}, "it came from the pictures"
    assert [step.splits for step in steps[:-1]] == [None] * (len(steps) - 1)
    same(steps[-1].splits, plain)


def test_conditions_of_every_kind_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "TICK", 0)
    root = tmp_path / "set"
    lines = ["file_name,label,size,caption"]
    for i in range(30):
        save(root / f"{i}.png", i)
        lines.append(
            f"{i}.png,{'xy'[i % 2]},{'' if i == 3 else i / 7},{'a red dog' if i % 3 else ''}"
        )
    (root / "metadata.csv").write_text("\n".join(lines))
    columns = {"size": "vector", "caption": "tokens"}
    first = finished(reading(part(root, columns=columns)))
    assert len(entries(tmp_path)) == 1
    same(finished(reading(part(root, columns=columns))), first)
    same(first, build("data", part(root, columns=columns)))


@pytest.mark.parametrize("change", ["add", "remove", "edit", "mode", "setting", "reader", "folder"])
def test_whatever_changes_the_data_is_read_anew(folder, tmp_path, change):
    options, reader = {}, READER
    finished(reading(part(folder)))
    if change == "add":
        save(folder / "a" / "new.png", 7)
    elif change == "remove":
        (folder / "a" / "é3.png").unlink()
    elif change == "edit":
        path = folder / "a" / "é3.png"
        before = path.stat()
        data = bytearray(path.read_bytes())
        data[-20] ^= 255
        path.write_bytes(bytes(data))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times
    elif change == "mode":
        (folder / "a" / "é3.png").chmod(0o640)
    elif change == "setting":
        options = {"held_out": 0.3}
    elif change == "reader":
        reader = 1
    else:
        (folder / "another empty one").mkdir()
    stages = {step.stage for step in reading(part(folder, **options), reader=reader)}
    assert "headers" in stages and len(entries(tmp_path)) == 2
    fresh = build("data", part(folder, **options))
    found = finished(reading(part(folder, **options), reader=reader))
    assert found.report["fingerprint"] == fresh.report["fingerprint"]


@pytest.mark.parametrize("file", ["about.json", "000000.bin", "000001.bin"])
@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "gone", "pipe"])
def test_a_damaged_entry_is_counted_and_put_right(folder, tmp_path, file, damage):
    first = finished(reading(part(folder)))
    path = entries(tmp_path)[0] / file
    data = bytearray(path.read_bytes())
    whole = bytes(data)
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    elif damage != "gone":
        path.write_bytes(data[:-1] if damage == "cut" else data + b"x" * (damage == "longer"))
    if (file, damage) == ("about.json", "gone"):  # then there is no entry
        same(finished(reading(part(folder))), first)
        assert path.read_bytes() == whole
        return
    before = durable.tally["damaged kept pictures"]
    with pytest.warns(RuntimeWarning, match="damaged, read anew"):
        again = finished(reading(part(folder)))
    same(again, first)
    assert durable.tally["damaged kept pictures"] == before + 1
    assert path.read_bytes() == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(finished(reading(part(folder))), first)


def test_the_longest_unused_goes_first_and_large_ones_are_not_kept(folder, tmp_path, monkeypatch):
    for share in (0.1, 0.2):
        finished(reading(part(folder, held_out=share)))
    size = sum(p.stat().st_size for p in entries(tmp_path)[0].iterdir())
    monkeypatch.setattr(kept, "BOUND", int(2.5 * size))
    monkeypatch.setattr(kept, "SHARE", 2)
    for age, path in enumerate(entries(tmp_path)):
        os.utime(path / "about.json", (1000 + age, 1000 + age))
    first = finished(reading(part(folder, held_out=0.1)))  # used again, so it stays
    kept_path = max(entries(tmp_path), key=lambda p: (p / "about.json").stat().st_mtime)
    finished(reading(part(folder, held_out=0.3)))
    assert len(entries(tmp_path)) == 2 and kept_path in entries(tmp_path)
    same(finished(reading(part(folder, held_out=0.1))), first)
    monkeypatch.setattr(kept, "BOUND", size)
    with pytest.warns(RuntimeWarning, match="are not kept"):
        finished(reading(part(folder, held_out=0.4)))


@pytest.mark.filterwarnings("ignore:kept pictures")
def test_many_may_read_and_write_one_entry_at_once(folder, tmp_path):
    plain = build("data", part(folder))
    for _ in range(3):
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda _: finished(reading(part(folder))), range(6)))
        for one in found:
            same(one, plain)
        (entry,) = entries(tmp_path)
        # What lost the race to be replaced goes with the next sweep, when its owner has ended.
        others = [p.name for p in entry.parent.iterdir() if p != entry and ".old-" not in p.name]
        assert not others, "leftovers"
        same(finished(reading(part(folder))), plain)
        (entry / "000000.bin").unlink()  # the next round finds it damaged, all at the same time


def test_other_files_in_the_cache_stay(folder, tmp_path, monkeypatch):
    finished(reading(part(folder)))
    place = tmp_path / "cache" / "pictures"
    (place / "mine").mkdir()
    (place / "mine" / "a.txt").write_text("x")
    (place / ".left.tmp-999999999-1-0").mkdir()
    monkeypatch.setattr(kept, "BOUND", 10**6)
    finished(reading(part(folder, held_out=0.2)))
    assert (place / "mine" / "a.txt").read_text() == "x"
    assert not (place / ".left.tmp-999999999-1-0").exists(), "the torso of a dead process"


@pytest.mark.parametrize("value", ["", "off", "OFF"])
def test_it_can_be_switched_off(folder, tmp_path, monkeypatch, value):
    monkeypatch.setenv("STEERABLE_CACHE", value)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert "headers" in {step.stage for step in reading(part(folder))}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures"]


def test_a_cache_that_cannot_be_written_is_a_note(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(RuntimeWarning, match="not kept") as noted:
        finished(reading(part(folder)))
    assert len(noted) == 1


def test_without_a_home_nothing_is_kept(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("STEERABLE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("none")))
    with pytest.warns(RuntimeWarning, match="no home folder"):
        assert finished(reading(part(folder))).report["n"] == 41


def test_where_pictures_are_kept_on_other_systems(monkeypatch, tmp_path):
    monkeypatch.delenv("STEERABLE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(caches.sys, "platform", "darwin")
    assert caches.cache_place("x") == tmp_path / "Library" / "Caches" / "steerable" / "x"
    monkeypatch.setattr(caches.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert caches.cache_place("x") == tmp_path / "local" / "steerable" / "Cache" / "x"


def test_files_that_change_while_they_are_read_are_not_kept(folder, tmp_path):
    steps = reading(part(folder))
    next(step for step in steps if step.stage == "pictures")
    save(folder / "a" / "late.png", 5)
    finished(steps)
    assert entries(tmp_path) == []


def test_files_of_this_very_moment_are_not_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "TICK", 10**12)  # a disk with coarse times
    finished(reading(part(folder)))
    assert entries(tmp_path) == []


def test_an_archive_is_kept_where_that_pays_and_known_by_its_content(tmp_path, monkeypatch):
    monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "TICK", 0)
    path, rng = tmp_path / "a.npz", np.random.default_rng(0)
    np.savez(path, images=rng.integers(0, 256, (20, 32, 32), np.uint8))
    finished(reading(part(path)))
    assert entries(tmp_path) == []  # a copy as large as the file itself
    first = finished(reading(part(path, size=(8, 8))))
    (entry,) = entries(tmp_path)
    same(finished(reading(part(path, size=(8, 8)))), first)
    about = (entry / "about.json").read_bytes().partition(b"\n")[2]
    assert len(json.loads(about)["content"]) == 64


def test_built_in_sets_are_read_as_before(monkeypatch, tmp_path):
    monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "cache"))
    same(finished(reading(Part(kind="digits"))), build("data", Part(kind="digits")))
    assert not (tmp_path / "cache").exists()


def large_jpegs(root):
    for c in "ab":
        for i in range(4):
            save(root / c / f"{i}.jpg", 10 * ord(c) + i, size=(400, 500), quality=90)


def test_the_first_reader_decodes_whole_pictures_and_the_second_nearly_the_same(tmp_path):
    large_jpegs(tmp_path)
    one = finished(reading(part(tmp_path, size=(24, 24)), reader=1))
    two = finished(reading(part(tmp_path, size=(24, 24))))
    assert one.report["reader"] == 1 and two.report["reader"] == READER == 2
    assert two.report["conversions"] == {"jpeg decoded at 1/4": 8}
    assert one.report["conversions"] == {} and one.report["sizes"] == two.report["sizes"]
    every = [
        {n: x.int() for s in (d.train, d.held_out) for n, x in zip(s.names, s.x, strict=True)}
        for d in (one, two)
    ]
    off = torch.stack([(every[0][n] - every[1][n]).abs() for n in every[0]])
    # Of noise, the hardest picture there is, at a deviation of some 6 levels.
    assert 0 < off.double().mean() < 2


@pytest.mark.slow
def test_a_run_of_the_first_reader_goes_on_with_it(tmp_path):
    large_jpegs(tmp_path / "data")
    data = data_part(str(tmp_path / "data"))
    old = finished(reading(data, reader=1))
    assert data_report(old)["fingerprint"] != data_report(finished(reading(data)))["fingerprint"]
    run, recipe = tmp_path / "run", tiny(4).model_copy(update={"data": data})
    finish(prepare(recipe, run, splits=old))
    report = json.loads((run / "data-report.json").read_text())
    del report["reader"]  # as older versions wrote it
    (run / "data-report.json").write_text(json.dumps(report))
    again = prepare(recipe, run)
    assert again.resumes and again.splits.report["reader"] == 1


def changed(before, now):
    told = [{**data_report(s), "items": items_of(s)} for s in (before, now)]
    with pytest.raises(UserError) as caught:
        compare(*told, "run")
    assert caught.value.code == "E-DATA-CHANGED"
    return caught.value.got


def test_d7_changed_data_names_its_files(folder):
    before = build("data", part(folder))
    save(folder / "a" / "new.png", 999)
    assert "added: a/new.png" in changed(before, build("data", part(folder)))
    (folder / "a" / "new.png").unlink()
    (folder / "b" / "é3.png").rename(folder / "b" / "zz.png")
    assert changed(before, build("data", part(folder))) == "renamed: b/é3.png -> b/zz.png"
    (folder / "b" / "zz.png").rename(folder / "b" / "é3.png")
    data = (folder / "a" / "é4.png").read_bytes()
    save(folder / "a" / "é4.png", 998)
    assert "changed: a/é4.png" in changed(before, build("data", part(folder)))
    (folder / "a" / "é4.png").unlink()
    assert "removed: a/é4.png" in changed(before, build("data", part(folder)))
    (folder / "a" / "é4.png").write_bytes(data)
    aged(folder)
    told = [{**data_report(s), "items": items_of(s)} for s in (before, build("data", part(folder)))]
    compare(*told, "run")


def test_d7_runs_without_a_list_of_files_do_not_blame_the_pixels(folder):
    before = data_report(build("data", part(folder)))
    (folder / "b" / "é3.png").rename(folder / "b" / "zz.png")
    with pytest.raises(UserError, match="other names of the files"):
        compare(before, data_report(build("data", part(folder))), "run")


def test_d7_a_run_keeps_what_its_files_were(folder, tmp_path):
    recipe = tiny(4).model_copy(update={"data": part(folder)})
    splits, run = finished(reading(recipe.data)), Run(tmp_path / "run")
    list(train(prepare(recipe, run.path)))
    assert "items" not in run.data_report() and len(run.data_items()["train"]) == len(splits.train)
    assert prepare(recipe, run.path).resumes
    (folder / "b" / "é3.png").rename(folder / "b" / "zz.png")
    with pytest.raises(UserError, match=r"renamed: b/é3\.png -> b/zz\.png") as caught:
        prepare(recipe, run.path)
    assert caught.value.code == "E-DATA-CHANGED"
    (run.path / "data-items.json").write_text("{torn")
    with pytest.raises(UserError, match="other names of the files"):
        prepare(recipe, run.path)
