"""A tiny run on the digits, seconds long."""

from __future__ import annotations

import steerable
from steerable.jobs.train import train

TINY = [
    "backbone.channels=[8, 16]",
    "backbone.width=16",
    "training.batch=16",
    "training.warmup=4",
    "training.checks=off",
]


def tiny(iterations: int = 40, *more: str):
    return steerable.recipe("digits", budget=f"{iterations} iterations", settings=[*TINY, *more])


def finish(job):
    steps = list(train(job))
    assert steps[-1].i == steps[-1].total
    return steps
