"""The image gate: every mode against numbers worked out by hand, every bad file with its reason."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from steerable.intake.gate import PictureError
from steerable.intake.pictures import fitted, peek, read, with_channels

ROWS, COLUMNS = 24, 32


def ramp(channels):
    """A picture (H,W,C) with all values from 0 to 255 and edges where they clip."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    waves = [x * 7, y * 9, 255 - x * 4 - y * 3, 40 + x * 3 + y * 4]
    return np.stack([np.clip(w, 0, 255) for w in waves[:channels]], axis=-1).astype(np.uint8)


def gentle(channels):
    """A picture without edges, which JPEG itself keeps within 2/255."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    planes = [60 + x + y, 90 + x, 200 - x - 2 * y, np.full_like(x, 30)]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, rows, extra=b""):
    """A PNG written by hand, as the reference for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def near(found, truth, tolerance=2):
    assert found.dtype == np.uint8 and found.shape == truth.shape
    assert np.abs(found.astype(int) - truth.astype(int)).max() <= tolerance


def reason(path):
    with pytest.raises(PictureError) as caught:
        read(path)
    with pytest.raises(PictureError):
        peek_and_read(path)
    assert str(path.parent) not in caught.value.reason
    return caught.value.reason


def peek_and_read(path):
    peek(path)
    return read(path)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_d3_plain_pictures_keep_their_values(tmp_path, channels, kind):
    truth = ramp(channels)
    path = tmp_path / f"a.{kind}"
    Image.fromarray(truth[..., 0] if channels == 1 else truth).save(path, lossless=True, exact=True)
    pixels, facts = read(path)
    if kind == "webp" and channels == 1:  # WebP has no grey
        truth = np.repeat(truth, 3, axis=2)
    np.testing.assert_array_equal(pixels, truth)
    assert facts.transparent == (channels == 4) and facts.conversions == ()
    assert (facts.header.height, facts.header.width) == (ROWS, COLUMNS)


@pytest.mark.parametrize("channels", [1, 3])
def test_d3_jpeg(tmp_path, channels):
    truth = gentle(channels)
    path = tmp_path / "a.jpg"
    Image.fromarray(truth[..., 0] if channels == 1 else truth).save(
        path, quality=100, subsampling=0
    )
    near(read(path)[0], truth)


def test_d3_grey_with_alpha(tmp_path):
    grey, alpha = ramp(2)[..., 0], ramp(2)[..., 1]
    Image.fromarray(np.stack([grey, alpha], axis=-1), "LA").save(tmp_path / "a.png")
    pixels, facts = read(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels, np.stack([grey, grey, grey, alpha], axis=-1))
    assert facts.transparent and facts.header.alpha


def test_d3_palette_with_transparency(tmp_path):
    index = (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 3).astype(np.uint8)
    image = Image.fromarray(index).convert("P")
    colours = np.array([[250, 10, 20], [0, 200, 100], [5, 6, 7]], np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png", transparency=bytes([255, 128, 0]))
    pixels, facts = read(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels[..., :3], colours[index])
    np.testing.assert_array_equal(pixels[..., 3], np.array([255, 128, 0])[index])
    assert facts.conversions == ("palette",) and facts.transparent
    image.save(tmp_path / "b.png")
    np.testing.assert_array_equal(read(tmp_path / "b.png")[0], colours[index])


def test_d3_one_bit(tmp_path):
    truth = (np.indices((ROWS, COLUMNS)).sum(0) % 3 == 0)[..., None] * np.uint8(255)
    Image.fromarray(truth[..., 0]).convert("1").save(tmp_path / "a.png")
    pixels, facts = read(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels, truth)
    assert facts.conversions == ("1-bit",) and facts.header.bits == 1


def test_d3_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 256 * 4).astype(">u2").reshape(32, 32)
    (tmp_path / "a.png").write_bytes(png(32, 32, 16, 0, [row.tobytes() for row in values]))
    pixels, facts = read(tmp_path / "a.png")
    truth = np.floor(values.astype(float) * 255 / 65535 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(pixels[..., 0], truth)
    assert facts.conversions == ("16-bit to 8-bit",)


@pytest.mark.parametrize(("colour", "bands"), [(2, 3), (4, 2), (6, 4)])
def test_d3_sixteen_bit_colour(tmp_path, colour, bands):
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, bands)).astype(">u2")
    (tmp_path / "a.png").write_bytes(png(8, 8, 16, colour, [row.tobytes() for row in values]))
    pixels, facts = read(tmp_path / "a.png")
    truth = np.round(values.astype(float) * 255 / 65535).astype(np.uint8)
    near(pixels, truth[..., [0, 0, 0, 1]] if bands == 2 else truth, 1)
    assert "16-bit to 8-bit" in facts.conversions


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_d3_the_transparent_grey_of_every_depth(tmp_path, bits):
    top = 2**bits - 1
    if bits == 16:
        row = struct.pack(">8H", *[257, 258, 0, 257, 65535, 1, 2, 257])
        clear, key = [1, 0, 0, 1, 0, 0, 0, 1], 257
    elif bits == 8:
        row, clear, key = bytes([9, 9, 0, 255, 9, 8, 1, 2]), [1, 1, 0, 0, 1, 0, 0, 0], 9
    else:
        values = [top, 0, top, top, 0, 0, 0, top]
        number = sum(v << (bits * (7 - i)) for i, v in enumerate(values))
        row, clear, key = number.to_bytes(bits, "big"), [int(v == top) for v in values], top
    extra = chunk(b"tRNS", struct.pack(">H", key))
    (tmp_path / "a.png").write_bytes(png(8, 1, bits, 0, [row], extra))
    pixels, facts = read(tmp_path / "a.png")
    assert pixels[0, :, 3].tolist() == [0 if c else 255 for c in clear]
    assert "transparent colour" in facts.conversions and facts.transparent


def test_d3_cmyk_jpeg(tmp_path):
    ink = gentle(4)
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    pixels, facts = read(tmp_path / "a.jpg")
    paper = 255 - ink.astype(float)
    near(pixels, np.round(paper[..., :3] * paper[..., 3:] / 255).astype(np.uint8))
    assert facts.conversions == ("cmyk",) and facts.header.mode == "CMYK"


def cmyk_profile():
    """An ICC profile in which cyan, magenta and yellow do nothing and black darkens to grey.

    Source: ICC.1:2001-04, lut8Type (mft1), two grid points a channel, Lab connection space.
    """
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])
    table += b"".join(struct.pack(">i", v) for v in (65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    table += bytes(range(256)) * 4
    table += b"".join(bytes([0 if node % 2 else 255, 128, 128]) for node in range(16))
    table += bytes(range(256)) * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    start = 128 + 4 + 24
    tags = struct.pack(">I", 2) + b"A2B0" + struct.pack(">II", start, len(table))
    tags += b"wtpt" + struct.pack(">II", start + len(table), len(white))
    head = struct.pack(">I", start + len(table) + len(white)) + b"lcms" + bytes([2, 0x40, 0, 0])
    head += b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + table + white


def test_d3_cmyk_goes_through_its_own_colour_profile(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 200  # plain arithmetic would make this cyan
    ink[:, 4:, 3] = 255
    image = Image.fromarray(ink, "CMYK")
    image.save(tmp_path / "a.jpg", quality=100, icc_profile=cmyk_profile())
    pixels, facts = read(tmp_path / "a.jpg")
    assert facts.conversions == ("cmyk through its colour profile",)
    near(pixels[:, :3], np.full((8, 3, 3), 255, np.uint8), 3)
    near(pixels[:, 5:], np.zeros((8, 3, 3), np.uint8), 3)
    image.save(tmp_path / "b.jpg", quality=100, icc_profile=b"nonsense" * 20)
    assert read(tmp_path / "b.jpg")[1].conversions == ("cmyk, unreadable colour profile ignored",)


# Source: EXIF 2.3; where the first row and the first column of the stored picture lie when upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_d3_exif_orientations(tmp_path, turn, kind):
    stored = gentle(3)
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"quality": 100, "subsampling": 0} if kind == "jpg" else {"lossless": True}
    path = tmp_path / f"a.{kind}"
    Image.fromarray(stored).save(path, exif=exif, **options)
    pixels, facts = read(path)
    near(pixels, np.ascontiguousarray(UPRIGHT[turn](stored)))
    assert facts.conversions == (() if turn == 1 else ("exif turn",))
    assert (peek(path).height, peek(path).width) == pixels.shape[:2]


def test_d3_broken_exif_does_not_spoil_the_picture(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(ramp(3)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert read(path)[0].shape == (ROWS, COLUMNS, 3)


def test_first_frame_only(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for kind in ("png", "webp"):
        path = tmp_path / f"a.{kind}"
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
        pixels, facts = read(path)
        assert (pixels == (255, 0, 0)).all() and "first frame only" in facts.conversions


def test_d1_bad_files_are_named_with_a_reason(tmp_path):
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(
        good, "PNG"
    )
    flipped = bytearray(good.getvalue())
    flipped[len(flipped) // 2] ^= 1
    gif = io.BytesIO()
    Image.new("L", (4, 4)).save(gif, "GIF")
    jpeg = io.BytesIO()
    Image.fromarray(ramp(3)).save(jpeg, "JPEG", quality=95)
    cases = {
        "text.png": (b"hello, this is no picture", "not a PNG"),
        "empty.png": (b"", "empty"),
        "gif.png": (gif.getvalue(), "not a PNG"),
        "half.png": (good.getvalue()[:2500], "cut short"),
        "tail.png": (good.getvalue()[:-14], "cut short"),
        "flip.png": (bytes(flipped), "damaged"),
        "half.jpg": (jpeg.getvalue()[: len(jpeg.getvalue()) // 2], "cut short"),
        "head.png": (good.getvalue()[:20], "cut short"),
    }
    for name, (data, words) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert words in reason(tmp_path / name), name
    assert "does not exist" in reason(tmp_path / "missing.png")


def test_d4_what_is_no_file_is_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    assert "a pipe" in reason(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    assert "a folder" in reason(tmp_path / "folder.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert "cannot be opened" in reason(tmp_path / "loop.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert "a link to nothing" in reason(tmp_path / "broken.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    assert "a device" in reason(tmp_path / "device.png")
    assert "cannot be opened" in reason(tmp_path / ("n" * 300 + ".png"))
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert "a socket" in reason(tmp_path / "socket.png")


def test_d2_bombs_are_refused_by_their_headers(tmp_path, monkeypatch):
    def explode(*_):
        raise AssertionError("a bomb was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", explode)
    # 9000 x 9000 at one bit is 10 kB; 8000 x 8000 is within the pixels but out of proportion.
    for side, words in ((9000, "81 megapixels"), (8000, "more than 500:1")):
        row = bytes(side // 8)
        (tmp_path / "a.png").write_bytes(png(side, side, 1, 0, [row] * side))
        assert (tmp_path / "a.png").stat().st_size < 12_000
        found = reason(tmp_path / "a.png")
        assert "too large" in found and (words in found or "9000 x 9000" in found)
    (tmp_path / "lie.png").write_bytes(png(2**31 - 1, 2**31 - 1, 8, 0, [b"\0"]))
    assert "too large" in reason(tmp_path / "lie.png")


def test_d2_flat_pictures_of_a_normal_size_are_welcome(tmp_path):
    Image.new("RGB", (3000, 2000), "white").save(tmp_path / "a.png", optimize=True)
    assert (read(tmp_path / "a.png")[0] == 255).all()


def test_d2_text_chunk_bombs_are_refused(tmp_path):
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(50_000_000), 1))
    (tmp_path / "a.png").write_bytes(png(8, 8, 8, 0, [bytes(8)] * 8, text))
    assert "too large" in reason(tmp_path / "a.png")


def read_or_reason(path):
    try:
        return bool(read(path)[0].size)
    except PictureError as fault:
        return bool(fault.reason)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_d1_mutants_give_a_picture_or_a_reason(tmp_path, kind):
    rng, buffer = random.Random(3), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp(3)).save(buffer, kind, exif=exif)
    good, path = buffer.getvalue(), tmp_path / "a.png"
    for _ in range(120):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            spot = rng.randrange(len(data))
            data[spot : spot + rng.choice((0, 1, 1, 9))] = rng.randbytes(rng.choice((0, 1, 1, 9)))
        path.write_bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.2 else data)
        assert read_or_reason(path)


def test_fitted_covers_and_cuts_the_centre():
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 200
    assert (fitted(wide, 10, 10) == 200).all()
    tall = np.zeros((40, 10, 1), np.uint8)
    tall[10:30] = 90
    assert (fitted(tall, 20, 10) == 90).all()
    assert fitted(tall, 20, 10).shape == (20, 10, 1)
    assert fitted(wide, 10, 40) is wide


def test_fitted_does_not_alias():
    stripes = np.zeros((256, 256, 1), np.uint8)
    stripes[:, ::2] = 255
    small = fitted(stripes, 17, 17)[2:-2, 2:-2]
    assert np.abs(small.astype(int) - 128).max() <= 4


def test_fitted_does_not_bleed_hidden_colours():
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[..., 0] = 255  # red that nobody sees
    picture[8:24, 8:24] = (0, 0, 255, 255)
    small = fitted(picture, 11, 11)
    seen = small[small[..., 3] > 20]
    assert (seen[:, 0] <= 8).all() and (seen[:, 2] >= 247).all()


def test_with_channels_against_arithmetic():
    grey = ramp(1)
    np.testing.assert_array_equal(with_channels(grey, 3, (0, 0, 0)), np.repeat(grey, 3, 2))
    four = with_channels(grey, 4, (0, 0, 0))
    assert (four[..., 3] == 255).all()
    colour = ramp(3)
    luma = np.round(colour @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
    near(with_channels(colour, 1, (0, 0, 0)), luma, 1)
    clear = ramp(4)
    clear[:5, :5, 3] = 0
    share = clear[..., 3:] / 255
    over = np.round(clear[..., :3] * share + np.array([10, 200, 30]) * (1 - share))
    near(with_channels(clear, 3, (10, 200, 30)), over.astype(np.uint8), 1)
    kept = with_channels(clear, 4, (10, 200, 30))
    assert (kept[:5, :5] == (10, 200, 30, 0)).all()
    np.testing.assert_array_equal(kept[6:], clear[6:])
