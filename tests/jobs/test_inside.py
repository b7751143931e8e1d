"""The inside of a model against hand computations, and its losses against exact answers."""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from pathlib import Path

import pytest
import torch
from scipy import integrate, stats

import steerable
from steerable.app.cli import main
from steerable.core.denoise import Denoiser
from steerable.core.errors import UserError
from steerable.core.process import Law, Process
from steerable.core.schedule import VP, Flow
from steerable.core.target import Target
from steerable.core.types import Dataset, Spec, Splits
from steerable.jobs.attended import attended, side_of
from steerable.jobs.inside import NULL, look, schedule, similarity
from steerable.jobs.inside_page import write_inside
from steerable.jobs.levels import (
    Losses,
    level_losses,
    levels_of,
    losses_at,
    mirrored,
    optimum_at,
    summary,
)
from steerable.jobs.model import Model
from steerable.jobs.pictures import bytes_of
from steerable.jobs.prepare import prepare
from steerable.jobs.sample import moments, steered
from steerable.jobs.wish import Wish
from steerable.oracles.points import Points
from steerable.recipes.assembly import network
from steerable.recipes.part import build
from tests.jobs.tiny import TINY, finish, tiny
from tests.truth.worlds import F64, Exact, randomised

SMALL = ["data.count=120", "data.size=12", "backbone.width=16", "sampler.steps=6"]


def untrained(data, *settings, at=Path("nowhere/model.safetensors")):
    """A model with random weights, no layer of which is silent, and its data."""
    recipe = steerable.recipe(data, budget="10 iterations", settings=settings)
    splits = build("data", recipe.data)
    net = randomised(network(recipe, splits.train.spec)).eval()
    return Model(net, recipe, splits.train.spec, {"versions": {}}, at), splits


@pytest.fixture(scope="module")
def scenes():
    return untrained("scenes", *SMALL, "backbone.channels=[8, 16]", "backbone.heads=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("inside") / "run"
    finish(prepare(tiny(40), path))
    return path


def everything(progress):
    *_, last = progress
    assert last.share == 1.0
    return last.inside


# Tables


def test_similarity_is_the_cosine_by_hand(scenes):
    model, _ = scenes
    found = similarity(model.denoiser, model.spec)["prompt"]
    condition = model.denoiser.conditions["prompt"]
    rows = [*condition.table.weight.tolist(), condition.null[0].tolist()]
    assert found["names"] == [*model.spec.tokens["prompt"], NULL] and len(rows) == 9
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            want = dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
            assert abs(found["cosine"][i][j] - want) < 1e-12
    values = [found["cosine"][i][j] for i in range(8) for j in range(i + 1, 8)]
    assert [p["cosine"] for p in found["pairs"]] == sorted(values, reverse=True)[:6]
    best = found["pairs"][0]
    i, j = (found["names"].index(best[key]) for key in "ab")
    assert found["cosine"][i][j] == best["cosine"]
    null = dict(zip(found["cosine"][-1], found["names"], strict=True))
    highest = max(found["cosine"][-1][:-1])
    assert found["null_nearest"] == {"name": null[highest], "cosine": highest}


def test_twins_are_beyond_chance_and_a_zero_null_has_no_direction():
    model, _ = untrained("digits", *TINY)
    label = model.denoiser.conditions["label"]
    with torch.no_grad():
        label.null.zero_()
        label.table.weight[7] = 2 * label.table.weight[1]
    found = similarity(model.denoiser, model.spec)["label"]
    assert found["pairs"][0] == {"a": "1", "b": "7", "cosine": 1.0, "beyond_chance": True}
    assert found["cosine"][-1] == [None] * 11 and found["lengths"][-1] == 0
    assert found["null_nearest"] is None


def test_random_tables_pass_the_bound_as_often_as_it_says():
    model, _ = untrained("digits", *TINY[:1], "backbone.width=256")
    table, passed = model.denoiser.conditions["label"].table, 0
    for seed in range(200):
        table.weight.data.normal_(generator=torch.Generator().manual_seed(seed))
        pairs = similarity(model.denoiser, model.spec)["label"]["pairs"]
        passed += pairs[0]["beyond_chance"]
    assert passed <= stats.binom.ppf(0.9999, 200, 0.05)


# Attention


def test_cross_attention_is_the_softmax_of_queries_and_keys(scenes):
    """Recomputed from what the query and key layers put out; the maps sum to 1 over the words."""
    model, _ = scenes
    wish = Wish({"prompt": ("red", "circle", "blue", "square")}, 3)
    reads = model.denoiser.backbone.read_down["1"].cross_attention
    seen = {"query": [], "key": []}
    handles = [
        getattr(reads, name).register_forward_hook(lambda m, a, out, rows=rows: rows.append(out))
        for name, rows in seen.items()
    ]
    found = attended(model, model.recipe, wish)
    for handle in handles:
        handle.remove()
    assert found.words == wish.cond["prompt"] and len(found.times) == 4
    layers = {layer.name: layer for layer in found.layers}
    assert not found.left_out and layers.keys() >= {
        "backbone.read_down.1.cross_attention",
        "backbone.read_down.1.self_attention",
    }
    words = layers["backbone.read_down.1.cross_attention"].words
    assert words.shape == (4, 4, *side_of(model.spec.shape, words[0, 0].numel()))
    assert float((words.sum(1) - 1).abs().max()) < 1e-5
    assert float(words.std(1).max()) > 1e-4, "every word is heeded alike: nothing is tested"
    for i in range(4):
        query, key = (seen[name][i - 4][0].unflatten(-1, (reads.heads, -1)) for name in seen)
        score = torch.einsum("nhd,lhd->hnl", query, key) / query.shape[-1] ** 0.5
        weight = score.exp() / score.exp().sum(-1, keepdim=True)
        assert torch.allclose(words[i].flatten(1), weight.mean(0).mT, atol=1e-5)
    steps = schedule(model.denoiser.process, model.recipe)["grid"]
    assert all(min(abs(t - s) for s in steps) < 1e-9 for t in found.times)
    assert found.times[0] == steps[0] and found.times[-1] == steps[-2]
    assert not any(m.eager for n, m in model.denoiser.named_modules() if n.endswith("weighing"))


def test_the_questions_are_those_of_the_trajectory(scenes):
    """Without guidance the network's answers are the x0-hat of the steps, bit by bit."""
    model, _ = scenes
    wish, recipe = Wish({"prompt": ("green",)}, 5), steered(model.recipe, guidance=1.0)
    found = attended(model, recipe, wish)
    path = [moment for moment, _ in moments(model.denoiser, recipe, model.spec, [wish])]
    chosen = [0, 2, 3, 5]  # of six steps
    want = torch.stack([bytes_of(path[i].x0[0]) for i in chosen])
    assert int((found.estimates.int() - want.int()).abs().max()) <= 1
    assert torch.equal(found.picture, bytes_of(path[-1].x[0]))


def test_words_among_the_positions_share_the_attention_with_them():
    settings = ("backbone.kind=dit", "backbone.width=16", "backbone.depth=2", "backbone.patch=4")
    model, _ = untrained("scenes", *SMALL[:2], "sampler.steps=3", *settings)
    found = attended(model, model.recipe, Wish({"prompt": ("red", "cross")}, 0))
    assert len(found.layers) == 2 and len(found.times) == 3
    for layer in found.layers:
        assert layer.among and layer.words.shape == (3, 2, 3, 6)
        for q, (y, x) in enumerate(layer.queries):
            total = layer.words[:, :, y, x].sum(1) + layer.places[:, q].flatten(1).sum(1)
            assert float((total - 1).abs().max()) < 1e-5


def test_self_attention_alone_and_none():
    model, splits = untrained("digits", *TINY, "sampler.steps=1")
    found = attended(model, model.recipe, Wish({"label": "3"}, 0))
    assert found.words == () and len(found.times) == 1
    for layer in found.layers:
        assert layer.words is None
        assert float((layer.places.flatten(2).sum(2) - 1).abs().max()) < 1e-5
    model, splits = untrained("digits", "backbone.kind=mlp", "backbone.width=16")
    inside = everything(look(model, splits, items=4))
    assert inside.attention is None and "no layer" in inside.numbers["attention"]["left_out"]


def test_maps_of_pictures_that_are_not_square_or_even():
    assert side_of((3, 12, 24), 72) == (6, 12)
    assert side_of((1, 28, 28), 49) == (7, 7)
    assert side_of((1, 15, 9), 40) == (8, 5)
    assert side_of((1, 8, 8), 15) is None


# Schedule


def test_the_schedule_is_the_process_and_the_density_the_law():
    law = Law("logit_normal", mean=-0.5, std=1.2)
    process = Process(Flow(), Target("flow", 0.5), law)
    recipe = untrained("digits", *TINY)[0].recipe
    found = schedule(process, recipe)
    t = torch.tensor(found["t"], dtype=F64)
    alpha, sigma = process.schedule(t)
    assert found["alpha"] == alpha.tolist() and found["sigma"] == sigma.tolist()
    want = torch.log(alpha**2 / sigma**2)
    assert float((torch.tensor(found["log_snr"], dtype=F64) - want).abs().max()) < 1e-9
    times = build("grid", recipe.sampler.grid, schedule=process.schedule, steps=12)
    assert found["grid"] == times.tolist() and len(found["grid_levels"]) == 12
    edges, density = (
        torch.tensor(found["density"][key], dtype=F64) for key in ("edges", "density")
    )
    assert abs(float((density * edges.diff()).sum()) - 1) < 1e-9
    shares = torch.tensor(stats.norm.cdf(edges.numpy(), -0.5, 1.2)).diff()
    assert float((density * edges.diff() - shares).abs().max()) < 2 / 2**14 + 1e-4


# Losses


def measured(net, train, held_out, **more):
    *_, (share, found) = level_losses(net, train, held_out, **more)
    assert share == 1.0
    return found


def grey(values, labels=None):
    """Pictures of one pixel."""
    x = torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    cond = {} if labels is None else {"label": torch.tensor(labels)}
    return Dataset(Spec("grey", (1, 1, 1)), x, cond)


def oracle_net(process, data):
    points = Points(process.schedule, data.batch(torch.arange(len(data))).x)
    net = Denoiser(process, Exact(process, points), {})
    net.register_parameter("device", torch.nn.Parameter(torch.zeros(())))
    return net.eval()


def test_the_optimum_of_two_points_is_the_known_integral():
    """For x0 = -1 or 1 the error is 1 - E tanh(1 / r^2 + z / r) at r = sigma / alpha."""
    process, n = Process(VP(), Target("x0", 1.0)), 2000
    batch = grey([0, 255] * (n // 2)).batch(torch.arange(n))
    levels = levels_of(process, 9)
    z = torch.randn(n, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    points = Points(process.schedule, batch.x)
    found = torch.cat(list(optimum_at(points, process, batch, levels, z)), 1)
    for i, level in enumerate(levels.tolist()):
        r = math.exp(level)

        def moment(power, r=r):
            return integrate.quad(
                lambda u: (1 - math.tanh(1 / r**2 + u / r)) ** power * stats.norm.pdf(u), -9, 9
            )[0]

        off = abs(float(found[i].mean()) - moment(1))
        assert off < 4 * math.sqrt(moment(4) / n) + 1e-9, f"level {level:.1f}"


@pytest.mark.parametrize("target", ["flow", "noise", "edm"])
def test_a_net_that_is_the_oracle_has_the_optimal_loss(target):
    """And counts as having learned everything by heart, with nothing left to learn."""
    process = Process(Flow(), Target(target, 0.5), Law("logit_normal"))
    splits = build("data", steerable.recipe("digits", settings=TINY).data)
    train = splits.train.take(torch.arange(60))
    plain = Dataset(train.spec, train.x, {})
    held_out = Dataset(train.spec, splits.held_out.x[:60], {})
    found = measured(oracle_net(process, plain), plain, held_out, items=60, count=10)
    time = process.schedule.time_at(found.levels)
    weight = process.weight(*process.schedule(time), process.target)
    off = (found.train - found.optimum).abs().mean(1)
    # What float32 leaves of an estimate near 1, squared, and its product with the error itself.
    scale = weight * 1e-10 + 1e-5 * (weight * found.optimum.mean(1)).sqrt()
    assert bool((off <= scale + 1e-3 * found.optimum.mean(1)).all()), (off / scale).tolist()
    figures = summary(process, found)
    assert abs(figures["memorised"]["value"] - 1) < 1e-3
    assert abs(figures["underfit"]["value"]) < 1e-3


def test_four_items_are_reached_exactly_by_the_points_and_by_brute_force():
    process = Process(VP(), Target("noise", 0.7))
    data = grey([10, 90, 130, 250])
    batch = data.batch(torch.arange(4))
    levels, z = (
        levels_of(process, 7),
        torch.randn(4, 1, 1, 1, generator=torch.Generator().manual_seed(1)),
    )
    points = Points(process.schedule, batch.x)
    got = torch.stack(list(losses_at(points, process, batch, levels, z)))
    found = measured(oracle_net(process, data), data, data, items=4, count=7)
    assert found.of == 4 and torch.equal(found.levels, levels)
    for i, t in enumerate(process.schedule.time_at(levels)):
        alpha, sigma = (float(v) for v in process.schedule(t))
        for j in range(4):
            x_t = alpha * float(batch.x[j]) + sigma * float(z[j])
            square = [(x_t - alpha * float(x)) ** 2 / (2 * sigma**2) for x in batch.x]
            share = [math.exp(min(square) - s) for s in square]
            x0 = sum(w * float(x) for w, x in zip(share, batch.x, strict=True)) / sum(share)
            want = (alpha / sigma) ** 2 * (x0 - float(batch.x[j])) ** 2
            assert abs(float(got[i, j]) - want) < 1e-4 * want + 1e-6 * (alpha / sigma) ** 2


@pytest.mark.slow
def test_no_net_beats_the_optimum_on_its_training_items(run):
    """At any level, told the label or not; the differences are paired, so their error is small."""
    splits = build("data", steerable.recipe("digits", settings=TINY).data)
    few = splits.train.take(torch.arange(150))
    for net in (steerable.load(run).denoiser, untrained("digits", *TINY)[0].denoiser):
        for cond in (few.cond, {}):
            train = Dataset(few.spec, few.x, cond)
            found = measured(net, train, splits.held_out, items=150, count=8)
            above = found.train - found.optimum
            assert bool((above.mean(1) >= -4 * above.std(1) / 150**0.5).all()), above.mean(1)
            assert float(above.mean(1).max()) > 0.01
    told, untold = (
        measured(net, Dataset(few.spec, few.x, cond), splits.held_out, items=150, count=8)
        for cond in (few.cond, {})
    )
    assert float(told.optimum[-1].mean()) < float(untold.optimum[-1].mean()), "labels help"


def test_the_two_figures_read_the_losses():
    process = Process(Flow(), Target("x0", 0.5))
    levels = levels_of(process, 6)
    g = torch.Generator().manual_seed(0)
    least = torch.tensor([0, 0, 0.1, 0.9, 1, 1], dtype=F64)[:, None].expand(6, 50)
    least = least * (0.9 + 0.2 * torch.rand(50, generator=g, dtype=F64))
    alike = summary(process, Losses(levels, 1.5 * least, 1.5 * least, least, 50))
    assert abs(alike["underfit"]["value"] - 0.5) < 1e-9 and alike["memorised"]["value"] == 0
    assert alike["underfit"]["error"] < 1e-9, "the error is of the ratio, not of the items"
    # A gap where items are told apart is no under-fit.
    left = (least.mean(1, keepdim=True) < 0.5).to(F64)
    apart = summary(process, Losses(levels, least + left, least + left, least, 50))
    assert apart["underfit"]["value"] == 0 and apart["underfit"]["from"] == float(levels[3])
    half = summary(process, Losses(levels, least + 0.1, least + 0.2, least, 50))
    assert abs(half["memorised"]["value"] - 0.5) < 1e-9
    assert abs(sum(half["law"]) - 1) < 1e-12
    nothing = summary(process, Losses(levels, least, None, None, 50))
    assert nothing["optimum"] is None and "underfit" not in nothing


def test_flips_double_the_items_and_unlabelled_items_are_left_out():
    data = Dataset(Spec("two", (1, 1, 2)), torch.tensor([[[[1, 9]]]], dtype=torch.uint8), {})
    assert mirrored(data).x.flatten().tolist() == [1, 9, 9, 1]
    model, splits = untrained("digits", *TINY)
    labels = splits.train.cond["label"][:40].clone()
    labels[:25] = -1
    train = Dataset(splits.train.spec, splits.train.x[:40], {"label": labels})
    assert measured(model.denoiser, train, splits.held_out, items=8, count=3).of == 15
    with pytest.raises(UserError) as caught:
        measured(model.denoiser, train.take(torch.arange(25)), splits.held_out, count=3)
    assert caught.value.code == "E-EVAL"


# The page


@pytest.mark.slow
def test_the_page_holds_everything_itself(run, tmp_path, capsys):
    out = tmp_path / "deep" / "inside.html"
    with pytest.raises(SystemExit) as end:
        main(["look", str(run), "--label", "7", "-n", "6", "--out", str(out), "--json"])
    assert end.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["page"] == str(out) and shown["memorised"]["error"] > 0
    page = out.read_text("utf-8")
    links = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", page)
    assert links and all(link.startswith("data:image/") for link in links)
    assert not re.search(r"https?:|url\(|@import|<script|built-in method|None", page)
    for link in links:
        if "svg" in link[:20]:
            drawn = b64decode(link.partition(",")[2]).decode()
            assert not re.search(r"href=[\"'](?!#|data:)", drawn)
    numbers = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert numbers["loss"]["n"] == 6 and numbers["attention"]["cond"] == {"label": "7"}
    assert numbers["schedule"]["grid"][-1] == 0


def test_default_wishes_and_refusals(scenes, tmp_path):
    model, splits = scenes
    words = model.spec.tokens["prompt"]
    own = tuple(words[i] for i in splits.held_out.cond["prompt"][0].tolist())
    inside = everything(look(model, splits, items=4))
    assert inside.attention.wish.cond == {"prompt": own}
    away, _ = untrained("digits", *TINY, at=tmp_path / "model.safetensors")
    gone = away.recipe.model_copy(update={"data": model.recipe.data})
    for wrong in (splits, "nowhere-at-all"):
        with pytest.raises(UserError) as caught:
            everything(look(away, wrong, items=4))
        assert caught.value.code in {"E-DATA", "E-CONFIG"}
    with pytest.raises(UserError) as caught:
        everything(look(Model(away.denoiser, gone, away.spec, {}, away.path), items=4))
    assert caught.value.code == "E-DATA"
    with pytest.raises(UserError) as caught:
        next(look(away, splits, items=1))
    assert caught.value.code == "E-LIMIT"


def test_without_its_data_a_model_still_shows_the_rest(tmp_path):
    """The same model file away from its run does not say where its pictures are."""
    model, splits = untrained("digits", *TINY, at=tmp_path / "model.safetensors")
    part = model.recipe.data.model_copy(update={"kind": "images", "options": {"path": "digits"}})
    recipe = model.recipe.model_copy(update={"data": part})
    moved = Model(model.denoiser, recipe, model.spec, {}, model.path)
    inside = everything(look(moved, items=4))
    assert "does not say where" in inside.numbers["loss"]["left_out"]
    assert inside.attention.layers and "label" in inside.numbers["similarity"]
    write_inside(tmp_path / "inside.html", moved, inside)
    assert "does not say where" in (tmp_path / "inside.html").read_text("utf-8")
    few = Splits(splits.train, splits.held_out.take(torch.arange(1)))
    loss = everything(look(moved, few, items=4)).numbers["loss"]
    assert loss["held_out"] is None and loss["underfit"] and "memorised" not in loss


def test_broken_weights_are_said():
    model, splits = untrained("digits", *TINY)
    next(model.denoiser.backbone.parameters()).data.fill_(math.nan)
    with pytest.raises(UserError) as caught:
        measured(model.denoiser, splits.train, splits.held_out, items=4, count=2)
    assert caught.value.code == "E-NUM"


def test_data_with_labels_that_the_model_does_not_read_is_taken(tmp_path):
    job = prepare(tiny(4, "conditions={}", "guidance=[]"), tmp_path / "run")
    finish(job)
    numbers = everything(look(steerable.load(tmp_path / "run"), items=4)).numbers
    assert numbers["loss"]["n"] == 4 and numbers["similarity"] == {}
