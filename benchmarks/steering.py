"""What steering buys and what it costs, measured on trained runs. One JSON object a line.

`classifier RUN CLASSIFIER [--clean CLEAN]`: classes of a model that was trained without labels, at
several scales. CLASSIFIER sees the noise of every level. CLEAN is the control: the same network
trained where there is hardly any noise (`--set process.mean=-5 --set process.std=0.1` of a flow),
once as if it knew noised pictures, once through universal guidance on x0-hat. The judge guided
nothing. All samples are kept, scale 0 included, where the classes should come as they do in the
data.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import steerable
from steerable.core.types import Spec
from steerable.jobs.judged import distance, judge_for, obedience, reference
from steerable.jobs.pictures import labelled_grid, png
from steerable.jobs.sample import Sample, by_title, sample, steered
from steerable.jobs.steering import with_classifier
from steerable.jobs.wish import Wish
from steerable.metrics.spread import Spread
from steerable.recipes.part import build

SEED = 7_000_000


class Bench:
    """A model, a judge that never guided anything, and real pictures to compare with."""

    def __init__(self, run, names, n, out):
        self.model, self.names, self.n, self.out = steerable.load(run), names, n, out
        self.splits = build("data", self.model.recipe.data)
        self.judge = judge_for(self.splits)
        self.real, self.part = reference(self.splits, n, SEED)
        features, _ = self.judge.look(self.real.x)
        self.real_spread = self.spread(features, self.real.cond["label"])

    def spread(self, features, labels):
        """Root mean square distance of features to the mean of their class, and its error."""
        made = Spread(len(self.names))
        made.update(features, labels)
        return made.value()

    def wishes(self):
        """n wishes, the classes in turn; the same seeds for every setting."""
        return [Wish({"label": self.names[i % len(self.names)]}, SEED + i) for i in range(self.n)]

    def drawn(self, recipe, wishes, guide=()):
        """A sample of all wishes."""
        *_, last = sample(self.model, recipe, wishes, guide=guide)
        return last.sample

    def measured(self, title, scale, made, seconds):
        """Everything that is known of a sample, as plain data."""
        features, predicted = self.judge.look(made.x)
        wanted = torch.arange(self.n) % len(self.names)
        spread = self.spread(features, wanted)
        obeyed = obedience(self.judge, made, self.names)
        row = {"by": title, "scale": scale, "n": self.n, "calls": made.calls}
        row |= {k: obeyed[k] for k in ("accuracy", "accuracy_error")}
        row["spread_ratio"] = spread["spread"] / self.real_spread["spread"]
        row["spread_ratio_error"] = spread["spread_error"] / self.real_spread["spread"]
        row |= {
            k: v for k, v in distance(self.judge, made, self.real, self.part).items() if k[0] == "f"
        }
        row["classes_p"] = self.as_in_the_data(predicted)
        row["seconds"] = seconds
        rows, titles = by_title(made)
        picture = png(labelled_grid([r[:12] for r in rows], titles))
        (self.out / f"{title}-{scale:g}.png").write_bytes(picture)
        return row

    def as_in_the_data(self, predicted):
        """The p-value of chi^2: does the judge name the classes as often as in real pictures?"""
        from scipy.stats import chi2_contingency

        real = self.judge.look(self.splits.held_out.x)[1]
        table = [torch.bincount(v, minlength=len(self.names)) for v in (predicted, real)]
        table = torch.stack(table)
        return float(chi2_contingency(table[:, table.sum(0) > 0].numpy()).pvalue)


def through_x0(bench, clean, recipe, scale, interval):
    """Universal guidance by the classifier of clean pictures, class by class."""
    parts, calls = torch.empty(bench.n, *bench.model.spec.shape, dtype=torch.uint8), 0
    every, zero = bench.wishes(), torch.zeros((), dtype=torch.float64)
    for k, name in enumerate(bench.names):
        own = list(range(k, bench.n, len(bench.names)))

        def score(x0, k=k):
            return clean.log_probs(x0, zero)[:, k]

        seeds = [Wish({}, every[i].seed) for i in own]
        guide = steerable.guide(score, scale, start=interval[1], stop=interval[0])
        made = bench.drawn(recipe, seeds, guide=[guide])
        parts[torch.tensor(own)], calls = made.x, max(calls, made.calls)
        assert every[own[0]].label == name
    return Sample(parts, tuple(every), recipe, calls)


def classifier(options):
    """Rows of accuracy, diversity and distance over the scales, for every kind of classifier."""
    noisy = steerable.load(options.classifier)
    spec: Spec = noisy.spec
    bench = Bench(options.run, spec.labels["label"], options.n, options.out)
    facts = {"judge_accuracy": bench.judge.accuracy, "judge_n": bench.judge.n}
    facts["noisy"] = steerable.evaluate(noisy, n=512).result
    if options.clean:
        facts["clean"] = steerable.evaluate(steerable.load(options.clean), n=512).result
    print(json.dumps({"real_spread": bench.real_spread, **facts}), flush=True)
    low, high = options.interval
    settings = {"steps": options.steps, "sampler": options.sampler, "settings": options.set}
    ways = {"noisy": options.classifier} | ({"clean": options.clean} if options.clean else {})
    for title, run in ways.items():
        for scale in options.scales:
            recipe = with_classifier(bench.model, run, scale)
            recipe = steered(recipe, interval=(low, high), **settings)
            begun = time.monotonic()
            made = bench.drawn(recipe, bench.wishes())
            row = bench.measured(title, scale, made, time.monotonic() - begun)
            print(json.dumps(row), flush=True)
    if options.clean:
        clean = steerable.load(options.clean).network
        recipe = steered(bench.model.recipe, **settings)
        for scale in options.scales:
            begun = time.monotonic()
            made = through_x0(bench, clean, recipe, scale, options.interval)
            row = bench.measured("clean on x0-hat", scale, made, time.monotonic() - begun)
            print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("classifier", help="classifier guidance over its scales")
    one.add_argument("run", help="run of a model that was trained without labels")
    one.add_argument("classifier", help="run of the preset noisy-classifier, same process")
    one.add_argument("--clean", default="", help="run of a classifier of nearly clean pictures")
    one.add_argument("--scales", type=float, nargs="+", default=[0, 0.5, 1, 2, 5, 10])
    one.add_argument("--interval", type=float, nargs=2, default=(0.0, 1.0), help="low and high t")
    one.add_argument("--steps", type=int, default=None)
    one.add_argument("--sampler", default=None)
    one.add_argument("--set", nargs="*", default=[])
    one.add_argument("-n", type=int, default=1000)
    one.add_argument("--out", type=Path, default=Path("out/steering"), help="folder for pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    {"classifier": classifier}[options.command](options)


if __name__ == "__main__":
    main()
