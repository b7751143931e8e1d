"""`steerable evaluate`."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from steerable.core.errors import UserError

from .console import Bar, duration, result, say_alias
from .options import REAL, AllowCode, Count, Json, Run, Sampling, Whole, Words
from .reading import data_of, shown

if TYPE_CHECKING:
    from steerable.jobs.effort import Effort
    from steerable.jobs.evaluate import Evaluation
    from steerable.jobs.model import Model
    from steerable.recipes.recipe import Recipe

__all__ = ["evaluate", "evaluation_lines", "evaluation_object", "report_of", "run_evaluation"]


def evaluate(
    run: Run,
    /,
    *,
    against: Annotated[str | None, Parameter(name=["--against", "--data"], help=REAL)] = None,
    n: Count = 2000,
    budget: str = "",
    how: Sampling | None = None,
    extractor: str = "",
    reference_fid: str | None = None,
    fail_under: Words = None,
    fail_over: Words = None,
    seed: Whole = 1_000_000,
    allow_code: AllowCode = None,
    json: Json = False,
) -> int:
    """Measure whether it listens: does it obey, look real, vary, copy; where is it weak?

    Writes evaluation/report.json and, with the extra `eval`, evaluation/report.html into the run
    folder. Of a classifier of noised pictures, its accuracy on held-out ones at ten noise levels.

    Parameters
    ----------
    n
        Number of samples, at most; of held-out pictures for a classifier.
    budget
        Time that all may take, such as 3m: fewer samples and stages, which the plan names.
    extractor
        Features of another network than the judge: see steerable parts extractors. KIND, or
        KIND:FOLDER where it takes a folder of weights.
    reference_fid
        Measure the published FID too, with these weights of the Inception network: a file, or
        `auto` for where torch-fidelity keeps downloads. Needs the extra `eval-ref`.
    fail_under
        MEASURE=VALUE such as accuracy=0.9: exit code 9 if it is less. May be repeated.
        Measures: accuracy, spread, spread_pixels, frechet, frechet_infinity, kid,
        two_sample, precision, recall, density, coverage, repeats, memorisation,
        near_copies, colour, tint, contrast, dead, classification_score, fid, bits_per_dim,
        r2 of NAME, retrieval of NAME.
    fail_over
        MEASURE=VALUE such as kid=0.01: exit code 9 if it is more; the same measures. May be
        repeated.
    seed
        Seed of the first sample.
    """
    from steerable import api
    from steerable.jobs.effort import Effort
    from steerable.jobs.report import check_folder
    from steerable.jobs.sample import steered

    how = how or Sampling()
    gates = [(*_gate(text), 1) for text in fail_under or []]
    gates += [(*_gate(text), -1) for text in fail_over or []]
    _known([name for name, _, _ in gates])
    _passable(gates)
    weights = "" if reference_fid == "auto" else reference_fid
    effort = Effort(n, seed, _seconds(budget), extractor, weights)
    model = api.load(run, allow_code=allow_code or ())
    if model.recipe.classifies and how != Sampling():
        got = "a classifier, which samples nothing"
        raise UserError("E-CONFIG", where="sampling settings", got=got, do="leave them out")
    settings = steered(model.recipe, **how.chosen())
    if Path(run).is_dir():
        check_folder(Path(run))
    say_alias(how.sampler)
    found = run_evaluation(model, against, settings, effort)
    if Path(run).is_dir():
        for line in report_of(Path(run), model, found):
            Bar().say(line)
    result(evaluation_object(found), as_json=json, lines=evaluation_lines(found))
    _check(gates, found.result)
    return 0


def _seconds(budget: str) -> float | None:
    """A time in seconds, None for no limit.

    Raises:
        UserError: E-CONFIG if it is not a time.
    """
    from steerable.recipes.recipe import Budget

    seconds = Budget.parse(budget).seconds if budget else None
    if budget and seconds is None:
        raise UserError("E-CONFIG", where="budget", got=repr(budget), takes="a time such as 3m")
    return seconds


def _gate(text: str) -> tuple[str, float]:
    """A measure and the bar that is set for it.

    Raises:
        UserError: E-CONFIG if it is not MEASURE=NUMBER.
    """
    name, _, number = text.partition("=")
    try:
        bar = float(number)
    except ValueError:
        bar = math.nan
    if not math.isfinite(bar):  # no figure is below nan, so such a bar would never be missed
        takes = "MEASURE=NUMBER with a finite number, such as accuracy=0.9"
        raise UserError("E-CONFIG", where="bar", got=repr(text), takes=takes)
    return name.strip(), bar


def _known(names: list[str]) -> None:
    """Check before any work that there are such measures.

    Raises:
        UserError: E-CONFIG for one that there is not.
    """
    from steerable.jobs.report import MEANS

    for name in names:
        if name not in MEANS and not name.startswith(("r2 of ", "retrieval of ")):
            takes = ", ".join([*MEANS, "r2 of NAME", "retrieval of NAME"])
            raise UserError("E-CONFIG", where="bar", got=f"measure '{name}'", takes=takes)


def _passable(gates: list[tuple[str, float, int]]) -> None:
    """Refuse bars between which there is nothing.

    Raises:
        UserError: E-CONFIG.
    """
    for name in {name for name, _, _ in gates}:
        low = max((bar for n, bar, sign in gates if n == name and sign > 0), default=-math.inf)
        high = min((bar for n, bar, sign in gates if n == name and sign < 0), default=math.inf)
        if low > high:
            got = f"{name} is to be at least {low:g} and at most {high:g}"
            raise UserError("E-CONFIG", where="bar", got=got, takes="bars that can be met")


def _check(gates: list[tuple[str, float, int]], report: dict[str, Any]) -> None:
    """Hold the figures against their bars.

    Raises:
        UserError: E-GATE for the figures that miss theirs, E-CONFIG for one that there is not.
    """
    measures, missed = report.get("measures", {}), []
    for name, bar, sign in gates:
        if name not in measures:
            takes = ", ".join(measures) or "none: this run has no such measures"
            raise UserError("E-CONFIG", where="bar", got=f"measure '{name}'", takes=takes)
        figure = measures[name]
        if sign * (figure["value"] - bar) < 0:
            told = f"{figure['value']:.4g} ± {figure['error']:.2g} (n = {figure['n']:,})"
            missed.append(f"{name} {told}, the bar is {bar:g}")
    if missed:
        kept = "the report"
        raise UserError("E-GATE", where="evaluation", got="; ".join(missed), kept=kept)


def report_of(run: Path, model: Model, found: Evaluation, budget: str = "30m") -> list[str]:
    """Write the report into the run folder; says where it is."""
    from importlib.util import find_spec

    from steerable.jobs.durable import counted
    from steerable.jobs.report import write_numbers, write_report

    numbers = write_numbers(run, found)
    if found.sample is None:
        return [f"numbers  {numbers}", *counted()]
    if find_spec("matplotlib") is None or find_spec("jinja2") is None:
        return [f"numbers  {numbers}", 'no page: pip install "steerable[eval]"', *counted()]
    proceed = f"steerable train --run {run} --budget {budget}"
    return [f"report   {write_report(run, model, found, proceed=proceed)}", *counted()]


def run_evaluation(model: Model, against: str | None, recipe: Recipe, effort: Effort) -> Evaluation:
    """Evaluate with plan and progress on stderr."""
    from steerable import api
    from steerable.jobs.data import own_reading

    splits = data_of(model, against)
    own = None
    if not model.recipe.classifies:
        own = shown(own_reading(model, splits, against is not None))
    bar, start, found, stage = Bar(), time.monotonic(), None, ""
    for looking in api.evaluation(model, against, recipe, effort=effort, splits=splits, own=own):
        found = looking.evaluation
        if looking.stage == "plan" and looking.plan is not None:
            for line in looking.plan.lines():
                bar.say(line)
            start = time.monotonic()
        elif looking.stage == "samples" and looking.done:
            share, spent = looking.done / looking.of, time.monotonic() - start
            rate = share * looking.plan.n / max(spent, 1e-9) if looking.plan else 0.0
            told = f"{rate:.0f} samples/s  {duration(spent * (1 / share - 1))} left"
            bar.show(share, told)
        elif looking.stage not in (stage, "done"):
            stage = looking.stage
            bar.show(looking.done / looking.of, stage)
    assert found is not None
    return found


def evaluation_object(found: Evaluation) -> dict[str, Any]:
    """The report as one object, with the main figures at its top by the names they always had.

    A figure that was not measured is None. `seconds` is the whole time; that of each stage stands
    under `stages`.
    """
    r, stages = found.result, found.seconds
    timed = {"seconds": round(sum(stages.values()), 1), "stages": dict(stages)}
    if found.sample is None:
        return {**r, **timed}
    measures, judge, n = r["measures"], r.get("judge") or {}, r["settings"]["n"]
    accuracy, frechet = measures.get("accuracy", {}), measures.get("frechet", {})
    return {
        **r,
        "accuracy": accuracy.get("value"),
        "accuracy_error": accuracy.get("error"),
        "judge_accuracy": judge.get("accuracy"),
        "judge_n": judge.get("n"),
        "judge_sha256": judge.get("sha256"),
        "frechet": frechet.get("value"),
        "frechet_error": frechet.get("error"),
        "frechet_floor": frechet.get("floor"),
        "frechet_floor_error": frechet.get("floor_std"),
        "frechet_n": frechet.get("n"),
        "frechet_reference": r["reference"]["part"],
        "n": n,
        "sampler": r["settings"]["sampler"],
        "guidance": r["settings"]["guidance"],
        "calls_per_sample": r["settings"]["calls_per_sample"],
        "samples_per_second": round(n / max(stages.get("samples", 0.0), 0.1), 2),
        **timed,
    }


def evaluation_lines(found: Evaluation) -> list[str]:
    """The verdicts and the figures for people."""
    from steerable.jobs.classified import by_level_lines

    r = found.result
    if found.sample is None:
        return by_level_lines(r)
    lines = [f"{v['question']:<32} {v['answer']:<8} {v['sentence']}" for v in r["verdicts"]]
    for name, figure in r["measures"].items():
        natural = figure.get("floor", figure.get("real"))
        floor = "" if natural is None else f"; real {natural:.4g}"
        told = f"{figure['value']:.4g} ± {figure['error']:.2g}"
        lines.append(f"{name:<22} {told:<20} n = {figure['n']:,}{floor}")
    lines += [f"left out {name}: {why}" for name, why in r["skipped"].items()]
    return [*lines, f"time     {sum(found.seconds.values()):.0f} s"]
