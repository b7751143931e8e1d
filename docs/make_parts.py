"""Write docs/parts.md from the code: every room, kind and option."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from steerable import api

__all__ = ["page"]


def _option(option: dict[str, Any]) -> str:
    limits = option["range"]
    span = f", {limits[0]:g} to {limits[1]:g}" if limits else ""
    default = "must be given" if option["default"] is None else f"`{option['default']}`"
    kind = option["type"].replace("|", "\\|")
    return f"| `{option['name']}` | {kind}{span} | {default} | {option['help']} |"


def page() -> str:
    """The page as Markdown."""
    lines = ["# Parts", "", "Made from the code by `make docs`.", ""]
    for room, kinds in api.parts().items():
        lines += [f"## {room}", ""]
        for part in kinds:
            body = part["doc"].partition("Args:\n")[0].partition("Raises:\n")[0].strip()
            lines += [f"### {part['kind']}", "", body, ""]
            if part["options"]:
                lines += ["| option | type | default | |", "| --- | --- | --- | --- |"]
                lines += [_option(option) for option in part["options"]] + [""]
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    target = Path(__file__).with_name("parts.md")
    if "--check" in sys.argv:
        sys.exit(target.read_text(encoding="utf-8") != page())
    target.write_text(page(), encoding="utf-8")
