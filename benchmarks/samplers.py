"""Feature Frechet distance of one run against calls of the denoiser, for every sampler and grid.

At ten calls every sampler is tried on every grid; the best grid of each then goes through all
numbers of calls. Rows are appended to a JSON-lines file, so the script goes on where it stopped;
`--table` writes the table as Markdown. `--grids` measures every sampler on these grids at every
number of calls; `optimised` needs a model that `steerable grid` has written tables into.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

import steerable
from steerable.jobs.judged import judge_for, reference
from steerable.jobs.sample import sample, steered
from steerable.jobs.wish import Wish
from steerable.metrics.frechet import Frechet, floor
from steerable.recipes.part import build, kinds

CALLS = (4, 6, 8, 10, 15, 20, 50, 250)
GRIDS = ("uniform", "log_snr", "karras", "cosine")
SEED = 3_000_000
ADAPTIVE = {"ode"}  # chooses its calls by itself


class Bench:
    """A model with its judge and real pictures."""

    def __init__(self, run: str, n: int) -> None:
        self.model = steerable.load(run)
        splits = build("data", self.model.recipe.data)
        self.judge = judge_for(splits)
        self.n, self.names = n, self.model.labels
        real, _ = reference(splits, n, SEED)
        features, _ = self.judge.look(real.x)
        labels = real.cond["label"]
        self.real = Frechet()
        self.real.update(features[torch.argsort(labels, stable=True)[0::2]])
        self.floor = floor(features, len(real) // 2, groups=labels)

    def draw(self, recipe, n):
        wanted = [Wish({"label": self.names[i % len(self.names)]}, SEED + i) for i in range(n)]
        *_, last = sample(self.model, recipe, wanted)
        return last.sample

    def recipe(self, sampler, grid, steps, guidance):
        return steered(
            self.model.recipe, guidance=guidance, steps=steps, sampler=sampler, grid_kind=grid
        )

    def steps_for(self, sampler, grid, calls):
        """The most steps that take at most so many calls, or 0; calls are linear in the steps."""
        four, eight = (self.draw(self.recipe(sampler, grid, s, 1.0), 1).calls for s in (4, 8))
        each = (eight - four) / 4
        steps = int((calls - four) / each + 4)
        while steps > 0 and self.draw(self.recipe(sampler, grid, steps, 1.0), 1).calls > calls:
            steps -= 1
        return max(steps, 0)

    def measure(self, sampler, grid, calls, guidance):
        steps = self.steps_for(sampler, grid, calls)
        row = {"sampler": sampler, "grid": grid, "asked": calls, "guidance": guidance, "n": self.n}
        if not steps:
            return {**row, "steps": 0, "calls": 0, "frechet": None, "accuracy": None}
        start = time.monotonic()
        made = self.draw(self.recipe(sampler, grid, steps, guidance), self.n)
        features, predicted = self.judge.look(made.x)
        fakes = Frechet()
        fakes.update(features)
        wanted = torch.arange(self.n) % len(self.names)
        return {
            **row,
            "steps": steps,
            "calls": made.calls,
            "frechet": round(fakes.distance(self.real), 4),
            "accuracy": round(float((predicted == wanted).double().mean()), 4),
            "seconds": round(time.monotonic() - start, 1),
        }


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def best_grid(rows, sampler):
    """The grid with the least distance at ten calls (or at the most calls that were tried)."""
    tried = [r for r in rows if r["sampler"] == sampler and r["frechet"] is not None]
    ten = [r for r in tried if r["asked"] == 10 and r["guidance"] == 1.0]
    return min(ten or tried, key=lambda r: r["frechet"])["grid"] if tried else GRIDS[0]


def run(bench, path, samplers, guidance, numbers, grids):
    done = {(r["sampler"], r["grid"], r["asked"], r["guidance"]) for r in rows_of(path)}

    def once(sampler, grid, calls):
        if (sampler, grid, calls, guidance) in done:
            return
        row = bench.measure(sampler, grid, calls, guidance)
        print(json.dumps(row), flush=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    for sampler in samplers:
        for grid in grids:
            for calls in numbers:
                once(sampler, grid, calls)
    if grids:
        return
    for sampler in samplers if guidance == 1.0 else ():
        for grid in GRIDS:
            once(sampler, grid, 10)
    for calls in numbers:
        for sampler in samplers:
            once(sampler, best_grid(rows_of(path), sampler), calls)


def table(rows):
    """Markdown: one row a sampler on its best grid, one column a number of calls."""
    lines = ["| sampler | grid | " + " | ".join(str(c) for c in CALLS) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(CALLS))
    for sampler in dict.fromkeys(r["sampler"] for r in rows):
        grid = best_grid(rows, sampler)
        mine = {
            r["asked"]: r
            for r in rows
            if (r["sampler"], r["grid"], r["guidance"]) == (sampler, grid, 1.0)
        }
        cells = []
        for calls in CALLS:
            value = mine.get(calls, {}).get("frechet")
            cells.append("" if value is None else f"{value:.2f}")
        lines.append(f"| {sampler} | {grid} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rows", type=Path, default=Path("samplers.jsonl"))
    parser.add_argument("--samplers", nargs="+", default=None)
    parser.add_argument("--grids", nargs="+", default=[])
    parser.add_argument("--calls", type=int, nargs="+", default=list(CALLS))
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table(rows_of(options.rows)))
        sys.exit()
    bench = Bench(options.run, options.n)
    print(f"floor {bench.floor.value:.3f} +- {bench.floor.error:.3f} at n = {options.n}")
    samplers = options.samplers or [k for k in kinds("sampler") if k not in ADAPTIVE]
    run(bench, options.rows, samplers, options.guidance, options.calls, options.grids)


if __name__ == "__main__":
    main()
