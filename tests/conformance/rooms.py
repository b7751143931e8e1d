"""Lists a room, so that a new file is put through the tests of its room without being named."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil

import torch

from steerable.core.condition import absent
from steerable.core.steer import Operator
from steerable.recipes.part import ROOMS, Part, build, describe


def files(room):
    """Names of the files of a room."""
    package = importlib.import_module(f"steerable.{room}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_")


def part(room, kind):
    """The one public name of a file."""
    module = importlib.import_module(f"steerable.{room}.{kind}")
    return getattr(module, module.__all__[0])


def assert_well_formed(room, kind):
    """One public name, a docstring that names every option, and no second public class."""
    module = importlib.import_module(f"steerable.{room}.{kind}")
    assert len(module.__all__) == 1, "a part's file has one public name"
    name = module.__all__[0]
    thing = getattr(module, name)
    tree = ast.parse(inspect.getsource(module))
    definitions = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    public = [n.name for n in definitions if not n.name.startswith("_")]
    assert public == [name], f"public in the file: {public}"
    assert name.lower().replace("_", "") == kind.replace("_", ""), "the file name is the kind"
    assert module.__doc__ and thing.__doc__, "the file and the part say what they are"
    text = inspect.getdoc(thing)
    described = text.partition("Args:\n")[2]
    for option in inspect.signature(thing).parameters.values():
        if option.default is not inspect.Parameter.empty and option.name not in INHERITED:
            assert f"    {option.name}: " in described, f"option '{option.name}' has no help"


INHERITED = {"start", "stop"}  # described by the base class of guidance

NAME_OF = {room: name for name, room in ROOMS.items()}
# Options of kinds whose defaults change nothing.
AT_WORK = {"compose": {"terms": [{"cond": {"label": 1}, "weight": 1.5}]}}


def needs(room, kind):
    """Names of what a kind takes beside its options: its context."""
    parameters = inspect.signature(part(room, kind)).parameters.values()
    return {p.name for p in parameters if p.default is inspect.Parameter.empty}


def options_at_work(room, kind):
    """Options with which a kind does something; a text that is empty by default names a file."""
    known = describe(NAME_OF[room], kind)["options"]
    named = {option["name"]: "a.safetensors" for option in known if option["default"] == ""}
    return named | AT_WORK.get(kind, {})


def built(room, kind, context, **options):
    """A part of a room, in the way that a recipe builds it."""
    return build(NAME_OF[room], Part(kind=kind, options=options), **context)


class First(Operator):
    """Keeps the first coordinate of items (B,2)."""

    def __call__(self, x):
        return x[:, :1]

    def adjoint(self, y):
        return torch.cat([y, torch.zeros_like(y)], 1)

    def nearest(self, x, y, weight):
        return torch.cat([(y + weight * x[:, :1]) / (1.0 + weight), x[:, 1:]], 1)


def blurrier(world, scale=2.0):
    """The mixture with wider modes: a model that has learned less."""
    return dataclasses.replace(world, stds=scale * world.stds)


def log_class(world):
    """Log p(label | x_t) of a mixture, (B,), exact; 0 for an item without a label."""

    def log_p(x_t, t, cond):
        label = cond.get("label", torch.full((len(x_t),), -1))
        joint = world.log_joint(x_t, t, {"label": label}).logsumexp(1)
        value = joint - world.log_joint(x_t, t, {}).logsumexp(1)
        gone = absent(label)
        return torch.zeros(len(x_t), dtype=x_t.dtype) if bool(gone.all()) else value * ~gone

    return log_p


def world_context(world, times, n):
    """Everything that a part may ask for by name, for n items (n,2) of a mixture.

    The pictures are points of the mixture; the second coordinate of each is hidden.
    """
    image = world.draw(n, torch.Generator().manual_seed(77))
    hole = torch.tensor([[0.0, 1.0]], dtype=image.dtype).expand(n, 2)

    def written(cond):
        return {name: torch.full((n,), int(value)) for name, value in cond.items()}

    return {
        "schedule": world.schedule,
        "times": times,
        "written": written,
        "weaker": lambda path: blurrier(world),
        "classifier": lambda path: log_class(world),
        "score": lambda x0: -(x0 - 0.3).square().flatten(1).sum(1),
        "operator": First(),
        "measured": image[:, :1],
        "image": torch.where(hole > 0.5, torch.nan, image),
        "mask": hole,
        "reference": image,
    }


def sliced(context, i):
    """The context of item i alone."""
    rows = ("measured", "image", "mask", "reference")
    one = {name: context[name][i : i + 1] for name in rows}
    return {**context, **one, "written": lambda cond: _first(context["written"](cond))}


def _first(cond):
    return {name: value[:1] for name, value in cond.items()}
