"""`steerable parts`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from .console import result

__all__ = ["parts"]


def parts(room: str = "", /, *, json: Annotated[bool, Parameter(negative=())] = False) -> int:
    """List the kinds of a room, with what they do and their options.

    Parameters
    ----------
    room
        samplers, guidance, backbones, processes, conditions, datasets or grids; all by default.
    json
        Print a list of objects, or with no room an object of lists.
    """
    from steerable import api

    found = api.parts(room)
    lines = [line for name, kinds in found.items() for line in ["", name, *_lines(kinds)]]
    result(found[room] if room else found, as_json=json, lines=lines[1:])
    return 0


def _lines(kinds: list[dict[str, Any]]) -> list[str]:
    lines = []
    for kind in kinds:
        lines.append(f"  {kind['kind']:<12} {kind['summary']}")
        for option in kind["options"]:
            limits = option["range"]
            span = f" in [{limits[0]:g}, {limits[1]:g}]" if limits else ""
            default = "must be given" if option["default"] is None else option["default"]
            head = f"{option['name']} = {default} ({option['type']}{span})"
            lines.append(f"      {head}: {option['help']}")
    return lines
