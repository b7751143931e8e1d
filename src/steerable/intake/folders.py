"""From a path to a list of pictures with labels, for each layout that people keep pictures in."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from steerable.core.errors import UserError
from steerable.intake.columns import ColumnError, Value, class_name, parsed
from steerable.intake.names import Names
from steerable.intake.plain import plain_bytes

__all__ = ["Entry", "Listing", "listing"]

_TAKES = (
    "a folder of class folders; a flat folder; a folder with metadata.csv or metadata.jsonl "
    "(file_name, label); an .npz file (images, labels)"
)
_TRAINING = ("train", "training")
_SPLITS = frozenset({*_TRAINING, "test", "testing", "val", "valid", "validation", "dev", "eval"})
# Kinds that people take for pictures, worth a word when they are passed over.
_OTHER_PICTURES = frozenset({".bmp", ".gif", ".tif", ".tiff", ".heic", ".avif", ".jxl", ".svg"})


class Entry(NamedTuple):
    """A picture: its name in the data, its label, and the values of the columns asked for."""

    name: str
    label: str | None = None
    values: tuple[Value, ...] = ()


@dataclass
class Listing:
    """The pictures of a folder, not opened yet.

    Attributes:
        layout: Name of the layout that was recognised.
        entries: The pictures by name, relative to the folder with forward slashes, sorted.
        bad: (name, reason) of what should be a picture and cannot be one.
        ignored: How many other files there are, by suffix.
        warnings: What the owner of the folder ought to know.
    """

    layout: str
    entries: list[Entry] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)


def listing(root: Path, suffixes: frozenset[str], columns: Mapping[str, str]) -> Listing:
    """List the files of `root` that end in one of `suffixes`, with the labels of its layout.

    Links are followed, each folder once. Hidden files are passed over.

    Args:
        root: The folder.
        suffixes: Of picture files, in lower case.
        columns: Further columns of a table and their kinds. With `label: label`, a picture need
            not have a label; with another kind, the column `label` says nothing of classes.

    Raises:
        UserError: E-DATA if the path or its content is none of the layouts.
    """
    if not root.exists():
        raise _refused(root, "the path does not exist", do="check the spelling of the path")
    if not root.is_dir():
        raise _refused(root, "a file of a kind that is not read", do="unpack archives into folders")
    # A table that is no plain file is refused where it is read; passed over, it would say nothing.
    tables = [n for n in ("metadata.jsonl", "metadata.csv") if _is_there(root / n)]
    if len(tables) > 1:
        raise _refused(root, "both metadata.jsonl and metadata.csv", do="remove one of the two")
    found = _Walk(root, suffixes)
    if columns and not tables:
        got = f"no table with the columns {', '.join(columns)}"
        raise _refused(root, got, do="write a metadata.csv with file_name and these columns")
    table = tables[0] if tables else ""
    result = _from_table(root, table, found, columns) if table else _from_folders(root, found)
    for suffix in sorted(_OTHER_PICTURES & result.ignored.keys()):
        count = result.ignored[suffix]
        result.warnings.append(f"{count} {suffix} files are not read: convert them to PNG")
    if not result.entries and not result.bad:
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in result.ignored.most_common(5))
        got = f"no picture; other files: {kinds}" if kinds else "an empty folder"
        raise _refused(root, got, do="put PNG, JPEG or WebP files there")
    result.entries.sort(key=lambda entry: entry.name)
    return result


def _is_there(table: Path) -> bool:
    """Whether anything but a folder has this name, be it a pipe or a link to nothing."""
    return os.path.lexists(table) and not table.is_dir()


class _Walk:
    """Every file below a folder: `names` of picture files, `bad` ones, `ignored` suffixes.

    `folders` are the names of the top-level folders, with or without pictures.
    """

    def __init__(self, root: Path, suffixes: frozenset[str]) -> None:
        self.names: list[str] = []
        self.bad: list[tuple[str, str]] = []
        self.ignored: Counter[str] = Counter()
        self.folders: list[str] = []
        self._root, self._suffixes = str(root), suffixes
        self._seen = {_identity(root)}
        waiting = [""]
        while waiting:
            waiting += reversed(self._scanned(waiting.pop()))

    def _scanned(self, prefix: str) -> list[str]:
        """Sort the content of one folder into the lists; the folders that are still to be read."""
        try:
            with os.scandir(os.path.join(self._root, prefix)) as content:  # noqa: PTH118
                entries = sorted(content, key=lambda entry: entry.name)
        except OSError as fault:
            if not prefix:
                raise _refused(
                    Path(self._root), f"cannot be listed: {fault.strerror}", do="check its rights"
                ) from fault
            self.bad.append((prefix.rstrip("/"), f"a folder, {fault.strerror}"))
            return []
        below = []
        for entry in entries:
            name, suffix = prefix + entry.name, PurePosixPath(entry.name).suffix.lower()
            folder = _is_folder(entry)
            if entry.name.startswith("."):
                self.ignored["hidden"] += 1
            elif folder is None:
                self.bad.append((name, "a link to itself"))
            elif folder and suffix in self._suffixes:
                self.bad.append((name, "a folder, not a file"))
            elif folder and self._is_new(entry, name):
                below.append(name + "/")
                self.folders += [] if prefix else [entry.name]
            elif not folder and suffix in self._suffixes:
                self.names.append(name)
            elif not folder:
                self.ignored[suffix or "no suffix"] += 1
        return below

    def _is_new(self, entry: os.DirEntry[str], name: str) -> bool:
        """Whether a folder was not read before; links could lead round in circles for ever."""
        try:
            identity = _identity(Path(entry.path))
        except OSError as fault:
            self.bad.append((name, f"a folder, {fault.strerror}"))
            return False
        if identity in self._seen:
            self.bad.append((name, "a link to a folder that is read already"))
            return False
        self._seen.add(identity)
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool | None:
    """None for a link that ends nowhere because it leads round in a circle."""
    try:
        return entry.is_dir()
    except OSError:
        return None


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _refused(where: Path, got: str, *, do: str) -> UserError:
    return UserError("E-DATA", where=str(where), got=got, takes=_TAKES, do=do)


def _from_folders(root: Path, found: _Walk) -> Listing:
    """Class folders if any folder holds a picture file, else a flat folder."""
    if not any("/" in name for name, *_ in (*found.bad, *((n,) for n in found.names))):
        return Listing("flat folder", [*map(Entry, found.names)], found.bad, found.ignored)
    used = list(dict.fromkeys(name.partition("/")[0] for name in found.names if "/" in name))
    if used and all(name.lower() in _SPLITS for name in used):
        raise _splits(root, used)
    result = Listing("class folders", bad=found.bad, ignored=found.ignored)
    for name in found.names:
        top, slash, _ = name.partition("/")
        if slash:
            result.entries.append(Entry(name, class_name(top)))
        else:
            result.bad.append((name, "lies beside the class folders, so it has no label"))
    labels = {entry.label for entry in result.entries}
    for folder in found.folders:
        if class_name(folder) not in labels:
            result.warnings.append(f"class {class_name(folder)!r} has no picture and is left out")
    return result


def _splits(root: Path, found: Sequence[str]) -> UserError:
    """Folders that look like the parts of a data set: which one is to be trained on."""
    got = f"the folders {', '.join(found)}, which look like splits, not like classes"
    first = next((name for name in found if name.lower() in _TRAINING), None)
    if first is None:
        do = f"give the folder of the pictures to train on, such as {root / found[0]}, by its path"
    else:
        do = f"train on {root / first}"
        rest = next((root / name for name in found if name != first), None)
        do += f", and measure with evaluate --against {rest}" if rest is not None else ""
    return _refused(root, got, do=do)


def _from_table(root: Path, table: str, found: _Walk, columns: Mapping[str, str]) -> Listing:
    """The files that a table lists; a row that cannot be used is a bad file."""
    result = Listing(table, bad=found.bad, ignored=found.ignored)
    result.ignored[PurePosixPath(table).suffix] -= 1
    result.ignored += Counter()  # drops the zero
    read = _json_rows if table.endswith("jsonl") else _csv_rows
    rows = [row for row in read(_text(root / table), root / table) if not _is_blank(row[1])]
    if not rows:
        got = f"{table} lists no picture, but the folder holds {len(found.names)}"
        raise _refused(root, got, do=f"add a line for each picture, or remove {table}")
    rows = _renamed(rows, columns, root / table)
    on_disk = Names(found.names)
    must = "label" not in columns and any(class_name(row.get("label")) for _, row in rows)
    seen: set[str] = set()
    for line, row in rows:
        place, name = f"{table} line {line}", row.get("file_name")
        if not isinstance(name, str) or not name:
            result.bad.append((place, row.get("reason") or "no file_name"))
            continue
        # Disks and tables write accents in two forms, and some disks know no case.
        path = PurePosixPath(on_disk.find(str(PurePosixPath(name))) or name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            result.bad.append((place, f"{name!r} is not a place inside the folder"))
        elif str(path) in seen:
            result.bad.append((place, f"{name!r} is listed twice"))
        else:
            try:
                result.entries.append(_entry(str(path), row, columns, must=must))
            except ColumnError as fault:
                result.bad.append((str(path), f"{fault.reason}, {place}"))
        seen.add(str(path))
    unlisted = len(set(found.names) - seen)
    if unlisted:
        result.warnings.append(f"{unlisted} pictures are not listed in {table} and are left out")
    return result


def _is_blank(row: Mapping[str, Any]) -> bool:
    """Whether a row says nothing: blanks between line breaks, or delimiters alone."""
    return not any(v.strip() if isinstance(v, str) else v is not None for v in row.values())


_Rows = list[tuple[int, dict[str, Any]]]


def _renamed(rows: _Rows, columns: Mapping[str, str], table: Path) -> _Rows:
    """The rows with the columns that were asked for under the names that they were asked by.

    Raises:
        UserError: E-DATA for one that no row has.
    """
    held = Names(key for _, row in rows for key in row if isinstance(key, str))
    other: dict[str, str] = {}
    for name in columns:
        found = held.find(name)
        if found is None:
            got = f"no column '{name}', but {', '.join(held.known[:20]) or 'none'}"
            raise _refused(table, got, do="check the spelling of the column")
        if found != name:
            other[name] = found
    if not other:
        return rows
    return [(i, {**row, **{name: row.get(key) for name, key in other.items()}}) for i, row in rows]


def _entry(name: str, row: Mapping[str, Any], columns: Mapping[str, str], *, must: bool) -> Entry:
    """The picture of a row; ColumnError if a value of it cannot be read."""
    label = class_name(row.get("label"))
    if must and not label:
        raise ColumnError("no label that is text or a whole number")
    values = []
    for column, kind in columns.items():
        try:
            values.append(parsed(kind, row.get(column)))
        except ColumnError as fault:
            raise ColumnError(f"{column}: {fault.reason}") from fault
    own = columns.get("label", "label") == "label"
    return Entry(name, (label or None) if own else None, tuple(values))


def _text(path: Path) -> str:
    """The text of a table in UTF-8 or, with a byte-order mark, UTF-16."""
    try:
        data = plain_bytes(path)
        return data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(
            "E-DATA",
            where=str(path),
            got=f"unreadable: {getattr(fault, 'strerror', None) or fault}",
            takes="a plain file of text in UTF-8",
            do="save the table again as UTF-8",
        ) from fault


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # splitlines() would also split at line separators inside of JSON strings.
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            value = json.loads(row)
        except (ValueError, RecursionError) as fault:
            value = {"reason": f"not JSON: {fault}"}
        yield line, value if isinstance(value, dict) else {"reason": "not a JSON object"}


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    head = text.split("\n", 1)[0]
    # Spreadsheets write semicolons or tabs where the comma is the decimal sign.
    delimiter = next((mark for mark in ",;\t" if mark in head), ",")
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    lines, before = io.StringIO(text, newline="").readlines(), 0
    try:
        known = rows.fieldnames or ()
        if rows.line_num > 1:
            _closed(lines, before, rows.line_num, delimiter=delimiter)
        before = rows.line_num
        if "file_name" not in known:
            raise UserError(
                "E-DATA",
                where=str(path),
                got=f"the columns {', '.join(map(repr, known)) or 'of an empty file'}",
                takes="a first line with file_name and, for labels, label",
                do="add the line",
            )
        for row in rows:
            broken = any("\n" in text for text in row.values() if isinstance(text, str))
            if broken or rows.line_num - before > 1:
                _closed(lines, before, rows.line_num, delimiter=delimiter)
            yield rows.line_num, row
            before = rows.line_num
    except csv.Error as fault:
        raise UserError(
            "E-DATA",
            where=f"{path}, line {before + 1}",
            got=f"not CSV: {fault}",
            takes="comma-separated values, with every quote closed",
            do="mend the line",
        ) from fault


def _closed(lines: Sequence[str], before: int, last: int, *, delimiter: str) -> None:
    """Hold a row of several lines to the letter of CSV.

    A quote that is never closed swallows the rows behind it, and the reader says nothing of that.
    A text of several lines between two quotes is welcome.

    Raises:
        csv.Error: A quote that is not closed, or text behind a closing one.
    """
    part = io.StringIO("".join(lines[before:last]), newline="")
    try:
        list(csv.reader(part, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as fault:
        swallowed = last - before - 1
        message = "a quote is opened and not closed"
        message += f", and swallows {swallowed} lines" if swallowed else ""
        raise csv.Error(message) from fault
