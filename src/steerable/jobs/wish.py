"""What is asked for: conditions as people write them, checked and turned into tensors."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from steerable.core.condition import absent
from steerable.core.errors import UserError
from steerable.core.noise import Noise, mix
from steerable.core.types import Spec
from steerable.intake.columns import words_of
from steerable.intake.names import Names, folded

__all__ = [
    "Wish", "agree", "all_asked", "as_asked", "asked", "batches", "check_counts", "check_seed",
    "conditioned", "parsed", "wishes",
]  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """One picture that is asked for.

    Attributes:
        cond: A class name, a tuple of numbers or a tuple of words for each condition by name; a
            name that is missing asks for nothing.
        seed: Seed of the picture.
        given: Tensors that steer, as floats: `image` and `reference` (C,H,W) in [-1, 1], `mask`
            (1,H,W), 1 where to repaint, `measured` in the shape of the operator; `start` (C,H,W)
            is x_t at the first time, instead of noise.
    """

    cond: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    given: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_seed(self.seed)

    @property
    def label(self) -> str | None:
        """The class name, if the condition `label` is asked for."""
        return self.cond.get("label")

    @property
    def title(self) -> str:
        """All conditions in a line, for people."""
        words = [v if isinstance(v, str) else _written(v) for v in self.cond.values()]
        return ", ".join(words)


def _written(value: Sequence[Any]) -> str:
    return " ".join(v if isinstance(v, str) else f"{v:g}" for v in value)


def check_seed(seed: int) -> None:
    """Check a seed, which is a whole number that a generator takes.

    Raises:
        UserError: E-LIMIT.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError("E-LIMIT", where="seed", got=repr(seed)[:40], takes="0 to 2^63 - 1")


def check_counts(n: int, seed: int) -> None:
    """Check the number of pictures and the seed of the first.

    Raises:
        UserError: E-LIMIT.
    """
    if not 1 <= n <= 100_000:
        raise UserError("E-LIMIT", where="n", got=str(n), takes="1 to 100,000")
    if not 0 <= seed < 2**63 - 10**9:
        raise UserError("E-LIMIT", where="seed", got=str(seed), takes="0 to 2^63 - 10^9")


def _one_of(names: Sequence[str], name: str, where: str, what: str) -> str:
    """The known name that `name` is, whatever its case and its Unicode form.

    Raises:
        UserError: E-LABEL with the nearest names.
    """
    found = name if name in names else _names(tuple(names)).find(name)
    if found is not None:
        return found
    plain = {folded(known): known for known in names}
    near = difflib.get_close_matches(folded(name), list(plain), 3, cutoff=0.0)
    takes = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    do = f"Did you mean {' or '.join(repr(plain[n]) for n in near)}?" if near else ""
    got = f"'{name[:80]}' is not a {what}"
    raise UserError("E-LABEL", where=where, got=got, takes=takes or f"no {what}", do=do)


@lru_cache(maxsize=64)
def _names(known: tuple[str, ...]) -> Names:
    return Names(known)


def _words(known: Sequence[str], text: str) -> list[str]:
    """The words of a text, split as the data's were; signs that it does not know are left out."""
    found, names = [], _names(tuple(known))
    for word in words_of(text):
        found += [word] if names.find(word) is not None else re.findall(r"\w+", word)
    return found


def _numbers(names: Sequence[str], value: Any, where: str) -> tuple[float, ...]:
    parts = re.split(r"[\s,;]+", value.strip()) if isinstance(value, str) else value
    takes = f"{len(names)} numbers, -1 and 1 the least and most of training: {', '.join(names)}"
    try:
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        got = repr(value)[:80]
        raise UserError("E-CONFIG", where=where, got=got, takes=takes) from error
    # The training data spans [-1, 1]; far outside of it, a number in units of its own is meant.
    if len(numbers) != len(names) or not all(abs(v) <= 2 for v in numbers):
        raise UserError("E-CONFIG", where=where, got=repr(value)[:80], takes=takes)
    return numbers


def asked(spec: Spec, name: str, value: Any, *, where: str | None = None) -> Any:
    """The value of a condition in the form of a `Wish`.

    Args:
        spec: What is known of the data.
        name: Name of the condition.
        value: A class name; numbers, or text with numbers; words, or text with words.
        where: What the user calls it, if not by its name.

    Raises:
        UserError: E-CONFIG for an unknown condition, E-LABEL for an unknown name.
    """
    name = _condition(spec, name)
    if name in spec.labels:
        return _one_of(spec.labels[name], str(value), where or name, "class")
    if name in spec.vectors:
        return _numbers(spec.vectors[name], value, name)
    if name in spec.tokens:
        words = _words(spec.tokens[name], value) if isinstance(value, str) else list(value)
        if not words:
            raise UserError("E-LABEL", where=name, got="no word", takes="one word or more")
        return tuple(_one_of(spec.tokens[name], word, name, "word") for word in words)
    known = [*spec.labels, *spec.vectors, *spec.tokens]
    near = difflib.get_close_matches(name, known, 1)
    do = f"Did you mean '{near[0]}'?" if near else ""
    takes = ", ".join(known) or "no condition: the model was trained without"
    raise UserError("E-CONFIG", where="condition", got=f"'{name[:80]}'", takes=takes, do=do)


def _condition(spec: Spec, name: str) -> str:
    """The known condition of a name in any case and Unicode form, else the name itself."""
    known = (*spec.labels, *spec.vectors, *spec.tokens)
    return name if name in known else _names(known).find(name) or name


def all_asked(spec: Spec, cond: Mapping[str, Any]) -> dict[str, Any]:
    """The values of several conditions in the form of a `Wish`, by the names that the data has.

    Raises:
        UserError: As `asked`.
    """
    return {_condition(spec, name): asked(spec, name, value) for name, value in cond.items()}


def as_asked(spec: Spec, item: Mapping[str, Tensor]) -> dict[str, Any]:
    """The conditions of an item of a data set in the form of a `Wish`, without those it has not.

    Args:
        spec: What is known of the data.
        item: One value of every condition, as `Dataset.cond` has it.
    """
    found: dict[str, Any] = {}
    for name, value in item.items():
        if bool(absent(value[None])[0]):
            continue
        if name in spec.labels:
            found[name] = spec.labels[name][int(value)]
        elif name in spec.vectors:
            found[name] = tuple(value.tolist())
        elif name in spec.tokens:
            found[name] = tuple(spec.tokens[name][k] for k in value.tolist() if k >= 0)
    return found


def parsed(assignments: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` texts by name.

    Raises:
        UserError: E-CONFIG for a text without `=`.
    """
    found = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError("E-CONFIG", where="--cond", got=repr(text)[:80], takes="NAME=VALUE")
        agree(name.strip(), found.get(name.strip()), value.strip())
        found[name.strip()] = value.strip()
    return found


def agree(name: str, one: Any, other: Any) -> None:
    """Check that a condition is not asked to be two things; None is not asked for.

    Raises:
        UserError: E-CONFIG.
    """
    if one is None or other is None or str(one).casefold() == str(other).casefold():
        return
    got = f"both {one!r} and {other!r}"[:160]
    do = "--label twice, or 'a|b', asks for several classes" if name == "label" else ""
    raise UserError("E-CONFIG", where=name, got=got, takes="one of them", do=do)


def wishes(
    spec: Spec, labels: Sequence[str], n: int, seed: int, cond: Mapping[str, Any] | None = None
) -> list[Wish]:
    """`n` pictures of each label, or of every class; picture i has the seed `seed` + i.

    A label "shirt|dress" means either: every picture draws one of them with its seed, with equal
    chances, which samples the mixture of the classes exactly. Not so if a class has a `|` in its
    name.

    Args:
        spec: What is known of the data.
        labels: Class names; none means every class, unless `cond` says otherwise.
        n: Pictures of each.
        seed: Seed of the first picture.
        cond: Further conditions, the same for all pictures.

    Raises:
        UserError: E-LABEL for an unknown name, E-CONFIG for an unknown condition, E-LIMIT for
            numbers out of range.
    """
    check_counts(n, seed)
    given = {_condition(spec, name): value for name, value in (cond or {}).items()}
    fixed = {name: _either(spec, name, value) for name, value in given.items()}
    for name in labels:
        agree("label", name, given.get("label"))
    if labels and "label" not in spec.labels:
        asked(spec, "label", labels[0])
    names = [_either(spec, "label", name) for name in labels]
    if not names and not fixed:
        names = [(name,) for name in spec.labels.get("label", ())]
    every = [{"label": name, **fixed} for name in names] or [fixed]
    each = [one for one in every for _ in range(n)]
    seeds = range(seed, seed + len(each))
    return [Wish(cond, s) for s, cond in zip(seeds, _decided(each, seeds), strict=True)]


def _either(spec: Spec, name: str, value: Any) -> tuple[Any, ...]:
    """The values of which any will do, in the form of a `Wish`."""
    known = spec.labels.get(name, ())
    choice = isinstance(value, str) and known and not any("|" in other for other in known)
    parts = [part.strip() for part in value.split("|")] if choice else [value]
    return tuple(asked(spec, name, part) for part in parts)


def _decided(
    each: Sequence[Mapping[str, tuple[Any, ...]]], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """One value of each condition of each picture, drawn with its seed."""
    # Streams of their own: those of the seeds themselves draw the noise of the pictures.
    noise = Noise(mix(torch.tensor(seeds) + 1))
    places = {name: noise.uniform(len(each)).tolist() for name in each[0]}
    return [
        {name: v[min(int(places[name][i] * len(v)), len(v) - 1)] for name, v in one.items()}
        for i, one in enumerate(each)
    ]


def batches(wanted: Sequence[Wish], most: int, *, alike: bool = False) -> list[list[int]]:
    """Places of the wishes that are sampled together.

    Args:
        wanted: The wishes.
        most: Largest batch.
        alike: Only wishes that differ in nothing but their seed.
    """

    def key(wish: Wish) -> Any:
        given = [(name, value.cpu().numpy().tobytes()) for name, value in wish.given.items()]
        return *sorted(wish.cond.items()), *sorted(given)

    groups: dict[Any, list[int]] = {}
    for i, wish in enumerate(wanted):
        groups.setdefault(key(wish) if alike else None, []).append(i)
    return [part[i : i + most] for part in groups.values() for i in range(0, len(part), most)]


def _rows(spec: Spec, name: str, values: Sequence[Any]) -> Tensor:
    if name in spec.labels:
        index = {known: i for i, known in enumerate(spec.labels[name])}
        return torch.tensor([-1 if v is None else index[v] for v in values])
    if name in spec.vectors:
        nothing = (math.nan,) * len(spec.vectors[name])
        return torch.tensor([nothing if v is None else v for v in values], dtype=torch.float32)
    index = {known: i for i, known in enumerate(spec.tokens[name])}
    rows = [[index[word] for word in v or ()] for v in values]
    length = max(1, *(len(row) for row in rows))
    return torch.tensor([row + [-1] * (length - len(row)) for row in rows])


def conditioned(spec: Spec, wanted: Sequence[Wish], device: Any = "cpu") -> dict[str, Tensor]:
    """The tensors (n,...) of every condition that any of the wishes names; absent where not."""
    names = dict.fromkeys(name for wish in wanted for name in wish.cond)
    found = {name: _rows(spec, name, [w.cond.get(name) for w in wanted]) for name in names}
    return {name: value.to(device) for name, value in found.items()}
