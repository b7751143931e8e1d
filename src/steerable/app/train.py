"""`steerable train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .console import Bar, Stop, duration, result
from .examples import BUILT_IN, PRESETS
from .options import AllowCode, Flag, Json, Whole, Words
from .reading import read

if TYPE_CHECKING:
    from steerable.jobs.prepare import Prepared
    from steerable.jobs.run import Run
    from steerable.jobs.train import Iteration

DATA = f"A folder of pictures or of class sub-folders, a .npz file, or a built-in set: {BUILT_IN}."
PRESET = f"What to train: {PRESETS}; flow by default."

__all__ = ["plan_lines", "run_training", "train"]


def train(
    data: Annotated[str | None, Parameter(help=DATA)] = None,
    /,
    *,
    run: Path | None = None,
    budget: str | None = None,
    preset: Annotated[str | None, Parameter(help=PRESET)] = None,
    size: str | None = None,
    config: Path | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    seed: Whole | None = None,
    set_: Annotated[Words, Parameter(name="--set")] = None,
    dry_run: Flag = False,
    board: Flag = False,
    allow_code: AllowCode = None,
    json: Json = False,
) -> int:
    """Train a model on labelled pictures. The same command again resumes.

    Parameters
    ----------
    run
        The run folder; runs/NAME by default.
    budget
        How long: 90s, 10m, 1h30m, '5000 iterations' or '200000 images'; 10m by default.
    size
        Size of the network: xs, s, m, l, xl; chosen by the budget by default.
    config
        A recipe file to start from.
    from_
        A run folder or model file whose weights and recipe a new run begins with, at iteration 0.
    seed
        Seed of weights, order and noise; 0 by default.
    set_
        Change a setting of the recipe: --set training.lr=1e-3. May be repeated.
    dry_run
        Print the plan and stop.
    board
        Show numbers and previews in RUN/board too, for TensorBoard; needs the extra board.
    """
    from steerable import api
    from steerable.jobs.board import require_board
    from steerable.jobs.conflicts import check_settings
    from steerable.jobs.start import Start
    from steerable.jobs.wish import check_seed

    if board:
        require_board()

    if seed is not None:
        check_seed(seed)
    typed = {"training.seed": seed, "training.budget": budget, "preset": preset}
    check_settings(set_ or [], typed)
    settings = list(set_ or []) + ([f"training.seed={seed}"] if seed is not None else [])
    where = run or Path("runs") / (Path(data).name if data else "run")
    modules = tuple(allow_code or ())
    start = None if from_ is None else Start.of(from_, allow_code=modules)
    asked = api.Request(data, where, preset, budget, size, settings, config, modules, start)
    with Stop() as stop:
        with stop.at_once():
            splits = read(api.reading_for_run(asked))
        job = api.prepared_with(asked, splits)
        bar = Bar()
        for line in plan_lines(job):
            bar.say(line)
        if dry_run:
            result({"run": str(where), **job.facts}, as_json=json, lines=[])
            return 0
        if not stop.code:
            done = run_training(job, bar, stop, board=board)
            result(done, as_json=json, lines=_done_lines(job, done))
        return stop.code


def _done_lines(job: Prepared, done: dict[str, Any]) -> list[str]:
    """Where the model is, what is known of it, and what to do with it."""
    from steerable.jobs.classified import by_level_lines

    told = by_level_lines(done["accuracy"]) if "accuracy" in done else []
    guides = f"MODEL --classifier {job.run}" if job.recipe.classifies else job.run
    wrong = [f"warning  {_trouble_text(found)}" for found in done["troubles"]]
    return [f"model    {done['model']}", *told, *wrong, f"next     steerable sample {guides}"]


def plan_lines(job: Prepared) -> list[str]:
    """What is about to happen and what it will cost."""
    facts, spec = job.facts, job.splits.train.spec
    shape = "x".join(str(s) for s in spec.shape[1:])
    classes = len(spec.labels.get("label", ()))
    kind = {1: "grey", 3: "RGB", 4: "RGBA"}.get(spec.shape[0], f"{spec.shape[0]} channels")
    options = ", ".join(f"{k} {v}" for k, v in job.recipe.backbone.options.items())
    lines = [
        f"data     {spec.name}: {facts['train_items']} pictures {shape} {kind}, "
        f"{classes or 'no'} classes, {facts['held_out_items']} held out",
        *(f"warning  {w}" for w in job.splits.report.get("warnings", ())),
        f"network  {job.recipe.backbone.kind}, {facts['parameters']:,} parameters, "
        f"{facts['forward_mflop']} MFLOP a picture ({options})",
        f"speed    {facts['images_per_second']:.0f} pictures/s, "
        f"{facts['training_gflops']:.0f} GFLOP/s{', compiled' if facts['compiled'] else ''}",
        f"plan     budget {job.recipe.training.budget}: about {facts['iterations']} iterations of "
        f"{job.recipe.training.batch}, {duration(facts['seconds'])}; "
        f"lr {job.recipe.training.lr:g}",
        *(f"warning  {warning}" for warning in facts["warnings"]),
        *(_note_text(note) for note in job.recipe.notes),
    ]
    return [*lines, f"run      {job.run}{' (resumes)' if job.resumes else ''}"]


def _note_text(note: str) -> str:
    """A note of the recipe: what a preset scaled, or where the first weights come from."""
    from steerable.jobs.start import LINEAGE

    return f"from     {note.removeprefix(LINEAGE)}" if LINEAGE in note else f"scaled   {note}"


def _text(step: Iteration, batch: int) -> str:
    rate = step.images / step.seconds if step.seconds else 0.0
    total = f"/{step.total}" if step.total else ""
    return (
        f"iteration {step.i}{total}  loss {step.loss:.4f}  lr {step.lr:.1e}  "
        f"{rate:.0f} pictures/s  {duration(step.left)} left"
    )


def _event_text(event: dict[str, Any]) -> str:
    if event["event"] == "validation":
        ema, raw = event["validation_loss"], event["validation_loss_raw"]
        return f"iteration {event['iteration']}: held-out loss {ema:.4f} (EMA), {raw:.4f} (raw)"
    if event["event"] == "skipped":
        return f"iteration {event['iteration']}: update skipped, its numbers are not finite"
    if event["event"] == "look_skipped":
        return f"iteration {event['iteration']}: not looked at, {event['reason']}"
    if event["event"] == "accuracy":
        shares = ", ".join(f"{row['accuracy']:.2f}" for row in event["levels"])
        first, last = event["levels"][0]["t"], event["levels"][-1]["t"]
        named = f"held-out accuracy at t = {first:g} to {last:g}"
        return f"iteration {event['iteration']}: {named}: {shares} (EMA), n = {event['n']} each"
    if event["event"] == "trouble":
        return f"warning  {_trouble_text(event)}"
    return ""


def _trouble_text(found: dict[str, Any]) -> str:
    return f"from iteration {found['iteration']}: {found['sentence']}. To do: {found['advice']}"


def _said(event: dict[str, Any], bar: Bar, log: Run) -> dict[str, Any]:
    """Say and log what happened; returns what the summary of the run keeps of it."""
    text = _event_text(event)
    if text:
        bar.say(text)
        log.append("log.txt", text)
    return {"accuracy": event} if event["event"] == "accuracy" else {}


def _nothing_to_do(job: Prepared) -> str:
    """Why a run was left as it is."""
    from steerable.jobs import checkpoint

    count, budget = checkpoint.reached(job.run), job.recipe.training.budget
    used = f"this run is finished already: it has {count} iterations, budget {budget} is used"
    return f"{used}; nothing was changed, a longer --budget goes on"


def run_training(job: Prepared, bar: Bar, stop: Stop, *, board: bool = False) -> dict[str, Any]:
    """Train with progress, on a board too if wanted; returns what was done."""
    from steerable.jobs import durable
    from steerable.jobs.board import Board
    from steerable.jobs.run import Run
    from steerable.jobs.train import train as iterations
    from steerable.jobs.watch import troubles_of

    log, steps = Run(job.run, job.recipe.trusted), iterations(job)
    step: Iteration | None = None
    shown: Board | None = None
    known: dict[str, Any] = {}
    for step in steps:
        if "troubles" not in known:  # the first one: from here on the folder is ours
            known["troubles"] = []
            for line in plan_lines(job):
                log.append("log.txt", line)
            shown = Board(job.run) if board else None
        for event in step.events:
            known |= _said(event, bar, log)
        if shown is not None:
            shown.follow()
        bar.show(step.share, _text(step, job.recipe.training.batch), last=step.i == step.total)
        if stop.code:
            steps.close()
            bar.say(f"stopped and saved at iteration {step.i}; the same command goes on")
            break
    if shown is not None:
        shown.close()
    known["troubles"] = troubles_of(job.run)
    done = {"run": str(job.run), "model": str(job.run / "model.safetensors"), **job.facts, **known}
    if step is not None:
        done |= {"iterations": step.i, "images": step.images, "seconds": round(step.seconds, 1)}
        done["lr"] = step.lr
        word = "finished" if step.i == step.total else "stopped"
        log.append("log.txt", f"{word}: {step.i} iterations, {step.images} pictures")
    else:
        bar.say(_nothing_to_do(job))
    odd = {name: count for name, count in durable.tally.items() if count}
    for line in durable.counted():
        bar.say(line)
    return {**done, "counters": odd}
