"""Where a recipe comes from, and so whose code it may name.

A dotted kind such as `my_lab.samplers:Spiral` loads a class of the user's own. What the user has
written, in Python, on the command line or in a recipe file that was named to start from, may do so.
What came with an artefact (a model file, a run folder, the settings inside a picture) may not, or
opening a file would be running it: there each module must be allowed by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from steerable.core.errors import UserError

__all__ = ["FOREIGN", "OWN", "Origin", "artefact"]

_NAMED = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]")


@dataclass(frozen=True)
class Origin:
    """Where the plain data of a recipe was read, and whose code it may name.

    Args:
        file: Name of the artefact, for messages; empty for the user's own words.
        modules: Modules whose parts may be named; None is any: the user's own words.
    """

    file: str = ""
    modules: frozenset[str] | None = None

    def naming(self, *words: str | None) -> Origin:
        """The same with the modules allowed that the user names in `words`, such as settings."""
        if self.modules is None:
            return self
        found = {module for word in words for module in _NAMED.findall(word or "")}
        return replace(self, modules=self.modules | found)

    def check(self, kind: str) -> None:
        """Refuse a kind that names code of a module that is not allowed.

        Raises:
            UserError: E-CKPT-PICKLE.
        """
        if ":" not in kind or self.modules is None:
            return
        module = kind.partition(":")[0]
        if module not in self.modules:
            got, do = f"names code: {kind[:120]!r}", f"if you trust it: --allow-code {module[:80]}"
            takes = "kinds that steerable has"
            raise UserError("E-CKPT-PICKLE", where=self.file, got=got, takes=takes, do=do)


OWN = Origin()
FOREIGN = Origin("recipe", frozenset())  # of unknown origin: it names nobody's code


def artefact(file: str, allow_code: str | Collection[str] = ()) -> Origin:
    """The origin of what was read from a file, with the modules that the caller allows by name."""
    names = [allow_code] if isinstance(allow_code, str) else allow_code
    return Origin(file, frozenset(name for name in names if name))
