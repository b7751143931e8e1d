"""Further columns of a table become conditions: class names, numbers or words of every picture.

A value is read twice. `parsed` looks at one alone, so that a bad row can be told from a missing
value; `encoded` looks at all of them, so that names, scales and words come from the training part.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerable.core.errors import UserError

__all__ = [
    "Column",
    "ColumnError",
    "Value",
    "checked",
    "class_name",
    "encoded",
    "ordered",
    "parsed",
    "words_of",
]

Value = str | tuple[float, ...] | tuple[str, ...] | None  # None: missing

KINDS = ("label", "vector", "tokens")
_MAX_WORDS, _MAX_LENGTH, _MAX_NUMBERS = 4096, 64, 256
_LARGEST = 1e30  # larger numbers lose their differences in float32
_TAKEN = frozenset({"file_name", "images", "labels", "names", "name", "x"})


class ColumnError(Exception):
    """A value that is there and cannot be read; `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Column:
    """A condition of all pictures.

    Attributes:
        kind: `label`, `vector` or `tokens`.
        values: int64 (N,), float32 (N,K) or int64 (N,L); -1 and NaN are missing values.
        names: Class names, names of the numbers, or words, by index.
        facts: What the report says of it.
    """

    kind: str
    values: NDArray[Any]
    names: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def checked(columns: Mapping[str, str]) -> None:
    """Check the names and the kinds that were asked for.

    Raises:
        UserError: E-CONFIG for one that cannot be taken.
    """
    for name, kind in columns.items():
        where = f"images columns, {name!r}"
        if kind not in KINDS:
            raise UserError("E-CONFIG", where=where, got=repr(kind), takes=", ".join(KINDS))
        if name in _TAKEN or not re.fullmatch(r"[\w-]+( [\w-]+)*", name):
            takes = f"a name of letters, digits, blanks, - and _, none of {sorted(_TAKEN)}"
            do = "rename the column"
            raise UserError("E-CONFIG", where=where, got="such a name", takes=takes, do=do)


def class_name(value: Any) -> str:
    """A label as text, "" for none; folders of one name in two Unicode forms are one class."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return ""
    # Bytes of a file name that are no UTF-8 could not be written into a recipe.
    return unicodedata.normalize("NFC", value).encode(errors="backslashreplace").decode()


def ordered(labels: set[str]) -> list[str]:
    """Whole numbers by value, so that label 10 comes after label 9; all other names as text."""
    number = all(
        label.isdecimal() and len(label) < 10 and str(int(label)) == label for label in labels
    )
    return sorted(labels, key=int if number else None)


def parsed(kind: str, value: Any) -> Value:
    """One value of a table, None if it is missing: nothing, blanks, or NaN.

    Raises:
        ColumnError: If it is there and not of this kind.
    """
    blank = isinstance(value, str) and not value.strip()
    if value is None or blank or (isinstance(value, float) and math.isnan(value)):
        return None
    if kind == "vector":
        return _numbers(value)
    if kind == "tokens":
        return _words(value)
    name = class_name(value)
    if not name:
        raise ColumnError(f"{_brief(value)} is neither text nor a whole number")
    return name


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _numbers(value: Any) -> tuple[float, ...] | None:
    parts = value
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            parts = json.loads(value)
        except (ValueError, RecursionError) as fault:
            raise ColumnError(f"{_brief(value)} is not a JSON list") from fault
    elif isinstance(value, str):
        parts = re.split(r"\s*;\s*|\s+", value.strip())
    parts = parts if isinstance(parts, list) else [parts]
    if not 1 <= len(parts) <= _MAX_NUMBERS:
        raise ColumnError(f"{len(parts)} numbers, the limit is 1 to {_MAX_NUMBERS}")
    numbers = tuple(_number(part) for part in parts)
    return None if all(map(math.isnan, numbers)) else numbers


def _number(part: Any) -> float:
    if part is None:
        return math.nan
    try:
        number = float(part) if isinstance(part, int | float | str) else math.inf
    except (ValueError, OverflowError) as fault:
        raise ColumnError(f"{_brief(part)} is not a number (0.5 has a point)") from fault
    if abs(number) > _LARGEST:
        raise ColumnError(f"{_brief(part)} is not a number of a usable size")
    return number


@lru_cache(maxsize=4096)
def _parts(letter: str) -> bool:
    """Whether a character stands between words: blanks, punctuation and control characters."""
    return unicodedata.category(letter)[0] in "ZP" or unicodedata.category(letter) == "Cc"


def _words(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    text = class_name(value)
    if not text:
        raise ColumnError(f"{_brief(value)} is not text")
    # One more than the limit tells that something was cut.
    return tuple(words_of(text)[: _MAX_LENGTH + 1]) or None


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case and composed, without punctuation."""
    plain = class_name(text).lower()
    return "".join(" " if _parts(letter) else letter for letter in plain).split()


def encoded(
    name: str, kind: str, values: Sequence[Value], out: Sequence[bool], path: str
) -> Column:
    """The condition that the values of all pictures make.

    Args:
        name: Name of the column.
        kind: `label`, `vector` or `tokens`.
        values: What `parsed` gave for every picture.
        out: Whether it is held out.
        path: The data, for messages.

    Raises:
        UserError: E-DATA if the training part has no value, too many names, numbers that are
            not as many everywhere, or numbers that never change.
    """

    def refused(got: str, do: str) -> UserError:
        takes = "class names (label), numbers (vector) or words (tokens)"
        return UserError("E-DATA", where=f"{path}, column '{name}'", got=got, takes=takes, do=do)

    if all(value is None or held for value, held in zip(values, out, strict=True)):
        raise refused("no value in the training part", "leave the column out, or fill it in")
    make = {"label": _labels, "vector": _vectors, "tokens": _tokens}[kind]
    made = make(name, values, out, refused)
    return Column(kind, made.values, made.names, {"missing": values.count(None), **made.facts})


Refused = Callable[[str, str], UserError]


def _labels(name: str, values: Sequence[Any], out: Sequence[bool], refused: Refused) -> Column:
    known = {v for v, held in zip(values, out, strict=True) if v is not None and not held}
    if len(known) > _MAX_WORDS:
        got = f"{len(known)} different names, the limit is {_MAX_WORDS}"
        raise refused(got, "read it as tokens or vector")
    place = {label: i for i, label in enumerate(ordered(known))}
    index = np.array([place.get(value, -1) for value in values], np.int64)
    unknown = sum(value is not None and value not in place for value in values)
    return Column("label", index, tuple(place), {"unknown_in_held_out": unknown})


def _vectors(name: str, values: Sequence[Any], out: Sequence[bool], refused: Refused) -> Column:
    widths = Counter(len(value) for value in values if value is not None)
    if len(widths) > 1:
        got = ", ".join(f"{n} pictures with {width} numbers" for width, n in widths.most_common(4))
        raise refused(got, "give every picture as many numbers")
    (width,) = widths
    rows = np.array([value or (math.nan,) * width for value in values], np.float64)
    # A picture with some of its numbers has no place in the space of all of them.
    partial = np.isnan(rows).any(1) & ~np.isnan(rows).all(1)
    rows[partial] = np.nan
    train = rows[~np.array(out, bool)]
    train = train[~np.isnan(train).any(1)]
    if not len(train):
        raise refused("no picture of the training part has all its numbers", "fill them in")
    low, high = train.min(0), train.max(0)
    names = (name,) if width == 1 else tuple(f"{name} {i + 1}" for i in range(width))
    for number, constant, value in zip(names, low == high, low, strict=True):
        if constant:
            got = f"'{number}' is {value:g} for all of the training part, so it says nothing"
            raise refused(got, "leave it out")
    scaled = ((rows - low) / (high - low) * 2 - 1).astype(np.float32)
    outside = int((np.nan_to_num(np.abs(scaled)) > 1).any(1).sum())
    ends = {n: [a, b] for n, a, b in zip(names, low.tolist(), high.tolist(), strict=True)}
    facts = {"incomplete": int(partial.sum()), "outside": outside, "from_-1_to_1": ends}
    return Column("vector", scaled, names, facts)


def _tokens(name: str, values: Sequence[Any], out: Sequence[bool], refused: Refused) -> Column:
    cut = [() if value is None else value[:_MAX_LENGTH] for value in values]
    counts: Counter[str] = Counter()
    for row, held in zip(cut, out, strict=True):
        counts.update(() if held else row)
    # The most frequent words stay; words of one count go by their letters.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    words = sorted(ranked[:_MAX_WORDS])
    place = {word: i for i, word in enumerate(words)}
    rows = [[place[word] for word in row if word in place] for row in cut]
    index = np.full((len(rows), max(1, *map(len, rows))), -1, np.int64)
    for line, row in zip(index, rows, strict=True):
        line[: len(row)] = row
    known, held_words = set(ranked), (w for row, h in zip(cut, out, strict=True) if h for w in row)
    facts = {
        "words": len(words),
        "length": index.shape[1],
        "cut": sum(value is not None and len(value) > _MAX_LENGTH for value in values),
        "rare_words_dropped": len(ranked) - len(words),
        "unknown_in_held_out": sum(word not in known for word in held_words),
    }
    return Column("tokens", index, tuple(words), facts)
