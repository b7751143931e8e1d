"""Options that several commands share: said once, taken by each, with the same meaning."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import steerable.app
from steerable.app.cli import app
from steerable.app.options import interval_of, place, told
from steerable.core.errors import UserError
from steerable.jobs.output import claim

APP = Path(steerable.app.__file__).parent
SAMPLING = [
    *("--guidance", "2.5", "--interval", "0.2:0.8", "--steps", "7"),
    *("--sampler", "heun", "--grid", "karras"),
]


def read(*words):
    """What a command is called with."""
    _, bound, _ = app.parse_args(list(words), exit_on_error=False, print_error=False)
    return bound.arguments


def entries(path):
    """Every (option, text) of the sections `Parameters` in the docstrings of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        _, _, section = (ast.get_docstring(node) or "").partition("Parameters\n----------\n")
        name = ""
        for line in section.splitlines():
            if line and not line.startswith(" "):
                name = line
            elif line:
                yield name, line.strip()


def test_no_two_commands_describe_an_option_with_the_same_words():
    where = {}
    for path in sorted(APP.glob("*.py")):
        for entry in entries(path):
            where.setdefault(entry, []).append(path.name)
    assert len(where) > 60
    twice = {entry: names for entry, names in where.items() if len(names) > 1}
    assert not twice, "options.py is for what several commands say"


@pytest.mark.parametrize("command", ["sample", "edit", "evaluate"])
def test_settings_of_sampling_arrive_by_the_names_of_the_library(command):
    how = read(command, "run", *SAMPLING)["how"]
    sampling = how if command == "evaluate" else how.sampling
    assert sampling.chosen() == {
        "guidance": 2.5,
        "interval": (0.2, 0.8),
        "steps": 7,
        "sampler": "heun",
        "grid_kind": "karras",
    }


@pytest.mark.parametrize("command", ["sample", "edit"])
def test_what_guides_arrives(command):
    words = ["--classifier", "c", "--classifier-scale", "3", "--set", "a.b=1", "--set", "c.d=2"]
    how = read(command, "run", *words)["how"]
    assert (how.classifier, how.classifier_scale) == ("c", 3.0)
    assert how.set_ == ["a.b=1", "c.d=2"] and set(how.sampling.chosen().values()) == {None}


@pytest.mark.parametrize("words", [["encode", "run", "a"], ["interpolate", "run", "a", "b"]])
def test_a_walk_is_not_guided_unless_asked(words):
    walk = read(*words, "--label", "3", "--cond", "size=0.5", "--steps", "9")["walk"]
    assert (walk.label, walk.cond, walk.guidance, walk.steps) == ("3", ["size=0.5"], 1.0, 9)


@pytest.mark.parametrize("text", ["2.5", "-0.5", "0.25", "."])
def test_numbers_that_are_not_whole_are_refused_and_not_rounded(text):
    for words in (["-n", text], ["--steps", text], ["--seed", text]):
        with pytest.raises(Exception, match="unable to convert"):
            read("sample", "run", *words)
    taken = read("sample", "run", "-n", "30.0", "--steps", "-1")
    assert taken["n"] == 30 and taken["how"].sampling.steps == -1


def test_an_interval_is_two_times_in_order():
    assert interval_of("0.2:0.8") == (0.2, 0.8) and interval_of(None) is None
    for text in ("0.8:0.2", "0.5", "a:b", "0:1.5", "nan:1", "0.5:0.5", ""):
        with pytest.raises(UserError):
            interval_of(text)


def test_a_label_is_a_condition_like_the_others():
    assert told("7", ["size = 0.5"]) == {"size": "0.5", "label": "7"}
    assert told(None, ["label=3"]) == {"label": "3"} and told(None, None) == {}
    assert told("7", ["label=7"]) == {"label": "7"}
    for label, cond in (("7", ["label=3"]), (None, ["label=3", "label=7"])):
        with pytest.raises(UserError, match=r"both '[37]' and '[37]'"):
            told(label, cond)


def test_the_next_free_folder_is_in_the_run_or_here(tmp_path, monkeypatch):
    def taken(place, name="set"):
        with claim(place, "sample", name, {}) as folder:
            folder.write({"a": b""})
            folder.finish()
        return folder.path

    monkeypatch.chdir(tmp_path)
    assert taken(place(None, "model.safetensors")) == Path("samples/set-001")
    run = str(tmp_path / "run")
    (tmp_path / "run" / "samples" / "set-001").mkdir(parents=True)
    assert taken(place(None, run)) == tmp_path / "run/samples/set-002"
    assert taken(place(None, run)) == tmp_path / "run/samples/set-003"
    assert taken(place(None, run), "edit") == tmp_path / "run/samples/edit-001"
    assert taken(place(tmp_path / "own", "run"), "edit") == tmp_path / "own"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file, a file"):
        taken(place(tmp_path / "file", "run"))


def test_a_place_knows_what_is_read_and_where_the_data_lies(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {kind: images, path: /data/cats}\n")
    found = place(None, str(tmp_path), "a.png", None, Path("b"))
    assert found.inputs == (tmp_path / "model.safetensors", Path("a.png"), Path("b"))
    assert found.data == (Path("/data/cats"),)
    for text in ("[" * 5000, "data: 3", "data: {path: [1]}", "\x00", "a: b\n" * 300_000):
        (tmp_path / "recipe.yaml").write_text(text)
        assert place(None, str(tmp_path)).data == ()
