import gzip
import hashlib
import os
from pathlib import Path

import pytest
import torch

from steerable.core.errors import UserError
from steerable.datasets.digits import digits
from steerable.datasets.fashion import fashion

# Sums of bytes of single pictures, computed from the official IDX files.
TRAIN_SUMS, TEST_SUMS, TRAIN_TOTAL = [84598, 76247, 47694], [83873, 79746], 344160204


def fingerprints(x):
    return [hashlib.sha256(item.numpy().tobytes()).digest() for item in x]


def check(splits, train, held_out, classes):
    assert (len(splits.train), len(splits.held_out)) == (train, held_out)
    assert (len(splits.train), len(splits.held_out)) == (train, held_out)
    for part in (splits.train, splits.held_out):
        assert part.x.dtype == torch.uint8 and part.x.shape[1:] == part.spec.shape
        assert part.cond["label"].dtype == torch.int64 and len(part.cond["label"]) == len(part)
        assert len(part.spec.labels["label"]) == classes
    # The std, straight from its definition.
    values = splits.train.x.to(torch.float64) / 127.5 - 1.0
    assert splits.train.spec.std == pytest.approx(float(values.std(correction=0)), rel=1e-9)


def test_embedded_fashion():
    splits = fashion(source="embedded")
    check(splits, 6000, 1000, 10)
    assert splits.report["source"] == "embedded"
    assert splits.train.spec.shape == (1, 28, 28) and not splits.train.spec.flip
    assert splits.train.spec.labels["label"][0] == "t-shirt"
    assert splits.train.cond["label"].bincount().tolist() == [600] * 10
    assert splits.held_out.cond["label"].bincount().tolist() == [100] * 10
    assert splits.train.cond["label"][:20].tolist() == [*range(10)] * 2
    train, held_out = fingerprints(splits.train.x), fingerprints(splits.held_out.x)
    assert len(set(train)) == 6000 and not set(train) & set(held_out)
    assert splits.train.x[[0, 9, 5999]].sum((1, 2, 3), dtype=torch.int64).tolist() == TRAIN_SUMS
    assert splits.held_out.x[[0, 999]].sum((1, 2, 3), dtype=torch.int64).tolist() == TEST_SUMS
    assert int(splits.train.x.sum(dtype=torch.int64)) == TRAIN_TOTAL


def test_digits():
    splits = digits()
    check(splits, 1437, 360, 10)
    assert splits.train.spec.shape == (1, 8, 8) and not splits.train.spec.flip
    assert splits.train.spec.labels["label"] == tuple("0123456789")
    assert min(splits.train.cond["label"].bincount()) >= 130
    assert min(splits.held_out.cond["label"].bincount()) >= 25
    train, held_out = fingerprints(splits.train.x), fingerprints(splits.held_out.x)
    assert len(set(train)) == 1437 and not set(train) & set(held_out)
    # Item 0 is held out, a zero; its first rows as in the published table, times 255 / 16.
    assert int(splits.held_out.cond["label"][0]) == 0
    rows = torch.tensor([[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]])
    wanted = (rows * 255 / 16).round().to(torch.uint8)
    assert torch.equal(splits.held_out.x[0, 0, :2], wanted)
    assert int(splits.train.x.max()) == 255


@pytest.mark.slow
@pytest.mark.skipif("STEERABLE_DATA" not in os.environ, reason="STEERABLE_DATA is not set")
def test_full_fashion():
    splits = fashion(source="full")
    assert splits.report["source"] == "full"
    check(splits, 60_000, 10_000, 10)
    assert splits.train.cond["label"].bincount().tolist() == [6000] * 10
    assert splits.held_out.cond["label"].bincount().tolist() == [1000] * 10
    train, held_out = set(fingerprints(splits.train.x)), set(fingerprints(splits.held_out.x))
    assert len(train) == 60_000 and not train & held_out
    small = fashion(source="embedded")
    assert set(fingerprints(small.train.x)) < train
    assert set(fingerprints(small.held_out.x)) < held_out
    assert fashion().report["source"] == "full"


def test_full_fashion_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.delenv("STEERABLE_DATA", raising=False)
    with pytest.raises(UserError) as caught:
        fashion(source="full")
    assert caught.value.code == "E-DATA" and "STEERABLE_DATA" in str(caught.value)
    monkeypatch.setenv("STEERABLE_DATA", str(tmp_path))
    assert fashion().report["source"] == "embedded"
    with pytest.raises(UserError) as caught:
        fashion(source="maybe")
    assert caught.value.code == "E-CONFIG"


def write_idx(folder: Path, *, pictures: int = 20, cut: int = 0, word: int = 28):
    folder.mkdir(exist_ok=True)
    for part in ("train", "t10k"):
        head = b"".join(n.to_bytes(4, "big") for n in (0x0803, pictures, word, 28))
        body = head + bytes(range(256)) * (pictures * word * 28 // 256 + 1)
        body = body[: len(head) + pictures * word * 28 - cut]
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(body))
        labels = (0x0801).to_bytes(4, "big") + (20).to_bytes(4, "big") + bytes(range(10)) * 2
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def test_idx_files_are_read_and_checked(monkeypatch, tmp_path):
    monkeypatch.setenv("STEERABLE_DATA", str(tmp_path))
    folder = tmp_path / "fashion-mnist"
    write_idx(folder)
    splits = fashion()
    check(splits, 20, 20, 10)
    flat = splits.train.x.flatten()
    assert torch.equal(flat, (torch.arange(len(flat)) % 256).to(torch.uint8))
    for fault in ({"cut": 1}, {"pictures": 21}, {"word": 14}):
        write_idx(folder, **fault)
        with pytest.raises(UserError) as caught:
            fashion(source="full")
        assert caught.value.code == "E-DATA"
    broken = folder / "train-images-idx3-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError) as caught:
        fashion(source="full")
    assert caught.value.code == "E-DATA" and broken.name in str(caught.value)
