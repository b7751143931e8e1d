"""Pictures of one's own: layouts, splits, reports and the faults of real folders."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from steerable.core.errors import UserError
from steerable.datasets.images import images
from steerable.intake.scanning import Look, Scan


def save(path, seed, *, size=(12, 12), channels=1):
    """A picture of noise, different for each seed; size is (height, width)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, channels), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path)
    return pixels


def fill(root, counts, **options):
    """Class folders with `counts` pictures each."""
    for c, (name, n) in enumerate(counts.items()):
        for i in range(n):
            save(root / name / f"{i:03}.png", 1000 * c + i, **options)
    return root


def refused(code="E-DATA", **options):
    with pytest.raises(UserError) as caught:
        images(**options)
    assert caught.value.code == code and caught.value.takes
    return str(caught.value)


def everything(splits):
    """name -> (pixels, label or None, whether held out)."""
    found = {}
    for out, part in ((False, splits.train), (True, splits.held_out)):
        for i, name in enumerate(part.names):
            label = part.spec.labels["label"][int(part.cond["label"][i])] if part.cond else None
            found[name] = (part.x[i].numpy(), label, out)
    return found


def test_class_folders_names_pixels_and_labels_stay_together(tmp_path):
    fill(tmp_path, {"café noir": 20, "猫": 30, "a b": 10}, size=(48, 64), channels=3)
    save(tmp_path / "猫" / "deep" / "er.png", 7, size=(48, 64), channels=3)
    splits = images(str(tmp_path), flip=True)
    assert splits.train.spec.shape == (3, 48, 64) and splits.train.spec.flip
    assert splits.train.spec.labels == {"label": ("a b", "café noir", "猫")}
    found = everything(splits)
    assert len(found) == 61
    for name, (pixels, label, _) in found.items():
        assert name.split("/")[0] == label
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(image))
    report = splits.report
    assert report["classes"]["猫"] == {"train": 28, "held_out": 3}
    assert (report["n"], report["n_train"], report["n_held_out"]) == (61, 55, 6)
    assert report["name"] == tmp_path.name and report["source"] == "class folders"
    assert str(tmp_path) not in json.dumps(report).replace(f'"name": "{tmp_path.name}"', "")
    values = splits.train.x.double() / 127.5 - 1
    assert splits.train.spec.std == pytest.approx(float(values.std(correction=0)), rel=1e-9)


def test_flat_folder_has_no_labels(tmp_path):
    for i in range(20):
        save(tmp_path / f"{i}.png", i)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    splits = images(str(tmp_path))
    assert splits.train.spec.labels == {} and splits.train.cond == {}
    assert (len(splits.train), len(splits.held_out)) == (18, 2)
    assert splits.report["ignored"] == 2 and splits.report["bad"] == []
    assert splits.train.spec.shape == (1, 12, 12)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "csv-bom", "csv-semicolon", "csv-utf16"])
def test_d6_tables(tmp_path, kind):
    for i in range(20):
        save(tmp_path / "sub dir" / f"{i}.png", i)
    save(tmp_path / "unlisted.png", 99)
    rows = [(f"sub dir/{i}.png", "é, x" if i % 2 else "b") for i in range(20)]
    if kind == "jsonl":
        text = "\n".join(json.dumps({"file_name": n, "label": v}) for n, v in rows)
        (tmp_path / "metadata.jsonl").write_text(text)
    else:
        mark = ";" if "semicolon" in kind else ","
        text = f"file_name{mark}label\r\n" + "".join(f'{n}{mark}"{v}"\r\n' for n, v in rows)
        encoding = {"csv-bom": "utf-8-sig", "csv-utf16": "utf-16"}.get(kind, "utf-8")
        (tmp_path / "metadata.csv").write_bytes(text.encode(encoding))
    splits = images(str(tmp_path))
    assert splits.train.spec.labels == {"label": ("b", "é, x")}
    for name, (_, label, _) in everything(splits).items():
        assert label == dict(rows)[name]
    assert "1 pictures are not listed" in splits.report["warnings"][0]


def test_tables_whole_numbers_no_labels_and_bad_rows(tmp_path):
    for i in range(60):
        save(tmp_path / f"{i}.png", i)
    rows = [{"file_name": f"{i}.png", "label": i % 12} for i in range(60)]
    table = tmp_path / "metadata.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    assert images(str(tmp_path)).train.spec.labels["label"] == tuple(map(str, range(12)))
    table.write_text("\n".join(json.dumps({"file_name": r["file_name"]}) for r in rows))
    assert images(str(tmp_path)).train.spec.labels == {}
    bad = [{"file_name": "../secret.png", "label": 1}, {"file_name": "/etc/x.png", "label": 1}]
    table.write_text("\n".join(map(json.dumps, [*rows, *bad])) + "\n{torn")
    report = images(str(tmp_path)).report
    reasons = [row["reason"] for row in report["bad"]]
    assert len(reasons) == 3 and "not JSON" in " ".join(reasons)
    assert sum("not a place inside" in why for why in reasons) == 2
    del rows[3]["label"]
    table.write_text("\n".join(map(json.dumps, rows)))
    assert "no label" in images(str(tmp_path)).report["bad"][0]["reason"]
    (tmp_path / "metadata.csv").write_text("file_name\n")
    assert "both" in refused(path=str(tmp_path))
    table.unlink()
    (tmp_path / "metadata.csv").write_text("name,label\n1.png,2\n")
    assert "'name'" in refused(path=str(tmp_path))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz(tmp_path, write):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 10, 12, 3), np.uint8)
    labels = np.arange(40) % 11
    path = tmp_path / "my set.npz"
    write(path, images=pixels, labels=labels)
    splits = images(str(path))
    assert splits.train.spec.name == "my set" and splits.train.spec.shape == (3, 10, 12)
    assert splits.train.spec.labels["label"] == tuple(map(str, range(11)))
    for name, (x, label, _) in everything(splits).items():
        i = int(name[7:-1])
        np.testing.assert_array_equal(x.transpose(1, 2, 0), pixels[i])
        assert label == str(labels[i])
    write(path, images=pixels[..., 0], labels=np.array(["ü", "b"] * 20), names=np.arange(40))
    splits = images(str(path))
    assert splits.train.spec.shape == (1, 10, 12)
    assert splits.train.spec.labels["label"] == ("b", "ü")
    write(path, images=pixels)
    assert images(str(path)).train.spec.labels == {}


def test_npz_faults(tmp_path):
    path, good = tmp_path / "a.npz", np.zeros((4, 8, 8), np.uint8)
    cases = [
        ({"x": good}, "no array `images`"),
        ({"images": good.astype(np.float32)}, "float32"),
        ({"images": np.zeros((4, 3, 8, 8), np.uint8)}, "transpose"),
        ({"images": np.zeros((4, 8, 8, 2), np.uint8)}, "shape"),
        ({"images": good, "labels": np.zeros(3, int)}, "labels"),
        ({"images": good, "labels": np.zeros(4)}, "float64"),
        ({"images": good, "labels": np.array([{}] * 4)}, "Python objects"),
        ({"images": np.asfortranarray(np.ones((4, 8, 9), np.uint8))}, "Fortran"),
        ({"images": np.zeros((300_000, 16, 16), np.uint8)}, "over 500:1"),
    ]
    for arrays, words in cases:
        np.savez_compressed(path, **arrays)
        assert words in refused(path=str(path))
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[:900])
    assert "damaged" in refused(path=str(path))
    whole[700] ^= 1
    path.write_bytes(whole)
    assert "CRC" in refused(path=str(path))
    path.write_bytes(whole.replace(b"(40, 8, 8)", b"(99, 8, 8)"))
    assert "damaged" in refused(path=str(path))


def test_sizes(tmp_path):
    fill(tmp_path / "big", {"a": 3, "b": 3}, size=(80, 100))
    splits = images(str(tmp_path / "big"))
    assert splits.train.spec.shape == (1, 52, 64)
    assert "100 x 80" in splits.report["size"]["reason"]
    for i in range(5):
        save(tmp_path / "mixed" / f"{i}.png", i, size=(20 + i, 30 + 3 * i))
    splits = images(str(tmp_path / "mixed"))
    assert splits.train.spec.shape == (1, 24, 36)  # the medians are 22 and 36
    assert "median of 5 sizes" in splits.report["size"]["reason"]
    assert {"height": 24, "width": 42, "n": 1} in splits.report["sizes"]
    assert images(str(tmp_path / "mixed"), size=(11, 7)).train.spec.shape == (1, 11, 7)
    assert images(str(tmp_path / "mixed"), size=(44, 0)).train.spec.shape == (1, 44, 72)
    assert images(str(tmp_path / "mixed"), size=13).train.spec.shape == (1, 13, 13)


def test_channels_take_the_fewest_that_lose_nothing(tmp_path):
    for i in range(4):
        grey = save(tmp_path / "grey" / f"{i}.png", i)
        Image.fromarray(np.repeat(grey, 3, axis=2)).save(tmp_path / "grey" / f"rgb{i}.png")
        pixels = save(tmp_path / "clear" / f"{i}.png", i, channels=4)
        save(tmp_path / "over" / f"{i}.png", i, channels=4)
        pixels[..., 3] = 255
        (tmp_path / "solid").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "solid" / f"{i}.png")
    save(tmp_path / "over" / "x.png", 9, channels=3)
    shapes = {"grey": 1, "clear": 4, "over": 3, "solid": 3}
    for name, channels in shapes.items():
        splits = images(str(tmp_path / name))
        assert splits.train.spec.shape == (channels, 12, 12), name
    found = everything(images(str(tmp_path / "solid")))
    with Image.open(tmp_path / "solid" / "2.png") as image:
        np.testing.assert_array_equal(
            found["2.png"][0].transpose(1, 2, 0), np.asarray(image)[..., :3]
        )
    found = everything(images(str(tmp_path / "over"), background="#0a0b0c"))
    with Image.open(tmp_path / "over" / "1.png") as image:
        pixels = np.asarray(image).astype(float)
    share = pixels[..., 3:] / 255
    truth = pixels[..., :3] * share + np.array([10, 11, 12]) * (1 - share)
    assert np.abs(found["1.png"][0].transpose(1, 2, 0) - truth).max() <= 1
    assert images(str(tmp_path / "clear"), channels=1).train.spec.shape == (1, 12, 12)
    report = images(str(tmp_path / "over")).report
    assert report["conversions"] == {"alpha over the background": 4}
    assert report["modes"] == {"RGBA": 4, "RGB": 1}


def test_d1_bad_files_are_listed_and_the_rest_is_untouched(tmp_path):
    fill(tmp_path, {"a": 30, "b": 30})
    clean = everything(images(str(tmp_path)))
    (tmp_path / "a" / "text.png").write_text("no picture")
    (tmp_path / "b" / "empty.jpg").touch()
    whole = (tmp_path / "b" / "001.png").read_bytes()
    (tmp_path / "b" / "cut.png").write_bytes(whole[:-30])
    splits = images(str(tmp_path))
    bad = {row["name"]: row["reason"] for row in splits.report["bad"]}
    assert set(bad) == {"a/text.png", "b/empty.jpg", "b/cut.png"}
    assert "not a PNG" in bad["a/text.png"] and "empty" in bad["b/empty.jpg"]
    assert "cut short" in bad["b/cut.png"]
    for name, (pixels, label, out) in everything(splits).items():
        np.testing.assert_array_equal(pixels, clean[name][0])
        assert (label, out) == clean[name][1:]
    assert "a/text.png" in refused(path=str(tmp_path), on_bad="error")
    (tmp_path / "a" / "more.png").write_text("no picture")
    words = refused(path=str(tmp_path))
    assert "4 of 64" in words and words.count(".png: ") + words.count(".png': ") >= 2


def test_d4_hostile_tree(tmp_path):
    fill(tmp_path, {"a": 60, "b": 60})
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "nowhere.png").symlink_to("missing")
    save(tmp_path / "b" / "line\nbreak.png", 5000)
    shutil.copy(tmp_path / "a" / "000.png", os.fsencode(tmp_path / "a") + b"/\xff\xfe.png")
    splits = images(str(tmp_path))
    bad = {row["name"]: row["reason"] for row in splits.report["bad"]}
    assert "a pipe" in bad["a/pipe.png"] and "a folder" in bad["a/folder.png"]
    assert "itself" in bad["a/self.png"] and "nothing" in bad["b/nowhere.png"]
    assert "already" in bad["b/up"] and len(bad) == 5
    found = everything(splits)
    assert len(found) == 122 and "b/line\nbreak.png" in found and "a/\\udcff\\udcfe.png" in found
    json.dumps(dict(splits.report), ensure_ascii=False).encode()


def test_d5_empty_class_one_class_and_one_picture(tmp_path):
    fill(tmp_path / "x", {"a": 10, "b": 10, "solo": 1})
    (tmp_path / "x" / "void").mkdir()
    splits = images(str(tmp_path / "x"))
    assert splits.train.spec.labels["label"] == ("a", "b", "solo")
    warnings = " ".join(splits.report["warnings"])
    assert "'void' has no picture" in warnings and "'solo': one picture" in warnings
    assert splits.report["classes"]["solo"] == {"train": 1, "held_out": 0}
    fill(tmp_path / "one", {"a": 5})
    assert (
        "one class only: the label says nothing" in images(str(tmp_path / "one")).report["warnings"]
    )
    fill(tmp_path / "pair", {"a": 2, "b": 3})
    report = images(str(tmp_path / "pair"), held_out=0.01).report
    assert [row["held_out"] for row in report["classes"].values()] == [1, 1]


def test_d5_a_class_of_bad_files_is_left_out(tmp_path):
    fill(tmp_path, {"a": 30, "c": 30})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.png").write_text("no picture")
    splits = images(str(tmp_path))
    assert splits.train.spec.labels["label"] == ("a", "c")
    assert set(splits.train.cond["label"].tolist()) == {0, 1}
    assert "class 'b' has no good picture and is left out" in splits.report["warnings"]


def test_d8_duplicates_stay_on_one_side(tmp_path):
    fill(tmp_path, {"a": 40, "b": 40})
    for name in ("a", "b"):
        for i in range(40):
            if i % 4 == 0:
                shutil.copy(tmp_path / name / f"{i:03}.png", tmp_path / name / f"copy{i}.png")
    for i in range(3):  # under both labels
        shutil.copy(tmp_path / "a" / f"{i + 1:03}.png", tmp_path / "b" / f"shared{i}.png")
    splits = images(str(tmp_path), held_out=0.3)
    sides = {}
    for pixels, _, out in everything(splits).values():
        sides.setdefault(pixels.tobytes(), set()).add(out)
    assert all(len(side) == 1 for side in sides.values())
    assert splits.report["duplicates"]["n"] == 23
    assert ["a/000.png", "a/copy0.png"] in splits.report["duplicates"]["groups"]
    assert any("3 pictures are in more than one class" in w for w in splits.report["warnings"])
    assert splits.report["classes"]["a"] == {"train": 35, "held_out": 15}
    assert not everything(splits)["b/shared1.png"][2]


def test_split_ignores_the_root_other_classes_and_file_names(tmp_path):
    fill(tmp_path / "one", {"m": 50, "n": 50})
    first = images(str(tmp_path / "one"), held_out=0.2)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    second = images(str(tmp_path / "two"), held_out=0.2)
    assert first.report["fingerprint"] == second.report["fingerprint"]
    assert torch.equal(first.train.x, second.train.x)
    assert first.train.names == second.train.names
    for i in range(30):
        save(tmp_path / "two" / "aaa" / f"{i}.png", 9000 + i)
    (tmp_path / "two" / "m" / "000.png").rename(tmp_path / "two" / "m" / "zzz.png")
    third = images(str(tmp_path / "two"), held_out=0.2)
    before = {pixels.tobytes(): out for pixels, _, out in everything(first).values()}
    after = {pixels.tobytes(): out for pixels, _, out in everything(third).values()}
    assert all(after[key] == out for key, out in before.items())
    assert third.report["fingerprint"] != first.report["fingerprint"]
    os.utime(tmp_path / "one" / "m" / "000.png", (1, 1))
    again = images(str(tmp_path / "one"), held_out=0.2).report
    assert again == first.report


def test_refusals_say_what_to_do(tmp_path):
    assert "does not exist" in refused(path=str(tmp_path / "nope"))
    refused(path="")
    assert "an empty folder" in refused(path=str(tmp_path))
    (tmp_path / "a.zip").write_text("x")
    assert "of a kind" in refused(path=str(tmp_path / "a.zip"))
    assert "1 .zip" in refused(path=str(tmp_path))
    save(tmp_path / "one" / "a.png", 1)
    assert "1 picture" in refused(path=str(tmp_path / "one"))
    shutil.copy(tmp_path / "one" / "a.png", tmp_path / "one" / "b.png")
    assert "two different pictures" in refused(path=str(tmp_path / "one"))
    fill(tmp_path / "splits", {"train/a": 3, "train/b": 3, "test/a": 3})
    assert "splits" in refused(path=str(tmp_path / "splits"))
    assert images(str(tmp_path / "splits" / "train")).train.spec.labels["label"] == ("a", "b")
    fill(tmp_path / "loose", {"a": 3})
    for i in range(5):
        save(tmp_path / "loose" / f"{i}.png", 50 + i)
    assert "beside the class folders" in refused(path=str(tmp_path / "loose"))
    for option, code in (
        ({"size": (-1, 0)}, "E-LIMIT"),
        ({"size": (0, 5000)}, "E-LIMIT"),
        ({"held_out": 0.9}, "E-LIMIT"),
        ({"channels": 2}, "E-CONFIG"),
        ({"background": "whitish"}, "E-CONFIG"),
        ({"on_bad": "ignore"}, "E-CONFIG"),
    ):
        refused(code, path=str(tmp_path), **option)


def test_split_folders_advise_the_training_part(tmp_path):
    fill(tmp_path, {"test/a": 3, "train/a": 3, "train/b": 3, "val/a": 2})
    (tmp_path / "annotations").mkdir()  # no pictures, so no class either
    words = refused(path=str(tmp_path))
    assert f"train on {tmp_path / 'train'}" in words
    assert f"--against {tmp_path / 'test'}" in words
    shutil.rmtree(tmp_path / "train")
    assert f"such as {tmp_path / 'test'}" in refused(path=str(tmp_path))
    fill(tmp_path / "vehicles", {"train": 5, "bus": 5})  # a class may have that name
    assert images(str(tmp_path / "vehicles")).train.spec.labels["label"] == ("bus", "train")


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("text", ["file_name,label\n", "file_name,label\n\n \n", ""])
def test_a_table_without_a_row_hides_no_pictures(tmp_path, table, text):
    for i in range(40):
        save(tmp_path / f"{i}.png", i)
    (tmp_path / table).write_text(text if table.endswith("csv") else "\n\n")
    words = refused(path=str(tmp_path))
    if text or table.endswith("jsonl"):
        assert "lists no picture" in words and "holds 40" in words and "remove" in words


@pytest.mark.parametrize("line", [2, 11, 31])
@pytest.mark.parametrize("kind", ["label", "name", "quoted", "closed by chance"])
def test_an_unclosed_quote_is_refused_with_its_line(tmp_path, line, kind):
    for i in range(30):
        save(tmp_path / f"{i}.png", i)
    rows = [f'{i}.png,"c, {i % 3}"' if kind == "quoted" else f"{i}.png,c{i % 3}" for i in range(30)]
    if kind == "name":
        rows[line - 2] = f'"{line - 2}.png,c1'
    else:
        rows[line - 2] = f'{line - 2}.png,"c1'
    if kind == "closed by chance" and line < 20:
        rows[20] = '20.png,5" disc'
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    words = refused(path=str(tmp_path))
    assert f"line {line}" in words and "quote" in words


def test_text_of_several_lines_between_quotes_is_welcome(tmp_path):
    for i in range(20):
        save(tmp_path / f"{i}.png", i)
    rows = [f'{i}.png,"a ""red""\nball, {"big" if i % 2 else "small"}"' for i in range(20)]
    (tmp_path / "metadata.csv").write_text("file_name,caption\n\n" + "\r\n".join(rows))
    splits = images(str(tmp_path), columns={"caption": "tokens"})
    assert splits.report["n"] == 20
    assert splits.train.spec.tokens["caption"] == ("a", "ball", "big", "red", "small")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "set.npz"])
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "link to nothing", "device"])
def test_d4_tables_and_archives_that_are_no_files_never_wait(tmp_path, name, kind):
    for i in range(4):
        save(tmp_path / f"{i}.png", i)
    odd = tmp_path / name
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        os.mkfifo(tmp_path / "pipe")
        target = {"link to a pipe": tmp_path / "pipe", "device": "/dev/zero"}.get(kind, "nowhere")
        odd.symlink_to(target)
    words = refused(path=str(odd if name.endswith("npz") else tmp_path))
    assert name in words


def decomposed(text):
    return unicodedata.normalize("NFD", text)


def test_names_of_files_match_in_every_unicode_form(tmp_path):
    for i in range(10):
        save(tmp_path / decomposed(f"café {i}.png"), i)
        save(tmp_path / f"Éclair {i}.PNG", 100 + i)
    rows = [f"café {i}.png,a" for i in range(10)]
    rows += [decomposed(f"éclair {i}.png") + ",b" for i in range(10)]
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + "\n".join(rows))
    splits = images(str(tmp_path))
    assert splits.report["n"] == 20 and splits.report["bad"] == []
    assert splits.report["warnings"] == []


def test_columns_are_found_in_any_case_and_form(tmp_path):
    for i in range(10):
        save(tmp_path / f"{i}.png", i)
    head = decomposed("file_name,Größe,Café")
    rows = [f"{i}.png,{i},{'xy'[i % 2]}" for i in range(10)]
    (tmp_path / "metadata.csv").write_text("\n".join([head, *rows]))
    spec = images(str(tmp_path), columns={"größe": "vector", "café": "label"}).train.spec
    assert spec.vectors == {"größe": ("größe",)} and spec.labels == {"café": ("x", "y")}
    assert "no column 'farbe'" in refused(path=str(tmp_path), columns={"farbe": "label"})
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, Size=np.arange(10.0))
    spec = images(str(tmp_path / "a.npz"), columns={"size": "vector"}).train.spec
    assert spec.vectors == {"size": ("size",)}


def test_npz_no_advice_to_load_what_is_not_to_be_trusted(tmp_path):
    path, pixels = tmp_path / "a.npz", np.zeros((4, 8, 8), np.uint8)
    wide = np.zeros(4, np.dtype([(f"f{i:05}", "u1") for i in range(2000)]))
    for arrays in (
        {"images": wide},
        {"images": pixels, "labels": wide},
        {"images": pixels, "labels": np.array([{}] * 4)},
    ):
        np.savez(path, **arrays)
        words = refused(path=str(path))
        assert "pickle" not in words and "max_header_size" not in words


@pytest.mark.parametrize("size", [(24, 0), (0, 0)])
def test_any_number_of_threads_gives_the_same(tmp_path, size):
    for i in range(30):
        save(tmp_path / f"{i}.{'jpg' if i % 3 else 'png'}", i, size=(200 + i, 300), channels=3)
    (tmp_path / "torn.png").write_bytes((tmp_path / "0.png").read_bytes()[:-9])
    found = []
    for threads in (1, 2, 7):
        scan = Scan(str(tmp_path), strict=False, columns={})
        assert list(scan.peek())
        loading = scan.load((0, *scan.target(*size)), Look(reduced=True, threads=threads))
        while True:
            try:
                next(loading)
            except StopIteration as end:
                found.append((end.value.tobytes(), scan.listing, scan.conversions))
                break
    assert found[0] == found[1] == found[2] and len(found[0][1].bad) == 1
