"""Whether a run folder can go on, from where, and what beside the weights has to be mended first.

A model file is never trained over: where the checkpoints that it came from are gone, a run neither
goes on nor begins again in its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steerable.core.errors import UserError
from steerable.recipes.recipe import Recipe

from . import averaging, checkpoint, durable
from .beside import RECORD, mend_folder, mend_log, mend_plain, model_iterations, object_in, sound
from .data import compare, sound_report
from .run import Run, changed, refuse_changes
from .start import LINEAGE

__all__ = ["check_resumable", "found_in", "mend", "same_data"]


def check_resumable(run: Run, recipe: Recipe, *, given: bool = False) -> None:
    """Refuse, before any work, a run that has nothing to go on from but must not begin again.

    Args:
        run: A folder that holds a run of the recipe.
        recipe: The recipe.
        given: Whether the weights that it begins with are at hand.

    Raises:
        UserError: E-CONFIG.
    """
    if checkpoint.any_left(run.path):
        return
    model = run.path / "model.safetensors"
    if model.exists():
        count = model_iterations(model)
        age = "a model that cannot be read" if count is None else f"a model of {count} iterations"
        raise UserError(
            "E-CONFIG",
            where=str(run.path),
            got=f"{age}, but no checkpoints: there is nothing to go on from",
            kept="the model and the run as they are",
            do=f"start a new run from its weights: --from {run.path} --run NEW; or choose another "
            "--run folder; or put the folder checkpoints back",
        )
    note = next((note for note in recipe.notes if note.startswith(LINEAGE)), "")
    if note and not given:
        got = f"a run that was stopped before its first save ({note})"
        do = "repeat the first command with its --from"
        raise UserError("E-CONFIG", where=str(run.path), got=got, do=do)


def same_data(run: Run, report: Mapping[str, Any]) -> None:
    """Check that the data is the one that a run started with.

    The fingerprint in the newest checkpoint, which is sealed, decides; the file data-report.json
    where a run has no checkpoint yet, or those of an older version. Where neither can tell, that is
    counted, and the run goes on.

    Raises:
        UserError: E-DATA-CHANGED.
    """
    now, where = dict(report), str(run.path)
    recorded, before = checkpoint.facts(run.path).get("data"), run.data_report()
    if recorded == now["fingerprint"]:
        return
    if before is not None and sound_report(before):
        compare({**before, "items": run.data_items()}, now, where)  # names the classes that differ
        if recorded is None:
            return
    if recorded is not None:
        compare({**now, "fingerprint": recorded}, now, where)
    durable.tally["lost data-report.json: whether the data has changed is not known"] += 1


def found_in(run: Run, recipe: Recipe, *, given: bool = False) -> checkpoint.Checkpoint | None:
    """The checkpoint that a run goes on from; None where it begins. Call it under the lease.

    Args:
        run: The folder.
        recipe: What is to be trained there.
        given: Whether the weights that it begins with are at hand.

    Raises:
        UserError: E-CONFIG, E-CONFIG-DIFF, E-CKPT-HASH for a folder that cannot go on.
    """
    if not run.check(recipe):
        return None
    check_resumable(run, recipe, given=given)
    found, passed_over = checkpoint.newest(run.path)
    for reason in passed_over:
        durable.tally["damaged checkpoints passed over"] += 1
        run.append("log.txt", f"damaged checkpoint passed over: {reason}")
    if found is None:
        return None
    made_with = found.facts.get("recipe")
    if isinstance(made_with, dict):
        refuse_changes(changed(made_with, recipe.plain()), f"{run.path}, {found.path.name}")
    return found


def mend(
    run: Run,
    recipe: Recipe,
    report: Mapping[str, Any],
    iteration: int,
    *,
    source: Mapping[str, Any] | None = None,
) -> None:
    """Make the folder fit to go on at an iteration, 0 at the start. Call it under the lease.

    Logs are cut back to it; what is damaged beside the weights is set aside and made anew.

    Args:
        run: The folder.
        recipe: Its recipe, in which what is free may have changed.
        report: The report of its data.
        iteration: Iterations done.
        source: Where its first weights come from, if not from a seed.

    Raises:
        UserError: E-DISK if the folder cannot be changed.
    """
    for name in ("samples", "checkpoints", averaging.FOLDER):
        mend_folder(run.path / name)
    mend_plain(run.path / "log.txt")
    mend_log(run.path / RECORD, iteration, sound)
    mend_log(run.path / "times.jsonl", iteration)
    averaging.forget_after(run.path, iteration)
    known = object_in(run.path / "data-report.json", quiet=True) or {}
    if known.get("fingerprint") != report["fingerprint"] or not sound_report(known):
        _renew(run, "data-report.json", {k: v for k, v in report.items() if k != "items"})
    items = report.get("items", {})
    if any(items.values()) and run.data_items() != items:
        _renew(run, "data-items.json", items)
    if object_in(run.path / "environment.json", quiet=True) is None:
        _renew(run, "environment.json", run.environment(source))
    durable.folder(run.path / "samples")
    durable.folder(run.path / "checkpoints")
    run.keep(recipe)


def _renew(run: Run, name: str, value: Mapping[str, Any]) -> None:
    """Write a file; a damaged one of its name is set aside."""
    path = run.path / name
    if path.exists() or path.is_symlink():
        durable.set_aside(path)
    run.write_json(name, value)
