"""Which conditions a data set gives to a model, and how they are guided."""

from __future__ import annotations

from typing import Any

from steerable.core.types import Spec

from .part import Part, find

__all__ = ["INNER", "conditioned"]

INNER = ("augmentation", "estimate")  # kinds that nobody can ask for, so nothing guides them

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
