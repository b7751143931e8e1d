"""Which conditions a data set gives to a model, and how they are guided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steerable.core.types import Spec

from .part import Part, find

__all__ = ["INNER", "conditioned", "guided"]

INNER = ("augmentation", "estimate", "mask")  # kinds without names to ask for: nothing guides them

# Guidance at high noise costs diversity and buys no accuracy: measured, in benchmarks/results.md.
GUIDANCE: dict[str, Any] = {"weight": 2.0, "start": 0.8}


def conditioned(
    spec: Spec, backbone: str, *, dropout: float = 0.1, **guidance: float
) -> tuple[dict[str, Part], tuple[Part, ...]]:
    """A condition for everything that the data knows of its items, and the guidance for them.

    Args:
        spec: What is known of the data.
        backbone: Kind of the network; one that reads no tokens gets no prompts.
        dropout: Share of the training items that miss a condition.
        guidance: Options of `cfg` that differ from the usual ones.
    """
    options = {"dropout": dropout}
    found = {name: Part(kind="label", options=options) for name in spec.labels}
    found |= {name: Part(kind="vector", options=options) for name in spec.vectors}
    if "tokens" in find("backbone", backbone).accepts:
        found |= {name: Part(kind="tokens", options=options) for name in spec.tokens}
    cfg = Part(kind="cfg", options={**GUIDANCE, **guidance})
    return found, (cfg,) if found else ()


def guided(
    parts: Sequence[dict[str, Any]], guidance: float | None, interval: tuple[float, float] | None
) -> list[dict[str, Any]]:
    """The guidances with another weight of the first that has one, its interval and a classifier's.

    Without either, `cfg` is added.
    """
    made = [dict(part) for part in parts]
    if guidance is None and interval is None:
        return made
    weighed = [part for part in made if part["kind"] == "cfg" or "weight" in part]
    timed = weighed[:1] + [part for part in made if part["kind"] == "classifier"]
    if not weighed and (guidance is not None or not timed):
        made.insert(0, {"kind": "cfg"})
        weighed, timed = made[:1], [made[0], *timed]
    if guidance is not None:
        weighed[0]["weight"] = guidance
    if interval is not None:
        for part in timed:
            part["stop"], part["start"] = interval
    return made
