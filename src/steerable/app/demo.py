"""`steerable demo`: train, sample, evaluate and report on the data of the package."""

from __future__ import annotations

from pathlib import Path

from .console import Bar, Stop, result
from .evaluate import evaluation_lines, evaluation_object, report_of, run_evaluation
from .options import Count, Flag
from .reading import read
from .train import plan_lines, run_training

__all__ = ["demo"]


def demo(
    *,
    run: Path = Path("runs/demo"),
    budget: str = "150s",
    n: Count = 2000,
    json: Flag = False,
) -> int:
    """Train on the 6,000 pictures of clothes in the package, draw them, measure, write a report.

    Parameters
    ----------
    run
        The run folder.
    budget
        Training time.
    n
        Number of samples that are measured.
    json
        Print the figures as one JSON object.
    """
    from steerable import api
    from steerable.jobs.effort import Effort
    from steerable.jobs.output import Place
    from steerable.jobs.sample_files import claim_samples, write_samples
    from steerable.jobs.wish import wishes

    bar = Bar()
    asked = api.Request("fashion", run, budget=budget, settings=["data.source=embedded"])
    with Stop() as stop:
        with stop.at_once():
            splits = read(api.reading_for_run(asked))
        prepared = api.prepared_with(asked, splits)
        for line in plan_lines(prepared):
            bar.say(line)
        if not stop.code:
            run_training(prepared, bar, stop)
    if stop.code:
        return stop.code
    model = api.load(run)
    wanted, where = wishes(model.spec, [], 10, 0), Place(run / "samples" / "demo", force=True)
    with claim_samples(model, model.recipe, wanted, where) as folder:
        for _ in write_samples(folder, model, model.recipe, wanted):
            pass
    found = run_evaluation(model, None, model.recipe, Effort(n=n))
    lines = [
        *evaluation_lines(found),
        f"grid     {run / 'samples' / 'demo' / 'grid.png'}",
        *report_of(run, model, found, "10m"),
        f"go on    steerable sample {run} --label sneaker -n 16",
    ]
    result(evaluation_object(found), as_json=json, lines=lines)
    return 0
