"""Where what can be computed again is kept from one command to the next."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

__all__ = ["cache_place"]

SWITCHED_OFF = ("", "off")


def cache_place(kind: str) -> Path | None:
    """The folder of one kind of cache, or None where nothing is to be kept.

    It lies below $STEERABLE_CACHE, $XDG_CACHE_HOME/steerable or the cache folder of the user on
    this system, the first that there is. It may be deleted at any time. STEERABLE_CACHE=off, or
    empty, keeps nothing; without a home folder nothing is kept either, with a RuntimeWarning.

    Args:
        kind: Such as `features` or `pictures`.
    """
    own, shared = os.environ.get("STEERABLE_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    if own is not None:
        return None if own.strip().lower() in SWITCHED_OFF else Path(own).absolute() / kind
    if Path(shared).is_absolute():  # the standard says to ignore others
        return Path(shared) / "steerable" / kind
    local = os.environ.get("LOCALAPPDATA", "")
    if sys.platform == "win32" and local:
        return Path(local) / "steerable" / "Cache" / kind
    try:
        home = Path.home()
    except RuntimeError:
        told = f"{kind} are not kept: there is no home folder; set STEERABLE_CACHE"
        warnings.warn(told, RuntimeWarning, stacklevel=2)
        return None
    base = home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
    return base / "steerable" / kind
