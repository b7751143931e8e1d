"""Conditions from the columns of a table or the arrays of an .npz file of one's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from steerable.core.condition import absent
from steerable.core.errors import UserError
from steerable.datasets.images import images

KINDS = {"colour": "label", "size": "vector", "caption": "tokens"}


def rows(n=60):
    """Row i: every third colour is missing; the size is i and -i; every caption is different."""
    return [
        {
            "file_name": f"{i:02}.png",
            "label": "ab"[i % 2],
            "colour": None if i % 3 == 0 else ("red", "blue")[i % 2],
            "size": [i, -i],
            "caption": f"A Thing, number {i}",
        }
        for i in range(n)
    ]


def fill(root, table):
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    for row in table:
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(root / row["file_name"])
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, table)))
    return str(root)


def refused(code="E-DATA", **options):
    with pytest.raises(UserError) as caught:
        images(**options)
    assert caught.value.code == code and caught.value.takes
    return str(caught.value)


def test_values_stay_with_their_pictures(tmp_path):
    table = {row["file_name"]: row for row in rows()}
    splits = images(fill(tmp_path, rows()), columns=KINDS)
    spec = splits.train.spec
    assert spec.labels == {"label": ("a", "b"), "colour": ("blue", "red")}
    assert spec.vectors == {"size": ("size 1", "size 2")}
    low, high = splits.report["conditions"]["size"]["from_-1_to_1"]["size 1"]
    dropped = 0
    for part in (splits.train, splits.held_out):
        for i, name in enumerate(part.names):
            row, cond = table[name], {key: value[i] for key, value in part.cond.items()}
            assert spec.labels["label"][cond["label"]] == row["label"]
            found = spec.labels["colour"][cond["colour"]] if cond["colour"] >= 0 else None
            assert found == row["colour"]
            number = (cond["size"][0] + 1) / 2 * (high - low) + low
            assert number == pytest.approx(row["size"][0], abs=1e-4)
            assert cond["size"][1] == pytest.approx(-float(cond["size"][0]), abs=1e-5)
            words = [spec.tokens["caption"][k] for k in cond["caption"] if k >= 0]
            assert words[:3] == ["a", "thing", "number"]
            dropped += len(words) == 3
            assert words[3:] in ([], [str(int(name[:2]))])
    assert dropped == len(splits.held_out)  # their numbers are words that were never trained on
    facts = splits.report["conditions"]
    assert facts["colour"]["missing"] == 20 and facts["caption"]["unknown_in_held_out"] == dropped
    kinds = {name: value.dtype for name, value in splits.train.cond.items()}
    assert kinds["colour"] == kinds["caption"] == torch.int64 and kinds["size"] == torch.float32


def test_without_columns_nothing_changes_and_the_split_never_does(tmp_path):
    path = fill(tmp_path, rows())
    plain, more = images(path), images(path, columns=KINDS)
    assert list(plain.train.cond) == ["label"] and plain.report["conditions"] == {}
    assert torch.equal(plain.train.x, more.train.x) and plain.train.names == more.train.names
    assert torch.equal(plain.train.cond["label"], more.train.cond["label"])
    assert plain.report["fingerprint"] != more.report["fingerprint"]
    same = {key: value for key, value in plain.report.items() if key not in _OWN}
    assert same == {key: value for key, value in more.report.items() if key not in _OWN}


_OWN = {"fingerprint", "conditions"}


def test_a_csv_says_the_same_as_json(tmp_path):
    path = fill(tmp_path, rows())
    first = images(path, columns=KINDS)
    lines = ["file_name;label;colour;size;caption"]
    for row in rows():
        size = " ".join(map(str, row["size"]))
        lines.append(
            f'{row["file_name"]};{row["label"]};{row["colour"] or ""};{size};"{row["caption"]}"'
        )
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    second = images(path, columns=KINDS)
    assert first.train.spec == second.train.spec
    for name, value in first.train.cond.items():
        assert torch.equal(value, second.train.cond[name])


def test_labels_that_are_missing(tmp_path):
    table = rows()
    for i in range(0, 60, 10):
        table[i]["label"] = ""
    path = fill(tmp_path, table)
    assert "no label" in refused(path=path)
    splits = images(path, columns={"label": "label"})
    assert splits.train.spec.labels == {"label": ("a", "b")}
    every = torch.cat([splits.train.cond["label"], splits.held_out.cond["label"]])
    assert absent(every).sum() == 6 and splits.report["conditions"]["label"] == {"missing": 6}
    assert len(every) == 60 and splits.report["bad"] == []


def test_a_label_that_is_a_number_or_a_text(tmp_path):
    table = [{**row, "label": i} for i, row in enumerate(rows())]
    path = fill(tmp_path, table)
    splits = images(path, columns={"label": "vector"})
    assert splits.train.spec.labels == {} and splits.train.spec.vectors == {"label": ("label",)}
    assert splits.train.cond["label"].min() == -1 and splits.train.cond["label"].max() == 1
    assert images(path, columns={"label": "tokens"}).train.cond["label"].shape[1] == 1


def test_bad_values_are_bad_rows(tmp_path):
    table = rows()
    table[7]["size"], table[9]["caption"] = "wide", {"a": 1}
    path = fill(tmp_path, table)
    bad = {row["name"]: row["reason"] for row in images(path, columns=KINDS).report["bad"]}
    assert set(bad) == {"07.png", "09.png"}
    assert "size: 'wide' is not a number" in bad["07.png"] and "line 8" in bad["07.png"]
    assert "07.png" in refused(path=path, columns=KINDS, on_bad="error")
    assert images(path).report["bad"] == []


def test_npz(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "a.npz"
    arrays = {
        "images": rng.integers(0, 256, (40, 8, 8), np.uint8),
        "labels": np.arange(40) % 2,
        "colour": np.array(["red", ""] * 20),
        "size": np.stack([np.arange(40), np.full(40, np.nan)], 1)[:, :1].astype(np.float32),
        "pose": rng.normal(size=(40, 3)),
        "caption": np.array([f"Thing, {i % 4}" for i in range(40)]),
    }
    arrays["pose"][5] = np.nan
    np.savez(path, **arrays)
    splits = images(str(path), columns={**KINDS, "pose": "vector"})
    assert splits.train.spec.vectors["pose"] == ("pose 1", "pose 2", "pose 3")
    gone = sum(int(absent(p.cond["pose"]).sum()) for p in (splits.train, splits.held_out))
    assert gone == splits.report["conditions"]["pose"]["missing"] == 1
    for part in (splits.train, splits.held_out):
        for i, name in enumerate(part.names):
            k = int(name[7:-1])
            assert int(part.cond["label"][i]) == k % 2
            assert int(part.cond["colour"][i]) == (0 if k % 2 == 0 else -1)
            assert part.spec.tokens["caption"][part.cond["caption"][i, 1]] == str(k % 4)
    assert "no array `weight`" in refused(path=str(path), columns={"weight": "vector"})
    for wrong in ({"pose": "tokens"}, {"pose": "label"}, {"size": "label"}):
        assert "of the shape" in refused(path=str(path), columns=wrong)
    del arrays["labels"]
    np.savez(path, **arrays, label=np.arange(40) % 2)
    assert images(str(path)).train.cond == {}
    assert images(str(path), columns={"label": "label"}).train.spec.labels["label"] == ("0", "1")


def test_npz_of_pictures_alone_has_no_labels_whatever_else_is_in_it(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "tiles.npz", images=pixels, row_col=np.zeros((40, 2), np.uint8))
    splits = images(str(tmp_path / "tiles.npz"))
    assert splits.train.cond == {} and splits.train.spec.labels == {}
    assert (len(splits.train), len(splits.held_out)) == (36, 4)


def test_refusals(tmp_path):
    path = fill(tmp_path / "a", rows())
    assert "no column 'size of it'" in refused(path=path, columns={"size of it": "vector"})
    table = [{**row, "size": 3} for row in rows()]
    words = refused(path=fill(tmp_path / "b", table), columns={"size": "vector"})
    assert "is 3 for all of the training part" in words
    (tmp_path / "a" / "metadata.jsonl").unlink()
    assert "no table" in refused(path=path, columns=KINDS)
    for columns in ({"type": "label"}, {"train": "label"}, {"a.b": "label"}, {"a": "words"}):
        refused("E-CONFIG", path=path, columns=columns)
