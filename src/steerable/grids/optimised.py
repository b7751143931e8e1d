"""Times that were chosen for one model, by looking at its own paths."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.sample import times_of
from steerable.core.schedule import Schedule

__all__ = ["optimised"]


def optimised(
    schedule: Schedule,
    steps: int,
    *,
    tables: dict[int, list[float]] = {},  # noqa: B006  only read
) -> Tensor:
    """The noise levels that dynamic programming chose for this model, then the data, (steps+1,).

    `steerable grid RUN --steps 6,8` computes the tables and writes them into the model file.
    Source: Watson et al., arXiv 2106.03802; Chen et al., arXiv 2405.11326.

    Args:
        schedule: The process to sample.
        steps: Number of steps, one for which there is a table.
        tables: Levels log(sigma / alpha) from noise to data, by number of steps.

    Raises:
        UserError: E-CONFIG when there is no table for so many steps, or one that cannot be used.
    """
    known = {int(count): levels for count, levels in tables.items()}  # JSON knows text keys only
    if steps not in known:
        takes = f"{', '.join(map(str, sorted(known)))} steps" if known else "another grid"
        do = f"steerable grid RUN --steps {steps}"
        got = f"no table for {steps} steps"
        raise UserError("E-CONFIG", where="grid 'optimised'", got=got, takes=takes, do=do)
    times = times_of(schedule, torch.tensor(known[steps], dtype=torch.float64))
    if len(times) != steps + 1 or not all(s < t for t, s in pairwise(times.tolist())):
        got = f"a table for {steps} steps of {len(times) - 1} levels"
        takes = f"{steps} falling levels that the schedule reaches"
        do = f"steerable grid RUN --steps {steps}"
        raise UserError("E-CONFIG", where="grid 'optimised'", got=got, takes=takes, do=do)
    return times
