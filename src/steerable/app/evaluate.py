"""`steerable evaluate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from steerable.core.errors import UserError

from .console import Bar, duration, result, say_alias
from .options import AllowCode, Count, Data, Json, Run, Sampling, Whole

if TYPE_CHECKING:
    from steerable.jobs.evaluate import Evaluation
    from steerable.jobs.model import Model
    from steerable.recipes.recipe import Recipe

__all__ = ["evaluate", "evaluation_lines", "run_evaluation"]


def evaluate(
    run: Run,
    /,
    *,
    data: Data = None,
    n: Count = 2000,
    how: Sampling | None = None,
    seed: Whole = 1_000_000,
    allow_code: AllowCode = "",
    json: Json = False,
) -> int:
    """Measure whether the labels are obeyed: class accuracy by a judge, feature Frechet distance.

    Of a classifier of noised pictures, its accuracy on held-out ones at ten noise levels. Writes
    evaluation.json and, with the extra `eval`, report.html into the run folder.

    Parameters
    ----------
    n
        Number of samples; of held-out pictures, at most, for a classifier.
    seed
        Seed of the first sample.
    """
    from steerable import api
    from steerable.jobs.sample import steered

    how = how or Sampling()
    model = api.load(run, allow_code=allow_code)
    if model.recipe.classifies and how != Sampling():
        got = "a classifier, which samples nothing"
        raise UserError("E-CONFIG", where="sampling settings", got=got, do="leave them out")
    settings = steered(model.recipe, **how.chosen())
    say_alias(how.sampler)
    found = run_evaluation(model, data, settings, n=n, seed=seed)
    result(found.result, as_json=json, lines=evaluation_lines(found))
    if Path(run).is_dir():
        Bar().say(_reported(Path(run), model, found))
    return 0


def _reported(run: Path, model: Model, found: Evaluation) -> str:
    from importlib.util import find_spec

    from steerable.jobs.report import write_numbers, write_report

    write_numbers(run, found)
    if found.sample is None:
        return f"numbers  {run / 'evaluation.json'}"
    if find_spec("matplotlib") is None or find_spec("jinja2") is None:
        return 'no report.html: pip install "steerable[eval]"'
    proceed = f"steerable train --run {run} --budget 30m"
    return f"report   {write_report(run, model, found, proceed=proceed)}"


def run_evaluation(
    model: Model, data: str | None, recipe: Recipe, *, n: int, seed: int
) -> Evaluation:
    """Evaluate with progress on stderr."""
    from steerable import api

    bar, start, found = Bar(), time.monotonic(), None
    for looking in api.evaluation(model, data, recipe, n=n, seed=seed):
        found = looking.evaluation
        if looking.stage == "samples":
            share = looking.done / looking.of
            left = (time.monotonic() - start) * (1 / share - 1)
            bar.show(share, f"{n} samples  {duration(left)} left")
    assert found is not None
    return found


def evaluation_lines(found: Evaluation) -> list[str]:
    """The figures for people."""
    from steerable.jobs.classified import by_level_lines

    r = found.result
    if found.sample is None:
        return by_level_lines(r)
    lines = [
        f"accuracy {r['accuracy']:.3f} ± {r['accuracy_error']:.3f} on n = {r['n']} samples; "
        f"the judge on {r['judge_n']} real held-out pictures: {r['judge_accuracy']:.3f}",
        f"frechet  {r['frechet']:.3f} ± {r['frechet_error']:.3f} at n = {r['frechet_n']}; "
        "real against real at the same n: "
        f"{r['frechet_floor']:.3f} ± {r['frechet_floor_error']:.3f}",
    ]
    worst = sorted((share, name) for name, share in r["per_class"].items() if share is not None)
    named = ", ".join(f"{name} {share:.2f}" for share, name in worst[:3])
    return [*lines, f"weakest  {named}", f"time     {r['seconds']} s"]
