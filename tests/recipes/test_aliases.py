"""Names of other programs: every one resolves to a part that exists, or says what to take."""

from __future__ import annotations

import dataclasses

import pytest

from steerable.core.errors import UserError
from steerable.recipes.aliases import _CLASSES, _NAMES, _REFUSED, Alias, resolve
from steerable.recipes.part import Part, build, check, find, kinds

REFUSED = [(name, instead) for _, instead, names in _REFUSED for name in names]


@pytest.mark.parametrize("kind", kinds("sampler"))
def test_our_own_names_are_no_aliases(kind):
    assert resolve(kind) is None


@pytest.mark.parametrize("name", ["", "huen", "euler b", "k", "_k", " Karras", "my.lab:Spiral"])
def test_names_that_nobody_uses_are_left_to_find(name):
    assert resolve(name) is None


@pytest.mark.parametrize("name", [*_NAMES, *_CLASSES])
def test_every_alias_is_a_sampler_of_ours(name):
    alias = resolve(name)
    part = Part(kind=alias.kind, options=dict(alias.options))
    assert check("sampler", part).kind == alias.kind in kinds("sampler")
    assert isinstance(build("sampler", part), find("sampler", alias.kind))
    assert alias.grid is None or alias.grid in kinds("grid")


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("Euler a", Alias("ancestral")),
        ("euler_ancestral", Alias("ancestral")),
        ("sample_euler_ancestral", Alias("ancestral")),
        ("EulerAncestralDiscreteScheduler", Alias("ancestral")),
        ("Euler", Alias("euler")),
        ("sample_heun", Alias("heun", {"variable": "ratio"})),
        ("Heun", Alias("heun", {"variable": "ratio"})),
        ("heun_k", Alias("heun", {"variable": "ratio"}, "karras")),
        ("HeunDiscreteScheduler", Alias("heun", {"variable": "ratio"})),
        ("sample_deis", Alias("deis", {"solver_order": 3})),
        ("deis_k", Alias("deis", {"solver_order": 2, "variable": "log_ratio"}, "karras")),
        ("DEISMultistepScheduler", Alias("deis", {"solver_order": 2, "variable": "log_ratio"})),
        ("uni_pc_bh2", Alias("unipc")),
        ("unipc_k", Alias("unipc", {"solver_order": 2}, "karras")),
        ("DPM2", Alias("dpm2")),
        ("DPM2 Karras", Alias("dpm2", grid="karras")),
        ("DPM++ 2M Karras", Alias("dpmpp_2m", grid="karras")),
        ("dpm++ 2m  karras", Alias("dpmpp_2m", grid="karras")),
        ("DPM++ 2M SDE Exponential", Alias("dpmpp_2m_sde", grid="log_snr")),
        ("DPM++ 2M SDE Heun Karras", Alias("dpmpp_2m_sde", {"solver": "heun"}, "karras")),
        ("dpmpp_2m_k", Alias("dpmpp_2m", grid="karras")),
        ("euler_k", Alias("euler", grid="karras")),
        ("kdpm_2_k", Alias("dpm2", grid="karras")),
        ("uni_pc", Alias("unipc", {"variant": "bh1"})),
        ("UniPC", Alias("unipc", {"variant": "bh1"})),
        ("UniPCMultistepScheduler", Alias("unipc", {"solver_order": 2})),
        ("DDIM", Alias("ddim")),
        ("ddpm", Alias("ancestral")),
    ],
)
def test_names_mean_what_their_programs_mean(name, want):
    assert resolve(name) == want


@pytest.mark.parametrize(("name", "instead"), REFUSED)
def test_what_we_lack_is_refused_with_something_to_take(name, instead):
    assert instead and set(instead) <= set(kinds("sampler"))
    for written in (name, name.upper(), f"{name} Karras", f"{name}_k"):
        with pytest.raises(UserError) as caught:
            resolve(written)
        fault = caught.value
        assert fault.code == "E-CONFIG" and written in fault.got
        assert all(repr(kind) in fault.do for kind in instead) and "heun" in fault.takes


def test_no_name_is_both_taken_and_refused():
    refused = [name for name, _ in REFUSED]
    assert len(set(refused)) == len(refused)
    assert not set(refused) & ({*_NAMES, *_CLASSES} | set(kinds("sampler")))
    assert not ({*_NAMES, *_CLASSES} & set(kinds("sampler")))


def test_an_alias_cannot_be_altered():
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve("Euler a").kind = "euler"
    with pytest.raises(TypeError):
        resolve("DPM++ 2M SDE Heun").options["solver"] = "midpoint"
