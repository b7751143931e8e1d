"""Names that other programs use for samplers, and what they are called here.

An alias is said once, when it is read; recipes and model files hold our names only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from steerable.core.errors import UserError

from .part import kinds

__all__ = ["Alias", "resolve"]


@dataclass(frozen=True)
class Alias:
    """What a foreign name stands for.

    Args:
        kind: Our sampler.
        options: Its options where they differ from the defaults.
        grid: Our time grid where the name says one.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    grid: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def __str__(self) -> str:
        options = "".join(f", {name} {value}" for name, value in self.options.items())
        return f"{self.kind}{options}{f', grid {self.grid}' if self.grid else ''}"


# k-diffusion and ComfyUI, Invoke, then the display names of A1111, in lower case.
_NAMES: dict[str, Alias] = {
    "ddpm": Alias("ancestral"),
    "euler_ancestral": Alias("ancestral"),
    "dpm_2": Alias("dpm2"),
    "dpmpp_2m_sde_gpu": Alias("dpmpp_2m_sde"),
    "dpmpp_2m_sde_heun": Alias("dpmpp_2m_sde", {"solver": "heun"}),
    "dpmpp_2m_sde_heun_gpu": Alias("dpmpp_2m_sde", {"solver": "heun"}),
    "uni_pc": Alias("unipc", {"variant": "bh1"}),
    "uni_pc_bh2": Alias("unipc"),
    "euler_a": Alias("ancestral"),
    "kdpm_2": Alias("dpm2"),
    "euler a": Alias("ancestral"),
    "dpm++ 2m": Alias("dpmpp_2m"),
    "dpm++ 2m sde": Alias("dpmpp_2m_sde"),
    "dpm++ 2m sde heun": Alias("dpmpp_2m_sde", {"solver": "heun"}),
}
_CLASSES: dict[str, Alias] = {  # of diffusers, in lower case
    "ddpmscheduler": Alias("ancestral"),
    "ddimscheduler": Alias("ddim"),
    "eulerdiscretescheduler": Alias("euler"),
    "eulerancestraldiscretescheduler": Alias("ancestral"),
    "heundiscretescheduler": Alias("heun", {"variable": "ratio"}),
    "lmsdiscretescheduler": Alias("lms"),
    "kdpm2discretescheduler": Alias("dpm2"),
    "dpmsolvermultistepscheduler": Alias("dpmpp_2m"),
    "unipcmultistepscheduler": Alias("unipc", {"solver_order": 2}),
    "deismultistepscheduler": Alias("deis", {"solver_order": 2, "variable": "log_ratio"}),
    "ipndmscheduler": Alias("ipndm"),
}
# Names of ours that stand for something else where they are written in another way, such as
# `Heun` and `sample_heun`; then those of Invoke with `_k`, which are the classes of diffusers.
_OTHERWISE: dict[str, Alias] = {
    "deis": Alias("deis", {"solver_order": 3}),
    "heun": Alias("heun", {"variable": "ratio"}),
    "unipc": Alias("unipc", {"variant": "bh1"}),
}
_INVOKE: dict[str, Alias] = {
    name: _CLASSES[of]
    for name, of in (
        ("deis", "deismultistepscheduler"),
        ("heun", "heundiscretescheduler"),
        ("unipc", "unipcmultistepscheduler"),
    )
}
_ABSENT = "has no counterpart here"
_DISAGREE = "means different samplers in different programs"
_DISTILLED = "needs a model that was distilled for it"
# Why a name is refused, what to take instead, and the names.
_REFUSED: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (_ABSENT, ("unipc", "deis"), ("dpm_fast", "dpm fast")),
    (_ABSENT, ("ode",), ("dpm_adaptive", "dpm adaptive")),
    (
        _ABSENT,
        ("ancestral", "dpm2"),
        (
            "dpm_2_ancestral",
            "kdpm_2_a",
            "dpm2 a",
            "kdpm2ancestraldiscretescheduler",
        ),
    ),
    (
        _ABSENT,
        ("dpmpp_2m_sde", "ancestral"),
        ("dpmpp_2s_ancestral", "dpm++ 2s a", "sa_solver", "sasolverscheduler"),
    ),
    (_ABSENT, ("dpmpp_2m",), ("dpmpp_2s",)),
    (
        _ABSENT,
        ("er_sde", "dpmpp_2m_sde"),
        ("dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "dpm++ 3m sde"),
    ),
    (
        _DISAGREE,
        ("dpmpp_2m_sde", "er_sde"),
        (
            "dpmpp_sde",
            "dpmpp_sde_gpu",
            "dpm++ sde",
            "dpmsolversdescheduler",
            "dpmsolversinglestepscheduler",
        ),
    ),
    (_DISAGREE, ("ipndm",), ("plms", "pndm", "pndmscheduler")),
    (_DISTILLED, ("deis", "unipc"), ("lcm", "lcmscheduler")),
)
_SUFFIXES = {" karras": "karras", " exponential": "log_snr", "_k": "karras"}


def resolve(name: str) -> Alias | None:
    """What a name of k-diffusion, ComfyUI, A1111, Invoke or diffusers is here.

    The suffixes ` Karras` and ` Exponential` (A1111) and `_k` (Invoke) say the grid; case and
    `sample_` before a name (k-diffusion's functions) do not count, but for this: a kind of ours as
    we write it, `heun`, is ours, and `Heun`, `sample_heun` and `heun_k` are what they are there,
    Heun's method in sigma / alpha. Their samplers' last steps of a lower order and noise scales
    beside 1 have no counterpart; `dpmpp_3m` differs from diffusers' by a factor of 2 that is
    missing there.

    Args:
        name: A sampler's name as the user wrote it.

    Returns:
        None for a name of ours and for one that nobody uses: both are for `find` to judge.

    Raises:
        UserError: E-CONFIG for a known name that we lack, or on which programs disagree.
    """
    ours = kinds("sampler")
    if name in ours:
        return None
    plain, grid, otherwise = " ".join(name.lower().split()), None, _OTHERWISE
    for suffix, kind in _SUFFIXES.items():
        if plain.endswith(suffix):
            plain, grid = plain.removesuffix(suffix), kind
            otherwise = _INVOKE if suffix == "_k" else _OTHERWISE
            break
    plain = plain.removeprefix("sample_")
    for why, instead, names in _REFUSED:
        if plain in names:
            got = f"'{name}' {why}"
            takes, do = ", ".join(ours), f"take {' or '.join(repr(k) for k in instead)}"
            raise UserError("E-CONFIG", where="sampler", got=got, takes=takes, do=do)
    found = _NAMES.get(plain) or _CLASSES.get(plain) or otherwise.get(plain)
    if found is None and plain in ours:
        found = Alias(plain)
    return found and Alias(found.kind, found.options, grid)
