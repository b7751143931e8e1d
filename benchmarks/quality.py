"""Accuracy and feature Frechet distance of a run over samplers, grids, steps and guidance."""

from __future__ import annotations

import argparse
import json

import steerable
from steerable.jobs.judged import distance, judge_for, obedience, reference
from steerable.jobs.sample import sample, steered
from steerable.jobs.wish import Wish
from steerable.recipes.part import build

SEED = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--steps", type=int, nargs="+", default=[12])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--sampler", nargs="+", default=["dpmpp_2m"])
    parser.add_argument("--grid", nargs="+", default=["log_snr"])
    parser.add_argument("--interval", type=float, nargs=2, default=None)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("-n", type=int, default=2000)
    options = parser.parse_args()
    model = steerable.load(options.run)
    splits, names, n = build("data", model.recipe.data), model.labels, options.n
    judge, (real, part) = judge_for(splits), reference(splits, n, SEED)
    for sampler in options.sampler:
        for grid in options.grid:
            for steps in options.steps:
                for weight in options.guidance:
                    recipe = steered(
                        model.recipe,
                        guidance=weight,
                        interval=options.interval,
                        steps=steps,
                        sampler=sampler,
                        grid_kind=grid,
                        settings=options.set,
                    )
                    wishes = [Wish({"label": names[i % len(names)]}, SEED + i) for i in range(n)]
                    *_, last = sample(model, recipe, wishes)
                    found = obedience(judge, last.sample, names)
                    found |= distance(judge, last.sample, real, part)
                    keys = ("accuracy", "frechet", "frechet_floor", "frechet_n")
                    figures = {k: round(found[k], 3) for k in keys}
                    row = {"sampler": sampler, "grid": grid, "steps": steps, "guidance": weight}
                    print(json.dumps({**row, **figures}), flush=True)


if __name__ == "__main__":
    main()
