"""Two passes over the pictures: headers first, to choose one shape, then pixels into one array."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steerable.core.errors import UserError
from steerable.intake import archives, folders, memory, pictures
from steerable.intake.ahead import in_order, processors

__all__ = ["READER", "Look", "Scan"]

# Version of what is made of the same files. A run goes on with the one that it began with.
# 1: every picture is decoded whole. 2: large JPEG pictures are decoded at a fraction of their size.
READER = 2

Pixels = NDArray[np.uint8]

_MAX_BAD = 0.05
_MAX_SIDE = 64  # what a CPU trains in minutes; larger sizes are there for the asking
_LARGEST = 1024  # also for the longer side of a ribbon
_STEP = 4  # two halvings in a U-Net
_ENTRY = 400  # bytes that the name, label and hash of a picture take
_DECODED = 12  # bytes a pixel of the file while it is decoded, turned and scaled
_LARGE = 2**17  # pixels of a file from which on threads gain more than they cost
_SMALLER = "--set data.size=32 or another smaller size, or fewer pictures"


class Scan:
    """The pictures of a path and what is known of them so far.

    `listing.entries` shrinks as bad files move to `listing.bad`.

    Args:
        path: A folder, or an .npz file.
        strict: Whether one bad file is too many.
        columns: Names and kinds of the columns that are conditions, beside the label.

    Raises:
        UserError: E-DATA if the path or its content is of no known layout.
    """

    def __init__(self, path: str, *, strict: bool, columns: Mapping[str, str]) -> None:
        if not path:
            takes = "the path of a folder of pictures or of an .npz file"
            raise UserError("E-DATA", where="images path", got="an empty path", takes=takes)
        self.path, self.strict = path, strict
        self.root = Path(path).expanduser() if path.startswith("~/") else Path(path)
        self.archive: archives.Archive | None = None
        if self.root.suffix.lower() == ".npz" and self.root.is_file():
            self.archive = archives.archive(self.root, columns)
            self.listing = folders.Listing("npz", list(self.archive.entries))
        else:
            self.listing = folders.listing(self.root, pictures.SUFFIXES, columns)
        self._classes = {entry.label for entry in self.listing.entries} - {None}
        self.headers: Counter[pictures.Header] = Counter()
        self.conversions: Counter[str] = Counter()
        self.size_reason = self.channels_reason = "as asked"

    @property
    def name(self) -> str:
        """The name of the folder, or of the file without its suffix."""
        return self.root.resolve().name if self.archive is None else self.root.stem

    def _check(self) -> None:
        """Refuse a data set with too many bad files or fewer than two good ones."""
        bad, good = self.listing.bad, len(self.listing.entries)
        if len(bad) > (0 if self.strict else _MAX_BAD * (good + len(bad))):
            first = "; ".join(f"{name!r}: {reason}" for name, reason in bad[:3])
            raise UserError(
                "E-DATA",
                where=self.path,
                got=f"{len(bad)} of {good + len(bad)} pictures are bad ({first})",
                takes="no bad file (on_bad=error)" if self.strict else f"at most {_MAX_BAD:.0%}",
                do="mend or remove the bad files",
            )
        if good < 2:
            raise UserError(
                "E-DATA",
                where=self.path,
                got="1 picture" if good else "no picture",
                takes="two pictures at least: one to train on, one to measure with",
                do="add pictures",
            )

    def peek(self) -> Iterator[int]:
        """Read all headers, so that the shape is known before the first picture is decoded.

        Yields:
            How many are read.

        Raises:
            UserError: E-DATA if too many pictures are bad or too few are there.
        """
        if self.archive is not None:
            n, height, width, channels = self.archive.shape
            mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
            self.headers[pictures.Header(height, width, mode, 8, channels == 4)] = n
            self._check()
            return
        good = []
        for i, entry in enumerate(self.listing.entries):
            yield i
            try:
                self.headers[pictures.peek(self.root / entry.name)] += 1
                good.append(entry)
            except pictures.PictureError as fault:
                self.listing.bad.append((entry.name, fault.reason))
        self.listing.entries = good
        self._check()

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the items, where 0 asks to choose; `size_reason` says why."""
        if height and width:
            return height, width
        sizes = [(head.height, head.width) for head in self.headers.elements()]
        rows, columns = (statistics.median(side) for side in zip(*sizes, strict=True))
        kinds, longer = len(set(sizes)), max(rows, columns)
        same = f"all pictures are {sizes[0][1]} x {sizes[0][0]}"
        what = same if kinds == 1 else f"the median of {kinds} sizes"
        if height or width:
            self.size_reason = f"one side as asked, the other by the shape: {what}"
            scale = height / rows if height else width / columns
            return height or _rounded(rows * scale), width or _rounded(columns * scale)
        self.size_reason = what
        if longer > _MAX_SIDE:
            self.size_reason += f", scaled down to a longer side of {_MAX_SIDE}"
        elif kinds == 1:
            return sizes[0]
        scale = min(1.0, _MAX_SIDE / longer)
        return _rounded(rows * scale), _rounded(columns * scale)

    def load(self, shape: tuple[int, int, int], look: Look) -> Generator[int, None, Pixels]:
        """The items (N,C,rows,columns), in memory once.

        Args:
            shape: Channels, rows and columns; 0 channels takes the fewest that do.
            look: How the pictures are decoded.

        Yields:
            How many are read.

        Raises:
            UserError: E-DATA if too many pictures are bad; E-MEM if they do not fit.
        """
        asked, rows, columns = shape
        shape = (asked or self._enough(), rows, columns)
        x = self._room(shape)
        good: list[folders.Entry] = []
        alphas, clear, grey = 0, 0, True
        for i, (entry, made) in enumerate(self._decoded(shape, look)):
            yield i
            if isinstance(made, str):
                self.listing.bad.append((entry.name, made))
                continue
            alphas, clear, grey = alphas + made.alpha, clear + made.clear, grey and made.grey
            self.conversions.update(made.conversions)
            x[len(good)] = made.item.transpose(2, 0, 1)
            good.append(entry)
        self.listing.entries = good
        self._check()
        for label in sorted(self._classes - {entry.label for entry in good}):
            self.listing.warnings.append(f"class {label!r} has no good picture and is left out")
        keep = asked or (4 if shape[0] == 4 and clear else 1 if grey else 3)
        if not asked:
            why = {1: "all pictures are grey", 3: "pictures in colour"}
            self.channels_reason = why.get(keep, f"all can be transparent, {clear} are")
        if alphas:
            self.conversions["alpha kept" if keep == 4 else "alpha over the background"] = alphas
        return _narrowed(x, len(good), keep)

    def _room(self, shape: tuple[int, int, int]) -> Pixels:
        """Memory for the items, of which there is enough.

        Raises:
            UserError: E-MEM if there is not.
        """
        n, size = len(self.listing.entries), "{1} x {2} with {0} channels".format(*shape)
        what = f"{n} pictures of {size}"
        need = n * (shape[0] * shape[1] * shape[2] + _ENTRY) + _DECODED * self._largest()
        memory.require(need, where=self.path, what=what, do=_SMALLER)
        try:
            return np.empty((n, *shape), np.uint8)
        except MemoryError as fault:
            got = f"{what}, and no memory for them"
            raise UserError("E-MEM", where=self.path, got=got, do=_SMALLER) from fault

    def _largest(self) -> int:
        """Pixels of the largest picture."""
        return max((head.height * head.width for head in self.headers), default=0)

    def _enough(self) -> int:
        """The channels that are enough for sure, by the headers alone."""
        if all(head.alpha for head in self.headers):
            return 4
        grey = all(head.mode in {"1", "L"} or head.mode[0] == "I" for head in self.headers)
        return 1 if grey and not any(head.alpha for head in self.headers) else 3

    def _decoded(
        self, shape: tuple[int, int, int], look: Look
    ) -> Iterator[tuple[folders.Entry, Item | str]]:
        """Every picture as an item, or why it is bad, in order; large ones by several threads."""
        entries = self.listing.entries
        if self.archive is not None:
            work: Callable[[Any], Item | str] = partial(_item, shape=shape, look=look)
            things: Iterable[Any] = self.archive.pictures()
        else:
            work = partial(_read, shape=shape, look=look)
            things = (self.root / entry.name for entry in entries)
        yield from zip(entries, in_order(work, things, self._threads(look)), strict=True)

    def _threads(self, look: Look) -> int:
        """How many threads decode; the items are the same with any number."""
        if look.threads:
            return look.threads
        pixels = sum(head.height * head.width * n for head, n in self.headers.items())
        if pixels < _LARGE * self.headers.total():
            return 1
        free = memory.available()
        # Each thread holds a picture of its own while it decodes it.
        most = processors() if free is None else free[0] // (4 * _DECODED * self._largest() + 1)
        return max(1, min(processors(), most))


@dataclass(frozen=True)
class Look:
    """How pictures are decoded.

    Attributes:
        background: Colour under transparent pictures.
        reduced: Whether large JPEG pictures may be decoded at a fraction of their size.
        threads: How many threads decode; 0 chooses.
    """

    background: tuple[int, int, int] = (255, 255, 255)
    reduced: bool = False
    threads: int = 0


@dataclass(frozen=True)
class Item:
    """A picture in the size and the channels of the items.

    Attributes:
        item: The pixels (H,W,C).
        alpha: Whether it had a channel for transparency.
        clear: Whether any pixel was transparent.
        grey: Whether all pixels are grey.
        conversions: What was done to it.
    """

    item: Pixels
    alpha: bool
    clear: bool
    grey: bool
    conversions: tuple[str, ...] = ()


def _read(path: Path, shape: tuple[int, int, int], look: Look) -> Item | str:
    """The item of a file, or why it is bad."""
    try:
        pixels, facts = pictures.read(path, least=shape[1:] if look.reduced else None)
    except pictures.PictureError as fault:
        return fault.reason
    return _item(pixels, shape, look, facts.conversions)


def _item(
    pixels: Pixels, shape: tuple[int, int, int], look: Look, conversions: tuple[str, ...] = ()
) -> Item:
    alpha = pixels.shape[2] == 4
    clear = alpha and bool(pixels[..., 3].min() < 255)
    fit = pictures.fitted(pixels, *shape[1:])
    item = pictures.with_channels(fit, shape[0], look.background)
    return Item(item, alpha, clear, bool((item[..., :3] == item[..., :1]).all()), conversions)


def _rounded(side: float) -> int:
    return min(max(_STEP, int(side / _STEP + 0.5) * _STEP), _LARGEST)


def _narrowed(x: Pixels, n: int, channels: int) -> Pixels:
    """The first channels of the first n items, moved together in place; the rest is given back."""
    size = channels * x.shape[2] * x.shape[3]
    if channels != x.shape[1]:
        flat = x.reshape(-1)
        for i in range(n):
            flat[i * size : (i + 1) * size] = x[i, :channels].reshape(-1).copy()
        del flat
    # No view of the old memory is left; numpy's own count is wrong under debuggers and tracers.
    x.resize((n, channels, *x.shape[2:]), refcheck=False)
    return x
