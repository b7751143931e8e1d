"""Random command lines: any command, its options and nasty values, none of which takes long."""

from __future__ import annotations

import random
from pathlib import Path

from steerable.app.cli import COMMANDS, app

NUMBERS = [
    *(
        "0",
        "-1",
        "1",
        "2",
        "-0",
        "1e400",
        "nan",
        "-inf",
        "1e3",
        "0.5",
        "true",
        "",
        " ",
        "١",
        "0x10",
    ),
    *("99999999999999999999", "9" * 5000, "1_0", "--", "-n", "½", "1,2", "1:2", "NaN", "-9" * 20),
]
TEXTS = [
    *(
        "",
        " ",
        "3",
        "cat",
        "蓝",
        "😀" * 50,
        "é",
        "e\u0301",
        "\u202egnp.exe",
        "a\x1b[31mb",
        "x" * 3000,
    ),
    *("os:system", "steerable.api:load", "my_lab:Spiral", "no_such_module:X", ":", "a:", ":b"),
    *(
        "'",
        '"',
        "`id`",
        "$(id)",
        "%s%n",
        "{0}",
        "[bold]",
        "\\",
        "|",
        "3|4",
        "null",
        "~",
        "-",
        "--x",
    ),
    *("0.2:0.8", "0.8:0.2", "nan:1", "1,2,4", "1:5:9999", "4,6", "a,b", "3x32x32", "0x0", "-1x2"),
    *("digits", "shapes", "flow", "edm", "ddim", "heun", "smc", "DPM++ 2M Karras", "karras", "xs"),
    *(
        "accuracy=0.9",
        "accuracy=nan",
        "accuracy=",
        "=",
        "a=b",
        "kid=1e400",
        "label=3",
        "prompt=red",
    ),
    *("10 iterations", "1e400h", "0s", "soon", "99999999999999h", "-5m", "5 images", "samplers"),
]
SETTINGS = [
    *("", "=", "a", "a=b", "training.lr=nan", "training.lr=true", "training.batch=-1", "data=1"),
    *("sampler.kind=os:system", "sampler=5", "sampler.steps=1e9", "guidance=[[[[", "guidance=[]"),
    *("training.seed=-1", "backbone=null", "backbone.channels=[-1]", "backbone.channels=[nan]"),
    *("backbone.kind=x:y", "conditions.label=3", "conditions.label.kind=[1]", "a.b.c.d.e=1"),
    *(
        "training.budget=1e400h",
        "data.path=\x00",
        "sampler.grid=3",
        "sampler.grid.kind=" + "x" * 999,
    ),
    *("guidance.weight={a: 1}", "guidance.weights={label: inf}", "operator=grey", "operator=1"),
    *("notes=5", "schema_version=99", "process.kind=\udcff", "training.flip=2", "x=" + "[" * 3000),
    *(
        "guidance.0.weight=1",
        "constraints=[{}]",
        "constraints.keep.x=1",
        "x=!!python/name:os.system",
    ),
    *(
        "sampler.strength=0",
        "data.columns={a: b}",
        "data.size=99999999",
        "training=5",
        "*a=1",
        "x=&a",
    ),
]
FEW: dict[str, list[list[str]]] = {  # what keeps a line short where nothing else does
    "train": [["--dry-run"], ["--size", "xs"], ["--budget", "2 iterations"]],
    "sample": [["-n", "1"], ["--steps", "1"]],
    "edit": [["--steps", "1"]],
    "evaluate": [["-n", "3"]],
    "sweep": [["-n", "3"]],
    "encode": [["--steps", "1"]],
    "interpolate": [["--steps", "1"], ["--count", "2"]],
    "likelihood": [["-n", "1"]],
    "look": [["-n", "1"]],
    "grid": [["--steps", "0"]],
    "data": [["--quick"]],
    "tour": [["--seed", "-1"]],
    "demo": [["--budget", "soon"]],
}
TAME = {  # values that are taken, so that a line gets further than its parser
    "--label": ["3", "7", "3|4"],
    "--cond": ["label=3"],
    "--guidance": ["1", "2.5"],
    "--interval": ["0:0.8"],
    "--sampler": ["ddim", "heun", "Euler a"],
    "--grid": ["karras", "uniform"],
    "--seed": ["0", "7"],
    "--set": ["sampler.kind=ddim", "guidance.rescale=0.5", "training.lr=1e-3"],
    "--out": ["out", "out/a b 蓝"],
    "--preset": ["flow", "mlp-diffusion"],
    "--strength": ["0.5"],
    "--classifier-scale": ["2"],
    "--fail-under": ["accuracy=0.1"],
    "--size": ["xs"],
    "--width": ["0.1"],
    "--probes": ["2"],
    "--run": ["new"],
    "--image": ["{picture}"],
    "--method": ["keep"],
    "--data": ["digits"],
    "--extractor": ["pixels"],
    "--allow-code": ["my_lab"],
}
COUNTED = {"--n", "-n", "--steps", "--count", "--budget", "--quick", "--dry-run"}  # FEW says these
PLACES = {"train": 1, "compare": 2, "encode": 2, "interpolate": 3, "tour": 0, "demo": 0}  # else 1


def options() -> dict[str, list[tuple[str, bool]]]:
    """The options of every command: (name, whether it takes a value)."""
    found = {}
    for command in COMMANDS:
        words = ["data", "check"] if command == "data" else [command]
        _, apps, _ = app.parse_commands(words)
        arguments = apps[-1].assemble_argument_collection()
        found[command] = [
            (name, argument.hint is not bool)
            for argument in arguments
            for name in argument.names
            if name.startswith("-") and name != "--json"
        ]
    return found


def places(folder: Path, run: Path, picture: Path) -> list[str]:
    """Paths of every kind below a folder: good ones, wrong ones, and none."""
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "text.txt").write_text("no model, no picture", encoding="utf-8")
    (folder / "none.safetensors").write_bytes(b"\xff" * 64)
    (folder / "a b 蓝").mkdir(exist_ok=True)
    good = [str(run), str(run / "model.safetensors"), "digits", str(picture)]
    odd = ["empty", "text.txt", "none.safetensors", "a b 蓝", "text.txt/x", "no/such", ".", "~"]
    return [
        *good * 4,
        *odd,
        "",
        "x" * 300,
        "/dev/null",
        "蓝.png",
        "e\u0301",
        "\udcff",
        "-",
        "run\x1b[2J",
    ]


def line(
    rng: random.Random, paths: list[str], known: dict[str, list[tuple[str, bool]]]
) -> list[str]:
    """One command line: two of three get past the parser, one of six to its end."""
    if rng.random() < 0.03:
        return [rng.choice([*TEXTS, *known]) for _ in range(rng.randrange(4))]
    command, tame = rng.choice(list(known)), rng.random() < 0.5
    words = ["data", "check"] if command == "data" and rng.random() < 0.95 else [command]
    if command == "parts":
        words += [rng.choice([*TEXTS, "samplers", "grids"])] if rng.random() < 0.6 else []
    else:
        more = rng.choice([-1, 1, 2]) if rng.random() < 0.1 else 0
        good = paths[:2] if tame else paths
        for k in range(PLACES.get(command, 1) + more):
            pictures = [paths[3]] if tame and rng.random() < 0.8 else paths
            words.append(rng.choice(pictures if k and command != "compare" else good))
    taken = set()
    for _ in range(rng.randrange(4)):
        name, takes = rng.choice([*known[command], *known[command], ("--nonsense", True)])
        if name in taken or (name in COUNTED and command in FEW and rng.random() < 0.8):
            continue
        taken.add(name)
        words.append(name)
        if takes and name in TAME and (tame or rng.random() < 0.5):
            words.append(rng.choice(TAME[name]).format(picture=paths[3]))
        elif takes and rng.random() < 0.97:
            words.append(rng.choice(rng.choice([NUMBERS, TEXTS, paths, TEXTS])))
            if name == "--set":
                words[-1] = rng.choice(SETTINGS)
            if name in ("--out", "--page", "--run"):  # what is written over is another matter
                words[-1] = rng.choice(TEXTS)
    for group in FEW.get(command, ()):
        words += group if group[0] not in words or command in ("tour", "demo") else []
    return [*words, "--json"] if rng.random() < 0.5 else words
