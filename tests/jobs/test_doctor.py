"""The data doctor finds what was planted, and little else."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

import steerable
from steerable import api
from steerable.app.cli import main
from steerable.core.errors import UserError
from steerable.core.types import Dataset, Spec, Splits
from steerable.datasets.digits import digits
from steerable.datasets.images import images
from steerable.datasets.shapes import shapes
from steerable.jobs import doctor_copies, doctor_labels, doctor_size
from steerable.jobs.doctor import diagnose
from steerable.jobs.doctor_page import write_page

from ..mutants import altered


def last(work):
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def found(splits, **options):
    *_, end = diagnose(splits, **{"seconds": 0, **options})
    return end.diagnosis


def kinds(diagnosis):
    return {f.kind: f for f in diagnosis.findings}


def picture(x):
    return Image.fromarray(x.permute(1, 2, 0).numpy())


def tensor(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def jpeg(x, quality=75):
    buffer = io.BytesIO()
    picture(x).save(buffer, "JPEG", quality=quality)
    return tensor(Image.open(buffer))


def fine_jpeg(x):
    return jpeg(x, 90)


def brighter(x):
    return (x.float() * 1.05).round().clamp(0, 255).to(torch.uint8)


def resized(x):
    small = picture(x).resize((24, 24), Image.Resampling.BICUBIC)
    return tensor(small.resize((32, 32), Image.Resampling.BICUBIC))


def drawn(count, seed):
    parts = shapes(count=count, seed=seed)
    return torch.cat([parts.train.x, parts.held_out.x])


def check_copies(room):
    """Saved again, brightened, resized: 9 of 10 at least; of independent ones 1 of 100 at most."""
    x = drawn(1000, seed=7)
    n = len(x)
    paler = (0.6 * x[:50].float() + 40).to(torch.uint8)  # nothing is cut off at black or white
    assert (
        float((room.sketches(paler) - room.sketches(x[:50])).norm(dim=1).max()) < 0.4 / 2
    )  # 0.4 of contrast is gone
    assert sum(map(len, last(room.search(x)).near)) <= 0.01 * n
    picked = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:200]
    changes = (jpeg, fine_jpeg, brighter, resized)
    made = torch.stack([changes[k % 4](x[i]) for k, i in enumerate(picked.tolist())])
    groups = last(room.search(torch.cat([x, made]))).same()
    home = {i: g for g, group in enumerate(groups) for i in group}
    pairs = [(i, n + k) for k, i in enumerate(picked.tolist())]
    hit = torch.tensor([i in home and home[i] == home.get(j) for i, j in pairs])
    for kind in range(4):
        assert hit[kind::4].double().mean() >= 0.9, changes[kind].__name__


def test_copies_are_found_and_strangers_left_alone():
    check_copies(doctor_copies)


@pytest.mark.parametrize(
    "edit",
    [
        ("/ size.clamp_min(FLAT), 0.0)", ", 0.0)"),  # brightness left in
        ("CHANCE = 5e-4", "CHANCE = 5e-2"),
        ("factor * torch.minimum", "0.05 * torch.minimum"),
        ("torch.inf, near)", "0.0, near)"),  # each its own nearest
        ("FINE, COARSE = 16, 4", "FINE, COARSE = 2, 1"),
    ],
)
def test_mistakes_in_the_search_are_noticed(edit):
    with pytest.raises(AssertionError):
        check_copies(altered("jobs.doctor_copies", *edit))


def test_digits_hold_no_copies():
    parts = digits()
    result = last(doctor_copies.search(torch.cat([parts.train.x, parts.held_out.x])))
    assert result.searched and result.same() == ()


@pytest.mark.parametrize("true", [2, 5])
def test_dimensions_of_even_clouds(true):
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(4000, true, generator=generator, dtype=torch.float64)
    distance, _ = doctor_copies.nearest(rows, rows, 10, itself=True)
    # Half a percent of quantile error over 4,000 rows; edges of the cube add a little.
    assert doctor_copies._dimension(distance) == pytest.approx(true, rel=0.15)


def test_groups_are_joined_through_their_members():
    assert doctor_copies._joined([(5, 3), (8, 9), (3, 1), (9, 8)]) == [(1, 3, 5), (8, 9)]


def check_confident(room):
    """By hand: thresholds are 0.6 for a (rows 0, 1, 2) and 0.7 for b (rows 3, 4)."""
    p = torch.tensor([[0.9, 0.1], [0.65, 0.35], [0.25, 0.75], [0.3, 0.7], [0.3, 0.7], [0.62, 0.38]])
    label = torch.tensor([0, 0, 0, 1, 1, 1])
    rows, seen = room.confident(p, label)
    # Class a: (0.9 + 0.65 + 0.25) / 3 = 0.6; b: (0.7 + 0.7 + 0.38) / 3 = 0.593. Row 2 looks like b
    # by 0.5, row 5 like a by 0.24; the others reach no other class.
    assert rows.tolist() == [2, 5] and seen.tolist() == [1, 0]
    three = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    # Row 0 is labelled b, whose mean is 0.55: 0.5 is below the mean of a, 0.9, so nobody is sure.
    assert room.confident(three, torch.tensor([1, 0, 1, 2]))[0].tolist() == []


def test_confident_learning_by_hand():
    check_confident(doctor_labels)


@pytest.mark.parametrize(
    "edit",
    [
        ("p >= threshold, p, -1.0", "p >= 0.0, p, -1.0"),
        ("& (seen != label)", ""),
        ("p[label == j, j].mean()", "p[:, j].mean()"),
        ("descending=True, stable=True", "stable=True"),
    ],
)
def test_mistakes_in_confident_learning_are_noticed(edit):
    room = altered("jobs.doctor_labels", *edit)
    edge = "seen != label" in edit[0]  # without it only ties of a row with itself are at stake
    if edge:
        edit = ("(best > own) & (seen != label)", "best >= own")
        room = altered("jobs.doctor_labels", *edit)
    with pytest.raises(AssertionError):
        check_confident(room)


def test_copies_stay_in_one_fold_and_classes_are_spread():
    label = torch.arange(300) % 10
    fold = doctor_labels._folds(label, [(0, 7, 211), (5, 6)], seed=0)
    assert len({int(fold[i]) for i in (0, 7, 211)}) == 1 and fold[5] == fold[6]
    table = torch.stack([torch.bincount(label[fold == k], minlength=10) for k in range(3)])
    assert int(table.min()) >= 8  # ten each, less what three copies moved


@pytest.mark.slow
def test_changed_labels_of_digits_are_suspected():
    parts = digits()
    x = torch.cat([parts.train.x, parts.held_out.x])
    label = torch.cat([parts.train.cond["label"], parts.held_out.cond["label"]])
    generator = torch.Generator().manual_seed(0)
    wrong = torch.randperm(len(x), generator=generator)[: round(0.05 * len(x))]
    label[wrong] = (label[wrong] + torch.randint(1, 10, (len(wrong),), generator=generator)) % 10
    data = Dataset(parts.train.spec, x, {"label": label})
    doubts = last(doctor_labels.question(data, (), seconds=3600, seed=0))
    hit = len(set(doubts.items) & set(wrong.tolist()))
    assert hit >= 0.8 * len(wrong) and hit >= 0.7 * len(doubts.items)
    assert doubts.on_time and doubts.asked == len(x)


def test_the_size_is_told_in_views():
    told = doctor_size.verdict(312, 312 * 250, "10m")
    assert told["severity"] == "warning" and "each about 250 times" in told["sentence"]
    assert "about 490 iterations of 128" in told["sentence"]  # 312 x 200 / 128 = 487.5
    assert '--budget "31000 images"' in told["advice"]
    assert doctor_size.verdict(312, 312 * 150, "10m")["severity"] == "note"
    assert "no measured run copied" in doctor_size.verdict(6000, 6000 * 42, "1h")["sentence"]
    assert doctor_size.views(digits().train.spec, "5000 images") == 5000


def folder(root, x, label, names):
    for i, (item, k) in enumerate(zip(x, label.tolist(), strict=True)):
        (root / names[k]).mkdir(parents=True, exist_ok=True)
        picture(item).save(root / names[k] / f"{i:03d}.png")


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    """A folder of shapes with one of each fault."""
    root = tmp_path_factory.mktemp("data") / "sick"
    parts = shapes(count=400, seed=2)
    x, label = parts.train.x, parts.train.cond["label"]
    names = parts.train.spec.labels["label"]
    keep = [i for i in range(len(x)) if names[int(label[i])] != "bar" or i < 60]
    folder(root, x[keep], label[keep], names)
    first = sorted((root / "disc").iterdir())[0]
    for name in ("again.png", "and again.png"):
        (root / "disc" / name).write_bytes(first.read_bytes())
    (root / "star" / "not a disc.png").write_bytes(first.read_bytes())
    Image.new("RGB", (32, 32), (200, 10, 10)).save(root / "ring" / "empty.png")
    Image.new("RGB", (60, 12), (200, 10, 10)).save(root / "ring" / "ribbon.png")
    return root


def test_a_sick_folder(sick):
    diagnosis = found(images(str(sick)))
    by_kind = kinds(diagnosis)
    plain = json.loads(json.dumps(diagnosis.plain(), allow_nan=False))
    rows = {f["kind"]: f for f in plain["findings"]}
    same = {"disc/again.png", "disc/and again.png", "star/not a disc.png"}
    assert [set(g) >= same for g in rows["copies"]["items"]].count(True) == 1
    assert rows["contradiction"]["severity"] == "problem"
    assert "star" in rows["contradiction"]["remarks"][0]
    blank = {name for group in rows["blank"]["items"] for name in group}
    assert blank == {"ring/empty.png", "ring/ribbon.png"}
    assert "'bar'" in by_kind["small classes"].sentence
    assert by_kind["cropped"].count == by_kind["enlarged"].count == 1
    assert by_kind["size"].severity == "warning"
    weights = [("problem", "warning", "note").index(f["severity"]) for f in plain["findings"]]
    assert weights == sorted(weights)


def test_the_page_shows_them_and_needs_nothing_else(sick, tmp_path):
    page = write_page(tmp_path / "deep" / "page.html", found(images(str(sick))))
    text = page.read_text("utf-8")
    assert "star/not a disc.png" in text and text.count("data:image/png") > 100
    assert "http" not in text and "<script" not in text and str(tmp_path) not in text


def test_names_in_a_page_are_no_markup(tmp_path):
    parts = shapes(count=100)
    spec = Spec("<b>x", parts.train.spec.shape, {"label": ("<i>", *"abcdefghi")})
    x = parts.train.x.clone()
    x[:3] = 0
    train = Dataset(spec, x, parts.train.cond, tuple(f"<u>{i}" for i in range(len(x))))
    held_out = Dataset(spec, parts.held_out.x, parts.held_out.cond)
    text = write_page(tmp_path / "p.html", found(Splits(train, held_out))).read_text("utf-8")
    assert not {"<b>x", "<i>", "<u>0"} & set(text.split()) and "&lt;u&gt;0" in text


def test_leaks_are_named_beside_what_they_copy():
    parts = shapes(count=500, seed=3)
    x = parts.held_out.x.clone()
    for i in range(10):
        x[i] = parts.train.x[7 * i] if i < 5 else brighter(parts.train.x[7 * i])
    held_out = Dataset(parts.train.spec, x, parts.held_out.cond)
    diagnosis = found(Splits(parts.train, held_out))
    leak = kinds(diagnosis)["leakage"]
    names = [tuple(diagnosis.names[i] for i in row[:2]) for row in leak.groups]
    assert {(f"held-out {i}", f"train {7 * i}") for i in range(10)} <= set(names)
    assert leak.n == 100 and leak.severity == "problem"
    assert leak.count <= 10 + 1  # and at most one in a hundred by chance


def small(n, classes, shape=(1, 9, 14)):
    generator = torch.Generator().manual_seed(n)
    x = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
    labels = {"label": tuple("abcdefgh"[:classes])} if classes else {}
    cond = {"label": torch.arange(n) % classes} if classes else {}
    return Dataset(Spec("small", shape, labels), x, cond)


@pytest.mark.parametrize(
    ("train", "held_out", "classes", "shape"),
    [
        (1, 1, 2, (1, 9, 14)),
        (1, 1, 0, (3, 8, 8)),
        (30, 4, 1, (1, 9, 14)),
        (40, 10, 0, (4, 20, 7)),
        (9, 3, 3, (3, 40, 12)),
        (30, 6, 4, (2, 3, 3)),
        (30, 6, 2, (1, 4, 4)),
    ],
)
def test_little_or_odd_data_is_still_looked_at(train, held_out, classes, shape, tmp_path):
    parts = Splits(small(train, classes, shape), small(held_out, classes, shape))
    diagnosis = found(parts, seconds=1.0)
    by_kind = kinds(diagnosis)
    assert by_kind["size"].n == train
    assert ("classes" in by_kind) == (classes < 2) and "blank" not in by_kind
    if train + held_out < doctor_copies.LEAST:
        assert "not looked for" in by_kind["near copies"].sentence
    else:
        assert "near copies" not in by_kind  # noise is like nothing else
    json.dumps(diagnosis.plain(), allow_nan=False)
    assert write_page(tmp_path / "p.html", diagnosis).is_file()


def test_all_pictures_alike():
    one = Dataset(Spec("flat", (1, 8, 8)), torch.full((30, 1, 8, 8), 7, dtype=torch.uint8), {})
    by_kind = kinds(found(Splits(one, one)))
    assert by_kind["blank"].count == 60 and by_kind["blank"].severity == "problem"
    assert by_kind["leakage"].count == 30


def test_the_door_and_its_limits():
    *_, end = api.diagnose("digits", seconds=0)
    assert end.share == 1.0
    plain = end.diagnosis.plain()
    assert set(steerable.inspect_data("digits")) < set(plain)
    with pytest.raises(UserError, match="seconds"):
        list(api.diagnose("digits", seconds=-1))
    with pytest.raises(UserError, match="--set"):
        list(api.diagnose("digits", settings=["training.lr=1"]))


def test_the_command_leaves_as_it_was_told(sick, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = []
    for words in ([], ["--fail-on", "problem", "--json"], ["--page", "p.html"]):
        with pytest.raises(SystemExit) as end:
            main(["data", "check", str(sick), "--quick", *words])
        codes.append(end.value.code)
        shown = capsys.readouterr()
        if "--json" in words:
            assert json.loads(shown.out)["findings"] and "error[E-GATE]" in shown.err
        else:
            assert "problem  contradiction: 4 pictures in 1 group of copies" in shown.out
        assert [f.name for f in tmp_path.iterdir()] == words[1:] * ("--page" in words)
    assert codes == [0, 9, 0]
