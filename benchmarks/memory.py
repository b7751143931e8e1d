"""Peak memory of training on the full Fashion-MNIST (60,000 pictures), in a process of its own."""

from __future__ import annotations

import json
import resource
import tempfile

import steerable
from steerable.jobs.prepare import prepare
from steerable.jobs.train import train


def main() -> None:
    recipe = steerable.recipe("fashion", budget="60 iterations", settings=["data.source=full"])
    with tempfile.TemporaryDirectory() as folder:
        for _ in train(prepare(recipe, f"{folder}/run")):
            pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"peak_gib": round(peak, 3), "pictures": 60_000}))


if __name__ == "__main__":
    main()
