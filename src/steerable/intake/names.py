"""When two names are the same: in any case and any Unicode form, as keyboards and disks differ."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import TypeVar

__all__ = ["Names", "folded", "matched"]

_T = TypeVar("_T")


def folded(name: str) -> str:
    """A name as it is compared: without case, composed.

    Source: Unicode 15, section 3.13, canonical caseless matching (definition 145), then composed.
    """
    plain = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFC", plain)


class Names:
    """Known names, found in any case and any Unicode form.

    Args:
        known: The names. One that is written exactly so comes first, then one that differs by its
            Unicode form only, then one that differs by case; of several, none.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._exact = dict.fromkeys(known)
        self._forms: dict[str, list[str]] = {}
        self._folded: dict[str, list[str]] = {}
        for name in self._exact:
            self._forms.setdefault(unicodedata.normalize("NFC", name), []).append(name)
            self._folded.setdefault(folded(name), []).append(name)

    @property
    def known(self) -> list[str]:
        """The names in their order."""
        return list(self._exact)

    def find(self, name: str) -> str | None:
        """The known name that is meant, None if there is none or it is not clear which."""
        if name in self._exact:
            return name
        for table, key in (
            (self._forms, unicodedata.normalize("NFC", name)),
            (self._folded, folded(name)),
        ):
            if len(table.get(key, ())) == 1:
                return table[key][0]
        return None


def matched(name: str, table: Mapping[str, _T]) -> _T | None:
    """The value under a name in any case and any Unicode form."""
    found = Names(table).find(name)
    return None if found is None else table[found]
