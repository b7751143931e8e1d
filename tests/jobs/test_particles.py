"""Guidances as recipes name them, and samplers whose batch is one set of particles."""

from __future__ import annotations

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.types import Spec
from steerable.jobs.sample import drawn, moments
from steerable.jobs.wish import wishes
from steerable.recipes.assembly import network
from steerable.recipes.recipe import checked

from ..truth.worlds import randomised
from .tiny import tiny

SPEC = Spec("digits", (1, 8, 8), {"label": tuple("0123456789")})


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return randomised(network(tiny(), SPEC)).eval()


def _recipe(guidance, sampler="heun", steps=4):
    tree = tiny().plain()
    return checked({**tree, "guidance": guidance, "sampler": {"kind": sampler, "steps": steps}})


@pytest.mark.parametrize(
    "part",
    [
        {"kind": "cfg", "rescale": 0.7},
        {"kind": "apg", "norm": 3.0},
        {"kind": "cfg_zero"},
        {"kind": "cfg_pp"},
        {"kind": "compose", "terms": [{"cond": {"label": "5"}, "weight": 1.5}]},
        {"kind": "compose", "away": {"label": "8"}, "weight": 2.0},
    ],
    ids=lambda part: "-".join(part),
)
def test_a_recipe_names_them_and_the_rest_is_found(net, part):
    """Finite, another picture than without guidance, and the same one in any batch."""
    wanted = wishes(SPEC, ["3", "1"], 2, 0)
    plain = drawn(net, _recipe([]), SPEC, wanted)
    got = drawn(net, _recipe([part]), SPEC, wanted)
    assert bool(got.isfinite().all()) and float((got - plain).abs().max()) > 1e-3
    alone = drawn(net, _recipe([part]), SPEC, wanted[2:3])
    assert float((alone - got[2:3]).abs().max()) < 1e-4


def test_a_term_with_an_unknown_name_is_refused_with_the_nearest(net):
    recipe = _recipe([{"kind": "compose", "terms": [{"cond": {"label": "ten"}}]}])
    with pytest.raises(UserError) as caught:
        drawn(net, recipe, SPEC, wishes(SPEC, ["3"], 1, 0))
    assert caught.value.code == "E-LABEL"


def test_particles_of_two_wishes_never_meet(net):
    """A mixed list is sampled wish by wish and stays in order; one mixed batch is refused."""
    recipe = _recipe([{"kind": "cfg", "weight": 3.0}], sampler="smc", steps=6)
    wanted = [
        w for pair in zip(*(wishes(SPEC, [d], 8, 0) for d in "37"), strict=True) for w in pair
    ]
    got = drawn(net, recipe, SPEC, wanted)
    for i, digit in enumerate("37"):
        alone = drawn(net, recipe, SPEC, wishes(SPEC, [digit], 8, 0))
        assert torch.equal(got[i::2], alone)
    with pytest.raises(UserError, match="one wish") as caught:
        next(moments(net, recipe, SPEC, wanted))
    assert caught.value.code == "E-CONFIG"
    together = _recipe([{"kind": "cfg", "weight": 3.0}], sampler="ancestral", steps=6)
    assert next(moments(net, together, SPEC, wanted))[0].x.shape == (16, 1, 8, 8)
