"""What the figures mean, in plain words: one answer a question, each with its numbers and their n.

An answer is `yes`, `partly` or `no`, and `unknown` where nothing could be measured. It is never
worse than the figure says beyond its uncertainty: limits are compared with value +- 2.6 errors,
which hold the truth in 99 cases of 100. Limits are shares of what real items have, not of what
models reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["UNSURE", "verdicts"]

UNSURE = 2.6  # standard errors on either side that are stated as the uncertainty
FULL, HALF = 0.9, 0.5  # shares of what is possible: above is yes, below is no
COPY = 0.8  # ratio of distances below which samples are nearer to the training items than real ones
MANY_COPIES = 0.05  # share of near-copies; 0.01 of real items are as near by definition
APART = 2 / 3  # two-sample accuracy that is as good as chance here; nine tenths of it is 0.7
TINT = 8.0  # grey levels; a cast of 3 % of the range is seen in plain areas
DEAD = 0.005  # share of blank samples beyond that of real items

Figure = Mapping[str, Any]
Verdict = dict[str, str]


def verdicts(report: Mapping[str, Any]) -> list[Verdict]:
    """One entry a question: `question`, `answer` and `sentence`.

    Args:
        report: The report of an evaluation without its verdicts.
    """
    measures: Mapping[str, Figure] = report["measures"]
    return [
        _obeys(measures),
        _looks_real(measures),
        _varies(measures),
        _copies(measures),
        _sound(measures),
        _weak(report),
    ]


def _verdict(question: str, answer: str, *sentences: str) -> Verdict:
    return {"question": question, "answer": answer, "sentence": " ".join(sentences)}


def _told(figure: Figure, digits: int = 2) -> str:
    """A figure for people, with its error and its n."""
    value, error = figure["value"], figure["error"]
    return f"{value:.{digits}f} ± {error:.{digits}f} (n = {figure['n']:,})"


def _share(figure: Figure, least: float, most: float) -> tuple[float, float]:
    """(lowest, highest) share of the way from `least` to `most`, given the uncertainty."""
    slack = UNSURE * figure["error"]
    ends = [(figure["value"] + sign * slack - least) / (most - least) for sign in (-1, 1)]
    return min(ends), max(ends)


def _grade(shares: list[tuple[float, float]]) -> str:
    """The worst of several: no if one is surely below a half, yes if none is surely below 0.9."""
    if any(high < HALF for _, high in shares):
        return "no"
    return "partly" if any(high < FULL for _, high in shares) else "yes"


def _obeys(measures: Mapping[str, Figure]) -> Verdict:
    question, shares, said = "does it obey?", [], []
    accuracy = measures.get("accuracy")
    if accuracy is not None:
        real, chance = accuracy["real"], accuracy["chance"]
        sure = real - chance > UNSURE * math.hypot(accuracy["error"], accuracy["real_error"])
        said.append(
            f"A judge sees the class that was asked for in {_told(accuracy)} of the samples; it "
            f"names {real:.2f} of real pictures (n = {accuracy['real_n']:,}), and chance is "
            f"{chance:.2f}."
        )
        if not sure:
            said.append("The judge itself knows these classes hardly better than chance.")
        else:
            shares.append(_share(accuracy, chance, max(real, chance + 1e-9)))
    for name, figure in measures.items():
        if name.startswith(("r2 of ", "retrieval of ")):
            least = figure.get("chance", 0.0)
            said.append(
                f"{name}: {_told(figure)}; of real items {figure['real']:.2f} "
                f"(n = {figure['real_n']:,})."
            )
            if figure["real"] > least:
                shares.append(_share(figure, least, figure["real"]))
    if not shares:
        return _verdict(question, "unknown", *(said or ["There is nothing that it could be told."]))
    answer = _grade(shares)
    if any(high < 0.15 for _, high in shares):
        said.insert(0, "What it is told is ignored.")
    return _verdict(question, answer, *said)


def _looks_real(measures: Mapping[str, Figure]) -> Verdict:
    question, said, shares = "does it look real?", [], []
    frechet = measures.get("frechet")
    if frechet is not None:
        said.append(
            f"Feature Frechet distance {_told(frechet)}; two sets of real items are "
            f"{frechet['floor']:.2f} apart at the same n."
        )
    precision = measures.get("precision")
    if precision is not None:
        shares.append(_share(precision, 0.0, precision["floor"]))
        said.append(
            f"{_told(precision)} of the samples lie among real items; of real ones "
            f"{precision['floor']:.2f} do."
        )
    contrast = measures.get("contrast")
    if contrast is not None:
        shares.append(_share(contrast, 0.0, 1.0))
        if shares[-1][1] < FULL:
            said.append(f"They are washed out or blurred: contrast {_told(contrast)} of real.")
    apart = measures.get("two_sample")
    if apart is not None:
        shares.append(_share(apart, 1.0, APART))
        said.append(
            f"A nearest neighbour tells {_told(apart)} of both kinds rightly; 0.5 is chance, and "
            "1 is always."
        )
    return _verdict(question, _grade(shares) if shares else "unknown", *said)


def _varies(measures: Mapping[str, Figure]) -> Verdict:
    question, said, shares = "is it diverse?", [], []
    words = {
        "coverage": "of the real items have a sample near",
        "recall": "of the real items lie among the samples",
        "spread": "is the spread within a class over that of real items",
        "spread_pixels": "is the same in pixels",
    }
    for name, means in words.items():
        figure = measures.get(name)
        if figure is not None:
            shares.append(_share(figure, 0.0, figure["floor"]))
            said.append(f"{_told(figure)} {means}; {figure['floor']:.2f} is full.")
    repeats = measures.get("repeats")
    if repeats is not None and repeats["value"] - UNSURE * repeats["error"] > MANY_COPIES:
        shares.append((0.0, 0.0))
        said.insert(
            0,
            f"It repeats itself: {_told(repeats)} of the samples are near-copies of "
            f"others, of real items {repeats['floor']:.2f}.",
        )
    return _verdict(question, _grade(shares) if shares else "unknown", *said)


def _copies(measures: Mapping[str, Figure]) -> Verdict:
    """`yes` is the bad answer here."""
    question, said, copies = "does it copy?", [], False
    ratio, near = measures.get("memorisation"), measures.get("near_copies")
    if ratio is not None:
        copies |= ratio["value"] + UNSURE * ratio["error"] < COPY
        said.append(
            f"Samples are {_told(ratio)} times as far from the nearest training item as unseen "
            f"real items (n = {ratio['n_unseen']:,}); 0 is a copy, about 1 is none."
        )
    if near is not None:
        copies |= near["value"] - UNSURE * near["error"] > near["floor"] + MANY_COPIES
        said.append(f"Near-copies: {_told(near, 3)}; of real items {near['floor']:.3f}.")
    apart = measures.get("two_sample")
    if apart is not None and apart["value"] + UNSURE * apart["error"] < 0.4:
        copies = True
        said.append(f"The samples are the reference itself: {_told(apart)}, 0.5 is chance.")
    if ratio is None and not copies:
        said.append("The training data is not at hand.")
        return _verdict(question, "unknown", *said)
    return _verdict(question, "yes" if copies else "no", *said)


def _sound(measures: Mapping[str, Figure]) -> Verdict:
    question, said, answer = "are colours and pictures sound?", [], "yes"
    dead, tint = measures.get("dead"), measures.get("tint")
    if dead is None or tint is None:
        return _verdict(question, "unknown")
    said.append(
        f"Blank samples: {_told(dead, 3)}, of real ones {dead['floor']:.3f}; "
        f"tint {_told(tint, 1)} grey levels, between real ones {tint['floor']:.1f}."
    )
    if dead["value"] - UNSURE * dead["error"] > dead["floor"] + DEAD:
        answer = "no"
        said.insert(0, "Some samples are blank.")
    if tint["value"] - UNSURE * tint["error"] > tint["floor"] + TINT:
        answer = "no"
        said.insert(0, "The samples are tinted.")
    return _verdict(question, answer, *said)


def _weak(report: Mapping[str, Any]) -> Verdict:
    """Where it is weakest; `yes` if a class is surely below the others' half."""
    question, said = "where is it weak?", list(_weakest(report))
    levels = report.get("levels") or {}
    under = levels.get("underfit")
    if under is not None and under["value"] - UNSURE * under["error"] > 0.1:
        said.append(
            f"It is under-trained: at high noise its loss is {100 * under['value']:.0f} ± "
            f"{100 * under['error']:.0f} % above the least possible (n = {levels['n']:,})."
        )
    if not said:
        return _verdict(question, "unknown", "Nothing stands out.")
    return _verdict(question, "told", *said)


def _weakest(report: Mapping[str, Any]) -> Iterator[str]:
    rows = report.get("per_class", {})
    for name, what in (("accuracy", "obeyed least"), ("spread", "varied least")):
        known = [
            (figures[name]["value"], label, figures[name])
            for label, figures in rows.items()
            if name in figures
        ]
        if known:
            worst = ", ".join(
                f"{label} {_told(f)}" for _, label, f in sorted(known, key=lambda row: row[:2])[:3]
            )
            yield f"The classes {what}: {worst}."
