"""Readers against pictures whose attributes and captions are known, and scores known by hand."""

from dataclasses import replace

import pytest
import torch

from steerable.core.errors import UserError
from steerable.core.types import Dataset, Spec
from steerable.jobs import reader as module
from steerable.jobs.reader import Reader, adherence_tokens, adherence_vector, train_reader
from steerable.nn.classifier import Classifier

from ..mutants import altered

WORDS = ("dark", "bright", "never", "flat", "steep")


def lit(n, seed):
    """Pictures 1 x 4 x 4 whose halves have two brightnesses, told in units far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.rand(n, 2, generator=generator)
    noise = torch.randint(0, 20, (n, 1, 4, 4), generator=generator)
    x = (20 + 200 * levels).repeat_interleave(2, 1)[:, None, None, :].expand(-1, 1, 4, -1) + noise
    told = torch.tensor([1000.0, -3.0]) + torch.tensor([50.0, 0.02]) * levels
    told = torch.cat([told, torch.full((n, 1), 7.5)], 1)
    told[::9] = torch.nan
    prompt = torch.stack([(levels[:, 0] > 0.5).long(), 3 + (levels[:, 1] > 0.5).long()], 1)
    prompt = torch.cat([prompt, torch.full((n, 1), -1)], 1)
    prompt[::9] = -1
    spec = Spec(
        "lit",
        (1, 4, 4),
        vectors={"attributes": ("left", "right", "none")},
        tokens={"prompt": WORDS},
        flip=True,  # wrongly: these conditions name a side
    )
    return Dataset(spec, x.to(torch.uint8), {"attributes": told, "prompt": prompt})


@pytest.fixture(scope="module")
def vector():
    return train_reader(lit(36, 0), lit(90, 1), "attributes", seconds=600)


@pytest.fixture(scope="module")
def tokens():
    return train_reader(lit(36, 0), lit(90, 1), "prompt", seconds=600)


def test_attributes_are_read_in_their_own_units(vector):
    held_out = lit(90, 1)
    assert vector.n == 80 and vector.accuracy > 0.9 and 0 < vector.accuracy_error < 0.05
    read, told = vector.attributes(held_out.x), held_out.cond["attributes"]
    gap = (read - told)[:, :2].abs().nanmean(0)
    assert gap[0] < 5 and gap[1] < 0.002  # a tenth of the range
    found = adherence_vector(vector, held_out.x, told)
    assert found["r2"] == pytest.approx(vector.accuracy) and found["per_attribute"][2] is None
    mirrored = adherence_vector(vector, held_out.x.flip(3), told)
    assert mirrored["r2"] < 0
    assert adherence_vector(vector, held_out.x.roll(1, 0), told)["r2"] < 0


def test_captions_are_found_among_others(tokens):
    held_out = lit(90, 1)
    told = held_out.cond["prompt"]
    assert tokens.n == 80 and tokens.accuracy > 0.8 and 0 <= tokens.accuracy_error < 0.05
    found = adherence_tokens(tokens, held_out.x, told, seed=0)
    assert (found["candidates"], found["chance"], found["n"]) == (4, 0.25, 80)
    assert found["retrieval"] == tokens.accuracy
    few = adherence_tokens(tokens, held_out.x, told, candidates=2, seed=0)
    assert few["candidates"] == 2 and few["retrieval"] >= found["retrieval"]
    assert few == adherence_tokens(tokens, held_out.x, told, candidates=2, seed=0)
    opposite = torch.where(told >= 3, 7 - told, torch.where(told >= 0, 1 - told, told))
    assert adherence_tokens(tokens, held_out.x, opposite, seed=0)["retrieval"] < 0.1


def known_reader(room, logits, zero):
    """A reader of two places and three words that sees nothing and says these logits (2,3)."""
    net = Classifier(1, 6)
    with torch.no_grad():
        net.out.weight.zero_()
        net.out.bias.copy_(logits.flatten())
    return room.Reader(
        net, "prompt", ("a", "b", "c"), 2, (1, 4, 4), zero, torch.ones(1), 0.0, 0.0, 1, ""
    )


def check_scores(room):
    """The sum over the words of log p(word | picture) - log p(word), by hand."""
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.25, 0.25], [0.4, 0.4, 0.2]], dtype=torch.float64)
    reader = known_reader(room, p.log() + 3, q.log())
    captions = torch.tensor([[0, -1], [1, 2], [2, 0], [-1, -1], [0, 2]])
    x = torch.zeros(300, 1, 4, 4, dtype=torch.uint8)
    found = reader.fit(x, captions.expand(300, -1, -1))
    expected = torch.tensor([1.0, 1.2 * 4, 0.8 * 0.25, 1.0, 4.0], dtype=torch.float64).log()
    torch.testing.assert_close(found, expected.expand(300, -1), rtol=0, atol=1e-6)
    blind = known_reader(room, q.log(), q.log().float().double())
    told = captions[torch.arange(300) % 3]
    value = room.adherence_tokens(blind, x, told, seed=0)
    assert value["candidates"] == 3 and 0 <= value["retrieval"] <= 1


WRONG = {
    "frequent words win": (" - self.zero\n            words", "\n            words"),
    "padding counts": ("torch.where(part >= 0, found, 0.0)", "found"),
    "places exchanged": ("part.clamp(min=0).transpose(1, 2)", "part.clamp(min=0).flip(2).mT"),
    "not a probability": (".log_softmax(2)", ""),
}


def test_scores_are_known():
    check_scores(module)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_scores_are_noticed(name):
    with pytest.raises(AssertionError):
        check_scores(altered("jobs.reader", *WRONG[name]))


def check_candidates(room):
    """Different captions, the right one first, all of the others as often as each other."""
    which = torch.arange(1200) % 6
    chosen = room._candidates(which, 6, 4, 0)
    assert torch.equal(chosen[:, 0], which)
    assert bool((chosen.sort(1).values.diff(dim=1) > 0).all())
    others = torch.bincount(chosen[which == 2][:, 1:].flatten(), minlength=6)
    # 200 draws of 3 among 5: 120 of each, with a deviation of 7.
    assert others[2] == 0 and bool((others[[0, 1, 3, 4, 5]] - 120).abs().max() < 35)
    assert not torch.equal(chosen, room._candidates(which, 6, 4, 1))


def test_candidates():
    check_candidates(module)


@pytest.mark.parametrize("edit", [("own[:, None], 2.0", "own[:, None], -1.0"), ("2.0)", "0.5)")])
def test_wrong_candidates_are_noticed(edit):
    with pytest.raises(AssertionError):
        check_candidates(altered("jobs.reader", *edit))


def test_readers_that_see_mirrored_pictures_cannot_tell_the_sides():
    room = altered(
        "jobs.reader", "        return x\n", "        return moved(x, noise, flip=True)\n"
    )
    flipped = room.train_reader(lit(36, 0), lit(90, 1), "attributes", seconds=600)
    assert flipped.accuracy < 0.7  # E (a | a and b in any order) has R^2 = 0.5


def test_a_reader_depends_on_its_seed_alone():
    made = [
        train_reader(lit(40, 0), lit(90, 1), "prompt", seconds=1e-9, seed=seed)  # one step
        for seed in (1, 1, 2)
    ]
    assert made[0].sha256 == made[1].sha256 != made[2].sha256
    assert made[0].accuracy == made[1].accuracy
    assert not any(p.requires_grad for p in made[0].net.parameters())
    features, out = made[0].look(lit(5, 3).x)
    assert features.shape == (5, 128) and out.shape == (5, 15) and not made[0].net.training


def test_what_a_reader_refuses(vector, tokens):
    data = lit(90, 1)
    nothing = replace(data, cond={"prompt": torch.full((90, 3), -1)})
    same = replace(data, cond={"prompt": torch.zeros(90, 3, dtype=torch.int64)})
    for train, held_out, name, seconds, code in (
        (data, data, "label", 1.0, "E-DATA"),
        (nothing, data, "prompt", 1.0, "E-DATA"),
        (data, nothing, "attributes", 1.0, "E-DATA"),
        (data, data, "prompt", 0.0, "E-LIMIT"),
        (data, same, "prompt", 1e-9, "E-EVAL"),
        (data, data.take(torch.arange(1, 9)), "attributes", 1e-9, "E-EVAL"),
    ):
        with pytest.raises(UserError) as caught:
            train_reader(train, held_out, name, seconds=seconds)
        assert caught.value.code == code
    told, prompt = data.cond["attributes"], data.cond["prompt"]
    for call in (
        lambda: adherence_vector(vector, data.x, told[:, :2]),
        lambda: adherence_vector(tokens, data.x, told),
        lambda: adherence_vector(vector, data.x[..., :3], told),
        lambda: adherence_tokens(tokens, data.x, prompt[:, :2], seed=0),
        lambda: adherence_tokens(vector, data.x, prompt, seed=0),
        lambda: tokens.look(data.x.float()),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert caught.value.code == "E-SHAPE"
    with pytest.raises(UserError) as caught:
        adherence_tokens(tokens, data.x, prompt, candidates=1, seed=0)
    assert caught.value.code == "E-LIMIT" and isinstance(tokens, Reader)
