"""How much of a reference do samples take over, and how free are they beside it?

    python benchmarks/ilvr.py RUN [--references 8] [--out FOLDER]

For each kernel and factor N, 16 samples a held-out reference y, seeds alike. `residual` is
|phi(x) - phi(y)| / |phi(y) - phi(mean of the data)| with the low-pass phi of the same kernel and
factor, `relative` the same over |phi(y)|, both of the samples as bytes, clipped and rounded.
`diversity` is the root mean square difference of two
samples of one reference in [-1, 1], `high` the correlation of x - phi(x) with y - phi(y): a copy
has 1, and no picture that fits its low band has 0 where that tells of edges. `high_of_data` is the
same between y and the training picture whose low band is nearest. `copied` is what is left of the
correlation after the mean of other samples of y is taken from both: 0 where the samples are as free
as y itself was. `same_class` is how often a judge that guided nothing names the class that it names
for y.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from editing import correlation

import steerable
from steerable.jobs.data import known_to, splits_for
from steerable.jobs.edit import Edit, edit, planned
from steerable.jobs.judged import judge_for
from steerable.jobs.pictures import labelled_grid, png
from steerable.jobs.sample import sample, steered
from steerable.jobs.wish import Wish
from steerable.nn.resizing import lowpass

SAMPLES = 16


def high(x, factor, kernel):
    """What the low-pass leaves out of pictures (n,C,H,W), as rows."""
    return (x - lowpass(x, factor, kernel)).flatten(1)


def copied(x, y, factor, kernel):
    """Correlation of high bands, x (groups,n,C,H,W) and y (groups,C,H,W), less what is expected.

    The expected high band of x and that of y are means over different halves of the samples, so
    that their errors are not shared: the correlation is 0 if y might be one more sample.
    """
    h = high(x.flatten(0, 1), factor, kernel).unflatten(0, x.shape[:2])
    n = h.shape[1] // 3
    first, second, rest = h[:, :n].mean(1), h[:, n : 2 * n].mean(1), h[:, 2 * n :]
    mine = rest - first[:, None]
    its = (high(y, factor, kernel) - second)[:, None].expand_as(mine)
    return correlation(mine.flatten(0, 1), its.flatten(0, 1))


def nearest_low(y, train, factor, kernel):
    """The training picture whose low band is nearest, for every y."""
    pool = lowpass(train, factor, kernel).flatten(1)
    return train[torch.cdist(lowpass(y, factor, kernel).flatten(1), pool).argmin(1)]


def diversity(x):
    """Root mean square difference of two samples of one group (groups, n, C,H,W)."""
    n = x.shape[1]
    return float((2 * x.var(1, correction=0) * n / (n - 1)).mean().sqrt())


def row(model, y, options, factor, kernel, scene):
    """Everything about one low-pass; scene = (training pictures, mean, judge)."""
    train, mean, judge = scene
    wanted = Edit(reference=y, factor=factor, n=SAMPLES, seed=3_000_000)
    settings = [f"constraints.ilvr.kernel={kernel}", *options.set]
    chosen = {"steps": options.steps, "sampler": options.sampler}
    recipe = planned(model, wanted, settings=settings, **chosen)
    *_, last = edit(model, recipe, wanted)
    made = last.edited.sample.x
    x = made.double() / 127.5 - 1
    each = (y.double() / 127.5 - 1).repeat_interleave(SAMPLES, 0)
    low, want = (lowpass(v, factor, kernel) for v in (x, each))
    off = (low - want).flatten(1).norm(dim=1)
    grey = lowpass(mean, factor, kernel)
    _, verdict = judge.look(made)
    train_floats = train.double() / 127.5 - 1
    rival = nearest_low(y.double() / 127.5 - 1, train_floats, factor, kernel)
    sheet = x.unflatten(0, (-1, SAMPLES))
    rows = [
        torch.cat([y[i : i + 1], made.unflatten(0, (-1, SAMPLES))[i, :10]])
        for i in range(min(6, len(y)))
    ]
    picture = png(labelled_grid(rows, [""] * len(rows)))
    (options.out / f"ilvr-{kernel}-{factor}.png").write_bytes(picture)
    return {
        "kernel": kernel,
        "factor": factor,
        "n": len(x),
        "residual": float((off / (want - grey).flatten(1).norm(dim=1)).mean()),
        "relative": float((off / want.flatten(1).norm(dim=1)).mean()),
        "diversity": diversity(sheet),
        "high": correlation(high(x, factor, kernel), high(each, factor, kernel)),
        "high_of_data": correlation(
            high(rival, factor, kernel), high(y.double() / 127.5 - 1, factor, kernel)
        ),
        "copied": copied(sheet, y.double() / 127.5 - 1, factor, kernel),
        "same_class": float(
            (verdict == judge.look(y)[1].repeat_interleave(SAMPLES)).double().mean()
        ),
        "calls": last.edited.sample.calls,
    }


def measure(options):
    """Rows of every kernel and factor that divides the side, and of no reference at all."""
    model = steerable.load(options.run)
    splits = known_to(splits_for(model, options.data), set(model.recipe.conditions))
    order = torch.randperm(len(splits.held_out), generator=torch.Generator().manual_seed(0))
    y = splits.held_out.x[order[: options.references]]
    judge = judge_for(splits_for(model, options.data))
    train = splits.train.x[:10_000]
    mean = (train.double() / 127.5 - 1).mean(0, keepdim=True)
    scene = (train, mean, judge)
    side = model.spec.shape[-1]
    for kernel in options.kernels:
        for factor in (n for n in options.factors if side % n == 0):
            print(json.dumps(row(model, y, options, factor, kernel, scene)), flush=True)
    x = without_reference(model, options).double() / 127.5 - 1
    pairs = diversity(x.unflatten(0, (-1, SAMPLES)))
    print(json.dumps({"kernel": "no reference", "diversity": pairs, "n": len(x)}))


def without_reference(model, options):
    """Samples (n,C,H,W) uint8 of the model alone, for the diversity that there is."""
    wishes = [Wish({}, 3_000_000 + i) for i in range(SAMPLES * options.references)]
    recipe = steered(model.recipe, steps=options.steps, sampler=options.sampler)
    *_, last = sample(model, recipe, wishes)
    return last.sample.x


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--data", default=None, help="the data, if it has moved")
    parser.add_argument("--references", type=int, default=8)
    parser.add_argument("--steps", type=int, default=None, help="the model's own by default")
    parser.add_argument("--sampler", default=None)
    parser.add_argument("--kernels", nargs="+", default=["box", "bicubic"])
    parser.add_argument("--factors", nargs="+", type=int, default=[2, 4, 7, 8, 14, 16])
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("out/ilvr"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    measure(options)


if __name__ == "__main__":
    main()
