"""Write docs/interface.json: everything of this package that other programs may rely on.

    python docs/make_interface.py           all of it: trains tiny runs, a few minutes
    python docs/make_interface.py --quick   commands, codes and signatures; outputs stay as recorded

Commands, codes and signatures are read from the code. What commands print and write is looked at:
each runs once on a tiny run. Nothing that is recorded is dropped unless --drop says so.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import steerable
from steerable import api
from steerable.app.cli import COMMANDS, STOPPED, app, main
from steerable.core.errors import CODES, UserError
from steerable.recipes.store import open_model

__all__ = ["faults", "lost", "observed", "static", "unrecorded"]

TARGET = Path(__file__).with_name("interface.json")
# Objects whose keys are data: names of classes, conditions, stages and the like.
MAPS = {
    "channels", "classes", "cond", "conditions", "converted", "counters", "labels", "modes",
    "per_class", "similarity", "sizes", "skipped", "stages", "tokens", "vectors",
}  # fmt: skip
MAY_BE_NULL = {  # figures of `evaluate` that some models do not have
    "accuracy", "accuracy_error", "judge_accuracy", "judge_n", "judge_sha256", "frechet",
    "frechet_error", "frechet_floor", "frechet_floor_error", "frechet_n",
}  # fmt: skip
TINY = [
    word
    for setting in ("backbone.channels=[8, 16]", "backbone.width=16", "training.batch=16")
    for word in ("--set", setting)
]

Shape = dict[str, Any]


def _type_of(argument: Any) -> str:
    return getattr(argument.hint, "__name__", None) or str(argument.hint)


def _options(command: str) -> Shape:
    """The arguments and options of a command, by their first name."""
    words = ["data", "check"] if command == "data" else [command]
    _, apps, _ = app.parse_commands(words)
    found = {}
    for argument in apps[-1].assemble_argument_collection():
        default = argument.field_info.default
        plain = None if default is inspect.Parameter.empty or default is None else default
        names = sorted(argument.names)
        found[min(names, key=lambda name: (-len(name), name))] = {
            "names": names,
            "type": _type_of(argument),
            "default": plain if isinstance(plain, int | float | None) else str(plain),
            "required": bool(argument.required),
            "repeatable": "list" in str(argument.hint) or "list" in str(argument.field_info.hint),
        }
    return found


def _signature(value: Any) -> Any:
    """Parameters of a function, or of a class with its public attributes."""
    if inspect.isclass(value):
        public = sorted(name for name in dir(value) if name[0] != "_")
        fields = sorted(getattr(value, "__annotations__", {}))
        return {"names": sorted({*public, *fields} - set(dir(object)))}
    return {"parameters": [str(p) for p in inspect.signature(value).parameters.values()]}


def static() -> Shape:
    """What can be read from the code at once."""
    return {
        "commands": {name: _options(name) for name in COMMANDS},
        "errors": {code: {"exit": f.exit, "http": f.http} for code, f in CODES.items()},
        "exit_codes": {"done": 0, "defect": 1, **{n: c for c, n in STOPPED.items()}},
        "error_object": list(UserError("E-DATA", where="a", got="b").record()),
        "steerable": sorted(steerable.__all__),
        "steerable.api": {name: _signature(getattr(api, name)) for name in api.__all__},
    }


def shape(value: Any, name: str = "") -> Shape:
    """The types in plain data: a subset of JSON Schema, and `part` for a kind with its options."""
    if isinstance(value, Mapping):
        if isinstance(value.get("kind"), str) and name not in ("findings", "events"):
            return {"type": ["part"]}
        if name in MAPS:
            return {"type": ["map"], "values": _joined([shape(v) for v in value.values()])}
        keys = {key: shape(inner, key) for key, inner in value.items()}
        return {"type": ["object"], "keys": keys, "required": sorted(keys)}
    if isinstance(value, list | tuple):
        return {"type": ["array"], "items": _joined([shape(inner, name) for inner in value])}
    kinds = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": [kinds[type(value)]]}


def _joined(shapes: list[Shape]) -> Shape:
    found: Shape = {}
    for one in shapes:
        found = merged(found, one)
    return found


def merged(a: Shape, b: Shape) -> Shape:
    """The shape of everything that has either shape."""
    if not a or not b:
        return a or b
    made: Shape = {"type": sorted({*a["type"], *b["type"]})}
    for inner in ("items", "values"):
        if inner in a or inner in b:
            made[inner] = merged(a.get(inner, {}), b.get(inner, {}))
    if "keys" in a or "keys" in b:
        one, other = a.get("keys", {}), b.get("keys", {})
        made["keys"] = {k: merged(one.get(k, {}), other.get(k, {})) for k in {**one, **other}}
        needed = [set(x["required"]) for x in (a, b) if "keys" in x]
        made["required"] = sorted(set.intersection(*needed))
    return made


def faults(value: Any, recorded: Shape, where: str, name: str = "") -> list[str]:
    """How plain data differs from its recorded shape: `lacks`, `changes` or `adds` something."""
    if not recorded:
        return []
    kind = shape(value, name)["type"][0]
    kinds = {*recorded["type"], *(["integer"] if "number" in recorded["type"] else [])}
    if kind not in kinds:
        return [f"{where}: changes {'/'.join(recorded['type'])} into {kind}"]
    found = []
    if kind == "object":
        found += [f"{where}: lacks {key}" for key in recorded["required"] if key not in value]
        for key, inner in value.items():
            if key not in recorded["keys"]:
                found.append(f"{where}: adds {key}")
            else:
                found += faults(inner, recorded["keys"][key], f"{where}.{key}", key)
    if kind == "map":
        for key, inner in value.items():
            found += faults(inner, recorded["values"], f"{where}.{key}")
    if kind == "array":
        for inner in value:
            found += faults(inner, recorded["items"], f"{where}[]", name)
    return list(dict.fromkeys(found))


def lost(old: Any, new: Any, where: str = "") -> list[str]:
    """What is recorded and is not there, or not so, any more."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = [f"{where}.{key}" for key in old if key not in new]
        return found + [f for k in old if k in new for f in lost(old[k], new[k], f"{where}.{k}")]
    if isinstance(old, list) and isinstance(new, list):
        return [f"{where}: {item}" for item in old if item not in new]
    return [] if old == new else [f"{where}: {old} is now {new}"]


def unrecorded(old: Any, new: Any) -> list[str]:
    """What is there and is not recorded yet."""
    return [found for found in lost(new, old) if " is now " not in found]


def _ran(*words: object) -> Any:
    """The object that a command prints."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([*map(str, words), "--json"])
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{words}: {err.getvalue()}") from end
    return json.loads(out.getvalue())


def _named(path: Path) -> str:
    """A file name with its numbers as N."""
    return re.sub(r"(?<![A-Za-z\d])\d+", "N", path.as_posix())


def _lines(path: Path) -> list[Any]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def outputs(folder: Path) -> tuple[Shape, Shape, Shape]:
    """Objects of every command, of every file, and the names of the files, on tiny runs."""
    run, power, out = folder / "run", folder / "power", folder / "out"
    few = ["--budget", "12 iterations", *TINY]
    said: Shape = {}
    said["train"] = [
        _ran("train", "digits", "--run", run, *few),
        _ran("train", "digits", "--run", folder / "none", *few, "--dry-run"),
    ]
    _ran("train", "digits", "--run", power, *few, "--set", "training.ema_kind=power")
    pictures = out / "sample"
    picture = pictures / "0.png"
    ask = ("--label", "3", "--steps", "2")
    said["sample"] = [_ran("sample", run, "-n", 2, *ask, "--film", "--out", pictures)]
    edited = ("--image", picture, "--strength", "0.5", "--out", out / "edit")
    said["edit"] = [_ran("edit", run, *edited, *ask)]
    said["encode"] = [_ran("encode", run, picture, *ask, "--out", out / "encode")]
    between = ("--count", 2, "--out", out / "interpolate")
    said["interpolate"] = [_ran("interpolate", run, picture, pictures / "1.png", *ask, *between)]
    said["evaluate"] = [_ran("evaluate", run, "-n", 20, "--steps", 2)]
    said["compare"] = [_ran("compare", run, run)]
    said["sweep"] = [
        _ran("sweep", run, "--guidance", "1", "--steps", 2, "-n", 20, "--out", out / "sweep")
    ]
    said["likelihood"] = [_ran("likelihood", run, "-n", 2, "--tolerance", 0.01)]
    said["look"] = [_ran("look", run, "-n", 2)]
    said["average"] = [_ran("average", power)]
    said["grid"] = [_ran("grid", run, "--steps", 4, "--no-refine", "--dry-run")]
    said["data check"] = [_ran("data", "check", "digits", "--quick")]
    said["info"] = [_ran("info", run)]
    said["parts"] = [_ran("parts")]
    files: Shape = {"model.safetensors": [open_model(run / "model.safetensors")[1]]}
    for name in ("metrics.jsonl", "times.jsonl"):
        files[name] = _lines(run / name)
    files["samples.jsonl"] = _lines(pictures / "samples.jsonl")
    files["edits.jsonl"] = _lines(out / "edit" / "edits.jsonl")
    for path in (run / "evaluation" / "report.json", run / "inside.json", run / "data-report.json"):
        files[path.name] = [json.loads(path.read_text(encoding="utf-8"))]
    files["sweep.json"] = [json.loads((out / "sweep" / "sweep.json").read_text(encoding="utf-8"))]
    names: Shape = {}
    for kind, place in {"run": run, **{p.name: p for p in sorted(out.iterdir())}}.items():
        found = (path for path in place.rglob("*") if path.is_file())
        names[kind] = sorted({_named(path.relative_to(place)) for path in found})
    return said, files, names


def observed(folder: Path) -> Shape:
    """The shapes of what commands print and write."""
    said, files, names = outputs(folder)
    printed = {name: _joined([shape(one) for one in values]) for name, values in said.items()}
    for key in MAY_BE_NULL:
        kinds = printed["evaluate"]["keys"][key]
        kinds["type"] = sorted({*kinds["type"], "null"})
    written = {name: _joined([shape(one) for one in values]) for name, values in files.items()}
    return {"printed": printed, "written": written, "files": names}


def _write(quick: bool, drop: bool) -> str:
    """Write the file; returns what speaks against it."""
    old = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    new = static()
    if quick:
        new["observed"] = old["observed"]
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["STEERABLE_CACHE"] = folder
            new["observed"] = observed(Path(folder))
        before = old.get("observed", {})
        for part in ("printed", "written") if not drop else ():
            for name, recorded in before.get(part, {}).items():
                now = new["observed"][part].get(name, {})
                new["observed"][part][name] = merged(recorded, now)
    gone = [] if drop else lost({k: v for k, v in old.items() if k != "observed"}, new)
    if not gone:
        text = json.dumps(new, indent=1, sort_keys=True, ensure_ascii=False)
        TARGET.write_text(text + "\n", encoding="utf-8")
    return "\n".join([*gone, "others rely on these: keep them, or pass --drop"]) if gone else ""


if __name__ == "__main__":
    sys.exit(_write("--quick" in sys.argv, "--drop" in sys.argv) or 0)
