"""What a batch is steered with: what was given, other models, parts that a setting names."""

from __future__ import annotations

import json

import pytest
import torch

from steerable.app.cli import main
from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.jobs import sample as job
from steerable.jobs.model import Model, pack_model
from steerable.jobs.steering import answering, steering
from steerable.jobs.wish import Wish, wishes
from steerable.recipes.assembly import network
from steerable.recipes.recipe import checked

from ..mutants import altered
from ..truth.worlds import randomised
from .tiny import tiny

DIGITS = tuple("0123456789")
SPEC = Spec("digits", (1, 8, 8), {"label": DIGITS})
BARE = Spec("digits", (1, 8, 8))
KEEP, ILVR = {"constraints": [{"kind": "keep"}]}, {"constraints": [{"kind": "ilvr"}]}
SMALLER = {"operator": {"kind": "downsample", "factor": 4}, "guidance": [{"kind": "posterior"}]}


def recipe_of(*settings, **rooms):
    """A tiny recipe with few steps and no guidance but what is named."""
    steps = {"kind": "heun", "steps": 4}
    return checked({**tiny(40, *settings).plain(), "guidance": [], "sampler": steps, **rooms})


def saved(path, spec=SPEC, seed=0, recipe=None, **rooms):
    """A model file of a network that was not trained, read back."""
    recipe = recipe or recipe_of(**({} if spec.labels else {"conditions": {}}), **rooms)
    torch.manual_seed(seed)
    net = randomised(network(recipe, spec), seed)
    path.write_bytes(pack_model(net.state_dict(), recipe, spec, {}))
    return Model.load(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Model files: of digits, one without a condition, and weaker ones of either sort."""
    root = tmp_path_factory.mktemp("models")
    saved(root / "digits.safetensors")
    saved(root / "bare.safetensors", BARE)
    saved(root / "weak.safetensors", seed=1)
    saved(root / "weak-bare.safetensors", BARE, seed=2)
    return root


@pytest.fixture(scope="module")
def model(folder):
    return Model.load(folder / "digits.safetensors")


@pytest.fixture(scope="module")
def bare(folder):
    return Model.load(folder / "bare.safetensors")


def asked_first(model, recipe, wanted, drawn=job.drawn):
    """The error of drawing, before the network was asked for anything."""
    calls = []
    hook = model.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(UserError) as caught:
            drawn(model.denoiser, recipe, model.spec, wanted)
    finally:
        hook.remove()
    assert not calls, "the network was asked before"
    return caught.value


WHOLE, HOLE = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
WRONG = [  # what is given, what of it is wrong, what it should be, the parts
    ({"image": torch.zeros(1, 8, 9), "mask": HOLE}, "image", "(1, 8, 8)", KEEP),
    ({"image": torch.zeros(3, 8, 8), "mask": HOLE}, "image", "(1, 8, 8)", KEEP),
    ({"image": torch.zeros(8, 8), "mask": HOLE}, "image", "(1, 8, 8)", KEEP),
    ({"image": WHOLE, "mask": torch.ones(8, 8)}, "mask", "(1, 8, 8)", KEEP),
    ({"image": WHOLE, "mask": torch.ones(1, 4, 4)}, "mask", "(1, 8, 8)", KEEP),
    ({"reference": torch.zeros(1, 4, 4)}, "reference", "(1, 8, 8)", ILVR),
    ({"start": torch.zeros(1, 16, 16)}, "start", "(1, 8, 8)", {}),
    ({"measured": WHOLE}, "measured", "(1, 2, 2)", SMALLER),
    ({"measured": torch.zeros(2, 2)}, "measured", "(1, 2, 2)", SMALLER),
    (
        {"measured": torch.zeros(1, 2, 2), "mask": HOLE},
        "measured",
        "(1, 8, 8)",
        {**SMALLER, "operator": {"kind": "inpaint"}},
    ),
]


def check_shapes(model, drawn):
    """Each of them is refused by its name, with both shapes, before anything is asked."""
    for given, name, takes, parts in WRONG:
        error = asked_first(model, recipe_of(**parts), [Wish({}, 0, given)] * 2, drawn)
        assert (error.code, error.where) == ("E-SHAPE", name)
        assert error.takes.startswith(takes)
        assert str(tuple(given[name].shape)) in error.got


def test_what_is_given_in_another_shape_is_refused_before_the_first_step(model):
    check_shapes(model, job.drawn)


MUTANTS = {
    "shapes unchecked": ("given", "_check_shape(name, tuple(row", "(name, (row"),
    "mask of all channels": ("given", "(1, *spec.shape[1:])", "(3, *spec.shape[1:])"),
    "reference forgotten": ("given", '"reference", "start"), spec', '"start"), spec'),
    "start forgotten": ("given", '"reference", "start"), spec', '"reference"), spec'),
    "measured unchecked": (
        "steering",
        "check_measured(made, spec, recipe.operator.kind)",
        "pass",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_check_that_is_left_out_is_noticed(name, model, monkeypatch):
    module, *change = MUTANTS[name]
    copy = altered(f"jobs.{module}", *change)
    if module == "given":
        monkeypatch.setattr(job, "given", copy.given)
        monkeypatch.setattr("steerable.jobs.steering.given", copy.given)
    else:
        monkeypatch.setattr(job, "steering", copy.steering)
    with pytest.raises((AssertionError, RuntimeError, UserError, pytest.fail.Exception)):
        check_shapes(model, job.drawn)


def test_a_network_that_sees_the_mask_is_not_asked_with_a_wrong_one(tmp_path):
    recipe = recipe_of("conditions.mask.kind=mask")
    model = saved(tmp_path / "masks.safetensors", recipe=recipe)
    for given in ({"image": WHOLE, "mask": torch.ones(1, 4, 4)}, {"image": WHOLE[:, 1:]}):
        error = asked_first(model, recipe, [Wish({}, 0, {"mask": HOLE, **given})])
        assert error.code == "E-SHAPE"


def test_what_is_given_must_be_alike_known_and_given_to_all(model):
    for wanted, code, words in (
        ([{"measured": torch.zeros(1, 2, 2)}, {"measured": WHOLE}], "E-SHAPE", "measured"),
        ([{"start": WHOLE}, {"start": WHOLE[:, 1:]}], "E-SHAPE", "start"),
        ([{"image": WHOLE}, {}], "E-CONFIG", "1 of 2"),
        ([{"refrence": WHOLE}] * 2, "E-CONFIG", "Did you mean 'reference'"),
    ):
        each = [Wish({}, i, given) for i, given in enumerate(wanted)]
        error = asked_first(model, recipe_of(), each)
        assert error.code == code and words in str(error)


def test_an_operator_that_does_not_fit_the_model_says_so_before_the_first_step(model):
    for operator, code in (({"kind": "downsample", "factor": 3}, "E-CONFIG"), ("grey", "E-SHAPE")):
        recipe = recipe_of(**{**SMALLER, "operator": operator})
        error = asked_first(model, recipe, [Wish({}, 0, {"measured": WHOLE})])
        assert error.code == code


def test_what_fits_is_taken(model):
    for given, parts in (
        ({"image": WHOLE + 0.3, "mask": HOLE * (torch.arange(8) > 3)}, KEEP),
        ({"reference": WHOLE + 0.3}, ILVR),
        ({"start": WHOLE + 0.3}, {}),
        ({"measured": torch.full((1, 2, 2), 0.3)}, SMALLER),
    ):
        recipe = recipe_of(**parts)
        x = job.drawn(model.denoiser, recipe, SPEC, [Wish({}, 0, given), Wish({}, 1, given)])
        plain = job.drawn(model.denoiser, recipe_of(), SPEC, [Wish({}, 0), Wish({}, 1)])
        assert bool(x.isfinite().all()) and float((x - plain).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("parts", "missing", "way"),
    [
        (KEEP, "image", "steerable edit"),
        (ILVR, "reference", "--reference"),
        ({"guidance": [{"kind": "dps"}]}, "operator", "operator="),
        (SMALLER, "measured", "--upscale"),
        ({**SMALLER, "operator": {"kind": "inpaint"}}, "mask", "--mask"),
        ({"guidance": [{"kind": "universal"}]}, "score", "steerable.guide"),
    ],
)
def test_a_part_that_lacks_what_it_needs_says_how_to_give_it(model, parts, missing, way):
    error = asked_first(model, recipe_of(**parts), wishes(SPEC, ["3"], 1, 0))
    assert error.code == "E-CONFIG" and error.got == f"no {missing}"
    assert missing in error.takes and way in error.do


def autoguided(path, weight=3.0):
    return {"guidance": [{"kind": "autoguidance", "model": str(path), "weight": weight}]}


def answer(model, recipe, cond):
    """The guided x0-hat of two items at one time."""
    net = model.denoiser
    wanted = [Wish({}, 0), Wish({}, 1)]
    steer = steering(answering(net), net, recipe, model.spec, wanted)
    x = torch.linspace(-1.0, 1.0, 128).reshape(2, 1, 8, 8)
    t = torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        return x, t, steer.denoise(x, t, cond).x0


def test_a_weaker_model_is_told_the_conditions_that_it_has_and_no_others(folder, model, bare):
    """By hand: x0 = b + w (D - b), with b what each network says that is asked by itself."""
    cond = {"label": torch.tensor([3, 7])}
    for asked, name, its in (
        (model, "weak", cond),
        (model, "weak-bare", {}),
        (bare, "weak", {}),
        (bare, "weak-bare", {}),
    ):
        file = folder / f"{name}.safetensors"
        own = cond if asked is model else {}
        x, t, got = answer(asked, recipe_of(**autoguided(file)), own)
        with torch.no_grad():
            d, b = asked.denoiser(x, t, own).x0, Model.load(file).denoiser(x, t, its).x0
        assert float((d - b).abs().max()) > 1e-3, "the two must differ"
        torch.testing.assert_close(got, b + 3.0 * (d - b))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (Spec("other", (1, 8, 8), {"label": DIGITS[::-1]}), "one of 9, 8, 7"),
        (Spec("other", (1, 8, 8), {"label": ("boot", "bag")}), "one of boot, bag"),
        (Spec("other", (1, 8, 8), {}, {"label": ("width",)}), "the numbers width"),
    ],
    ids=["another order", "other classes", "another kind"],
)
def test_a_weaker_model_whose_conditions_mean_something_else_is_refused(
    model, bare, tmp_path, spec, says
):
    file = tmp_path / "weak.safetensors"
    kind = "vector" if spec.vectors else "label"
    saved(file, spec, recipe=recipe_of(conditions={"label": {"kind": kind}}))
    error = asked_first(model, recipe_of(**autoguided(file)), wishes(SPEC, ["3"], 1, 0))
    assert error.code == "E-CONFIG" and error.where == file.name
    assert says in error.got and error.takes == f"one of {', '.join(DIGITS)}"
    assert "same data" in error.do and "without 'label'" in error.do
    x = job.drawn(bare.denoiser, recipe_of(conditions={}, **autoguided(file)), BARE, [Wish()])
    assert bool(x.isfinite().all()), "nobody asks for a label there, so none is told wrongly"


def test_a_weaker_model_of_other_items_or_noise_is_refused(model, tmp_path):
    file = tmp_path / "weak.safetensors"
    saved(file, Spec("big", (1, 16, 16), SPEC.labels))
    error = asked_first(model, recipe_of(**autoguided(file)), wishes(SPEC, ["3"], 1, 0))
    assert error.code == "E-SHAPE" and "(1, 16, 16)" in error.got
    saved(file, recipe=recipe_of("process.kind=ddpm"))
    error = asked_first(model, recipe_of(**autoguided(file)), wishes(SPEC, ["3"], 1, 0))
    assert error.code == "E-CONFIG" and "same process" in error.do


def test_settings_guide_a_model_that_was_trained_without_guidance(folder, bare):
    assert bare.recipe.guidance == () and not bare.denoiser.conditions
    weak = folder / "weak-bare.safetensors"
    plain = job.drawn(bare.denoiser, bare.recipe, BARE, [Wish()])
    listed = [f"guidance=[{{kind: autoguidance, model: {weak}, weight: 3}}]"]
    named = ["guidance.kind=autoguidance", f"guidance.model={weak}", "guidance.weight=3"]
    recipes = [job.steered(bare.recipe, settings=settings) for settings in (listed, named)]
    assert recipes[0].guidance == recipes[1].guidance
    guided = job.drawn(bare.denoiser, recipes[0], BARE, [Wish()])
    assert float((guided - plain).abs().max()) > 1e-3
    clipped = job.steered(bare.recipe, settings=["guidance=[threshold, {kind: threshold}]"])
    assert [part.kind for part in clipped.guidance] == ["threshold", "threshold"]
    assert job.steered(clipped, settings=["guidance=[]"]).guidance == ()


def test_settings_constrain_where_the_context_is_given(bare):
    settings = ["constraints=[{kind: ilvr, factor: 2}]"]
    recipe = job.steered(bare.recipe, settings=settings)
    again = job.steered(bare.recipe, settings=["constraints.kind=ilvr", "constraints.factor=2"])
    assert recipe == again
    reference = torch.linspace(-1.0, 1.0, 8).expand(1, 8, 8).clone()
    x = job.drawn(bare.denoiser, recipe, BARE, [Wish({}, 0, {"reference": reference})])
    low = torch.nn.functional.avg_pool2d(x[0], 2) - torch.nn.functional.avg_pool2d(reference, 2)
    assert float(low.abs().max()) < 1e-5, "the low band is the reference's"
    error = asked_first(bare, recipe, [Wish()])
    assert error.got == "no reference" and "--reference" in error.do
    measured = ["operator={kind: downsample, factor: 4}", "guidance=[{kind: diffpir}]"]
    recipe = job.steered(bare.recipe, settings=measured)
    small = torch.tensor([[[0.5, -0.5], [-0.25, 0.25]]])
    x = job.drawn(bare.denoiser, recipe, BARE, [Wish({}, 0, {"measured": small})])
    assert float((torch.nn.functional.avg_pool2d(x[0], 4) - small).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("guidance=autoguidance", "guidance"),
        ("guidance=[{kind: autoguidence}]", "Did you mean 'autoguidance'"),
        ("guidance=[{kind: autoguidance, run: x}]", "model, weight"),
        ("guidance=[{kind: cfg, weight: 3}]", "trained without a condition"),
        ("guidance=[{kind: cfg_pp}]", "trained without a condition"),
        ("guidance.kind=apg", "trained without a condition"),
        ("constraints=[ilvr", "constraints"),
        ("constraints=[{kind: ilvr, factor: 1}]", "greater than or equal to 2"),
        ("sampler=heun", "no effect here"),
        ("training.lr=1", "no effect here"),
        ("guidances=[]", "no effect here"),
    ],
)
def test_settings_that_cannot_be_taken_are_refused(bare, setting, says):
    with pytest.raises(UserError) as caught:
        job.steered(bare.recipe, settings=[setting])
    assert caught.value.code == "E-CONFIG" and says in str(caught.value)


def run(capsys, *words, code=0):
    """The command line in this process."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    assert end.value.code == code, shown.err
    return shown


def test_the_command_line_takes_a_list_of_guidances(folder, tmp_path, capsys):
    words = ["sample", folder / "bare.safetensors", "-n", "2", "--json"]
    weak = folder / "weak-bare.safetensors"
    more = ["--set", f"guidance=[{{kind: autoguidance, model: {weak}}}, threshold]"]
    found = json.loads(run(capsys, *words, *more, "--out", tmp_path / "a").out)["guidance"]
    assert [part["kind"] for part in found] == ["autoguidance", "threshold"]
    more = ["--set", "constraints=[ilvr]", "--out", tmp_path / "b"]
    shown = run(capsys, *words, *more, code=2)
    assert "--reference" in shown.out + shown.err and not (tmp_path / "b").exists()
