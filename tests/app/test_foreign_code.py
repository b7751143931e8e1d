"""Nothing that is read runs code: recipes in model files, run folders and pictures, any way."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import steerable
from steerable.app.cli import COMMANDS, main
from steerable.core.errors import UserError
from steerable.jobs.prepare import prepare
from steerable.recipes import store
from steerable.recipes.presets import presets

from ..jobs.tiny import finish, tiny
from .cli import environment

NAMES = [
    "evil_canary:Evil",
    "evil_canary:run",
    "evil_canary.inner:Evil",
    " evil_canary:Evil",
    "evil_canary:Evil ",
    "evil_canary: Evil",
    "evil_canary:Evil.method",
    "evil_canary::Evil",
]
# The ways to write a part; what does not name it as recipes do must be refused as well.
FORMS = {
    "bare": lambda name: name,
    "kind": lambda name: {"kind": name},
    "with an option": lambda name: {"kind": name, "weight": 1.0},
    "with options": lambda name: {"kind": name, "options": {"weight": 1.0}},
    "in a list": lambda name: [name],
    "a kind in a list": lambda name: [{"kind": name}],
    "a kind as a kind": lambda name: {"kind": {"kind": name}},
    "a list as a kind": lambda name: {"kind": [name]},
}


def _at(*path):
    """What puts a value at a path of a recipe."""

    def put(tree, value):
        node = tree
        for step in path[:-1]:
            node = node[step]
        if isinstance(node, list) and path[-1] >= len(node):
            node.append(value)
        else:
            node[path[-1]] = value

    return put


def _classifies(tree, value):
    tree.update(classifies="label", conditions={}, backbone=value)


PLACES = {
    "process": _at("process"),
    "backbone": _at("backbone"),
    "data": _at("data"),
    "operator": _at("operator"),
    "sampler": _at("sampler"),
    "sampler.kind": _at("sampler", "kind"),
    "sampler.grid": _at("sampler", "grid"),
    "sampler.option": _at("sampler", "eta"),
    "guidance": _at("guidance"),
    "guidance.0": _at("guidance", 0),
    "guidance.1": _at("guidance", 1),
    "guidance.option": _at("guidance", 0, "weights"),
    "constraints": _at("constraints"),
    "constraints.0": _at("constraints", 0),
    "conditions.label": _at("conditions", "label"),
    "conditions.new": _at("conditions", "new"),
    "process.option": _at("process", "weight"),
    "classifier": _classifies,
    "preset": _at("preset"),
    "whole": lambda tree, value: tree.update(recipe=value),
}
CANARY = "import sys\nsys.evil_canary_ran = True\nclass Evil:\n    pass\ndef run():\n    pass\n"
QUICK = ("-n", "1", "--steps", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A trained run, what it is told by, and a canary that an import would wake."""
    root = tmp_path_factory.mktemp("foreign")
    (root / "evil_canary").mkdir()
    for name in ("__init__", "inner"):
        (root / "evil_canary" / f"{name}.py").write_text(CANARY)
    finish(prepare(tiny(4, "training.ema_kind=power"), root / "run"))
    Image.new("L", (8, 8), 99).save(root / "a.png")
    Image.new("L", (8, 8), 9).save(root / "b.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        patch.chdir(root)
        yield root


def _model(root, plain):
    tensors, about = store.open_model(root / "run" / "model.safetensors")
    (root / "forged.safetensors").write_bytes(store.pack(tensors, {**about, "recipe": plain}))


def _run(root, plain):
    shutil.copytree(root / "run", root / "forged", dirs_exist_ok=True)
    (root / "forged" / "recipe.yaml").write_text(yaml.safe_dump(plain))


def _picture(root, plain):
    parts = {k: plain.get(k) for k in ("sampler", "guidance", "constraints", "operator")}
    about = dict.fromkeys(("image", "mask", "reference", "from_label", "to_label", "upscale"))
    about |= {"factor": 4, "strength": 0.5, "colourise": False, "outpaint": None}
    settings = {**parts, "seed": 0, "cond": {}, "model": "x", "model_sha256": "0"}
    settings["edit"] = {**about, "method": "", "batch": 1, "place": 0}
    text = PngInfo()
    text.add_itxt("steerable", json.dumps(settings))
    Image.new("L", (8, 8)).save(root / "forged.png", pnginfo=text)


MODEL, RUN = "forged.safetensors", "forged"
OF_MODEL = [
    ("info", MODEL),
    ("sample", MODEL, *QUICK),
    ("edit", MODEL, "--image", "a.png", *QUICK),
    ("encode", MODEL, "a.png", "--steps", "1"),
    ("interpolate", MODEL, "a.png", "b.png", "--steps", "1"),
    ("likelihood", MODEL, "-n", "1"),
    ("evaluate", MODEL, "-n", "4"),
    ("look", MODEL, "-n", "2"),
    ("sweep", MODEL, "-n", "2", "--steps", "1"),
    ("grid", MODEL, "--steps", "2"),
    ("sample", "run", "--classifier", MODEL, *QUICK),
    ("edit", "run", "--image", "a.png", "--classifier", MODEL, *QUICK),
    ("sample", "run", "--set", f"guidance=[{{kind: autoguidance, model: {MODEL}}}]", *QUICK),
]
OF_RUN = [
    ("evaluate", RUN, "-n", "4"),
    ("look", RUN, "-n", "2"),
    ("likelihood", RUN, "-n", "1"),
    ("sweep", RUN, "-n", "2", "--steps", "1"),
    ("train", "--run", RUN, "--dry-run"),
    ("train", "digits", "--run", RUN, "--dry-run"),
    ("train", "digits", "--run", RUN, "--budget", "9 iterations"),
    ("demo", "--run", RUN),
    ("evaluate", f"{RUN}/model.safetensors", "-n", "4"),
    ("look", f"{RUN}/model.safetensors", "-n", "2"),
]
OF_PICTURE = [("edit", "run", "--replay", "forged.png", "--image", "a.png")]
# These read no recipe, or only those of above; they are tried with one case of each.
OTHERS = [
    ("average", RUN, "--width", "0.05", "--out", "average.safetensors"),
    ("compare", RUN, "run"),
    ("info", RUN),
    ("sample", RUN, *QUICK),
    ("data", "check", RUN, "--quick"),
    ("parts", "samplers"),
]
ARTEFACTS = {"model": (_model, OF_MODEL), "run": (_run, OF_RUN), "png": (_picture, OF_PICTURE)}
CASES = list(itertools.product(PLACES, FORMS, NAMES))


def code_of(words):
    """Exit code of a command, run in this process."""
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return left.value.code


def slept():
    return "evil_canary" not in sys.modules and not hasattr(sys, "evil_canary_ran")


def tried(root, artefact, number, case):
    """Write one artefact and give it to one of the commands; returns its exit code."""
    write, commands = ARTEFACTS[artefact]
    plain = json.loads(json.dumps(tiny(4).plain()))
    where, form, name = case
    PLACES[where](plain, FORMS[form](name))
    write(root, plain)
    words = commands[number % len(commands)]
    code = code_of(words)
    assert slept(), f"{artefact} {where} {form} {name!r}: {words} has run it"
    return code, words


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_no_artefact_runs_code_by_a_few_cases(place, artefact, capsys):
    for number, case in enumerate(CASES[:: len(CASES) // 8]):
        tried(place, artefact, number, case)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_no_artefact_runs_code(place, artefact, capsys):
    """20 places x 8 ways to write x 8 names, over the commands in turn: 1,280 an artefact."""
    codes = {}
    for number, case in enumerate(CASES):
        code, words = tried(place, artefact, number, case)
        forms = ("bare",) if case[0] == "sampler.kind" else ("bare", "kind", "with an option")
        if case[1] in forms and case[2] == NAMES[0]:
            codes.setdefault(case[0], set()).add((code, words[0]))
        assert code in {0, 2, 3, 4, 7}, f"{words} left with {code}"
    assert len(CASES) * len(ARTEFACTS) >= 2000
    named = {"process", "backbone", "data", "sampler.kind", "sampler.grid", "guidance.0"}
    named |= {"conditions.label", "constraints.0", "operator"}
    if artefact != "png":
        refused = {where for where in named if {code for code, _ in codes[where]} <= {4}}
        assert refused == named, codes


@pytest.mark.slow
@pytest.mark.parametrize("words", [*OF_MODEL, *OF_RUN, *OF_PICTURE, *OTHERS], ids=" ".join)
def test_every_command_refuses_the_plain_case(place, words, capsys):
    plain = json.loads(json.dumps(tiny(4).plain()))
    plain["sampler"]["grid"] = "evil_canary:Evil"
    for write, _ in ARTEFACTS.values():
        write(place, plain)
    code = code_of(words)
    assert slept()
    if words in OTHERS:
        return
    assert code == 4 and "E-CKPT-PICKLE" in capsys.readouterr().err


def test_every_command_is_tried():
    lines = [*OF_MODEL, *OF_RUN, *OF_PICTURE, *OTHERS]
    assert {words[0] for words in lines} == {*COMMANDS} - {"tour"}  # which reads nothing


def test_a_module_is_allowed_by_name_alone(place):
    plain = json.loads(json.dumps(tiny(4).plain()))
    plain["sampler"]["kind"] = "steerable.samplers.euler:Euler"
    plain["guidance"] = [{"kind": "evil_canary:Evil"}]
    _model(place, plain)
    for allowed in ("", "evil", "steerable", "steerable.samplers.euler", "evil_canary.inner"):
        with pytest.raises(UserError) as caught:
            steerable.load(place / MODEL, allow_code=allowed)
        assert caught.value.code == "E-CKPT-PICKLE" and slept()
    plain["guidance"] = []
    _model(place, plain)
    model = steerable.load(place / MODEL, allow_code="steerable.samplers.euler")
    assert len(steerable.sample(model, "3", n=1, steps=1).x) == 1
    assert model.recipe.origin.modules == {"steerable.samplers.euler"}


OTHER_CALLABLES = ["os:system", "pip._internal.cli.main:main", "builtins:exec", "builtins:print"]
OTHER_CALLABLES += ["subprocess:Popen", "steerable.samplers.euler:annotations", "os:nothing"]
OTHER_CALLABLES += ["steerable.core.sample:Sampler", "steerable.grids.uniform:uniform", "os:path.x"]
OTHER_CALLABLES += [":x", "x:", "..os:system", ".os:system", "a b:c", "os:sys tem", "1:2", ":"]


@pytest.mark.parametrize("kind", OTHER_CALLABLES)
@pytest.mark.parametrize("room", ["sampler", "grid", "process", "guidance", "backbone", "data"])
def test_a_dotted_kind_must_be_what_the_room_holds(room, kind, monkeypatch):
    from steerable.recipes.part import Part, build

    if (room, kind) == ("grid", "steerable.grids.uniform:uniform"):
        return
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("it was called"))
    with pytest.raises(UserError) as caught:
        build(room, Part(kind=kind))
    assert caught.value.code == "E-CONFIG"


@pytest.mark.slow
def test_a_kind_of_ones_own_trains_resumes_and_samples(tmp_path, monkeypatch, capsys):
    own = "from dataclasses import dataclass\nfrom steerable.samplers.euler import Euler\n"
    own += "from steerable.core.sample import Sampler\n@dataclass(frozen=True)\n"
    own += "class Mine(Sampler):\n    'Mine.'\n    order = 1\n    stochastic = False\n"
    own += "    def step(self, *words):\n        return Euler().step(*words)\n"
    (tmp_path / "own_lab.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    more = [word for text in tiny.__globals__["TINY"] for word in ("--set", text)]
    kind = ("--set", "sampler.kind=own_lab:Mine")
    first = ("train", "digits", "--run", "r", "--budget", "4 iterations", *more, *kind)
    assert code_of(first) == 0 and code_of(first) == 0, "the same command again resumes"
    assert code_of(("train", "--run", "r", "--budget", "6 iterations")) == 4
    assert (
        code_of(("train", "--run", "r", "--budget", "6 iterations", "--allow-code", "own_lab")) == 0
    )
    assert code_of(("sample", "r", *QUICK)) == 4
    assert code_of(("sample", "r", *QUICK, "--allow-code", "own_lab")) == 0
    assert code_of(("sample", "r", *QUICK, "--sampler", "own_lab:Mine")) == 4, "the file's own word"
    assert code_of(("evaluate", "r", "-n", "40", "--allow-code", "own_lab")) == 0


def _forged_spec(change):
    return lambda about: {**about, "spec": {**about["spec"], **change}}


def _forged_recipe(**change):
    return lambda about: {**about, "recipe": {**about["recipe"], **change}}


FORGED = {
    "a shape of one size": _forged_spec({"shape": [8]}),
    "no shape": _forged_spec({"shape": []}),
    "five sizes": _forged_spec({"shape": [1, 1, 1, 8, 8]}),
    "a negative shape": _forged_spec({"shape": [1, -8, 8]}),
    "a shape of zero": _forged_spec({"shape": [1, 0, 8]}),
    "a shape of halves": _forged_spec({"shape": [1, 8.5, 8]}),
    "a shape of truth": _forged_spec({"shape": [True, 8, 8]}),
    "a shape of text": _forged_spec({"shape": "188"}),
    "a vast shape": _forged_spec({"shape": [4, 65000, 65000]}),
    "std 0": _forged_spec({"std": 0}),
    "a negative std": _forged_spec({"std": -1.0}),
    "std as text": _forged_spec({"std": "1"}),
    "labels of numbers": _forged_spec({"labels": {"label": [1, 2]}}),
    "labels in labels": _forged_spec({"labels": {"label": [["a"], ["b"]]}}),
    "labels as a list": _forged_spec({"labels": ["a", "b"]}),
    "no labels": _forged_spec({"labels": {"label": []}}),
    "labels as text": _forged_spec({"labels": {"label": "0123456789"}}),
    "flip as a number": _forged_spec({"flip": 1}),
    "a name that is none": _forged_spec({"name": None}),
    "no spec": lambda about: {**about, "spec": [1]},
    "a thousand guidances": _forged_recipe(guidance=[{"kind": "cfg"}] * 1000),
    "a thousand conditions": _forged_recipe(conditions={f"c{i}": "label" for i in range(1000)}),
    "wide channels": _forged_recipe(backbone={"kind": "unet", "channels": [5000, 5000]}),
    "many channels": _forged_recipe(backbone={"kind": "unet", "channels": [8] * 9000}),
    "no channels": _forged_recipe(backbone={"kind": "unet", "channels": []}),
    "negative channels": _forged_recipe(backbone={"kind": "unet", "channels": [-8, 8]}),
    "many blocks": _forged_recipe(backbone={"kind": "unet", "blocks": 10**9}),
    "a deep network": _forged_recipe(backbone={"kind": "mlp", "layers": 10**9}),
    "no recipe": lambda about: {k: v for k, v in about.items() if k != "recipe"},
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_file_is_refused_in_one_line(place, what):
    tensors, about = store.open_model(place / "run" / "model.safetensors")
    path = place / "forged-about.safetensors"
    path.write_bytes(store.pack(tensors, FORGED[what](about)))
    with pytest.raises(UserError) as caught:
        steerable.load(path)
    assert caught.value.code == "E-CKPT-ARCH" and "\n" not in str(caught.value)


def test_another_number_format_is_told_by_its_name(place):
    tensors, about = store.open_model(place / "run" / "model.safetensors")
    name = next(iter(tensors))
    path = place / "half.safetensors"
    path.write_bytes(store.pack({**tensors, name: tensors[name].half()}, about))
    with pytest.raises(UserError, match="numbers of float16 instead of float32"):
        steerable.load(path)


@pytest.mark.slow
def test_a_small_file_asks_for_no_large_network(place):
    """Under a limit that a network of 9 GB does not fit in, so that it would die of it."""
    tensors, about = store.open_model(place / "run" / "model.safetensors")
    path = place / "large.safetensors"
    path.write_bytes(store.pack(tensors, FORGED["wide channels"](about)))
    code = (
        "import sys, resource, steerable, steerable.api\n"
        "pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (pages + {2**30},) * 2)\n"
        "from steerable.app.cli import main\n"
        "main(['info', sys.argv[1]])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert found.returncode == 4 and "E-CKPT-ARCH" in found.stderr, found.stderr


@pytest.mark.parametrize("name", presets())
def test_an_outline_takes_the_names_and_shapes_of_the_network(name):
    from steerable.core.types import Spec
    from steerable.recipes.assembly import network
    from steerable.recipes.part import Part
    from steerable.recipes.presets import find_preset

    spec = Spec("x", (3, 16, 16), {"label": ("a", "b")}, {"size": ("s",)}, {"text": ("w",)})
    recipe = find_preset(name)(spec, data=Part(kind="digits"), size="xs")
    outline, net = network(recipe, spec, outline=True).state_dict(), network(recipe, spec)
    assert {k: (v.shape, v.dtype) for k, v in outline.items()} == {
        k: (v.shape, v.dtype) for k, v in net.state_dict().items()
    }
    assert all(value.is_meta for value in outline.values())
    assert not any(t.is_meta for t in (*net.parameters(), *net.buffers()))
    assert torch.isfinite(net.process.schedule(torch.tensor(0.5))[0]), "a table without numbers"


def test_a_recipe_file_that_unfolds_without_end_is_refused(tmp_path):
    from steerable.recipes.recipe import from_yaml

    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "recipe.yaml").write_text("\n".join(bomb))
    (tmp_path / "deep.yaml").write_text("[" * 5000)
    (tmp_path / "large.yaml").write_text("a: b\n" * 300_000)
    for name in ("recipe.yaml", "deep.yaml", "large.yaml"):
        with pytest.raises(UserError) as caught:
            from_yaml(tmp_path / name)
        assert caught.value.code == "E-CONFIG"
