"""The base of every HTML page: names escaped, fonts that have them, nothing is fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from importlib import resources
from importlib.util import find_spec
from typing import Any

from steerable.core.errors import visible

from .lettering import FAMILIES, covers, own_fonts, shortened

__all__ = ["rendered"]

# Of the reader's system; those for Chinese, Japanese and Korean after those for letters.
STACK = (
    'system-ui, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Hiragino Sans", '
    '"Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans CJK SC", "Source Han Sans SC", '
    '"WenQuanYi Micro Hei", sans-serif'
)
MARK = "/* fonts */"  # of a template, before anything that a user has named
IDEOGRAPHS = 0x2E80  # from here on; below, every system has the letters and signs


def rendered(template: str, **values: Any) -> bytes:
    """A page of the package as UTF-8.

    Everything but what the template marks as safe is escaped, control characters and bidi
    overrides too. `NAME|short` leaves the middle of a long name out. Hanzi, kana and hangul
    come with the page, as a font of those alone, so that a reader needs no font for them.

    Args:
        template: File name in `jobs`.
        values: What it shows.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown)
    environment.filters["short"] = shortened
    text = resources.files("steerable").joinpath(f"jobs/{template}").read_text("utf-8")
    assert MARK in text, f"{template} has no place for fonts"
    page = environment.from_string(text).render(**values)
    return page.replace(MARK, _faces(page), 1).encode()


def _shown(value: Any) -> Any:
    """Text with what hides or steers escaped; line ends stay, as the settings have some."""
    if type(value) is not str:  # numbers, and markup that a template has called safe
        return value
    return "\n".join(map(visible, value.split("\n")))


def _faces(page: str) -> str:
    """The rules for fonts: those of the reader's system, and what the page needs beside them."""
    path, family = own_fonts()[-1], FAMILIES[-1]
    needed = {c for c in page if ord(c) >= IDEOGRAPHS and covers(path, c)}
    if not needed or find_spec("fontTools") is None:  # it comes with the library of the plots
        return f"body {{ font-family: {STACK} }}"
    source = f"url(data:font/otf;base64,{base64.b64encode(_subset(path, needed)).decode()})"
    face = f'@font-face {{ font-family: "{family}"; src: {source} }}'
    # Ours come first: browsers keep the box that they drew before a later one was loaded.
    return f'{face}\n  body {{ font-family: "{family}", {STACK} }}'


def _subset(path: Any, characters: Iterable[str]) -> bytes:
    """A font file of some characters alone; the same for the same characters."""
    from fontTools import subset

    options = subset.Options()
    options.recalc_timestamp = False
    options.notdef_outline = True
    cutter, buffer = subset.Subsetter(options), io.BytesIO()
    cutter.populate(unicodes=[ord(c) for c in characters])
    with subset.load_font(str(path), options) as font:
        cutter.subset(font)
        subset.save_font(font, buffer, options)
    return buffer.getvalue()
