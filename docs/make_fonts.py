"""Make the fonts in `src/steerable/data` that names are drawn with, from two Noto fonts.

    python docs/make_fonts.py NotoSans-Regular.ttf NotoSansCJK-Regular.ttc

Needs fonttools, which comes with matplotlib. The same sources give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "src" / "steerable" / "data"
LAYOUT = ["GSUB", "GPOS", "GDEF"]  # of no use to single ideographs
SIMPLIFIED = 2  # the face of the collection whose hanzi are those of mainland China

# Ranges of Unicode that the alphabetic font is asked for; what it lacks is taken from the other.
LETTERS = (
    *((0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F)),
    *((0x1E00, 0x1EFF), (0x2000, 0x209F), (0x20A0, 0x20BF), (0x2100, 0x214F)),
)
# Arrows, mathematics, circled numbers, shapes, CJK punctuation, kana, full width forms.
SIGNS = (
    *((0x2190, 0x21FF), (0x2200, 0x22FF), (0x2460, 0x2473), (0x25A0, 0x25FF), (0x2600, 0x266F)),
    *((0x3000, 0x301F), (0x3041, 0x30FF), (0xFF01, 0xFF5E), (0xFFE0, 0xFFE6)),
)


def double_bytes(codec: str, first: range) -> set[int]:
    """The characters of the rows `first` of a national standard with two bytes a character."""
    found = set()
    for high in first:
        for low in range(0x40, 0xFF):
            try:
                found.add(ord(bytes([high, low]).decode(codec)))
            except (UnicodeDecodeError, TypeError):
                continue
    return {c for c in found if 0x3400 <= c <= 0xD7A3}


def ideographs() -> set[int]:
    """All hanzi of GB 2312, the common ones of Big5 and JIS X 0208, the hangul of KS X 1001."""
    return (
        double_bytes("gb2312", range(0xB0, 0xF8))
        | double_bytes("big5", range(0xA4, 0xC7))
        | double_bytes("euc_jp", range(0xB0, 0xD0))
        | double_bytes("euc_kr", range(0xB0, 0xC9))
    )


def spread(ranges: Iterable[tuple[int, int]]) -> set[int]:
    """The numbers of closed ranges."""
    return {c for low, high in ranges for c in range(low, high + 1)}


def subset(source: Path, face: int, characters: set[int], family: str, out: Path) -> set[int]:
    """Write the glyphs of some characters as a font of another name; returns what it has."""
    from fontTools import subset as tool

    options = tool.Options()
    options.hinting = False
    options.notdef_outline = True
    options.recalc_timestamp = False
    options.layout_features = ["mark", "mkmk", "ccmp"] if face < 0 else []
    options.name_IDs = [0, 1, 2, 4, 5, 6, 13, 14]
    options.name_languages = [0x409]
    options.drop_tables += ["vhea", "vmtx", "VORG", "BASE", "DSIG", *([] if face < 0 else LAYOUT)]
    options.font_number = face
    font = tool.load_font(str(source), options)
    cutter = tool.Subsetter(options)
    cutter.populate(unicodes=characters)
    cutter.subset(font)
    rename(font, family)
    tool.save_font(font, str(out), options)
    return set(font.getBestCmap())


def rename(font: Any, family: str) -> None:
    """Give the font a name of its own, so that none that is installed is taken for it."""
    plain = family.replace(" ", "")
    names = {1: family, 2: "Regular", 4: family, 6: plain}
    for record in font["name"].names:
        if record.nameID in names:
            record.string = names[record.nameID]
    if "CFF " in font:
        top = font["CFF "].cff
        top.fontNames = [plain]
        top.topDictIndex[0].FamilyName = top.topDictIndex[0].FullName = family


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("letters", type=Path, help="Noto Sans, regular")
    parser.add_argument("ideographs", type=Path, help="Noto Sans CJK, regular, the collection")
    given = parser.parse_args()
    letters = spread(LETTERS)
    has = subset(given.letters, -1, letters, "Steerable Sans", OUT / "names.ttf")
    rest = (letters - has) | spread(SIGNS) | ideographs()
    cjk = subset(given.ideographs, SIMPLIFIED, rest, "Steerable Sans CJK", OUT / "names_cjk.otf")
    sys.stdout.write(f"names.ttf {len(has):,} characters, names_cjk.otf {len(cjk):,}\n")


if __name__ == "__main__":
    main()
