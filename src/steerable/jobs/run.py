"""The run folder: a record that explains itself, and the rules for coming back to it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from steerable.core.errors import UserError, visible
from steerable.intake.plain import plain_bytes
from steerable.recipes.origin import artefact
from steerable.recipes.recipe import MAX_BYTES, Recipe, from_yaml

from . import durable
from .beside import object_in
from .model import versions

__all__ = ["Run", "changed", "data_folder", "differences", "environment", "refuse_changes"]

# Settings that may differ between the sessions of one run: they do not touch what was learnt.
FREE = (
    "data.path",
    "training.budget",
    "training.checkpoint_seconds",
    "training.checks",
    "training.threads",
    "sampler",
    "guidance",
    "notes",  # say what a budget scaled, no setting of their own
)

KEPT = "everything in the folder, as it is"
OWN = ("lease.json", "lease.lock", "log.txt", "checkpoints", "samples")  # may lie there before


def data_folder(run: Path) -> Path | None:
    """Where the data of a run lies, as its recipe says, if that is a path that can be read."""
    file = run / "recipe.yaml"
    try:
        if not file.is_file() or file.stat().st_size > MAX_BYTES:
            return None
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return None  # what is wrong with it is said where the recipe is needed
    data = tree.get("data") if isinstance(tree, dict) else None
    path = data.get("path") if isinstance(data, dict) else None
    return Path(path) if isinstance(path, str) and path else None


def environment() -> dict[str, Any]:
    """What the run was computed with; nothing that names a person or a machine."""
    return {
        **versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "dtype": "float32",
    }


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        inner = [_leaves(v, f"{path}.{k}" if path else str(k)) for k, v in tree.items()]
        return {key: value for leaves in inner for key, value in leaves.items()}
    return {path: json.loads(json.dumps(tree))}


def differences(old: Recipe, new: Recipe) -> list[tuple[str, Any, Any]]:
    """Paths whose values differ and matter, with the old and the new value."""
    return changed(old.plain(), new.plain(), also_new=True)


def changed(
    old: Mapping[str, Any], new: Mapping[str, Any], *, also_new: bool = False
) -> list[tuple[str, Any, Any]]:
    """`differences` of recipes as plain data.

    Args:
        old: One recipe.
        new: The other one.
        also_new: Count paths that `old` does not have, such as settings of a later version.
    """
    before, after = _leaves(old), _leaves(new)
    paths = sorted({*before, *after} if also_new else before)
    paths = [p for p in paths if before.get(p) != after.get(p)]
    return [
        (p, before.get(p), after.get(p))
        for p in paths
        if not any(p == free or p.startswith(f"{free}.") for free in FREE)
    ]


def refuse_changes(found: list[tuple[str, Any, Any]], where: str) -> None:
    """Refuse to go on with another recipe.

    Raises:
        UserError: E-CONFIG-DIFF if there are differences.
    """
    if not found:
        return
    raise UserError(
        "E-CONFIG-DIFF",
        where=where,
        got="; ".join(f"{p}: {a!r} -> {b!r}" for p, a, b in found[:8]),
        kept="the run as it is",
        do="choose another --run folder, or repeat the first command",
    )


@dataclass(frozen=True)
class Run:
    """A run folder that this process owns.

    Attributes:
        path: The folder.
        allow_code: Modules of the user's own whose parts its recipe may name.
    """

    path: Path
    allow_code: frozenset[str] = frozenset()

    def recipe(self) -> Recipe | None:
        """The recipe that the folder was made with, if it was made.

        Raises:
            UserError: E-CONFIG if it cannot be read, E-CKPT-PICKLE if it names code without leave.
        """
        file = self.path / "recipe.yaml"
        origin = artefact(f"{self.path.name}/{file.name}", self.allow_code)
        try:
            return from_yaml(file, origin) if os.path.lexists(file) else None
        except UserError as error:
            if error.code == "E-CKPT-PICKLE":
                raise
            if error.where != file.name:
                do = f"mend {file.name}, or put it back from a backup"
                raise UserError(
                    "E-CONFIG",
                    where=f"{file}, {error.where}",
                    got=error.got,
                    takes=error.takes,
                    kept=KEPT,
                    do=do,
                ) from error
            do = f"put it back from a backup; `steerable info {self.path}` prints the model's own"
            got, takes = error.got, error.takes
            raise UserError(
                "E-CONFIG", where=str(file), got=got, takes=takes, kept=KEPT, do=do
            ) from error

    def data_report(self) -> dict[str, Any] | None:
        """The report of the data that the run started with; None if it is lost or damaged."""
        return object_in(self.path / "data-report.json")

    def data_items(self) -> dict[str, Any]:
        """What was in every file of that data; empty where an older version wrote the run."""
        file = self.path / "data-items.json"
        if not file.is_file():
            return {}
        try:
            found = json.loads(plain_bytes(file).decode("utf-8"))
            return {part: dict(found[part]) for part in ("train", "held_out")}
        except (OSError, ValueError, KeyError, TypeError):
            durable.tally["data-items.json that cannot be read"] += 1
            return {}

    def check(self, recipe: Recipe) -> bool:
        """Whether the folder holds a run of this recipe already.

        Raises:
            UserError: E-CONFIG-DIFF if it holds a run of another recipe; E-CONFIG if it is a file
                or a folder that is not ours.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError("E-CONFIG", where=str(self.path), got="a file", takes="a folder")
        old = self.recipe()
        if old is None:
            self._refuse_torso()
            foreign = [p.name for p in self.path.iterdir()] if self.path.is_dir() else []
            foreign = [n for n in foreign if n not in OWN and n[0] != "."]
            if foreign:
                got = f"a folder that is not a run (holds {foreign[0]})"
                raise UserError("E-CONFIG", where=str(self.path), got=got, do="choose a new folder")
            return False
        refuse_changes(differences(old, recipe), str(self.path))
        return True

    def _refuse_torso(self) -> None:
        """Refuse a folder that has lost its recipe.

        Raises:
            UserError: E-CONFIG.
        """
        folder = self.path / "checkpoints"
        found = next(folder.glob("iter-*"), None) if folder.is_dir() else None
        model = self.path / "model.safetensors"
        there = [path.name for path in (found, model) if path is not None and path.exists()]
        if not there:
            return
        do = "put recipe.yaml back from a backup, or choose another --run folder"
        if model.exists():
            do += f"; a new run from its weights: --from {model} --run NEW"
        got = f"{' and '.join(there)}, but no recipe.yaml"
        raise UserError("E-CONFIG", where=str(self.path), got=got, kept=KEPT, do=do)

    def environment(self, source: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the run is computed with, and where its first weights come from."""
        return {**environment(), **({"from": dict(source)} if source else {})}

    def keep(self, recipe: Recipe) -> None:
        """Write the recipe, in which what is free may have changed since the last session."""
        durable.write(self.path / "recipe.yaml", recipe.yaml().encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write plain data durably."""
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        durable.write(self.path / name, text.encode() + b"\n")

    def append(self, name: str, record: Mapping[str, Any] | str) -> None:
        """Add a line to a log; the loss of one is counted and does not stop training."""
        plain = isinstance(record, str)
        line = visible(record) if plain else json.dumps(record, sort_keys=True, allow_nan=False)
        self.tolerate(name, lambda: durable.append(self.path / name, line))

    def tolerate(self, kind: str, write: Any) -> None:
        """Run a write whose failure costs a log or a picture, never the run."""
        try:
            write()
        except UserError as error:
            if error.code != "E-DISK":
                raise
            durable.tally[f"lost in {kind}"] += 1

    def room_for(self, need: int) -> None:
        """Refuse to start when two checkpoints of `need` bytes do not fit.

        Raises:
            UserError: E-DISK.
        """
        folder = self.path
        while not folder.exists():
            folder = folder.parent
        durable.require(folder / "checkpoints", 2 * need)
