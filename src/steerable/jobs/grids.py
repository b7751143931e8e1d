"""Time grids fitted to one model: dynamic programming over its own paths, then a local search.

Reference paths on a fine grid tell what every coarse step would cost: the step i -> j of first
order is a line, so all costs follow from the answers at the nodes, without a further call. The
cheapest way through n nodes is found exactly. With the sampler that will be used the nodes are
then moved one at a time, as long as the end of the same paths comes nearer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.sample import Moment, Sampler, level_range, times_of, trajectory
from steerable.core.schedule import Schedule
from steerable.core.types import Ask, spread
from steerable.recipes.part import Part, build

__all__ = [
    "Fresh",
    "Paths",
    "Tables",
    "costs",
    "levels_of",
    "moments",
    "optimised_tables",
    "paths",
    "refined",
    "shortest",
]

NODES = 64  # of the fine grid
PATHS = 64  # reference trajectories
SEED = 3_000_000  # of their noise
MOVES = (-4, -2, -1, 1, 2, 4)  # of a node in the local search
SWEEPS = 3  # most rounds over the nodes

Tables = dict[int, list[float]]
Fresh = Callable[[], Ask]  # a denoiser for one trajectory, as some remember their last answer


@dataclass(frozen=True)
class Paths:
    """Reference trajectories of B items over M nodes and then to the data, in y = x_t / alpha.

    Attributes:
        levels: log(sigma / alpha) of the nodes, falling, (M,) float64.
        y: Items at the nodes, (M,B,*S).
        x0: Estimates at the nodes, (M,B,*S).
        end: Where the paths end, (B,*S).
        start: x_t at the first node, (B,*S).
    """

    levels: Tensor
    y: Tensor
    x0: Tensor
    end: Tensor
    start: Tensor


def levels_of(schedule: Schedule, nodes: int = NODES) -> Tensor:
    """Equal steps in log(sigma / alpha) over the range of the grid `log_snr`, (nodes,)."""
    high, low = level_range(schedule, 160.0, 0.004)
    return high + torch.linspace(0.0, 1.0, nodes, dtype=torch.float64) * (low - high)


def moments(
    ask: Ask, x: Tensor, schedule: Schedule, sampler: Sampler, times: Tensor
) -> list[Moment]:
    """Every moment of a trajectory from x (B,*S), without a graph."""
    noise = Noise(SEED + torch.arange(len(x)))
    with torch.inference_mode():
        walked = trajectory(ask, x, schedule=schedule, sampler=sampler, times=times, noise=noise)
        return list(walked)


def paths(ask: Ask, x: Tensor, *, schedule: Schedule, levels: Tensor) -> Paths:
    """Heun's method from x (B,*S) at levels[0] over every node to the data."""
    times = times_of(schedule, levels)
    walked = moments(ask, x, schedule, build("sampler", Part(kind="heun")), times)
    at = torch.stack([x, *(m.x for m in walked[:-1])])
    y = at / spread(schedule(times[:-1])[0], at)
    return Paths(levels, y, torch.stack([m.x0 for m in walked]), walked[-1].x, x)


def costs(reference: Paths) -> tuple[Tensor, Tensor]:
    """What a step i -> j costs, (M,M), infinite unless i < j, and the last step from i, (M,).

    The cost of i -> j is |y_i + (r_j - r_i) z_i - y_j|, the mean distance over the paths between
    one step of first order from the reference at i and the reference at j; that of the last step
    is |x0-hat_i - end|. Distances are in units of the data: measured on mixtures, this is better
    than to weigh them with how far an error would shrink on Gaussian data, and better than the
    mean square. Source: Chen et al., arXiv 2405.11326.
    """
    many, ratio = len(reference.levels), reference.levels.exp()
    y, x0 = (v.flatten(2).to(torch.float64) for v in (reference.y, reference.x0))
    cost = torch.full((many, many), torch.inf, dtype=torch.float64)
    for i in range(many - 1):
        rise = (ratio[i + 1 :] / ratio[i] - 1.0).reshape(-1, 1, 1)
        off = y[i] + rise * (y[i] - x0[i]) - y[i + 1 :]  # r_i z_i = y_i - x0_i
        cost[i, i + 1 :] = off.norm(dim=-1).mean(-1)
    end = reference.end.flatten(1).to(torch.float64)
    return cost, (x0 - end).norm(dim=-1).mean(-1)


def shortest(cost: Tensor, end: Tensor, steps: int) -> list[int]:
    """The nodes 0 = i_1 < ... < i_steps with the least sum of step costs, exactly; O(steps M^2).

    Args:
        cost: Of a step i -> j, (M,M), infinite unless i < j.
        end: Of the last step from i to the data, (M,).
        steps: Number of steps, the last one included, from 1 to M.

    Raises:
        UserError: E-LIMIT for more steps than nodes.
    """
    if not 1 <= steps <= len(end):
        raise UserError("E-LIMIT", where="steps", got=str(steps), takes=f"1 to {len(end)}")
    best = torch.full_like(end, torch.inf)
    best[0] = 0.0
    back = []
    for _ in range(steps - 1):
        best, before = (best[:, None] + cost).min(0)
        back.append(before)
    nodes = [int((best + end).argmin())]
    for before in reversed(back):
        nodes.append(int(before[nodes[-1]]))
    return nodes[::-1]


def _snapped(levels: Tensor, wanted: Tensor) -> list[int]:
    """The nodes nearest to some falling levels, all different, the first node first."""
    nodes = [int((levels - level).abs().argmin()) for level in wanted]
    nodes[0] = 0
    for k in range(1, len(nodes)):
        nodes[k] = max(nodes[k], nodes[k - 1] + 1)
    for k in range(len(nodes)):  # the room that later nodes need
        nodes[k] = min(nodes[k], len(levels) - len(nodes) + k)
    return nodes


def refined(
    fresh: Fresh,
    reference: Paths,
    starts: Sequence[list[int]],
    *,
    schedule: Schedule,
    sampler: Sampler,
) -> list[int]:
    """The best of some choices of nodes, and better neighbours of it, under the sampler itself.

    The measure is the root mean square distance between where the sampler and where the
    reference paths end, so the result is no worse there than any of the starts.

    Args:
        fresh: Makes the denoiser for one trajectory.
        reference: The paths.
        starts: Choices of nodes, each beginning with node 0.
        schedule: The process.
        sampler: The sampler that will be used.
    """

    def off(nodes: list[int]) -> float:
        times = times_of(schedule, reference.levels[nodes])
        last = moments(fresh(), reference.start, schedule, sampler, times)[-1].x
        return float((last - reference.end).square().mean())

    best, nodes = min((off(start), start) for start in starts)
    for _ in range(SWEEPS):
        before = best
        for k in range(1, len(nodes)):
            ends = nodes[k - 1], nodes[k + 1] if k + 1 < len(nodes) else len(reference.levels)
            for place in [nodes[k] + move for move in MOVES]:
                moved = [*nodes[:k], place, *nodes[k + 1 :]]
                if ends[0] < place < ends[1] and (value := off(moved)) < best:
                    best, nodes = value, moved
        if best == before:
            break
    return nodes


def optimised_tables(
    fresh: Fresh,
    schedule: Schedule,
    steps: Sequence[int],
    *,
    start: Tensor,
    levels: Tensor | None = None,
    sampler: Sampler | None = None,
    grids: Sequence[Callable[[int], Tensor]] = (),
) -> Tables:
    """Levels log(sigma / alpha) for each number of steps: the tables of the grid `optimised`.

    Args:
        fresh: Makes the denoiser for one trajectory.
        schedule: The process.
        steps: Numbers of steps.
        start: Noise x_t (B,*S) at the first node.
        levels: The nodes, `levels_of` by default.
        sampler: The sampler that will be used, for the local search. Without one, and for one of
            first order, the exact optimum of the costs is taken: measured on mixtures, `ddim` gains
            nothing by the search.
        grids: Other grids, as functions of the number of steps, to begin the search from as well.

    Raises:
        UserError: E-LIMIT for a number of steps that is not 1 to the number of nodes.
    """
    levels = levels_of(schedule) if levels is None else levels
    reference = paths(fresh(), start, schedule=schedule, levels=levels)
    cost, end = costs(reference)
    tables: Tables = {}
    for count in sorted(set(steps)):
        nodes = shortest(cost, end, count)
        if sampler is not None and sampler.order != 1:
            others = [_snapped(levels, schedule.level(grid(count)[:-1])) for grid in grids]
            nodes = refined(fresh, reference, [nodes, *others], schedule=schedule, sampler=sampler)
        tables[count] = levels[nodes].tolist()
    return tables
