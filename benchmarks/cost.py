"""What does each way of steering cost, and what does it buy? One JSON object a line.

    python benchmarks/cost.py RUN --weaker QUARTER [--unconditional RUN --classifier RUN]

RUN is trained with labels. Every method draws the same wishes; the rounds are interleaved, one
batch of every method a round, and `ratio` is the median over the rounds of its time over that of no
guidance in the same round (classifier guidance against its own model unguided). `calls` counts the
rows that the network is asked, so a guidance that asks twice counts 2; gradients are not calls, but
time. The label guidances are also judged: accuracy by a judge that guided nothing, the distance of
its features to those of real pictures. Pictures of the inverse methods are held-out ones, their
right half hidden.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

import steerable
from steerable.jobs.edit import Edit, edit, planned
from steerable.jobs.judged import distance, judge_for, obedience, reference
from steerable.jobs.sample import sample, steered
from steerable.jobs.steering import with_classifier
from steerable.jobs.wish import Wish
from steerable.recipes.part import build
from steerable.recipes.recipe import checked

SEED = 9_000_000


def guided(recipe, *parts):
    """The recipe with these guidances instead of its own."""
    return checked({**recipe.plain(), "guidance": list(parts)})


def label_ways(model, options):
    """Recipes that steer by label, by title."""
    own, weight = model.recipe, options.weight
    low, high = options.interval
    part = {"kind": "cfg", "weight": weight}
    ways = {
        "none": guided(own),
        "cfg": guided(own, part),
        f"cfg, {low:g} < t < {high:g}": guided(own, {**part, "start": high, "stop": low}),
        "cfg, rescale 0.7": guided(own, {**part, "rescale": 0.7}),
        "apg": guided(own, {"kind": "apg", "weight": weight}),
        "cfg_zero": guided(own, {"kind": "cfg_zero", "weight": weight}),
        "cfg_pp": guided(own, {"kind": "cfg_pp", "scale": 0.6}),
    }
    if options.weaker:
        weak = {"kind": "autoguidance", "model": options.weaker, "weight": weight}
        ways["autoguidance, quarter net"] = guided(own, weak)
        inside = {**weak, "start": high, "stop": low}
        ways[f"autoguidance, quarter net, {low:g} < t < {high:g}"] = guided(own, inside)
    return ways


def drawn(model, recipe, wishes):
    *_, last = sample(model, recipe, wishes)
    return last.sample


def timed(jobs, rounds):
    """Median seconds over those of the first, by title; the rounds are interleaved."""
    times = {title: [] for title in jobs}
    for _ in range(rounds):
        for title, job in jobs.items():
            begun = time.perf_counter()
            job()
            times[title].append(time.perf_counter() - begun)
    first = next(iter(times.values()))
    return {
        title: {
            "ratio": statistics.median(a / b for a, b in zip(spent, first, strict=True)),
            "seconds": statistics.median(spent),
        }
        for title, spent in times.items()
    }


def rows_asked(model, job):
    """Rows that the network is asked in a job, by a hook on it."""
    asked = []
    hook = model.network.register_forward_hook(
        lambda net, given, answer: asked.append(len(given[0]))
    )
    try:
        job()
    finally:
        hook.remove()
    return sum(asked)


def by_label(model, options):
    """Cost and worth of the guidances by label."""
    names = model.labels
    splits = build("data", model.recipe.data)
    judge = judge_for(splits)
    real, part = reference(splits, options.n, SEED)
    wishes = [Wish({"label": names[i % len(names)]}, SEED + i) for i in range(options.n)]
    ways = label_ways(model, options)
    jobs = {
        title: (lambda recipe=recipe: drawn(model, recipe, wishes[: options.batch]))
        for title, recipe in ways.items()
    }
    cost = timed(jobs, options.rounds)
    for title, recipe in ways.items():
        made = drawn(model, recipe, wishes)
        row = {"by": title, "rows": rows_asked(model, jobs[title]) / options.batch}
        row |= cost[title] | {"pictures_per_second": options.batch / cost[title]["seconds"]}
        row |= {k: obedience(judge, made, names)[k] for k in ("accuracy", "accuracy_error")}
        row |= {k: v for k, v in distance(judge, made, real, part).items() if k[0] == "f"}
        print(json.dumps(row), flush=True)
    return splits


def by_classifier(options):
    """Cost of classifier guidance on a model without labels, over that model unguided."""
    model = steerable.load(options.unconditional)
    seeds = [Wish({}, SEED + i) for i in range(options.batch)]
    recipe = with_classifier(model, options.classifier, 4.0)
    label = steerable.load(options.classifier).spec.labels["label"][0]
    wishes = [Wish({"label": label}, wish.seed) for wish in seeds]
    ways = {"none": (guided(model.recipe), seeds), "classifier": (recipe, wishes)}
    jobs = {
        title: (lambda recipe=recipe, wanted=wanted: drawn(model, recipe, wanted))
        for title, (recipe, wanted) in ways.items()
    }
    tell(model, jobs, options)


def by_picture(model, splits, options):
    """Cost of what holds a sample to a picture, over sampling without guidance."""
    x = splits.held_out.x[: options.batch]
    hole = torch.zeros(1, *x.shape[2:])
    hole[..., x.shape[3] // 2 :] = 1
    seeds = [Wish({}, SEED + i) for i in range(options.batch)]
    plain = steered(model.recipe, guidance=1.0)
    jobs = {"none": lambda: drawn(model, plain, seeds)}
    for method in ("keep", "diffpir", "dps", "posterior", "repaint"):
        wanted = Edit(image=x, mask=hole, method=method)
        recipe = planned(model, wanted, guidance=1.0)
        jobs[method] = lambda recipe=recipe, wanted=wanted: list(edit(model, recipe, wanted))
    wanted = Edit(reference=x, factor=4)
    recipe = planned(model, wanted, guidance=1.0)
    jobs["ilvr"] = lambda: list(edit(model, recipe, wanted))
    tell(model, jobs, options)


def tell(model, jobs, options):
    """Print the cost of jobs on one batch each."""
    cost = timed(jobs, options.rounds)
    for title, job in jobs.items():
        row = {"by": title, "rows": rows_asked(model, job) / options.batch, **cost[title]}
        row["pictures_per_second"] = options.batch / cost[title]["seconds"]
        print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run of a model that was trained with labels")
    parser.add_argument("--weaker", default="", help="run of a smaller model, same process")
    parser.add_argument("--unconditional", default="", help="run of a model without labels")
    parser.add_argument("--classifier", default="", help="run of the preset noisy-classifier")
    parser.add_argument("--weight", type=float, default=2.0)
    parser.add_argument("--interval", type=float, nargs=2, default=(0.25, 0.75))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-n", type=int, default=1000, help="samples to be judged")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = steerable.load(options.run)
    splits = by_label(model, options)
    by_picture(model, splits, options)
    if options.unconditional and options.classifier:
        by_classifier(options)


if __name__ == "__main__":
    main()
