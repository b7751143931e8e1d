"""The fonts that names are drawn with, in pictures and in plots: any name, as it is written.

Two fonts come with the package: letters, and the common hanzi, kana and hangul. A character that
neither has is looked for in the plots' library and in the fonts of the system; one that no font
has is drawn as a box. A character that cannot be printed is drawn as its escape.
"""

from __future__ import annotations

import os
import struct
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerable.core.errors import visible

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from PIL.ImageDraw import ImageDraw

__all__ = ["Lettering", "covers", "plain_log", "plot_text", "shortened", "written"]

OWN = ("names.ttf", "names_cjk.otf")
FAMILIES = ("Steerable Sans", "Steerable Sans CJK")  # the same two, by their names
SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
STYLED = ("bold", "black", "italic", "oblique", "light", "thin", "serif", "mono", "condensed")
MOST_FONTS = 5000  # of a system that are looked through
LONGEST = 40  # characters of a name in a plot or a table; a hanzi counts two
ELLIPSIS = "…"
JOINERS = "\u200c\u200d"

Range = tuple[int, int]


def own_fonts() -> tuple[Path, ...]:
    """The files that come with the package."""
    folder = resources.files("steerable").joinpath("data")
    return tuple(Path(str(folder.joinpath(name))) for name in OWN)


@lru_cache(maxsize=1)
def _other_fonts() -> tuple[Path, ...]:
    """Font files of the plots' library and of the system; plain upright ones first, by name."""
    home, windows = Path("~").expanduser(), os.environ.get("WINDIR", "C:/Windows")
    if sys.platform == "darwin":
        places = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    elif sys.platform == "win32":
        places = [Path(windows) / "Fonts", home / "AppData/Local/Microsoft/Windows/Fonts"]
    else:
        places = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts")]
        places += [home / ".local/share/fonts", home / ".fonts"]
    found = [
        Path(folder) / name
        for place in places
        for folder, _, names in os.walk(place)
        for name in names
        if name.lower().endswith(SUFFIXES)
    ]

    def rank(path: Path) -> tuple[int, str, str]:
        return sum(word in path.name.lower() for word in STYLED), path.name, str(path)

    library = find_spec("matplotlib")
    beside = [] if library is None else list(library.submodule_search_locations or [])
    dejavu = [Path(p) / "mpl-data/fonts/ttf/DejaVuSans.ttf" for p in beside]
    return (*(p for p in dejavu if p.is_file()), *sorted(found, key=rank)[:MOST_FONTS])


@cache
def _ranges(path: Path) -> tuple[Range, ...]:
    """The characters that a font file has outlines for, as closed ranges; none if it is damaged.

    Source: OpenType 1.9, tables `cmap` (formats 4 and 12) and the font directory.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
            at = struct.unpack(">I", start[12:16])[0] if start[:4] == b"ttcf" else 0
            file.seek(at)
            count = struct.unpack(">IHHHH", file.read(12))[1]
            rows = [struct.unpack(">4sIII", file.read(16)) for _ in range(count)]
            tables = {tag: (offset, size) for tag, _, offset, size in rows}
            if not {b"glyf", b"CFF ", b"CFF2"} & set(tables):
                return ()  # pictures of one size only
            offset, size = tables[b"cmap"]
            file.seek(offset)
            return _mapped(file.read(size))
    except (OSError, struct.error, KeyError, ValueError):
        return ()  # a font that cannot be read has no characters


def _mapped(cmap: bytes) -> tuple[Range, ...]:
    """The ranges of the best Unicode table of a `cmap`."""
    count = struct.unpack_from(">H", cmap, 2)[0]
    found: dict[int, list[Range]] = {}
    for i in range(count):
        platform, encoding, at = struct.unpack_from(">HHI", cmap, 4 + 8 * i)
        if (platform, encoding) not in {(0, 3), (0, 4), (0, 6), (3, 1), (3, 10)}:
            continue
        form = struct.unpack_from(">H", cmap, at)[0]
        if form == 4:
            half = struct.unpack_from(">H", cmap, at + 6)[0] // 2
            ends = struct.unpack_from(f">{half}H", cmap, at + 14)
            starts = struct.unpack_from(f">{half}H", cmap, at + 16 + 2 * half)
            found[4] = [r for r in zip(starts, ends, strict=True) if r[0] != 0xFFFF]
        elif form == 12:
            groups = struct.unpack_from(">I", cmap, at + 12)[0]
            rows = struct.iter_unpack(">III", cmap[at + 16 : at + 16 + 12 * groups])
            found[12] = [(low, high) for low, high, _ in rows]
    return tuple(sorted(found[max(found)])) if found else ()


def covers(path: Path, character: str) -> bool:
    """Whether a font file has the character."""
    ranges, code = _ranges(path), ord(character)
    place = bisect_right(ranges, (code, 0x110000)) - 1
    return place >= 0 and ranges[place][0] <= code <= ranges[place][1]


@lru_cache(maxsize=4096)
def _font_of(character: str) -> Path:
    """The font that draws a character: our own, another that has it, or ours with its box."""
    for path in own_fonts():
        if covers(path, character):
            return path
    for path in _other_fonts():
        if covers(path, character) and _inked(path, character):
            return path
    return own_fonts()[0]


def _inked(path: Path, character: str) -> bool:
    """Whether the library draws something; colour fonts have characters without an outline."""
    from PIL import ImageFont

    try:
        font = ImageFont.truetype(str(path), 32, layout_engine=ImageFont.Layout.BASIC)
        return font.getmask(character).getbbox() is not None
    except (OSError, ValueError):
        return False


def written(name: str) -> str:
    """A name as it is drawn: composed, what cannot be printed escaped."""
    return visible(unicodedata.normalize("NFC", name))


def _clusters(text: str) -> list[str]:
    """Characters, each with the marks and joiners that belong to it."""
    found: list[str] = []
    for c in text:
        belongs = unicodedata.category(c).startswith("M") or c in JOINERS
        if found and (belongs or found[-1].endswith("\u200d")):
            found[-1] += c
        else:
            found.append(c)
    return found


def _columns(cluster: str) -> int:
    """Places of a terminal that a cluster takes."""
    return 2 if unicodedata.east_asian_width(cluster[0]) in "WF" else 1


def shortened(name: str, most: int = LONGEST) -> str:
    """A name as it is drawn, its middle left out where it is longer than `most` columns."""
    clusters = _clusters(written(name))
    if sum(map(_columns, clusters)) <= most:
        return "".join(clusters)
    head, tail, left = [], [], most - 1
    for i in range(len(clusters)):
        side, cluster = (head, clusters[i // 2]) if i % 2 == 0 else (tail, clusters[-1 - i // 2])
        left -= _columns(cluster)
        if left < 0:
            break
        side.append(cluster)
    return "".join(head) + ELLIPSIS + "".join(reversed(tail))


class Lettering:
    """Names in a Pillow picture, each character in a font that has it.

    Args:
        size: Height of the letters in pixels.
    """

    def __init__(self, size: int = 14) -> None:
        self.size = size
        self._fonts: dict[Path, Any] = {}

    def font(self, character: str) -> Any:
        """The Pillow font that draws a character."""
        from PIL import ImageFont

        path = _font_of(character)
        if path not in self._fonts:
            self._fonts[path] = ImageFont.truetype(str(path), self.size)
        return self._fonts[path]

    def _runs(self, text: str) -> Iterator[tuple[str, Any]]:
        """Pieces of a text with the font of each."""
        run, font = "", None
        for cluster in _clusters(text):
            own = self.font(cluster[0])
            if font is not None and own is not font:
                yield run, font
                run = ""
            run, font = run + cluster, own
        if font is not None:
            yield run, font

    def length(self, name: str) -> float:
        """Width of a name in pixels."""
        return sum(font.getlength(run) for run, font in self._runs(written(name)))

    def fitted(self, name: str, width: float) -> str:
        """The name, its middle left out as far as it must be to fit into a width in pixels."""
        text = written(name)
        most, length = sum(map(_columns, _clusters(text))), self.length(text)
        while most > 1 and length > width:
            most = max(1, min(most - 1, int(most * width / length) + 1))
            text = shortened(name, most)
            length = self.length(text)
        return text

    def draw(self, pen: ImageDraw, place: tuple[float, float], name: str, ink: Any) -> None:
        """Write a name from its left edge on, its capitals centred about the height of `place`."""
        x, y = place
        base = round(y + 0.36 * self.size)
        for run, font in self._runs(written(name)):
            pen.text((x, base), run, fill=ink, font=font, anchor="ls")
            x += font.getlength(run)


@contextmanager
def plot_text(names: Sequence[str] = ()) -> Iterator[None]:
    """Settings under which matplotlib draws every text as it is written.

    Nothing is taken for a formula, so that `$` and a backslash are themselves; on logarithmic axes
    `plain_log` writes the numbers. Figures must be saved inside.

    Args:
        names: Texts of others that will be drawn, so that a font is there for each character.
    """
    import matplotlib as mpl
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    needed = {_font_of(c) for name in names for c in written(name)} - set(own_fonts())
    for path in (*own_fonts(), *sorted(needed)):
        if str(path) not in known:
            font_manager.fontManager.addfont(str(path))
    families = [
        entry.name for entry in font_manager.fontManager.ttflist if Path(entry.fname) in needed
    ]
    settings: dict[str, Any] = {
        "font.family": [*FAMILIES, *dict.fromkeys(families), "DejaVu Sans"],
        "text.parse_math": False,
        "text.usetex": False,
    }
    with mpl.rc_context(settings):
        yield


def plain_log(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis without formulas, those between where it is short."""
    from math import log10

    from matplotlib.ticker import FuncFormatter, NullFormatter

    low, high = sorted(axis.get_view_interval())
    short = low > 0 and log10(high / low) < 1.5
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(
        FuncFormatter(lambda v, _: f"{v:g}" if str(f"{v:e}")[0] in "25" else "")
        if short
        else NullFormatter()
    )
