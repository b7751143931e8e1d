"""One catalogue of the faults that a user can cause, and the exception that carries one of them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CODES", "Fault", "UserError", "visible"]


@dataclass(frozen=True)
class Fault:
    """One row of the catalogue: process exit code, HTTP status and the meaning in plain words."""

    exit: int
    http: int
    meaning: str


CODES: dict[str, Fault] = {
    "E-CONFIG": Fault(2, 422, "a setting, path or name is wrong"),
    "E-CONFIG-DIFF": Fault(2, 422, "the run folder belongs to another recipe"),
    "E-LABEL": Fault(2, 422, "an unknown label"),
    "E-SHAPE": Fault(2, 422, "a tensor or picture of the wrong shape"),
    "E-LIMIT": Fault(2, 422, "a number out of its range"),
    "E-EXTRA": Fault(2, 422, "an optional library is not installed"),
    "E-DATA": Fault(3, 422, "the data cannot be used"),
    "E-DATA-CHANGED": Fault(3, 422, "the data is not the one that the run started with"),
    "E-EVAL": Fault(3, 422, "too little data to measure"),
    "E-CKPT-HASH": Fault(4, 409, "a checkpoint or model file is damaged"),
    "E-CKPT-HEADER": Fault(4, 409, "a model file whose header is malformed"),
    "E-CKPT-ARCH": Fault(4, 409, "a model file whose weights do not fit its recipe"),
    "E-CKPT-NEWER": Fault(4, 409, "a model file of a newer format"),
    "E-CKPT-PICKLE": Fault(4, 409, "a model file that could run code"),
    "E-DISK": Fault(5, 507, "the disk is full, read-only or failing"),
    "E-MEM": Fault(5, 503, "out of memory"),
    "E-NUM": Fault(6, 422, "the numbers are no longer finite"),
    "E-LOCK": Fault(7, 409, "another process uses this run folder"),
    "E-GATE": Fault(9, 422, "a figure misses the bar that was set for it"),
}


def visible(text: str) -> str:
    """The text with what steers a terminal or hides escaped: controls, line ends, bidi marks."""
    kept = "\u200c\u200d\u3000\xa0"  # joiners of scripts and of emoji, and wide spaces
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


class UserError(ValueError):
    """A fault that a user can cause and mend.

    Args:
        code: Key of `CODES`.
        where: The file, option or stage that is at fault.
        got: What was found there.
        takes: What can be taken instead.
        kept: What is safe on disk all the same.
        do: The next thing to try.
    """

    def __init__(
        self, code: str, *, where: str, got: str, takes: str = "", kept: str = "", do: str = ""
    ) -> None:
        assert code in CODES, f"{code} is not in the catalogue"
        self.code = code
        self.where, self.got, self.takes, self.kept, self.do = where, got, takes, kept, do
        super().__init__(visible(" · ".join(p for p in (where, got, takes, kept, do) if p)))

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ends with this fault."""
        return CODES[self.code].exit

    def record(self) -> dict[str, str]:
        """The fault as plain text fields, for JSON output."""
        parts = {"where": self.where, "got": self.got, "takes": self.takes}
        return {"error": self.code, **parts, "kept": self.kept, "do": self.do}
