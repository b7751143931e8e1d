"""What goes wrong in a training, told from its records: plain rules, each with what to do.

A rule is a pure function of the records of `metrics.jsonl` so far. It speaks only when the numbers
leave it no doubt: beyond their errors, and where a network may simply be young, twice in a row.
Losses of the records `start` and `validation` are taken on the same items with the same noise each
time, so a difference between two of them is one of the weights and not of the draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Trouble", "fresh", "troubles"]

Record = Mapping[str, Any]

SURE = 3.0  # standard errors: one false alarm in 700 looks, were it the only condition
YOUNG = 500  # iterations before which samples are poor by nature: two looks, the second from here
EARLY = 200  # iterations before which no look counts
BLOCK = 10  # loss records of 10 iterations each that are taken together

MOVED = 0.05  # share of the first loss that the raw weights must have won before EMA is compared
LAGGING = 0.5  # share of that gain which EMA must have too; a warmed-up EMA has nearly all of it
WORSE = 1.5  # times the best loss on fixed items; a high rate alone wobbles by 10 to 20 %
SPIKE = 2.0  # times the best mean of a block, whose items and noise are drawn
LEARNT = 0.02  # share of the first loss; what is won by scaling the answer alone is more
RISEN = 0.05  # of the held-out loss above its best: more than one milestone's wobble of an EMA
FELL = 0.9  # of the first loss, from which on a label could be heeded
TINT = 16.0  # grey levels of 256, a cast anyone sees; guidance alone moves a mean by up to 10
DEAD = 0.05  # share of samples
NARROW = 0.5  # of the distance between real pictures of a class; guidance alone leaves 0.7 to 0.9
CLOSE = 0.8  # of the distances that the same samples have where nothing can be copied
COPIES = 0.01  # share of samples that are nearly a training picture, beyond that of the control


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong.

    Attributes:
        kind: Its name.
        sentence: What is seen, with numbers.
        advice: What to do.
    """

    kind: str
    sentence: str
    advice: str

    def record(self, iteration: int) -> dict[str, Any]:
        """The record of its beginning, as plain data."""
        facts = {"kind": self.kind, "sentence": self.sentence, "advice": self.advice}
        return {"event": "trouble", "iteration": iteration, **facts}


@dataclass(frozen=True)
class _History:
    """The records by what they say, each by rising iteration."""

    start: float
    losses: list[tuple[int, float]]
    skipped: int
    validations: list[Record]
    checks: list[Record]

    @staticmethod
    def of(records: Sequence[Record]) -> _History:
        def named(event: str) -> list[Record]:
            return [r for r in records if r.get("event") == event]

        first = [r["validation_loss_raw"] for r in named("start")]
        losses = [(r["iteration"], r["loss"]) for r in records if "loss" in r]
        checks = [r for r in named("check") if "skipped" not in r]
        start = first[0] if first else math.inf
        return _History(start, losses, len(named("skipped")), named("validation"), checks)

    def raw(self) -> list[float]:
        return [r["validation_loss_raw"] for r in self.validations]

    def twice(self, key: str) -> list[Record]:
        """The last two checks if both know `key` and the network is no longer young, else none.

        None too while the EMA weights, which the samples are of, have not learnt: these are noise.
        """
        if not self.validations or self.validations[-1]["validation_loss"] > FELL * self.start:
            return []
        last = [r for r in self.checks if key in r and r["iteration"] >= EARLY][-2:]
        return last if len(last) == 2 and last[-1]["iteration"] >= YOUNG else []


def troubles(records: Sequence[Record]) -> list[Trouble]:
    """All that is wrong now.

    Args:
        records: The lines of `metrics.jsonl` so far.
    """
    history = _History.of(records)
    return [found for rule in _RULES if (found := rule(history)) is not None]


def fresh(records: Sequence[Record]) -> list[Trouble]:
    """What is wrong now and was not said before, in a record `trouble`."""
    said = {r["kind"] for r in records if r.get("event") == "trouble"}
    return [found for found in troubles(records) if found.kind not in said]


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, which is infinite for less than two."""
    n = len(values)
    mean = sum(values) / n if n else math.nan
    if n < 2:
        return mean, math.inf
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)


def _diverging(history: _History) -> Trouble | None:
    """The training loss climbs far above its best, or updates are skipped as not finite.

    The held-out loss alone would not do: it climbs as far where a network overfits.
    """
    advice = "stop; start a new run with training.lr divided by 3, or with a smaller training.clip"
    raw, values = history.raw(), [loss for _, loss in history.losses]
    if history.skipped >= BLOCK and history.skipped > 0.1 * len(values):  # 1 % of the iterations
        got = f"{history.skipped} updates were skipped: their numbers were not finite"
        return Trouble("diverging", got, advice)
    ends = range(len(values), BLOCK - 1, -BLOCK)
    blocks = [_mean(values[end - BLOCK : end]) for end in ends]
    if len(blocks) < 2:
        return None
    (now, error), (best, spread) = blocks[0], min(blocks[1:])
    both = len(raw) >= 2 and raw[-1] > WORSE * min(raw[:-1])
    if both and now - SURE * math.hypot(error, spread) > best:
        got = f"the held-out loss is {raw[-1]:.3g} after {min(raw[:-1]):.3g} and the training loss"
        return Trouble("diverging", f"{got} rises too: training diverges", advice)
    if now - SURE * math.hypot(error, SPIKE * spread) > SPIKE * best:
        got = f"the training loss is {now:.3g} after {best:.3g}: training diverges"
        return Trouble("diverging", got, advice)
    return None


def _nothing_learnt(history: _History) -> Trouble | None:
    """On the same items and noise the network is as far off as before its first update."""
    if not history.validations or history.validations[-1]["iteration"] < YOUNG:
        return None
    best = min(history.raw())
    if best <= (1.0 - LEARNT) * history.start or math.isinf(history.start):
        return None
    got = f"the held-out loss was {history.start:.3g} before the first update and is {best:.3g}"
    advice = "raise training.lr by 3, and look at the data: are these pictures, do they vary?"
    return Trouble("nothing_learnt", got, advice)


def _ema_slow(history: _History) -> Trouble | None:
    """The raw weights have learnt and the average of them, which is what is kept, has not."""
    if not history.validations or history.validations[-1]["iteration"] < EARLY:
        return None
    last = history.validations[-1]
    raw, ema = last["validation_loss_raw"], last["validation_loss"]
    won = history.start - raw
    if math.isinf(won) or won < MOVED * history.start or history.start - ema > LAGGING * won:
        return None
    got = f"the held-out loss is {ema:.3g} with EMA weights and {raw:.3g} with raw ones"
    advice = "EMA is too slow for this run: train longer, or with a lower training.ema"
    return Trouble("ema_slow", got, advice)


def _overfit(history: _History) -> Trouble | None:
    """Held-out items get worse twice in a row while training items get better beyond the error."""
    losses = [(r["iteration"], r["validation_loss"]) for r in history.validations]
    if len(losses) < 3:
        return None
    at, best = min(losses, key=lambda pair: pair[1])
    (before, previous), (now, last) = losses[-2:]
    rising = at < before and best < previous <= last and last > (1.0 + RISEN) * best
    if not rising:
        return None
    then = _mean([loss for i, loss in history.losses if at / 2 < i <= at])
    late = _mean([loss for i, loss in history.losses if max(at, now / 2) < i <= now])
    if not late[0] + SURE * math.hypot(then[1], late[1]) < then[0]:
        return None
    got = f"the held-out loss was {best:.3g} at iteration {at} and is {last:.3g}, the training loss"
    advice = "stop about there; use more pictures, training.augment=0.1 or a smaller --size"
    return Trouble("overfit", f"{got} still falls", advice)


def _label_ignored(history: _History) -> Trouble | None:
    """Being told another item's label costs nothing, and the samples are right by chance only."""
    looks = history.twice("gain") or history.twice("accuracy")
    if not looks:
        return None
    for r in looks:
        if "gain" in r and r["gain"] > SURE * r["gain_error"]:
            return None
        if _trusted(r) and r["accuracy"] > r["chance"] + SURE * _by_chance(r):
            return None
        if "gain" not in r and not _trusted(r):
            return None
    last, got = looks[-1], "the network ignores what it is told"
    if _trusted(last):
        got += f" (accuracy {last['accuracy']:.2f}, by chance {last['chance']:.2f})"
    advice = (
        "check that names and pictures belong together; else train longer, guidance cannot help"
    )
    return Trouble("label_ignored", got, advice)


def _trusted(r: Record) -> bool:
    """Whether the judge itself can tell the classes, from what it does on real pictures."""
    if "accuracy" not in r:
        return False
    right, n = r["judge_accuracy"], max(1, r["judge_n"])
    return right - SURE * math.sqrt(right * (1.0 - right) / n) > 0.5 * (1.0 + r["chance"])


def _by_chance(r: Record) -> float:
    """Standard error of the accuracy of samples that know nothing of their label."""
    return math.sqrt(max(r["chance"] * (1.0 - r["chance"]), 0.0) / r["n"])


def _tinted(history: _History) -> Trouble | None:
    """The mean of a channel is off by more than the error and by more than one can overlook."""
    looks = history.twice("tint")
    if not looks or not all(r["tint"] - SURE * r["tint_error"] > TINT for r in looks):
        return None
    got = f"the samples are tinted: {looks[-1]['tint']:.0f} grey levels off in a channel"
    advice = "train longer with a lower training.lr; sample with less guidance"
    return Trouble("tinted", got, advice)


def _dead(history: _History) -> Trouble | None:
    """Samples of one grey level, black or white, where real pictures are not."""
    looks = history.twice("dead")
    for r in looks:
        beyond = SURE * math.hypot(r["dead_error"], r.get("dead_real_error", 0.0))
        if r["dead"] - r["dead_real"] - beyond <= DEAD:
            return None
    if not looks:
        return None
    got = f"{looks[-1]['dead']:.0%} of the samples are black, white or of one colour"
    advice = "look at the preview; sample with less guidance, train with a lower training.lr"
    return Trouble("dead", got, advice)


def _collapsed(history: _History) -> Trouble | None:
    """Samples of the same class resemble each other far more than real pictures of it do."""
    looks = history.twice("spread")
    if not looks or not all(_ratio(r)[0] + SURE * _ratio(r)[1] < NARROW for r in looks):
        return None
    got = f"the samples differ from each other by {_ratio(looks[-1])[0]:.0%} of what real ones do"
    advice = "sample with guidance 1; if that does not help, train with a lower training.lr"
    return Trouble("collapsed", got, advice)


def _ratio(r: Record) -> tuple[float, float]:
    """Spread of the samples over that of real pictures, with its error to first order."""
    mine, real = r["spread"], r["spread_real"]
    if real <= 0.0:
        return 1.0, math.inf
    ratio = mine / real
    return ratio, math.hypot(r["spread_error"], ratio * r["spread_real_error"]) / real


def _copying(history: _History) -> Trouble | None:
    """Samples are nearer to training pictures than blur makes them to pictures never trained on."""
    known = [r for r in history.checks if "memorisation" in r]
    if not known:
        return None
    r = known[-1]
    fair = min(1.0, r["control_memorisation"])
    error = math.hypot(r["memorisation_error"], CLOSE * r["control_memorisation_error"])
    close = r["memorisation"] + SURE * error < CLOSE * fair
    spread = math.hypot(r["near_copies_error"], r["control_near_copies_error"])
    many = r["near_copies"] - r["control_near_copies"] - SURE * spread > COPIES
    if not close and not many:
        return None
    got = f"{r['near_copies']:.0%} of the samples are nearly training pictures; distances to these"
    got = f"{got} are {r['memorisation']:.2f} of what they are for unseen pictures"
    advice = "stop earlier; use more pictures, training.augment=0.1 or a smaller --size"
    return Trouble("copying", got, advice)


_RULES: tuple[Callable[[_History], Trouble | None], ...] = (
    _diverging,
    _nothing_learnt,
    _ema_slow,
    _overfit,
    _label_ignored,
    _tinted,
    _dead,
    _collapsed,
    _copying,
)
