"""Pictures that are given to be edited: files, folders or tensors, each checked at the door.

Here everything is brought to the size and the channels of a model, or refused with what it takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.intake.names import Names
from steerable.intake.plain import plain_bytes

__all__ = ["Picture", "Pictures", "as_floats", "centred", "flags", "one_each", "pictures"]

Pictures = str | Path | Tensor | Sequence[str | Path | Tensor]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Picture:
    """A picture as it was given.

    Attributes:
        name: Name of the file; `tensor` for a picture that came from none.
        sha256: Of the file's bytes, or of the tensor's.
        x: Pixels (C,H,W): uint8, or floats in [-1, 1].
        file: Whether it came from a file, whose size need not be the model's.
    """

    name: str
    sha256: str
    x: Tensor
    file: bool

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.x.shape[-2], self.x.shape[-1]

    def record(self) -> dict[str, str]:
        """What identifies it."""
        return {"file": self.name, "sha256": self.sha256}


def pictures(given: Pictures, where: str) -> list[Picture]:
    """Every picture of a file, a folder, a tensor (C,H,W) or (n,C,H,W), or several of them.

    Args:
        given: A folder gives its PNG, JPEG and WebP files, sorted by name.
        where: What they are for, for messages.

    Raises:
        UserError: E-DATA for what is no picture or a folder without any, E-SHAPE for a tensor of
            another form.
    """
    if isinstance(given, Tensor):
        return _from_tensor(given, where)
    if not isinstance(given, str | Path):
        found = [picture for one in given for picture in pictures(one, where)]
        if not found:
            raise UserError("E-DATA", where=where, got="nothing", takes="a picture or more")
        return found
    path = Path(given)
    return [_from_file(p, where) for p in (_files(path, where) if path.is_dir() else [path])]


def _files(folder: Path, where: str) -> list[Path]:
    from steerable.intake.pictures import SUFFIXES

    found = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )
    if not found:
        got, takes = f"{where}: a folder without pictures", "PNG, JPEG or WebP files"
        raise UserError("E-DATA", where=folder.name, got=got, takes=takes)
    return found


def _from_file(path: Path, where: str) -> Picture:
    from steerable.intake.pictures import PictureError, read

    try:
        pixels, _ = read(path)
        digest = hashlib.sha256(plain_bytes(path)).hexdigest()
    except (PictureError, OSError) as error:
        got = f"{where}: {error}"
        raise UserError("E-DATA", where=path.name, got=got, takes="a picture") from error
    return Picture(path.name, digest, torch.from_numpy(pixels.copy()).permute(2, 0, 1), True)


def _from_tensor(x: Tensor, where: str) -> list[Picture]:
    x = x.detach().cpu()
    x = x[None] if x.ndim == 2 else x
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or 0 in x.shape:
        takes = "pictures (C,H,W) or (n,C,H,W)"
        raise UserError("E-SHAPE", where=where, got=str(tuple(x.shape)), takes=takes)
    if not x.is_floating_point() and x.dtype != torch.uint8:
        x = x.to(torch.float32)  # truth values and small integers, which only a mask may be
    if x.is_floating_point():
        x = x.to(torch.float32)
        if bool((x.abs() > 1.0 + 1e-6).any()):
            got, takes = f"floats up to {float(x.nan_to_num().abs().max()):g}", "floats in [-1, 1]"
            raise UserError("E-LIMIT", where=where, got=got, takes=takes)
    found = []
    for row in x.contiguous():
        about = f"{row.dtype} {tuple(row.shape)}".encode()
        digest = hashlib.sha256(about + row.numpy().tobytes()).hexdigest()
        found.append(Picture("tensor", digest, row, False))
    return found


def one_each(
    given: Pictures | None, images: Sequence[Picture], where: str
) -> list[Picture] | list[None]:
    """One of `given` for every image: the one that there is, or by place, or by name in a folder.

    Raises:
        UserError: E-CONFIG if the numbers differ or a folder lacks a name.
    """
    if given is None:
        return [None] * len(images)
    found = pictures(given, where)
    if isinstance(given, str | Path) and Path(given).is_dir():
        by_name = {Path(picture.name).stem: picture for picture in found}
        names, chosen = Names(by_name), []
        for image in images:
            name = names.find(Path(image.name).stem)
            if name is None:
                got = f"{where}: no picture that is named as {image.name}"
                takes = "equal names, such as " + ", ".join(list(by_name)[:3])
                raise UserError("E-CONFIG", where=Path(given).name, got=got, takes=takes)
            chosen.append(by_name[name])
        return chosen
    if len(found) == 1:
        return found * len(images)
    if len(found) != len(images):
        got, takes = f"{len(found)} for {len(images)} pictures", "one for all, or one for each"
        raise UserError("E-CONFIG", where=where, got=got, takes=takes)
    return found


def _shaped(x: Any, size: tuple[int, int], channels: int) -> Tensor:
    """Bytes (C,H,W) in another size, cut about the centre, and with other channels."""
    from steerable.intake.pictures import fitted, with_channels

    ground = WHITE
    pixels = with_channels(fitted(x.permute(1, 2, 0).numpy(), *size), channels, ground)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def as_floats(
    picture: Picture, shape: tuple[int, ...], where: str, *, grey_only: bool = False
) -> Tensor:
    """A picture as floats (C,H,W) in [-1, 1].

    A file of another size is scaled until it covers that size, and its centre is cut out. Grey
    becomes any colours; colours become grey by their luma; what is transparent turns white.

    Args:
        picture: The picture.
        shape: Channels, rows and columns that are wanted.
        where: What it is for, for messages.
        grey_only: Whether a picture with colours is refused where grey is wanted.

    Raises:
        UserError: E-SHAPE for a tensor of another size, for other channels, or for colours.
    """
    x, channels, size = picture.x, shape[0], (shape[1], shape[2])
    if not picture.file and picture.size != size:
        got, takes = f"{picture.size[0]} x {picture.size[1]}", f"{size[0]} x {size[1]}"
        raise UserError("E-SHAPE", where=f"{where} {picture.name}", got=got, takes=takes)
    if grey_only and channels == 1 and len(x) > 1 and bool((x[:3] != x[:1]).any()):
        got, takes = "a picture with colours", "a grey one: the model makes grey pictures"
        raise UserError("E-SHAPE", where=f"{where} {picture.name}", got=got, takes=takes)
    if x.is_floating_point():
        if len(x) not in (1, channels):
            got, takes = f"{len(x)} channels", f"{channels} or 1"
            raise UserError("E-SHAPE", where=where, got=got, takes=takes)
        return x.expand(channels, *size).clone()
    if len(x) not in (1, 3, 4):
        got = f"{len(x)} channels"
        raise UserError("E-SHAPE", where=where, got=got, takes="1, 3 or 4 channels")
    return _shaped(x, size, channels).to(torch.float32).div_(127.5).sub_(1.0)


def flags(mask: Picture, image: Picture, size: tuple[int, int]) -> Tensor:
    """A mask as truth values (1,H,W), true where to repaint: white, or half of it at least.

    Args:
        mask: Of the size of the model, or of the picture, whose way to that size it goes.
        image: The picture that it belongs to.
        size: Rows and columns of the model.

    Raises:
        UserError: E-SHAPE for another size.
    """
    from steerable.intake.pictures import with_channels

    if mask.size not in (size, image.size):
        got = f"{mask.size[0]} x {mask.size[1]}"
        both = f"the picture's {image.size[0]} x {image.size[1]}"
        takes = f"{both}, or the model's {size[0]} x {size[1]}"
        raise UserError("E-SHAPE", where=f"mask {mask.name}", got=got, takes=takes)
    x = mask.x
    if x.is_floating_point():
        x = (x >= 0.5).to(torch.uint8).mul(255)
    # What is transparent is black here, so that a mask may be drawn on a layer of its own.
    grey = torch.from_numpy(with_channels(x.permute(1, 2, 0).numpy(), 1, BLACK).copy())
    return _shaped(grey.permute(2, 0, 1), size, 1) >= 128


def centred(outer: tuple[int, int], inner: tuple[int, int], offset: Any) -> tuple[int, int]:
    """Where a picture stands on a canvas that is larger: top and left.

    Args:
        outer: Rows and columns of the canvas.
        inner: Rows and columns of the picture.
        offset: `centre`, or two numbers (top, left).

    Raises:
        UserError: E-SHAPE for a picture that leaves nothing to paint or does not fit, E-LIMIT for
            a place where it sticks out.
    """
    room = (outer[0] - inner[0], outer[1] - inner[1])
    if min(room) < 0 or max(room) == 0:
        got, takes = f"{inner[0]} x {inner[1]}", f"less than the model's {outer[0]} x {outer[1]}"
        raise UserError("E-SHAPE", where="outpaint", got=got, takes=takes)
    top, left = (room[0] // 2, room[1] // 2) if offset == "centre" else offset
    if not (0 <= top <= room[0] and 0 <= left <= room[1]):
        got, takes = f"{top},{left}", f"0,0 to {room[0]},{room[1]}, or centre"
        raise UserError("E-LIMIT", where="outpaint", got=got, takes=takes)
    return top, left
