"""Nine ways to look good without being it, each of which must be flagged; a good model is not.

Real pictures that nobody trained on stand for the good model. Everything goes through the stages
and verdicts of an evaluation; only the samples are not a model's own.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import steerable
from steerable.core.types import Splits
from steerable.datasets.fashion import fashion
from steerable.jobs.eyes import eyes_for
from steerable.jobs.judged import reference
from steerable.jobs.measures import between
from steerable.jobs.prepare import prepare
from steerable.jobs.sample import Sample
from steerable.jobs.stages import Seen, colour, copies, like_real, obedience, variety
from steerable.jobs.verdicts import verdicts
from steerable.jobs.wish import Wish

from .tiny import TINY, finish

N = 500
GOOD = {"does it copy?": "no"}  # of all others it is yes


class World:
    """3,000 training pictures, 3,000 others that a good generator draws from, 1,000 held out."""

    def __init__(self, root):
        data = fashion(source="embedded")
        order = torch.randperm(6000, generator=torch.Generator().manual_seed(3))
        self.train, self.fresh = data.train.take(order[:3000]), data.train.take(order[3000:])
        self.own = Splits(self.train, data.held_out)
        self.eyes = eyes_for(self.own, None)
        self.real, _ = reference(Splits(self.train.take(order[:30] % 3000), data.held_out), N, 0)
        self.reals = self.eyes.extractor.features(self.real.x)
        self.floors = between(self.reals, N, self.real.cond["label"])
        recipe = steerable.recipe(
            "fashion",
            budget="1 iterations",
            settings=[*TINY, "data.source=embedded"],
        )
        finish(prepare(recipe, root / "run"))
        self.model = steerable.load(root / "run")
        self.names = self.model.labels

    def good(self, seed, n=N):
        """(pictures, classes in turn) of fresh real pictures."""
        generator = torch.Generator().manual_seed(seed)
        wanted, label = torch.arange(n) % 10, self.fresh.cond["label"]
        pools = [torch.nonzero(label == c)[:, 0] for c in range(10)]
        pools = [pool[torch.randperm(len(pool), generator=generator)] for pool in pools]
        index = torch.tensor([int(pools[c][i // 10]) for i, c in enumerate(wanted.tolist())])
        return self.fresh.x[index], wanted

    def report(self, x, wanted, own=None):
        wishes = tuple(Wish({"label": self.names[c]}, i) for i, c in enumerate(wanted.tolist()))
        made = Sample(x, wishes, self.model.recipe, 1)
        fakes = self.eyes.extractor.features(x)
        own = own or self.own
        where = torch.arange(len(x)) % len(self.real)
        seen = Seen(
            self.model, self.model.recipe, own, own, self.eyes, made, self.real, fakes,
            self.reals, self.floors, where,
        )  # fmt: skip
        measures = {}
        for stage in (like_real, variety, obedience, copies, colour):
            measures |= stage(seen)["measures"]
        return {"measures": measures}

    def flags(self, x, wanted, own=None):
        """The questions with a bad answer."""
        return {
            v["question"]: v["sentence"]
            for v in verdicts(self.report(x, wanted, own))
            if v["question"] != "where is it weak?"
            and v["answer"] != GOOD.get(v["question"], "yes")
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("cheats"))


def identical(world):
    """The reference itself."""
    index = torch.arange(N) % 10 * (len(world.real) // 10) + torch.arange(N) // 10
    return world.real.x[index], torch.arange(N) % 10


def disjoint(world):
    """Negatives of real pictures."""
    x, wanted = world.good(1)
    return 255 - x, wanted


def gaussians(world):
    """Pixels drawn from a Gaussian of the right mean and covariance: right moments, no pictures."""
    flat = world.fresh.x.flatten(1).double()
    mean, centred = flat.mean(0), flat - flat.mean(0)
    z = torch.randn(N, len(flat), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = mean + z @ centred / len(flat) ** 0.5
    return x.round().clamp(0, 255).to(torch.uint8).view(N, 1, 28, 28), torch.arange(N) % 10


def duplicated(world):
    """Fifty good pictures, ten times each."""
    x, _ = world.good(3, 50)
    return x.repeat(N // 50, 1, 1, 1), torch.arange(N) % 10


def dropped(world):
    """The darker half of every class only."""
    x, wanted = world.good(4, 2 * N)
    light = x.double().mean((1, 2, 3))
    keep = []
    for c in range(10):
        mine = torch.nonzero(wanted == c)[:, 0]
        keep.append(mine[light[mine].argsort()[: len(mine) // 2]])
    index = torch.stack(keep, 1).flatten()
    return x[index], torch.arange(N) % 10


def shuffled(world):
    """Good pictures of other classes than were asked for."""
    x, wanted = world.good(5)
    return x, wanted[torch.randperm(N, generator=torch.Generator().manual_seed(6))]


def copied(world):
    """Training pictures."""
    label = world.train.cond["label"]
    pools = [torch.nonzero(label == c)[:, 0] for c in range(10)]
    index = torch.tensor([int(pools[i % 10][i // 10]) for i in range(N)])
    return world.train.x[index], torch.arange(N) % 10


def blurred(world):
    """Good pictures out of focus."""
    x, wanted = world.good(7)
    soft = F.avg_pool2d(x.double(), 5, stride=1, padding=2, count_include_pad=False)
    return soft.round().to(torch.uint8), wanted


def mean(world):
    """The mean picture of the class."""
    label = world.train.cond["label"]
    each = [world.train.x[label == c].double().mean(0).round().to(torch.uint8) for c in range(10)]
    return torch.stack(each).repeat(N // 10, 1, 1, 1), torch.arange(N) % 10


CHEATS = {
    identical: "does it copy?",
    disjoint: "does it look real?",
    gaussians: "does it look real?",
    duplicated: "is it diverse?",
    dropped: "is it diverse?",
    shuffled: "does it obey?",
    copied: "does it copy?",
    blurred: "does it look real?",
    mean: "is it diverse?",
}


@pytest.mark.slow
@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_every_cheat_is_flagged(world, cheat):
    assert CHEATS[cheat] in world.flags(*cheat(world))


@pytest.mark.slow
def test_a_good_model_is_hardly_ever_flagged(world):
    """At most once in 20 draws of real pictures that nobody trained on."""
    flags = [world.flags(*world.good(200 + seed)) for seed in range(20)]
    assert sum(bool(found) for found in flags) <= 1, flags
