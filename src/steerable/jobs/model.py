"""A trained model: one file that knows itself, loaded without a constructor."""

from __future__ import annotations

import hashlib
import math
import platform
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

import steerable
from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.recipes import store
from steerable.recipes.assembly import Network, network
from steerable.recipes.origin import artefact
from steerable.recipes.recipe import Recipe, checked

__all__ = ["Model", "find_model", "pack_model", "spec_of", "spec_plain", "versions"]


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "steerable": steerable.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


_NAMES = ("labels", "vectors", "tokens")


def spec_plain(spec: Spec) -> dict[str, Any]:
    """A data spec as plain data."""
    named = {key: {k: list(v) for k, v in getattr(spec, key).items()} for key in _NAMES}
    facts = {"std": spec.std, "flip": spec.flip, "range": [-1, 1]}
    return {"name": spec.name, "shape": list(spec.shape), **named, **facts}


MAX_SIDE, MAX_NUMBERS, MAX_NAMES = 65_536, 2**26, 200_000  # of an item, and names of values


def spec_of(plain: Any) -> Spec:
    """A data spec from its plain form, which may be anybody's.

    Raises:
        ValueError: If it is not what `pack_model` writes.
    """

    def refuse(what: str, got: Any) -> ValueError:
        return ValueError(f"spec: {what} is {str(got)[:80]}")

    if not isinstance(plain, Mapping):
        raise refuse("it", type(plain).__name__)
    shape, std, flip = plain.get("shape"), plain.get("std"), plain.get("flip")
    sizes = shape if isinstance(shape, list) and 1 < len(shape) < 5 else [None]
    if not all(type(n) is int and 0 < n <= MAX_SIDE for n in sizes):
        raise refuse("shape", shape)
    if math.prod(sizes) > MAX_NUMBERS:
        raise refuse("shape", shape)
    if type(std) not in (int, float) or not 0 < std < math.inf:
        raise refuse("std", std)
    if type(flip) is not bool or not isinstance(plain.get("name"), str):
        raise refuse("flip or name", (flip, plain.get("name")))
    named: dict[str, dict[str, tuple[str, ...]]] = {}
    for key in _NAMES:
        table = plain.get(key, {})
        if not isinstance(table, Mapping) or len(table) > 64:
            raise refuse(key, table)
        for name, values in table.items():
            if not isinstance(values, list) or not 0 < len(values) <= MAX_NAMES:
                raise refuse(f"{key}.{name}", values)
            if not all(isinstance(value, str) for value in values):
                raise refuse(f"{key}.{name}", values)
        named[key] = {name: tuple(values) for name, values in table.items()}
    return Spec(plain["name"], tuple(sizes), **named, std=float(std), flip=flip)


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
        "spec": spec_plain(spec),
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
    def load(
        path: str | Path, *, device: str = "cpu", allow_code: str | Collection[str] = ()
    ) -> Model:
        """Load a run folder or a model file.

        Args:
            path: Run folder or model file.
            device: Where the network is put.
            allow_code: Module or modules whose parts the file may name; none by default.

        Raises:
            UserError: E-CONFIG if there is no such file, E-CKPT-* if it is damaged, newer, foreign
                or names code.
        """
        file = find_model(path)
        tensors, about = store.open_model(file)
        recipe, spec = read_about(about, file.name, allow_code)
        net = built(recipe, spec, tensors, file.name)
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


def read_about(
    about: Mapping[str, Any], where: str, allow_code: str | Collection[str] = ()
) -> tuple[Recipe, Spec]:
    """Recipe and data spec of a model file, which may be anybody's.

    Raises:
        UserError: E-CKPT-PICKLE if it names code that is not allowed, E-CKPT-ARCH if it is not what
            a model file holds.
    """
    try:
        return checked(about["recipe"], artefact(where, allow_code)), spec_of(about["spec"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError) and error.code == "E-CKPT-PICKLE":
            raise
        got = f"no recipe that can be built ({' '.join(str(error).split())})"
        raise UserError("E-CKPT-ARCH", where=where, got=got) from error


def built(recipe: Recipe, spec: Spec, tensors: Mapping[str, Tensor], where: str) -> Network:
    """The network of a file with its weights; it takes no more memory than the weights say.

    It is built without memory first, and only if its names and shapes are those of the weights for
    real: a small file must not ask for a large network.

    Raises:
        UserError: E-CKPT-ARCH if it cannot be built or the weights are not those of its recipe.
    """
    try:
        with _at_most(len(tensors), where):
            outline = network(recipe, spec, outline=True)
        _compare(outline.state_dict(), tensors, where)
        net = network(recipe, spec)
    except MemoryError:
        raise
    except Exception as error:  # what a forged recipe makes of a network may fail in any way
        if isinstance(error, UserError) and error.code.startswith("E-CKPT"):
            raise
        got = f"a recipe whose network cannot be built ({' '.join(str(error).split())[:200]})"
        raise UserError("E-CKPT-ARCH", where=where, got=got) from error
    fit(net, tensors, where)
    return net


@contextmanager
def _at_most(count: int, where: str) -> Iterator[None]:
    """Refuse a network of more parameters than there are tensors, as soon as it has one more.

    Raises:
        UserError: E-CKPT-ARCH.
    """
    made, owner = 0, threading.get_ident()

    def counted(*_: object) -> None:
        nonlocal made
        if threading.get_ident() != owner:
            return
        made += 1
        if made > 2 * count + 1000:  # some are made and replaced
            got = f"a recipe of more than {made - 1} parameter tensors for {count} in the file"
            raise UserError("E-CKPT-ARCH", where=where, got=got, takes="the weights of its recipe")

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


def _compare(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors whose names, shapes and dtypes are not the wanted ones.

    Raises:
        UserError: E-CKPT-ARCH with the first five differences.
    """
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


def fit(net: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load tensors into a network whose names, shapes and dtypes must agree exactly.

    Raises:
        UserError: E-CKPT-ARCH with the first five differences.
    """
    _compare(net.state_dict(), tensors, where)
    net.load_state_dict(dict(tensors))
