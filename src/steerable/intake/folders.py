"""From a path to a list of pictures with labels, for each layout that people keep pictures in."""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from steerable.core.errors import UserError

__all__ = ["Listing", "listing"]

_TAKES = (
    "a folder of class folders; a flat folder; a folder with metadata.csv or metadata.jsonl "
    "(file_name, label); an .npz file (images, labels)"
)
_SPLITS = frozenset({"train", "training", "test", "val", "valid", "validation", "eval"})
# Kinds that people take for pictures, worth a word when they are passed over.
_OTHER_PICTURES = frozenset({".bmp", ".gif", ".tif", ".tiff", ".heic", ".avif", ".jxl", ".svg"})


@dataclass
class Listing:
    """The pictures of a folder, not opened yet.

    Attributes:
        layout: Name of the layout that was recognised.
        entries: (name relative to the folder with forward slashes, label or None), sorted.
        bad: (name, reason) of what should be a picture and cannot be one.
        ignored: How many other files there are, by suffix.
        warnings: What the owner of the folder ought to know.
    """

    layout: str
    entries: list[tuple[str, str | None]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)


def listing(root: Path, suffixes: frozenset[str]) -> Listing:
    """List the files of `root` that end in one of `suffixes`, with the labels of its layout.

    Links are followed, each folder once. Hidden files are passed over.

    Raises:
        UserError: E-DATA if the path or its content is none of the layouts.
    """
    if not root.exists():
        raise _refused(root, "the path does not exist", do="check the spelling of the path")
    if not root.is_dir():
        raise _refused(root, "a file of a kind that is not read", do="unpack archives into folders")
    tables = [name for name in ("metadata.jsonl", "metadata.csv") if (root / name).is_file()]
    if len(tables) > 1:
        raise _refused(root, "both metadata.jsonl and metadata.csv", do="remove one of the two")
    found = _Walk(root, suffixes)
    result = _from_table(root, tables[0], found) if tables else _from_folders(root, found)
    for suffix in sorted(_OTHER_PICTURES & result.ignored.keys()):
        count = result.ignored[suffix]
        result.warnings.append(f"{count} {suffix} files are not read: convert them to PNG")
    if not result.entries and not result.bad:
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in result.ignored.most_common(5))
        got = f"no picture; other files: {kinds}" if kinds else "an empty folder"
        raise _refused(root, got, do="put PNG, JPEG or WebP files there")
    result.entries.sort()
    return result


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
        entries: list[tuple[str, str | None]] = [(name, None) for name in found.names]
        return Listing("flat folder", entries, found.bad, found.ignored)
    if found.folders and all(name.lower() in _SPLITS for name in found.folders):
        got = f"the folders {', '.join(found.folders)}, which look like splits, not like classes"
        raise _refused(root, got, do=f"give the path of one: {root / found.folders[0]}")
    result = Listing("class folders", bad=found.bad, ignored=found.ignored)
    for name in found.names:
        top, slash, _ = name.partition("/")
        if slash:
            result.entries.append((name, _label(top)))
        else:
            result.bad.append((name, "lies beside the class folders, so it has no label"))
    used = {label for _, label in result.entries}
    for folder in found.folders:
        if _label(folder) not in used:
            result.warnings.append(f"class {_label(folder)!r} has no picture and is left out")
    return result


def _from_table(root: Path, table: str, found: _Walk) -> Listing:
    """The files that a table lists; a row that cannot be used is a bad file."""
    result = Listing(table, bad=found.bad, ignored=found.ignored)
    result.ignored[PurePosixPath(table).suffix] -= 1
    result.ignored += Counter()  # drops the zero
    read = _json_rows if table.endswith("jsonl") else _csv_rows
    rows = list(read(_text(root / table), root / table))
    labelled = any(_label(row.get("label")) for _, row in rows)
    seen: set[str] = set()
    for line, row in rows:
        place, name = f"{table} line {line}", row.get("file_name")
        label = _label(row.get("label"))
        if not isinstance(name, str) or not name:
            result.bad.append((place, row.get("reason") or "no file_name"))
            continue
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            result.bad.append((place, f"{name!r} is not a place inside the folder"))
        elif str(path) in seen:
            result.bad.append((place, f"{name!r} is listed twice"))
        elif labelled and not label:
            result.bad.append((str(path), f"no label that is text or a whole number, {place}"))
        else:
            result.entries.append((str(path), label or None))
        seen.add(str(path))
    unlisted = len(set(found.names) - seen)
    if unlisted:
        result.warnings.append(f"{unlisted} pictures are not listed in {table} and are left out")
    return result


def _label(value: Any) -> str:
    """A label as text, "" for none; folders of one name in two Unicode forms are one class."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return ""
    # Bytes of a file name that are no UTF-8 could not be written into a recipe.
    return unicodedata.normalize("NFC", value).encode(errors="backslashreplace").decode()


def _text(path: Path) -> str:
    """The text of a table in UTF-8 or, with a byte-order mark, UTF-16."""
    try:
        data = path.read_bytes()
        return data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(
            "E-DATA",
            where=str(path),
            got=f"unreadable: {fault}",
            takes="text in UTF-8",
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
    if "file_name" not in (rows.fieldnames or ()):
        raise UserError(
            "E-DATA",
            where=str(path),
            got=f"the columns {', '.join(map(repr, rows.fieldnames or ())) or 'of an empty file'}",
            takes="a first line with file_name and, for labels, label",
            do="add the line",
        )
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as fault:
        raise UserError(
            "E-DATA",
            where=f"{path}, line {rows.line_num}",
            got=f"not CSV: {fault}",
            takes="comma-separated values",
            do="mend the line",
        ) from fault
