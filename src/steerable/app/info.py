"""`steerable info`."""

from __future__ import annotations

from .console import result
from .options import AllowCode, Json, Run

__all__ = ["info"]


def info(run: Run, /, *, allow_code: AllowCode = None, json: Json = False) -> int:
    """Show what a model file knows of itself: classes, shape, recipe, training, versions."""
    import yaml

    from steerable import api

    model = api.load(run, allow_code=allow_code or ())
    parameters = sum(p.numel() for p in model.network.parameters())
    about = {"file": str(model.path), "parameters": parameters, **dict(model.about)}
    text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, default_flow_style=None)
    result(about, as_json=json, lines=[text.rstrip()])
    return 0
