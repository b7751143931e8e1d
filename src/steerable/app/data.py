"""`steerable data check`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from .console import result
from .options import Flag, Words

__all__ = ["data"]

data = App(name="data", help="Look at data before training on it.", help_format="plaintext")


@data.command
def check(
    folder: str,
    /,
    *,
    set_: Annotated[Words, Parameter(name="--set")] = None,
    json: Flag = False,
) -> int:
    """Scan pictures: counts per class, conditions, sizes, channels, duplicates, bad files.

    Parameters
    ----------
    folder
        A folder of pictures, a .npz file, or a built-in set: digits, fashion, scenes, shapes.
    set_
        Change how the data is read: --set "data.columns={caption: tokens}". May be repeated.
    json
        Print the report as one JSON object.
    """
    from steerable import api

    report = api.inspect_data(folder, settings=set_ or [])
    result(report, as_json=json, lines=_lines(report))
    return 0


def _lines(report: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in report.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{key}")
            lines += [
                f"{indent}  " + ", ".join(f"{k} {v}" for k, v in row.items()) for row in value
            ]
        elif value not in ({}, []):
            lines.append(f"{indent}{key}: {value}")
    return lines
