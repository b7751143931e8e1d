"""The page of the tour: the numbers behind its plots, and that it needs nothing but itself."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from steerable.core.schedule import Flow
from steerable.jobs import tour_fault, tour_line, tour_plane, tour_plots
from steerable.jobs.tour import tour
from steerable.recipes.part import kinds

F64 = torch.float64


pytestmark = pytest.mark.slow  # the page is made once, which takes half a minute


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tour(tmp_path_factory.mktemp("tour") / "new" / "tour.html", seed=3)


@pytest.fixture(scope="module")
def text(made):
    return made.page.read_text(encoding="utf-8")


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_samples_are_as_near_to_the_law_as_exact_draws(made):
    for kind, row in made.figures["reverse"].items():
        assert 0 < row["w2"] <= 3 * row["floor"], kind


def test_the_distance_sees_a_wrong_law():
    """The floor is small enough to tell equal weights from the true ones, and a shifted mode."""
    world = tour_line.line_world(3, Flow())
    found = tour_line.reverse(world, "heun", 40, seed=3)
    g = torch.Generator().manual_seed(5)
    even = replace(world, weights=torch.full_like(world.weights, 1 / len(world.weights)))
    real = world.draw(4000, g)
    assert tour_line.sliced_w2(even.draw(4000, g), real) > 3 * found.floor
    assert tour_line.sliced_w2(real + 0.2, real) == pytest.approx(0.2, abs=1e-9)


def test_densities_are_densities():
    shown = tour_line.forward(3)
    assert len(shown.world.weights) >= 5 and float(shown.world.weights.std()) > 0.02
    totals = torch.trapezoid(shown.density, shown.x, dim=1)
    assert float((totals - 1).abs().max()) < 0.005
    x = shown.x
    mean = torch.trapezoid(shown.density * x, x, dim=1)
    variance = torch.trapezoid(shown.density * x**2, x, dim=1) - mean**2
    alpha, sigma = shown.world.schedule(shown.times)
    assert float((variance - (alpha**2 + sigma**2)).abs().max()) < 0.03  # data of unit variance


def test_measured_orders_are_the_declared_ones(made):
    found = made.figures["orders"]
    assert {"euler", "heun"} <= set(found)
    for kind, row in found.items():
        assert abs(row["measured"] - row["declared"]) < 0.3, (kind, row)


def test_the_slope_is_a_slope():
    """Errors that fall as steps^-k have order k, whatever the coarsest grid does."""
    for k in (1, 2, 3.5):
        errors = [1.0, *(5.0 * n**-k for n in (20, 40, 80))]
        assert tour_plane.Order("made up", 1, (10, 20, 40, 80), errors).measured == pytest.approx(k)


def test_the_learned_score_is_near_and_an_untrained_one_is_not(made):
    errors = made.figures["score_error"]
    assert len(errors) == 3 and made.figures["score_error_pooled"] < 0.1
    assert max(errors.values()) < 0.2 and errors["1.8"] < errors["0.3"]
    _, untrained = next(tour_plane.training(3))
    assert tour_plane.field(untrained, 0.3, seed=3).error > 0.3


def test_guidance_samples_the_tilted_law_at_weights_zero_and_one_only(made):
    off = made.figures["guidance"]
    assert off["0"]["ode"] < 0.02 and off["1"]["ode"] < 0.02
    for weight in ("0", "1"):
        assert off[weight]["ancestral"] < 3 * off[weight]["floor"]
    assert off["4"]["ode"] > 0.1 and off["4"]["ancestral"] > 0.1 > 2 * off["4"]["floor"]
    assert off["1"]["ode"] < off["2"]["ode"] < off["4"]["ode"]


def test_the_tilted_law_is_the_product_of_its_factors():
    """p(x) p(y|x)^w by Bayes, computed bin by bin from samples of p(x): importance weights."""
    world = tour_line.class_world(Flow())
    x = world.draw(200_000, torch.Generator().manual_seed(0))
    t = torch.zeros((), dtype=F64)
    share = torch.softmax(world.log_joint(x, t, {}), 1)[:, world.labels == 0].sum(1)
    bins = ((x[:, 0] + tour_line.REACH) / (2 * tour_line.REACH) * tour_line.BINS).long()
    bins = bins.clamp(0, tour_line.BINS - 1)
    for weight in (0.0, 1.0, 4.0):
        law = torch.zeros(tour_line.BINS, dtype=F64).index_add_(0, bins, share**weight)
        assert tour_line.variation(law / law.sum(), tour_line.tilted_law(world, weight)) < 0.02


def test_the_fault_keeps_the_class_and_loses_the_modes(made):
    rows = made.figures["faults"]
    world, _ = tour_fault.broken(3, n=20, levels=4)
    for name, row in rows.items():
        assert row["accuracy"] > 0.99, name
        off = (torch.tensor(row["shares"]) - world.weights).abs()
        allowed = 4 * (world.weights * (1 - world.weights) / 1200).sqrt()
        assert bool((off < allowed).all()) == (name != "wrong level"), (name, row)
    assert abs(rows["ancestral"]["spread"] - 1) < 0.05 < abs(rows["wrong level"]["spread"] - 1)


def test_every_sampler_and_grid_of_the_room_is_there(made, text):
    figures = made.figures
    assert sorted([*figures["samplers"], *figures["left_out"]]) == kinds("sampler")
    assert sorted(figures["grids"]) == kinds("grid")
    titles = set(re.findall(r"<!-- (\w+) -->", text))  # what matplotlib notes beside its outlines
    for kind in figures["samplers"]:
        assert kind in titles, kind
    for kind in figures["grids"]:
        assert f">{kind}</th>" in text


def test_a_sampler_without_its_library_is_left_out_with_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    found, missing = tour_plane.walks(0, n=2)
    assert "ode" not in [way.kind for way in found] and list(missing) == ["ode"]
    assert "pip install" in missing["ode"]


def test_paths_of_deterministic_samplers_end_where_the_ode_does():
    found, _ = tour_plane.walks(1)
    ends = {way.kind: way.x[-1] for way in found}
    for way in found:
        assert torch.equal(way.x[0], found[0].x[0]), "not the same starts"
        if not way.stochastic and way.order != 1:
            off = float((ends[way.kind] - ends["ode"]).square().mean().sqrt())
            assert off < 0.25, f"{way.kind} ends {off:.2f} from the solution"


def test_the_page_needs_nothing_but_itself(text):
    page = _Page(text)
    ids = [a["id"] for _, a in page.found if "id" in a]
    assert len(ids) == len(set(ids)), "an id twice"
    for tag, attributes in page.found:
        for key in ("src", "href", "xlink:href", "action", "data", "poster"):
            target = attributes.get(key, "data:")
            assert target.startswith(("data:", "#")), f"{tag} {key}={target[:60]}"
            assert not target.startswith("#") or target[1:] in ids, target
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert not re.findall(r"url\((?!#)", text)


def test_a_plot_is_the_same_twice():
    found = [tour_plane.Order("made up", 1, (10, 20), [0.2, 0.1])]
    assert tour_plots.order_lines(found) == tour_plots.order_lines(found)


def test_the_page_can_be_read_aloud(text):
    found = _Page(text).found
    pictures = [a for tag, a in found if tag == "svg"]
    assert len(pictures) >= 9
    assert all(a.get("role") == "img" and len(a["aria-label"]) > 30 for a in pictures)
    assert text.count("<table>") == text.count("<caption>") >= 6
    assert '<html lang="en">' in text and "prefers-color-scheme: dark" in text


def test_the_slider_has_the_frames_of_p_t(text):
    data = json.loads(re.search(r'id="frames">(.*?)</script>', text).group(1))
    width = data["x"][1] - data["x"][0]
    assert len(data["frames"]) >= 20
    assert data["frames"][0]["t"] == 0 and data["frames"][-1]["t"] == 1
    for frame in data["frames"]:
        assert len(frame["p"]) == len(data["x"])
        assert math.isclose(sum(frame["p"]) * width, 1.0, abs_tol=0.02)
