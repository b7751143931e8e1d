"""The findings about data as one HTML file with thumbnails in it, which opens anywhere."""

from __future__ import annotations

import base64
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerable.core.errors import UserError

from . import durable
from .doctor import Diagnosis
from .doctor_findings import Finding
from .page import rendered
from .pictures import png

__all__ = ["require", "write_page"]

ROWS = 24  # of pictures shown of a finding
ACROSS = 12  # pictures of a row
CLASSES = 200  # shown with pictures, so that a page of thousands still opens
SHOWN = 12  # pictures of each class
SIDE = 72  # pixels of the longer side of a thumbnail


def require() -> None:
    """Check, before anything is computed, that a page can be made.

    Raises:
        UserError: E-EXTRA without Jinja2.
    """
    if find_spec("jinja2") is None:
        do = 'pip install "steerable[eval]"'
        raise UserError("E-EXTRA", where="the page", got="no jinja2", do=do)


def _thumbnail(x: Tensor, name: str) -> dict[str, Any]:
    """One picture (C,H,W) uint8 as a data URL with the size to show it in."""
    height, width = x.shape[1:]
    scale = SIDE / max(height, width)
    url = f"data:image/png;base64,{base64.b64encode(png(x)).decode()}"
    shown = {"width": max(8, round(width * scale)), "height": max(8, round(height * scale))}
    return {"url": url, "name": name, **shown}


def _section(finding: Finding, x: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    """A finding with the thumbnails of its first rows."""
    rows = []
    for k, group in enumerate(finding.groups[:ROWS]):
        rows.append(
            {
                "pictures": [_thumbnail(x[i], names[i]) for i in group[:ACROSS]],
                "more": max(0, len(group) - ACROSS),
                "remark": finding.remarks[k] if finding.remarks else "",
            }
        )
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "sentence": finding.sentence,
        "advice": finding.advice,
        "rows": rows,
        "single": all(len(group) == 1 for group in finding.groups),
        "more": max(0, len(finding.groups) - ROWS),
    }


def _classes(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Every class with its numbers, a share for a bar, and its first pictures."""
    counted, train = diagnosis.report["classes"], diagnosis.splits.train
    most = max((row["train"] + row["held_out"] for row in counted.values()), default=1)
    found = []
    for index, (name, row) in enumerate(list(counted.items())[:CLASSES]):
        places = torch.nonzero(train.cond["label"] == index)[:SHOWN, 0].tolist()
        pictures = [_thumbnail(train.x[i], diagnosis.names[i]) for i in places]
        shares = {key: 100 * row[key] / max(1, most) for key in ("train", "held_out")}
        found.append({"name": name, **row, "shares": shares, "pictures": pictures})
    return found


def write_page(out: Path, diagnosis: Diagnosis) -> Path:
    """Write the page; returns it.

    Raises:
        UserError: E-EXTRA without Jinja2; E-DISK if it cannot be written.
    """
    require()
    x = torch.cat([diagnosis.splits.train.x, diagnosis.splits.held_out.x])
    tally = {
        severity: sum(f.severity == severity for f in diagnosis.findings)
        for severity in ("problem", "warning", "note")
    }
    page = rendered(
        "doctor.html.j2",
        report=diagnosis.report,
        sections=[_section(f, x, diagnosis.names) for f in diagnosis.findings],
        classes=_classes(diagnosis),
        more=max(0, len(diagnosis.report["classes"]) - CLASSES),
        tally=tally,
    )
    durable.folder(out.parent)
    durable.write(out, page)
    return out
