"""How to train: the budget and every setting of the training loop."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from steerable.core.errors import UserError

from .booleans import no_boolean

__all__ = ["Budget", "Training"]


class Budget(BaseModel):
    """How long to train: seconds, iterations or images, exactly one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float | None = None
    iterations: int | None = None
    images: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """`90s`, `10m`, `1h30m`, `5000 iterations`, `200000 images`.

        Raises:
            UserError: E-CONFIG if the text is none of these, or nothing is left to do.
        """
        plain = text.strip().lower().replace(" ", "").replace(",", "").replace("_", "")
        counted = re.fullmatch(r"(\d{1,15})(iterations?|its?|images?|imgs?)", plain)
        timed = re.fullmatch(
            r"(?:(\d{1,9}(?:\.\d+)?)h)?(?:(\d{1,9}(?:\.\d+)?)m)?(?:(\d{1,9}(?:\.\d+)?)s)?", plain
        )
        if counted and int(counted[1]) > 0:
            unit = "iterations" if counted[2].startswith("it") else "images"
            return cls.model_validate({unit: int(counted[1])})
        if timed and any(timed.groups()):
            hours, minutes, seconds = (float(g or 0) for g in timed.groups())
            if hours or minutes or seconds:
                return cls(seconds=hours * 3600 + minutes * 60 + seconds)
        takes = "a time such as 90s, 10m or 1h30m, or '5000 iterations', or '200000 images'"
        raise UserError("E-CONFIG", where="budget", got=repr(text)[:80], takes=takes)


class Training(BaseModel):
    """How to train. Every value is a function of the iteration, so a resume is exact."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    budget: str = "10m"
    batch: int = Field(128, ge=1, le=65536)
    optimiser: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon on the hidden matrices where it pays, AdamW on the rest"
    )
    lr: float = Field(2e-3, gt=0, le=1)
    schedule: Literal["cooldown", "constant", "cosine", "linear", "step", "exponential"] = Field(
        "cooldown",
        description="how lr falls after the warm-up; under a budget of time cooldown, cosine and "
        "linear follow the clock, so that a machine that slows down costs iterations and no time",
    )
    warmup: int = Field(100, ge=0, description="iterations of linear warm-up")
    cooldown: float = Field(0.3, ge=0, le=1, description="share of the run with lr falling to 0")
    floor: float = Field(0.0, ge=0, le=1, description="share of lr that no schedule goes below")
    decay: float = Field(
        0.98, gt=0, le=1, description="factor an epoch (exponential) or a step (step)"
    )
    every: int = Field(10, ge=1, description="epochs between two steps of the schedule step")
    weight_decay: float = Field(0.01, ge=0, le=1)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.999, ge=0, lt=1, description="decay that the warm-up (1+k)/(10+k) ends in")
    ema_kind: Literal["warmup", "power"] = Field(
        "warmup",
        description="power: averages over 5 and 10 % of the run, with snapshots from which any "
        "other share can be made afterwards",
    )
    uncertainty: bool = Field(False, description="learn the weight of each noise level's loss")
    flip: bool = False
    augment: float = Field(
        0.0, ge=0, le=1, description="chance of each augmentation, told to the network"
    )
    augmentations: tuple[Literal["flip", "flip_y", "turn", "rotate", "scale", "translate"], ...] = (
        Field(("scale", "translate"), description="what may be done to a picture")
    )
    force: bool = Field(False, description="allow flips and turns that may change the meaning")
    seed: int = Field(0, ge=0, lt=2**63)
    compile: Literal["auto", "on", "off"] = "auto"
    checkpoint_seconds: float = Field(60.0, gt=0)
    checks: Literal["auto", "off"] = Field(
        "auto", description="look at a few samples while training, and warn of trouble"
    )
    threads: int = Field(0, ge=0, le=1024, description="0 leaves torch's own choice")

    _numbers = no_boolean

    @field_validator("compile", mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        """A bare `on` or `off` is a truth value in YAML, where it is not in quotes."""
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("checks", mode="before")
    @classmethod
    def _checks_as_written(cls, value: Any) -> Any:
        return {True: "auto", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _sound(self) -> Training:
        Budget.parse(self.budget)
        if self.augment > 0 and not self.augmentations:
            raise ValueError("augment above 0 needs at least one of training.augmentations")
        return self
