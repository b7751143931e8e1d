"""What the figures mean, in plain words: one answer a question, each with its numbers and their n.

An answer is `yes`, `partly` or `no`, and `unknown` where nothing could be measured. It is that of
the worst of its figures, whose sentence comes first, beside what real items have. Limits are shares
of what real items have, not of what models reach.

A figure is held against a model where the uncertainty leaves no doubt. It is `no` (or a copy) if it
is beyond the limit even `UNSURE` errors nearer to real items, which hold the truth in 99 cases of
100. It is `partly` if it is so for the milder limit, or if the figure itself is clearly beyond a
limit and surely not what real items have: what is surely worse than real is not called good
because its error is large.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["UNSURE", "verdicts"]

UNSURE = 2.6  # standard errors on either side that are stated as the uncertainty
WORST = 2.81  # the same for the worst of four figures, 99.75 % each on one side
FULL, CLEAR, HALF = 0.9, 0.8, 0.5  # shares of what real items have; below them partly, partly, no
COPY = 0.8  # ratio of distances below which samples are nearer to the training items than real ones
MANY_COPIES = 0.05  # share of near-copies; 0.01 of real items are as near by definition
FAR = 4.0  # squared distances over the floor: beyond, samples are twice as far as real sets are
DOZEN = 12  # real items a set; sets of so few say nothing, and samples as far apart neither
TINT = 8.0  # grey levels; a cast of 3 % of the range is seen in plain areas
DEAD = 0.005  # share of blank samples beyond that of real items
REPEATED = 0.1  # below chance of a two-sample test: the reference itself

Figure = Mapping[str, Any]
Verdict = dict[str, str]
RANKS = ("yes", "partly", "no")  # from good to bad


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


def _share(figure: Figure, least: float, most: float) -> str:
    """The answer of a figure by its share of the way from `least` to what real items have."""
    if most == least:  # real items have none of it, so that it tells nothing apart
        return "yes"
    share = (figure["value"] - least) / (most - least)
    error = figure["error"] / abs(most - least)
    of_real = max(error, figure.get("floor_std", 0.0) / abs(most - least))
    if share + UNSURE * error < HALF:
        return "no"
    clear = share < CLEAR and share + WORST * of_real < 1.0
    return "partly" if share + UNSURE * error < FULL or clear else "yes"


def _beyond(figure: Figure, most: float) -> str:
    """The answer of a figure that should not be more than `most` above its floor."""
    floor, error = figure["floor"], figure["error"]
    if figure["value"] - UNSURE * error > floor + most:
        return "no"
    of_real = max(error, figure.get("floor_std", 0.0))  # sets of real items vary too
    clear = figure["value"] > floor + most and figure["value"] - WORST * of_real > floor
    return "partly" if clear else "yes"


def _distant(figure: Figure) -> str:
    """The answer of a squared distance beside that of two sets of real items of the same n.

    It falls as 1 / n between sets of one law, so `n floor / value` is the number of real items a
    set whose distance is as large.
    """
    value, floor, error = figure["value"], figure["floor"], figure["error"]
    if figure["n"] * floor < DOZEN * (value - UNSURE * error):
        return "no"
    of_real = max(error, figure.get("floor_std", 0.0))  # sets of real items vary too
    return "partly" if value > FAR * floor and value - WORST * of_real > floor else "yes"


def _judged(question: str, found: list[tuple[str, str]], *others: str) -> Verdict:
    """The worst of some answers, each with its sentence, the worst first."""
    rows = sorted(found, key=lambda row: -RANKS.index(row[0]))
    said = [sentence for _, sentence in rows if sentence]
    return _verdict(question, rows[0][0] if rows else "unknown", *said, *others)


def _obeys(measures: Mapping[str, Figure]) -> Verdict:
    question, found, said, ignored = "does it obey?", [], [], False

    def told(figure: Figure, least: float, most: float, sentence: str) -> None:
        nonlocal ignored
        found.append((_share(figure, least, most), sentence))
        high = figure["value"] + UNSURE * figure["error"]
        ignored |= (high - least) / (most - least) < 0.15

    accuracy = measures.get("accuracy")
    if accuracy is not None:
        real, chance = accuracy["real"], accuracy["chance"]
        sure = real - chance > UNSURE * math.hypot(accuracy["error"], accuracy["real_error"])
        sentence = (
            f"A judge sees the class that was asked for in {_told(accuracy)} of the samples; it "
            f"names {real:.2f} of real pictures (n = {accuracy['real_n']:,}), and chance is "
            f"{chance:.2f}."
        )
        if sure:
            told(accuracy, chance, max(real, chance + 1e-9), sentence)
        else:
            said += [sentence, "The judge itself knows these classes hardly better than chance."]
    for name, figure in measures.items():
        if name.startswith(("r2 of ", "retrieval of ")):
            least = figure.get("chance", 0.0)
            sentence = (
                f"{name}: {_told(figure)}; of real items {figure['real']:.2f} "
                f"(n = {figure['real_n']:,})."
            )
            if figure["real"] > least:
                told(figure, least, figure["real"], sentence)
            else:
                said.append(sentence)
    if not found:
        return _verdict(question, "unknown", *(said or ["There is nothing that it could be told."]))
    verdict = _judged(question, found, *said)
    first = "What it is told is ignored. " if ignored else ""
    return {**verdict, "sentence": first + verdict["sentence"]}


def _looks_real(measures: Mapping[str, Figure]) -> Verdict:
    question, found = "does it look real?", []
    frechet = measures.get("frechet")
    if frechet is not None:
        floor = frechet["floor"]
        times = f" ({frechet['value'] / floor:.1f} times as much here)" if floor > 0 else ""
        sentence = (
            f"Feature Frechet distance {_told(frechet)}; two sets of real items are "
            f"{floor:.2f} apart at the same n{times}."
        )
        found.append((_distant(frechet), sentence))
    precision = measures.get("precision")
    if precision is not None:
        sentence = (
            f"{_told(precision)} of the samples lie among real items; of real ones "
            f"{precision['floor']:.2f} do."
        )
        found.append((_share(precision, 0.0, precision["floor"]), sentence))
    apart = measures.get("two_sample")
    if apart is not None:
        floor = apart["floor"]
        sentence = (
            f"A nearest neighbour tells {_told(apart)} of both kinds rightly; real items from real "
            f"ones {floor:.2f}, which is chance, and 1 is always."
        )
        found.append((_share(apart, 1.0, floor), sentence))
    contrast = measures.get("contrast")
    if contrast is None:
        return _judged(question, found)
    value, error = contrast["value"], contrast["error"]
    hard = value > 1.0  # too much is as far from real as too little
    turned = {**contrast, "value": 1 / value, "error": error / value**2} if hard else contrast
    answer = _share(turned, 0.0, 1.0)
    if answer == "yes":  # equal contrast alone says nothing about likeness
        return _judged(question, found)
    words = "too hard" if hard else "washed out or blurred"
    sentence = f"They are {words}: contrast {_told(contrast)} of real."
    return _judged(question, [(answer, sentence), *found])


def _varies(measures: Mapping[str, Figure]) -> Verdict:
    question, found = "is it diverse?", []
    words = {
        "coverage": "of the real items have a sample near",
        "recall": "of the real items lie among the samples",
        "spread": "is the spread within a class over that of real items",
        "spread_pixels": "is the same in pixels",
    }
    repeats = measures.get("repeats")
    if repeats is not None:
        answer = _beyond(repeats, MANY_COPIES)
        sentence = (
            f"It repeats itself: {_told(repeats)} of the samples are near-copies of "
            f"others, of real items {repeats['floor']:.2f}."
        )
        found += [] if answer == "yes" else [(answer, sentence)]
    for name, means in words.items():
        figure = measures.get(name)
        if figure is not None:
            sentence = f"{_told(figure)} {means}; {figure['floor']:.2f} is full."
            found.append((_share(figure, 0.0, figure["floor"]), sentence))
    return _judged(question, found)


def _copies(measures: Mapping[str, Figure]) -> Verdict:
    """`yes` is the bad answer here."""
    question, found = "does it copy?", []
    ratio, near = measures.get("memorisation"), measures.get("near_copies")
    if ratio is not None:
        value, error = ratio["value"], ratio["error"]
        clear = value < COPY and value + WORST * error < ratio["floor"]
        answer = "no" if value + UNSURE * error < COPY else "partly" if clear else "yes"
        sentence = (
            f"Samples are {_told(ratio)} times as far from the nearest training item as unseen "
            f"real items (n = {ratio['n_unseen']:,}); 0 is a copy, about 1 is none."
        )
        found.append((answer, sentence))
    if near is not None:
        sentence = f"Near-copies: {_told(near, 3)}; of real items {near['floor']:.3f}."
        found.append((_beyond(near, MANY_COPIES), sentence))
    apart = measures.get("two_sample")
    if apart is not None and apart["value"] + UNSURE * apart["error"] < apart["floor"] - REPEATED:
        sentence = f"The samples are the reference itself: {_told(apart)}, 0.5 is chance."
        found.append(("no", sentence))
    verdict = _judged(question, found, *([] if ratio else ["The training data is not at hand."]))
    if ratio is None and verdict["answer"] == "yes":
        return {**verdict, "answer": "unknown"}
    turned = {"yes": "no", "no": "yes"}
    return {**verdict, "answer": turned.get(verdict["answer"], verdict["answer"])}


def _sound(measures: Mapping[str, Figure]) -> Verdict:
    question, found = "are colours and pictures sound?", []
    dead, tint = measures.get("dead"), measures.get("tint")
    if dead is not None:
        answer = _beyond(dead, DEAD)
        words = "" if answer == "yes" else "Some samples are blank. "
        sentence = f"Blank samples: {_told(dead, 3)}, of real ones {dead['floor']:.3f}."
        found.append((answer, words + sentence))
    if tint is not None:
        answer = _beyond(tint, TINT)
        words = "" if answer == "yes" else "The samples are tinted. "
        between = f"between real ones {tint['floor']:.1f}"
        found.append((answer, f"{words}Tint: {_told(tint, 1)} grey levels, {between}."))
    return _judged(question, found)


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
            # A word between name and number: digits after Arabic letters are set right to left.
            worst = ", ".join(
                f"{label} with {_told(f)}"
                for _, label, f in sorted(known, key=lambda row: row[:2])[:3]
            )
            yield f"The classes {what}: {worst}."
