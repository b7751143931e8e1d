"""`steerable info`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .console import result

__all__ = ["info"]


def info(
    run: str,
    /,
    *,
    allow_code: str = "",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Show what a model file knows of itself: classes, shape, recipe, training, versions.

    Parameters
    ----------
    run
        A run folder or a model file.
    allow_code
        Module of your own whose parts the model file may name.
    json
        Print it as one JSON object.
    """
    import yaml

    from steerable import api

    model = api.load(run, allow_code=allow_code)
    parameters = sum(p.numel() for p in model.network.parameters())
    about = {"file": str(model.path), "parameters": parameters, **dict(model.about)}
    text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, default_flow_style=None)
    result(about, as_json=json, lines=[text.rstrip()])
    return 0
