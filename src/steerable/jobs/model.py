"""A trained model: one file that knows itself, loaded without a constructor."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import steerable
from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.recipes import store
from steerable.recipes.assembly import Network, network
from steerable.recipes.recipe import Recipe, checked

__all__ = ["Model", "find_model", "pack_model", "spec_of", "versions"]


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "steerable": steerable.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


_NAMES = ("labels", "vectors", "tokens")


def _spec_plain(spec: Spec) -> dict[str, Any]:
    named = {key: {k: list(v) for k, v in getattr(spec, key).items()} for key in _NAMES}
    facts = {"std": spec.std, "flip": spec.flip, "range": [-1, 1]}
    return {"name": spec.name, "shape": list(spec.shape), **named, **facts}


def spec_of(plain: Mapping[str, Any]) -> Spec:
    """A data spec from its plain form."""
    named = {key: {k: tuple(v) for k, v in plain.get(key, {}).items()} for key in _NAMES}
    shape = tuple(int(n) for n in plain["shape"])
    flip, std = bool(plain["flip"]), float(plain["std"])
    return Spec(str(plain["name"]), shape, **named, std=std, flip=flip)


def pack_model(
    tensors: Mapping[str, Tensor], recipe: Recipe, spec: Spec, summary: Mapping[str, Any]
) -> bytes:
    """The bytes of a model file: weights, recipe, data facts, versions, training summary.

    The path of the data is left out, since a model file is made to be passed on.
    """
    plain = recipe.plain()
    if "path" in plain["data"]:
        plain["data"]["path"] = spec.name
    about = {
        "recipe": plain,
        "spec": _spec_plain(spec),
        "versions": versions(),
        "training": dict(summary),
    }
    return store.pack(tensors, about)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file can have
        return False


def find_model(path: str | Path) -> Path:
    """The model file of a run folder, or the file itself.

    Raises:
        UserError: E-CONFIG if there is none.
    """
    path = Path(path)
    if not _exists(path):
        takes = "a run folder or a model file"
        raise UserError("E-CONFIG", where=str(path)[:200], got="does not exist", takes=takes)
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            got = "a folder without model.safetensors"
            do = "train first, or name the model file"
            raise UserError("E-CONFIG", where=str(path.parent), got=got, takes="a run", do=do)
    return path


@dataclass(frozen=True)
class Model:
    """A network with its recipe and the facts of its data.

    Attributes:
        network: The network in eval mode: a denoiser, or a classifier of noised items.
        recipe: What it was trained with and how it is sampled by default.
        spec: Shape and class names of the data.
        about: Everything that the file says of itself, as plain data, and its SHA-256.
        path: Where it came from.
    """

    network: Network
    recipe: Recipe
    spec: Spec
    about: Mapping[str, Any]
    path: Path

    @staticmethod
    def load(path: str | Path, *, device: str = "cpu", allow_code: str = "") -> Model:
        """Load a run folder or a model file.

        Args:
            path: Run folder or model file.
            device: Where the network is put.
            allow_code: Module whose parts a model file may name; none by default.

        Raises:
            UserError: E-CONFIG if there is no such file, E-CKPT-* if it is damaged, newer, foreign
                or names code.
        """
        file = find_model(path)
        tensors, about = store.open_model(file)
        _refuse_code(about.get("recipe"), allow_code, file.name)
        try:
            recipe, spec = checked(about["recipe"]), spec_of(about["spec"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # UserError is one
            got = f"no recipe that can be built ({' '.join(str(error).split())})"
            raise UserError("E-CKPT-ARCH", where=file.name, got=got) from error
        net = network(recipe, spec)
        fit(net, tensors, file.name)
        about = {**about, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        return Model(net.to(device).eval(), recipe, spec, about, file)

    @property
    def denoiser(self) -> Denoiser:
        """The network, which cleans.

        Raises:
            UserError: E-CONFIG if it is a classifier, which cannot make anything.
        """
        if isinstance(self.network, Denoiser):
            return self.network
        run = self.path.parent if self.path.name == "model.safetensors" else self.path
        name = self.network.classifies
        raise UserError(
            "E-CONFIG",
            where=run.name,
            got=f"a classifier that names '{name}': it guides a model and makes nothing itself",
            takes="a model that cleans",
            do=f"steerable sample MODEL --classifier {run}",
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; empty for a model without labels."""
        return self.spec.labels.get("label", ())


def _refuse_code(tree: Any, allow_code: str, where: str) -> None:
    """Refuse a kind that names a module anywhere in a recipe, before anything is looked up."""
    if isinstance(tree, Mapping):
        kind = str(tree.get("kind", ""))
        module, colon, _ = kind.partition(":")
        if colon and module != allow_code:
            do = f"if you trust it: --allow-code {module}"
            got = f"names code: {kind}"
            raise UserError("E-CKPT-PICKLE", where=where, got=got, takes="built-in kinds", do=do)
        tree = list(tree.values())
    if isinstance(tree, list):
        for inner in tree:
            _refuse_code(inner, allow_code, where)


def fit(net: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load tensors into a network whose names, shapes and dtypes must agree exactly.

    Raises:
        UserError: E-CKPT-ARCH with the first five differences.
    """
    wanted = net.state_dict()
    faults = [f"missing {name}" for name in wanted if name not in tensors]
    faults += [f"unknown {name}" for name in tensors if name not in wanted]
    for name, value in wanted.items():
        given = tensors.get(name)
        if given is not None and given.shape != value.shape:
            faults.append(f"{name}: {tuple(given.shape)} instead of {tuple(value.shape)}")
        elif given is not None and given.dtype != value.dtype:
            names = [str(dtype).removeprefix("torch.") for dtype in (given.dtype, value.dtype)]
            faults.append(f"{name}: numbers of {names[0]} instead of {names[1]}")
    if faults:
        got = "; ".join(faults[:5])
        raise UserError("E-CKPT-ARCH", where=where, got=got, takes="the weights of its recipe")
    net.load_state_dict(dict(tensors))
