"""Kept features are those that would be computed; the FID is the published one or none."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from steerable.core.errors import UserError
from steerable.datasets.digits import digits
from steerable.extractors.pixels import Pixels
from steerable.jobs import durable
from steerable.jobs import features as module
from steerable.jobs import reference_fid as fid
from steerable.jobs.features import cache_folder, features_of
from steerable.jobs.fitting import digest, plain
from steerable.jobs.judge import train_judge
from steerable.jobs.reference_fid import reference_fid
from steerable.metrics.frechet import Frechet
from steerable.nn import extraction

from ..mutants import altered


@dataclasses.dataclass
class Counting:
    """An extractor that counts how often it is asked; one weight and one flag decide."""

    weight: float = 1.5
    antialias: bool = True
    asked: int = 0
    name: str = "counting"

    @property
    def sha256(self):
        return extraction.digest({"w": torch.tensor(self.weight)}, {"antialias": self.antialias})

    def features(self, x):
        self.asked += 1
        rows = x.double().flatten(1)[:, :6] * self.weight + 1 / 3
        return rows if self.antialias else -rows


def pictures(n=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 255, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)


def check_hits_and_misses(room, folder):
    """The same again is a hit, bit for bit; one pixel, weight, flag or another shape is a miss."""
    extractor, x = Counting(), pictures()
    fresh = room.features_of(extractor, x, cache=folder)
    kept = room.features_of(extractor, x, cache=folder)
    assert extractor.asked == 1, "computed twice"
    assert torch.equal(kept, fresh) and torch.equal(
        kept, room.features_of(Counting(), x, cache=None)
    )
    assert kept.dtype == torch.float64
    pixel = x.clone()
    pixel[3, 0, 2, 1] += 1
    changes = [
        (Counting(), pixel),
        (Counting(weight=1.5 + 2**-20), x),
        (Counting(antialias=False), x),
        (Counting(), x.reshape(5, 1, 2, 8)),
        (Counting(), x.flip(0)),
    ]
    misses = 0
    for other, seen in changes:
        rows = room.features_of(other, seen, cache=folder)
        assert torch.equal(rows, dataclasses.replace(other).features(seen))
        misses += other.asked
    assert misses == len(changes)


def test_hits_and_misses(tmp_path):
    check_hits_and_misses(module, tmp_path / "a" / "features")
    assert len(list((tmp_path / "a" / "features").iterdir())) == 6


WRONG = {
    "extractor forgotten": ('f"1 {extractor.sha256} {x.dtype} {', 'f"1 {x.dtype} {'),
    "shape forgotten": ("{tuple(x.shape)}", ""),
    "first pictures only": (".split(1024):", ".split(1024)[:0]:"),
    "kept as float32": ('"features": features.contiguous()}', '"features": features.float()}'),
}


@pytest.mark.filterwarnings("ignore:kept features:RuntimeWarning")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_caches_are_noticed(name, tmp_path):
    with pytest.raises(AssertionError):
        check_hits_and_misses(altered("jobs.features", *WRONG[name]), tmp_path)


def _rewritten(data, change):
    """The file with something changed and everything else in order."""
    size = int.from_bytes(data[:8], "little")
    note = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["features"])
    rows = load(data)["features"]
    if change == "shape":
        rows = rows[:-1].clone()
    elif change == "infinite":
        rows[0, 0] = float("inf")
    elif change == "key":
        note["key"] = "0" * 64
    if change != "lie":
        note["sha256"] = module._sum(rows)
    else:
        rows[1, 1] += 1e-9
    return save({"features": rows}, metadata={"features": json.dumps(note)})


DAMAGES = {
    "cut": lambda d: d[:-5],
    "empty": lambda d: b"",
    "bit of the numbers": lambda d: d[:-3] + bytes([d[-3] ^ 1]) + d[-2:],
    "bit of the header": lambda d: d[:20] + bytes([d[20] ^ 1]) + d[21:],
    "a pickle": lambda d: b"\x80\x04N.",
    "no note": lambda d: save(load(d)),
    **{
        change: lambda d, change=change: _rewritten(d, change)
        for change in ("shape", "infinite", "key", "lie")
    },
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_computed_anew_and_said_so(name, tmp_path):
    x, extractor = pictures(), Counting()
    fresh = features_of(extractor, x, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(DAMAGES[name](whole))
    with pytest.warns(RuntimeWarning, match="damaged, computed anew"):
        assert torch.equal(features_of(extractor, x, cache=tmp_path), fresh)
    assert extractor.asked == 2
    assert file.read_bytes() == whole, "mended"


def test_every_bit_counts(tmp_path):
    """Bits flipped all over a file: the numbers are right, whatever happened."""
    x, extractor = pictures(2), Counting()
    fresh = features_of(extractor, x, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole, noticed = file.read_bytes(), 0
    for at in range(0, len(whole), 17):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.warns() as caught:
            assert torch.equal(features_of(extractor, x, cache=tmp_path), fresh)
            module._warn("one at least, so that the recorder has something")
        noticed += len(caught) == 2
    assert noticed == len(range(0, len(whole), 17))


def test_a_cache_that_cannot_be_kept_stops_nothing(tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    x = pictures()
    with pytest.warns(RuntimeWarning, match="features not kept"):
        rows = features_of(Counting(), x, cache=in_the_way / "features")
    assert torch.equal(rows, Counting().features(x))

    class ReadOnly:
        def __getattr__(self, name):
            return getattr(real, name)

        def open(self, path, flags):
            if flags & os.O_CREAT:
                raise OSError(30, "Read-only file system")
            return real.open(path, flags)

    real = durable.disk
    monkeypatch.setattr(durable, "disk", ReadOnly())
    with pytest.warns(RuntimeWarning, match="Read-only file system"):
        rows = features_of(Counting(), x, cache=tmp_path)
    assert torch.equal(rows, Counting().features(x))
    assert sorted(tmp_path.iterdir()) == [in_the_way]


def test_a_folder_in_place_of_a_file_stops_nothing(tmp_path):
    extractor, x = Counting(), pictures()
    (tmp_path / f"{module._key(extractor, x)}.safetensors").mkdir()
    with pytest.warns(RuntimeWarning) as caught:
        rows = features_of(extractor, x, cache=tmp_path)
    assert torch.equal(rows, Counting().features(x))
    assert ["not read" in str(w.message) for w in caught] == [True, False]


def test_what_was_longest_not_used_goes(tmp_path, monkeypatch):
    sets = [pictures(5, seed) for seed in range(4)]
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"x" * 5000)
    for at, x in enumerate(sets[:3]):
        features_of(Counting(), x, cache=tmp_path)
        file = tmp_path / f"{module._key(Counting(), x)}.safetensors"
        os.utime(file, (at + 1.0, at + 1.0))
    size = file.stat().st_size
    left = tmp_path / f".{'0' * 64}.safetensors.tmp-1-2-3"  # of a writer that was killed
    left.write_bytes(b"x" * 10)
    os.utime(left, (0.0, 0.0))
    features_of(Counting(), sets[0], cache=tmp_path)  # used again: now the youngest
    monkeypatch.setattr(module, "BOUND", 3 * size)
    features_of(Counting(), sets[3], cache=tmp_path)
    asked = []
    for x in (sets[0], sets[2], sets[3], sets[1]):
        extractor = Counting()
        features_of(extractor, x, cache=tmp_path)
        asked.append(extractor.asked)
    assert asked == [0, 0, 0, 1]
    assert other.exists() and not left.exists()
    monkeypatch.setattr(module, "BOUND", size - 1)
    with pytest.warns(RuntimeWarning, match="not kept"):
        features_of(Counting(), pictures(5, 9), cache=tmp_path)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("STEERABLE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "own" / "features"
    monkeypatch.delenv("STEERABLE_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "steerable" / "features"
    home = tmp_path / "home" / ".cache" / "steerable" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == home
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == home

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.warns(RuntimeWarning, match="no home folder"):
        assert cache_folder() is None


def test_a_judge_is_an_extractor(tmp_path):
    splits = digits()
    judge = train_judge(splits.train, splits.held_out, seconds=1)
    x = splits.held_out.x[:40]
    rows = features_of(judge, x, cache=tmp_path)
    assert torch.equal(rows, judge.look(x)[0]) and "10 classes" in judge.name
    assert torch.equal(features_of(judge, x, cache=tmp_path), rows)
    # One weight of the network, and the hash that goes with it.
    judge.net.state_dict()["out.bias"][0] += 1.0
    other = dataclasses.replace(judge, sha256=digest(plain(judge.net)))
    features_of(other, x, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_features_that_are_not_finite_are_refused_and_not_kept(tmp_path):
    with pytest.raises(UserError) as caught:
        features_of(Counting(weight=float("inf")), pictures() + 1, cache=tmp_path)
    assert caught.value.code == "E-NUM" and not list(tmp_path.iterdir())
    with pytest.raises(UserError) as caught:
        features_of(Pixels(), pictures().float(), cache=tmp_path)
    assert caught.value.code == "E-SHAPE"


def test_no_fid_without_the_reference_tool(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match=r'pip install "steerable\[eval-ref\]"') as caught:
        reference_fid(pictures(70), pictures(70, 1))
    assert caught.value.code == "E-EXTRA"


def check_error(room):
    """The distance is that of the metric; its error is the spread over new samples."""
    torch.manual_seed(5)
    real = torch.randn(1000, 3, dtype=torch.float64)
    lean = torch.tensor([[1.2, 0.0, 0.0], [0.4, 0.7, 0.0], [0.0, 0.3, 1.0]], dtype=torch.float64)
    reference = Frechet()
    reference.update(real)
    mean, covariance = reference.moments()
    distances, errors = [], []
    for _ in range(60):
        samples = torch.randn(300, 3, dtype=torch.float64) @ lean + 0.3
        own = Frechet()
        own.update(samples)
        distances.append(own.distance(reference))
        near = room._distance(own, mean, torch.linalg.cholesky(covariance))
        assert float(near) == pytest.approx(distances[-1], rel=1e-9)
        errors.append(room._error(samples, real))
    # The spread of 60 numbers is known to a tenth; three of that.
    ratio = torch.tensor(errors).square().mean().sqrt() / torch.tensor(distances).std()
    assert float(ratio) == pytest.approx(1.0, abs=0.3)


WRONG_ERRORS = {
    "means forgotten": ("(own_mean - mean).square().sum() + own", "own"),
    "trace of the root": ("root.square().sum()", "root.sum()"),
    "no root": (".clamp(min=0.0).sqrt().sum()\n    return", ".clamp(min=0.0).sum()\n    return"),
    "groups of neighbours only": ("merge(parts[g])", "merge(parts[0])"),
}


def test_the_error_of_a_reference_fid():
    check_error(fid)


@pytest.mark.parametrize("name", WRONG_ERRORS)
def test_wrong_errors_are_noticed(name):
    with pytest.raises(AssertionError):
        check_error(altered("jobs.reference_fid", *WRONG_ERRORS[name]))


def test_pictures_of_a_reference_fid_come_from_folders(tmp_path):
    def put(name, size, mode="RGB", colour=(255, 0, 10)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new(mode, size, colour).save(tmp_path / name)

    put("a/1.png", (5, 4))
    put("b/2.png", (5, 4), "L", 7)
    (tmp_path / "notes.txt").write_text("no picture")
    x = fid._pictures(tmp_path, "samples")
    assert x.shape == (2, 3, 4, 5) and x[0, :, 0, 0].tolist() == [255, 0, 10]
    assert x[1].unique().tolist() == [7]
    put("b/3.png", (4, 5))
    (tmp_path / "empty").mkdir()
    refused = {tmp_path: "E-SHAPE", tmp_path / "none": "E-CONFIG", tmp_path / "empty": "E-EVAL"}
    (tmp_path / "empty" / "a.txt").write_text("no picture")
    for folder, code in refused.items():
        with pytest.raises(UserError) as caught:
            fid._pictures(folder, "samples")
        assert caught.value.code == code
    (tmp_path / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        fid._pictures(tmp_path, "samples")
    assert caught.value.code == "E-DATA" and "0.png" in caught.value.where
