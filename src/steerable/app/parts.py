"""`steerable parts`."""

from __future__ import annotations

import re
from typing import Any

from steerable.core.errors import UserError

from .console import result
from .options import Flag

__all__ = ["parts", "shape_of"]


def shape_of(text: str) -> tuple[int, ...]:
    """`3x32x32` as (3, 32, 32).

    Raises:
        UserError: E-CONFIG if it is none.
    """
    if not re.fullmatch(r"\d{1,5}(x\d{1,5}){0,2}", text) or "0" in text.split("x"):
        takes = "CHANNELSxHEIGHTxWIDTH such as 3x32x32"
        raise UserError("E-CONFIG", where="shape", got=repr(text), takes=takes)
    return tuple(int(side) for side in text.split("x"))


def parts(
    room: str = "",
    /,
    *,
    size: str = "",
    shape: str = "3x32x32",
    json: Flag = False,
) -> int:
    """List the kinds of a room, with what they do and their options.

    Parameters
    ----------
    room
        samplers, guidance, backbones, processes, conditions, datasets or grids; all by default.
    size
        With backbones: xs, s, m, l or xl; adds the parameters and FLOP of that size.
    shape
        Shape of the items that the size is for.
    json
        Print a list of objects, or with no room an object of lists.
    """
    from steerable import api

    found = api.parts(room, size=size, shape=shape_of(shape))
    lines = [line for name, kinds in found.items() for line in ["", name, *_lines(kinds)]]
    result(found[room] if room else found, as_json=json, lines=lines[1:])
    return 0


def _lines(kinds: list[dict[str, Any]]) -> list[str]:
    lines = []
    for kind in kinds:
        lines.append(f"  {kind['kind']:<12} {kind['summary']}")
        if "parameters" in kind:
            shape = "x".join(str(side) for side in kind["shape"])
            sized = ", ".join(f"{name} {value}" for name, value in kind["sized"].items())
            count, cost = f"{kind['parameters']:,} parameters", f"{kind['mflop']:,.1f} MFLOP"
            lines.append(f"      at size {kind['size']}: {count}, {cost} an item {shape} ({sized})")
        for option in kind["options"]:
            limits = option["range"]
            span = f" in [{limits[0]:g}, {limits[1]:g}]" if limits else ""
            default = "must be given" if option["default"] is None else option["default"]
            head = f"{option['name']} = {default} ({option['type']}{span})"
            lines.append(f"      {head}: {option['help']}")
    return lines
