"""Recipes: YAML and JSON round trips, single settings, budgets."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import steerable
from steerable.core.errors import UserError
from steerable.core.types import Batch, Spec
from steerable.jobs.plan import forward_flops
from steerable.recipes.assembly import network
from steerable.recipes.part import Part, find
from steerable.recipes.presets import find_preset, presets
from steerable.recipes.recipe import Budget, checked, from_yaml
from steerable.recipes.sizing import cost

SPEC = Spec("toys", (1, 8, 8), {"label": ("a", "b")}, std=0.7)


def recipe(**changes):
    made = find_preset("flow")(SPEC, data=Part(kind="digits"), budget="1m")
    return checked({**made.plain(), **changes})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lr=st.floats(1e-6, 0.5),
    steps=st.integers(1, 1000),
    eta=st.floats(0, 1),
    weight=st.floats(-5, 20),
)
def test_yaml_and_json_give_the_same_recipe_back(tmp_path_factory, lr, steps, eta, weight):
    made = recipe(
        sampler={"kind": "ancestral", "steps": steps, "eta": eta, "grid": "karras"},
        guidance=[{"kind": "cfg", "weight": weight}],
        training={"lr": lr},
    )
    path = tmp_path_factory.getbasetemp() / "recipe.yaml"
    path.write_text(made.yaml(), encoding="utf-8")
    assert from_yaml(path) == made
    assert checked(json.loads(json.dumps(made.plain()))) == made


def test_one_setting_changes_one_path():
    made = recipe()
    other = made.with_set(["sampler.steps=7", "guidance.weight=3", "training.lr=1e-3"])
    assert (other.sampler.steps, other.guidance[0].options["weight"]) == (7, 3.0)
    assert other.training.lr == 1e-3
    assert other.with_set(["sampler.steps=12", "guidance.weight=2", "training.lr=0.002"]) == made


def test_another_kind_drops_the_old_options():
    made = recipe(sampler={"kind": "ancestral", "eta": 0.3, "steps": 9})
    for word in ("on", "off", "auto", '"off"'):
        assert made.with_set([f"training.compile={word}"]).training.compile == word.strip('"')
    other = made.with_set(["sampler.kind=heun"])
    assert other.sampler.flat() == {**made.with_set(["sampler.kind=heun"]).sampler.flat()}
    assert other.sampler.steps == 9 and "eta" not in other.sampler.options


@pytest.mark.parametrize(
    "bad",
    [
        "steps",
        "sampler.stepz=3",
        "sampler.steps=0",
        "sampler.steps=1001",
        "samplr.steps=3",
        "nothing=3",
        "training.lr=-1",
        "training.budget=soon",
        "backbone.channels=wide",
        "guidance.weight=.nan",
    ],
)
def test_bad_settings_name_the_path(bad):
    with pytest.raises(UserError) as caught:
        recipe().with_set([bad])
    assert caught.value.code == "E-CONFIG"
    assert bad.split("=")[0].split(".")[0] in str(caught.value) or "--set" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", {"seconds": 90}),
        ("10m", {"seconds": 600}),
        ("1h30m", {"seconds": 5400}),
        ("2.5m", {"seconds": 150}),
        ("5000 iterations", {"iterations": 5000}),
        ("200,000 images", {"images": 200_000}),
        ("40it", {"iterations": 40}),
    ],
)
def test_budgets(text, expected):
    assert Budget.parse(text).model_dump(exclude_none=True) == expected


@pytest.mark.parametrize("text", ["", "10", "soon", "0s", "-5m", "0 images", "10 minutes ago", "m"])
def test_what_is_no_budget(text):
    with pytest.raises(UserError, match="90s"):
        Budget.parse(text)


@pytest.mark.parametrize("name", presets())
@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 20, 32)])
def test_presets_build_for_any_data(name, shape):
    spec = Spec("x", shape, {"label": tuple("abc")}, std=0.5)
    made = checked(find_preset(name)(spec, data=Part(kind="digits"), budget="3m").plain())
    net = network(made, spec)
    assert net.process.target.data_std == 0.5
    if name in ("unconditional-ddpm", "noisy-classifier"):
        assert not net.conditions and made.classifies == ("label" * (name == "noisy-classifier"))
    else:
        assert net.conditions["label"].table.weight.shape[0] == 3


SCALED = ("class-ddpm", "convnext-ddpm", "unconditional-ddpm", "edm", "score-sde")


@pytest.mark.parametrize("name", SCALED)
def test_what_a_budget_does_not_pay_for_is_noted_and_with_enough_of_it_nothing_is(name):
    spec = Spec("x", (3, 32, 32), {"label": tuple("abc")}, std=0.5)
    short, long = (
        find_preset(name)(spec, data=Part(kind="digits"), budget=budget, size=size)
        for budget, size in (("5m", "auto"), ("300000000 images", "auto"))
    )
    text = " ".join(short.notes)
    for field in ("lr", "batch", "ema"):
        value = getattr(short.training, field)
        assert getattr(long.training, field) == value or f"-> {value:g}" in text, field
    assert "iterations" in text
    assert len(long.notes) < len(short.notes)


@pytest.mark.parametrize("budget, curve", [("5m", "cosine"), ("300000000 images", "linear")])
def test_a_short_run_takes_another_schedule_rate_and_batch_and_says_so(budget, curve):
    spec = Spec("x", (3, 16, 16), {}, std=0.5)
    options = {"data": Part(kind="digits"), "budget": budget, "size": "s"}
    for name in ("class-ddpm", "convnext-ddpm", "unconditional-ddpm"):
        made = find_preset(name)(spec, **options)
        assert made.process.options["schedule"] == curve
        assert ("schedule linear -> cosine" in made.notes) == (curve == "cosine")
    score = find_preset("score-sde")(spec, **options)
    assert ("lr 0.001 -> 0.003" in score.notes) == (score.training.lr == 3e-3) == (budget == "5m")


def test_a_short_run_prefers_iterations_to_a_large_batch():
    spec = Spec("x", (1, 14, 14), {}, std=0.5)
    made = [
        find_preset(name)(spec, data=Part(kind="digits"), budget="400000 images", size="s")
        for name in ("score-sde", "unconditional-ddpm")
    ]
    assert [m.training.batch for m in made] == [64, 32]
    assert "about 6,250" in made[0].notes[0] and "about 12,500" in made[1].notes[0]


def test_the_cost_of_a_size_is_that_of_the_network_itself():
    spec = Spec("x", (1, 28, 28), {}, std=0.5)
    made = find_preset("flow")(spec, data=Part(kind="digits"), size="m")
    net = network(checked(made.plain()), spec)
    facts = cost("unet", (1, 28, 28), 64)
    assert facts["parameters"] == sum(p.numel() for p in net.backbone.parameters())
    batch = Batch(torch.zeros(1, 1, 28, 28))
    # torch counts no FLOP of the fused attention of a CPU, which is a share of a hundredth here.
    assert 0 <= facts["flop"] / forward_flops(net, batch) - 1 < 0.02


def test_a_longer_budget_buys_a_wider_network():
    wide = [
        find_preset("flow")(
            Spec("x", (1, 28, 28), {}), data=Part(kind="digits"), budget=budget
        ).backbone.options["channels"][0]
        for budget in ("20s", "3m", "1h")
    ]
    assert wide == sorted(wide) and wide[0] < wide[-1]


def test_short_runs_are_preconditioned():
    def target(shape, budget):
        made = find_preset("flow")(Spec("x", shape, {}), data=Part(kind="digits"), budget=budget)
        return made.process.options["target"]

    assert target((1, 28, 28), "150s") == target((1, 28, 28), "200000 images") == "flow"
    assert target((3, 48, 64), "60s") == target((1, 28, 28), "100 iterations") == "edm"
    assert target((3, 48, 64), "10m") == "flow"


def test_a_new_condition_begins_with_its_kind():
    made = recipe().with_set(["conditions.mine.kind=estimate", "conditions.mine.dropout=0.25"])
    assert made.conditions["mine"] == Part(kind="estimate", options={"dropout": 0.25})
    with pytest.raises(UserError, match="no such path"):
        recipe().with_set(["conditions.labl.dropout=0.25"])


def test_conditions_that_there_are_not_are_refused():
    with pytest.raises(UserError, match="labl") as caught:
        recipe().with_set(["guidance.weights={labl: 3, label: 2}"])
    assert caught.value.code == "E-CONFIG" and "'label'" in caught.value.do
    spec = Spec("x", (1, 8, 8), {"label": ("a", "b")})
    for wrong in ("conditions.label.kind=vector", "conditions.colour.kind=label"):
        with pytest.raises(UserError, match="the data does not have"):
            network(recipe().with_set([wrong]), spec)


def test_recipe_files_that_are_none(tmp_path):
    for name, text in {"a.yaml": "- 1", "b.yaml": "{", "c.yaml": "kind: x"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError) as caught:
            from_yaml(tmp_path / name)
        assert caught.value.exit_code == 2
    with pytest.raises(UserError):
        from_yaml(tmp_path / "missing.yaml")
    tree = yaml.safe_load(recipe().yaml())
    assert tree["sampler"]["kind"] == "dpmpp_2m"


def test_another_network_is_sized_and_one_of_two_guidances_is_set_by_its_kind():
    made = steerable.recipe("digits", size="xs", settings=["backbone.kind=dit"])
    assert made.backbone.options["width"] == find("backbone", "dit").sized((1, 8, 8), 32)["width"]
    made = steerable.recipe("digits", size="m", settings=["backbone.kind=dit", "backbone.depth=2"])
    assert made.backbone.options["depth"] == 2
    assert made.backbone.options["width"] == find("backbone", "dit").sized((1, 8, 8), 64)["width"]
    made = steerable.recipe(
        "digits",
        preset="class-ddpm",
        settings=["guidance.threshold.quantile=0.9", "guidance.weight=3"],
    )
    first, second = made.guidance
    assert (first.options["weight"], second.options["quantile"]) == (3, 0.9)
