"""Names are drawn as they are written: glyphs, fallbacks, no formulas, sizes of sheets."""

from __future__ import annotations

import hashlib
import io
import random
import re
import sys
import warnings
from importlib import resources

import pytest
import torch
from PIL import Image, ImageDraw

from steerable.core.errors import UserError, visible
from steerable.jobs import lettering
from steerable.jobs.lettering import Lettering, covers, own_fonts, plot_text, shortened, written
from steerable.jobs.pictures import film, labelled_grid, rows_left_out, sheet

NOWHERE = "\U000e1234"  # a character that no font has
NAMES = [
    *("猫", "狗", "运动鞋", "T恤/上衣", "日本語のクラス", "고양이", "繁體貓", "Łódź", "Жук", "Ω"),
    *("Ünïcødé", "$x$", "a\\b", "$\\frac{1}{$", "50 $", "\\$", "^_{}", "<b>&amp;", "{{ 7 * 7 }}"),
    *("🐱", "سلام", "नमस्ते", "แมว", "👩‍🔬", "x" * 200, "体" * 120, "e\u0301", "", " ", "\u3000"),
    *("\x1b[31mred", "a\nb", "\u202eevil", "\x9b2J", "\udc80", "a\tb", "\x00", "\u2028", NOWHERE),
]  # fmt: skip


def drawn(name, size=32):
    """Ink of a name, (H,W) in [0, 1]."""
    pen = Lettering(size)
    page = Image.new("L", (max(8, int(pen.length(name)) + 16), 2 * size), 255)
    pen.draw(ImageDraw.Draw(page), (8, size), name, 0)
    return 1.0 - torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).float().div(
        255
    ).reshape(page.height, page.width)


def box(size=32):
    """What a font draws for a character that it does not have."""
    font = Lettering(size).font("猫")
    page = Image.new("L", (size + 16, 2 * size), 255)
    ImageDraw.Draw(page).text((8, size), NOWHERE, fill=0, font=font, anchor="lm")
    return page


@pytest.mark.parametrize("pair", ["猫狗", "鞋靴", "貓猫", "衣裤", "あア", "고양", "ЖШ", "ŁL", "ΩΨ"])
def test_the_pixels_of_names_are_their_own(pair):
    one, two = (drawn(c) for c in pair)
    for c, ink in zip(pair, (one, two), strict=True):
        assert any(covers(path, c) for path in own_fonts())
        share = float(ink.sum()) / 32**2  # of the square of a hanzi
        assert 0.05 < share < 0.5, f"{c}: ink {share:.2f}"
    assert one.shape != two.shape or float((one - two).abs().sum()) > 15
    missing = torch.frombuffer(bytearray(box().tobytes()), dtype=torch.uint8).float()
    for ink in (one, two):
        alike = ink.numel() == missing.numel() and torch.equal(1 - missing / 255, ink.flatten())
        assert not alike


def test_every_hanzi_of_the_standard_has_a_glyph_of_its_own():
    """All 6,763 of GB 2312: none is empty, none is the box, and no two are the same picture."""
    font = Lettering(24).font("猫")
    seen = {hashlib.sha256(bytes(font.getmask(NOWHERE))).hexdigest(): "the box"}
    count = 0
    for high in range(0xB0, 0xF8):
        for low in range(0xA1, 0xFF):
            try:
                c = bytes([high, low]).decode("gb2312")
            except UnicodeDecodeError:
                continue
            mask = font.getmask(c)
            assert mask.getbbox() is not None, c
            key = hashlib.sha256(bytes(mask)).hexdigest()
            assert key not in seen, f"{c} is drawn as {seen[key]}"
            seen[key], count = c, count + 1
    assert count == 6763


def test_a_grid_names_its_rows_in_pixels():
    """The names of two rows differ in the picture, and neither is a row of boxes."""
    rows = [torch.zeros(2, 1, 28, 28, dtype=torch.uint8)] * 3
    page = labelled_grid(rows, ["猫猫", "狗狗", NOWHERE * 2]).convert("L")
    step = 28 * 2 + 2
    bands = [page.crop((0, 2 + r * step, 50, (r + 1) * step)) for r in range(3)]
    assert len({band.tobytes() for band in bands}) == 3
    for band in bands[:2]:
        assert sum(value < 128 for value in band.tobytes()) > 60


@pytest.mark.parametrize("name", NAMES)
def test_no_name_fails_and_every_name_is_seen(name):
    rows = [torch.zeros(2, 1, 8, 8, dtype=torch.uint8)] * 2
    page = labelled_grid(rows, [name, "b"], columns=[name, name])
    assert page.width < 500
    if written(name).strip():
        assert float(drawn(name).sum()) > 5


@pytest.mark.parametrize("name", NAMES)
def test_plots_draw_names_as_they_are_written(name):
    """No formula, no failure, no warning of a glyph: titles, ticks and legends."""
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), plot_text([name]):
        warnings.filterwarnings("ignore", message="Glyph")  # of characters that no font has
        figure = Figure(figsize=(4, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], label=shortened(name) or "-")
        axes.set_xticks([0, 1], [shortened(name), "b"])
        axes.set_title(written(name))
        axes.legend()
        figure.savefig(io.BytesIO(), format="svg")
        figure.savefig(io.BytesIO(), format="png")
        assert axes.title.get_text() == written(name) and not axes.title.get_parse_math()


def test_plots_have_the_glyphs_of_hanzi():
    """A missing glyph is a warning of the library, which the suite takes for a failure."""
    from matplotlib.figure import Figure

    pictures = []
    for name in ("猫", "狗"):
        buffer = io.BytesIO()
        with plot_text([name]):
            figure = Figure(figsize=(2, 2))
            figure.text(0.2, 0.4, name, fontsize=60)
            figure.savefig(buffer, format="png")
        pictures.append(buffer.getvalue())
    assert pictures[0] != pictures[1]


def test_every_figure_is_saved_where_names_are_text():
    """Each file that saves a figure does so inside of `plot_text`, or is handed one inside."""
    root = resources.files("steerable").joinpath("jobs")
    saving = [f for f in root.iterdir() if f.name.endswith(".py") and ".savefig(" in f.read_text()]
    assert len(saving) >= 4
    for file in saving:
        assert "with plot_text(" in file.read_text("utf-8"), file.name


def test_long_names_lose_their_middle():
    assert shortened("short") == "short"
    long = shortened("a" * 100 + "b" * 100, 21)
    assert long == "a" * 10 + "…" + "b" * 10
    wide = shortened("体" * 50, 21)
    assert wide == "体" * 5 + "…" + "体" * 5
    family = "👩‍🔬" * 30
    assert "\u200d" not in (shortened(family, 11)[-1], shortened(family, 11)[0])
    pen = Lettering()
    for name in NAMES:
        assert pen.length(pen.fitted(name, 80)) <= 80, name


def test_a_character_of_the_system_is_found(tmp_path, monkeypatch):
    """What our fonts lack is taken from another one, which may be damaged."""
    (tmp_path / "a-broken.ttf").write_bytes(b"\x00\x01\x00\x00" + b"\xff" * 40)
    (tmp_path / "b-empty.otf").write_bytes(b"")
    source = own_fonts()[1].read_bytes()
    (tmp_path / "c-system.otf").write_bytes(source)
    (tmp_path / "d-cut.otf").write_bytes(source[:60_000])
    found = tuple(sorted(tmp_path.iterdir()))
    monkeypatch.setattr(lettering, "own_fonts", lambda: own_fonts()[:1])
    monkeypatch.setattr(lettering, "_other_fonts", lambda: found)
    lettering._font_of.cache_clear()
    try:
        assert lettering._font_of("猫") == tmp_path / "c-system.otf"
        assert lettering._font_of(NOWHERE) == own_fonts()[0]
    finally:
        lettering._font_of.cache_clear()


def test_damaged_fonts_have_no_characters():
    source, dice = own_fonts()[0].read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(source[: dice.randrange(len(source))] or b"x")
        for _ in range(dice.randrange(1, 40)):
            damaged[dice.randrange(min(len(damaged), 4000))] = dice.randrange(256)
        path = Spoiled(bytes(damaged))
        ranges = lettering._ranges.__wrapped__(path)
        assert all(len(r) == 2 for r in ranges)


class Spoiled:
    """Bytes that open as a file does."""

    def __init__(self, data):
        self.data = data

    def open(self, mode):
        assert mode == "rb"
        return io.BytesIO(self.data)


SIZES = [
    # classes, pictures of each, height and width, columns
    (3000, 1, 28, 28, False),
    (3000, 16, 28, 28, False),
    (3000, 2, 512, 512, False),
    (20, 64, 512, 512, False),
    (1, 1000, 28, 28, True),
    (200, 3000, 8, 8, True),
    (5, 5, 2000, 2000, False),
    (2, 2, 16, 4000, False),
    (40, 4, 4000, 16, False),
]


@pytest.mark.parametrize("case", SIZES)
def test_sheets_are_bounded_and_say_what_they_leave_out(case):
    classes, each, height, width, named = case
    row = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(each, 1, height, width)
    rows, names = [row] * classes, [f"类 {i}" for i in range(classes)]
    columns = [str(i) for i in range(each)] if named else ()
    made = sheet(rows, names, columns)
    width, height = made.image.size
    assert max(width, height) <= 10_000 and width * height <= 16_000_000
    assert made.of == classes * each and made.shown >= 1
    assert made.left_out == rows_left_out(rows, names, columns)
    head = made.image.crop((0, 0, 60, 22)).tobytes()
    red = sum(head[i : i + 3] == bytes((160, 40, 40)) for i in range(0, len(head), 3))
    assert (red > 10) == (made.left_out > 0)


def test_no_sheet_of_random_form_is_too_large():
    dice = random.Random(1)
    for _ in range(120):
        height, width = (int(2 ** dice.uniform(0, 11)) for _ in range(2))
        each, classes = int(2 ** dice.uniform(0, 12)), int(2 ** dice.uniform(0, 12))
        row = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(each, 1, height, width)
        names = ["n" * dice.randrange(300)] * classes
        plan = lettering_plan([row] * classes, names, [""] * each if dice.random() < 0.3 else [])
        assert 1 <= plan.shown <= plan.of == classes * each
        blocks = -(-len(plan.rows) // plan.lines)
        block = plan.left + max(map(len, plan.rows)) * plan.step[1] + 2
        tall = min(plan.lines, len(plan.rows)) * plan.step[0] + 46
        assert blocks * block <= 10_000 and tall <= 10_000 and blocks * block * tall <= 16_000_000


def lettering_plan(rows, names, columns):
    from steerable.jobs import pictures

    return pictures._planned(rows, names, columns)


def test_one_picture_larger_than_a_sheet_is_shown():
    made = sheet([torch.zeros(3, 1, 5000, 5000, dtype=torch.uint8)], [""])
    assert made.shown == 1 and made.left_out == 2


def test_films_of_large_pictures_are_bounded():
    frame = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    frames = [frame.expand(64, 1, 1200, 1200)] * 2
    image = Image.open(io.BytesIO(film(frames)))
    assert image.width * image.height <= 16_000_000


@pytest.mark.parametrize("name", NAMES)
def test_names_cannot_steer_a_terminal(name):
    line = str(UserError("E-LABEL", where="label", got=name))
    for text in (line, visible(name)):
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)
        text.encode("utf-8")


def test_escapes_are_readable_and_other_text_stays():
    assert visible("\x1b[31m\u202e\n\x9b") == "\\x1b[31m\\u202e\\n\\x9b"
    for name in ("猫 a\\b $x$ Ünïcødé سلام 🐱", "می\u200cخواهم", "👩‍🔬", "a\u3000b\xa0c"):
        assert visible(name) == name
    assert UserError("E-LABEL", where="x", got="\x1b").record()["got"] == "\x1b"


def test_the_layout_of_a_line_needs_no_shaping_library(monkeypatch):
    """Where Pillow has no raqm, joiners and marks are still drawn."""
    from PIL import ImageFont

    true = ImageFont.truetype
    basic = ImageFont.Layout.BASIC
    monkeypatch.setattr(
        ImageFont, "truetype", lambda *a, **k: true(*a, **{**k, "layout_engine": basic})
    )
    for name in NAMES:
        drawn(name)
    assert sys.modules["PIL"]
