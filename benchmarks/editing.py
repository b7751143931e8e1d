"""How well are pictures edited? Holes are filled and classes exchanged on held-out pictures.

    python benchmarks/editing.py RUN [RUN ...] [-n 300] [--out FOLDER]

For each run one JSON object is printed and sheets of pictures are written. A fill is measured by
its known pixels (equal or not), its seam (squared difference across the border of the hole, over
that of the whole pictures; 1 is natural), whether a judge that saw neither still names the class,
and the distance of the judge's features to those of the whole pictures (without labels, that of
their spectra and colours, as in `proofs.py`), each beside the mean picture, the training picture
that is nearest where known, and Telea's method (with OpenCV, which is optional: pip install
opencv-python-headless). A translation is measured by the judge's verdict and by the correlation of
the pixels before and after, beside that of unrelated pictures.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

import numpy as np
import torch
from proofs import frechet, textures

import steerable
from steerable.core.errors import UserError
from steerable.jobs.data import known_to, splits_for
from steerable.jobs.edit import METHODS, Edit, edit, planned
from steerable.jobs.judged import judge_for
from steerable.jobs.pictures import labelled_grid, png
from steerable.metrics.frechet import floor

PAIRS = (("sneaker", "ankle boot"), ("shirt", "dress"))
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def holes(height, width):
    """Masks (1,H,W), 1 where hidden, by name."""
    found = {name: torch.zeros(1, height, width) for name in ("right half", "lower half", "box")}
    found["right half"][:, :, width // 2 :] = 1
    found["lower half"][:, height // 2 :] = 1
    found["box"][:, height // 4 : -(height // 4), width // 4 : -(width // 4)] = 1
    return found


def done(model, wanted, **settings):
    """Results (n,C,H,W) uint8 and the calls of the network for each."""
    *_, last = edit(model, planned(model, wanted, **settings), wanted)
    return last.edited.x, last.edited.sample.calls


def steps_across(x, hole):
    """Mean squared difference of neighbours of which one is hidden, in grey levels squared."""
    x, inside = x.double(), hole.bool()
    total, count = 0.0, 0
    for dim in (-1, -2):
        squares = x.diff(dim=dim).square().mean((0, 1))[inside.diff(dim=dim)[0]]
        total, count = total + float(squares.sum()), count + squares.numel()
    return total / count


def nearest(x, train, hole):
    """Pictures whose hidden part is taken from the training picture nearest where it is known."""
    known = (hole == 0).expand_as(x[:1])[0]
    rows, pool = (v[:, known].double() for v in (x, train))
    found = torch.cat([torch.cdist(part, pool).argmin(1) for part in rows.split(256)])
    return torch.where(hole > 0, train[found], x)


def telea(x, hole, cv2):
    """OpenCV's fast marching."""
    mask = (hole[0] > 0).to(torch.uint8).numpy()
    made = []
    for picture in x:
        plain = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        filled = cv2.inpaint(plain if len(picture) == 3 else plain[..., 0], mask, 3, 0 | 1)
        made.append(torch.from_numpy(filled.reshape(plain.shape)).permute(2, 0, 1))
    return torch.where(hole > 0, torch.stack(made), x)


def opencv():
    """The module, or None where it is not installed."""
    try:
        return importlib.import_module("cv2")
    except ModuleNotFoundError:
        return None


def measured(fill, x, hole, labels, judge):
    """Everything about one way to fill pictures x (n,C,H,W)."""
    off = ((fill.double() - x.double()) / 127.5).square().mean((0, 1))[hole[0] > 0]
    found = {
        "known_equal": bool(torch.equal(fill[:, :, hole[0] == 0], x[:, :, hole[0] == 0])),
        "seam_ratio": steps_across(fill, hole) / steps_across(x, hole),
        "hidden_rmse": float(off.mean().sqrt()),
    }
    if judge is not None:
        features, predicted = judge.look(fill)
        whole, before = judge.look(x)
        found["accuracy"] = float((predicted == labels).double().mean())
        found["same_verdict"] = float((predicted == before).double().mean())
        found["frechet"] = frechet(features, whole)
    else:
        found |= textures(fill, x)
    return found


def inpainting(model, x, labels, train, judge, options):
    """Every hole by every method, and by what needs no model."""
    found, sheet, cv2 = {}, {}, opencv()
    names = model.labels
    every = holes(*model.spec.shape[1:])
    for name, hole in ((name, every[name]) for name in options.holes):
        mean = train.double().mean(0, keepdim=True).round().to(torch.uint8)
        ways = {
            "mean picture": torch.where(hole > 0, mean, x),
            "nearest training picture": nearest(x, train, hole),
        }
        if cv2 is not None:
            ways["Telea"] = telea(x, hole, cv2)
        calls = {}
        for method in options.methods:
            settings = {"steps": options.steps, "sampler": options.sampler}
            if method == "repaint":
                settings = {"steps": options.repaint_steps}
            wanted = Edit(image=x, mask=hole, method=method)
            ways[method], calls[method] = done(model, wanted, **settings)
        told = {"steps": options.steps, "sampler": options.sampler}
        if names:
            ways["by default, class told"] = by_class(model, x, hole, labels, told)
        found[name] = {
            way: {**measured(fill, x, hole, labels, judge), "calls": calls.get(way, 0)}
            for way, fill in ways.items()
        }
        pair = Edit(image=x[:50], mask=hole, n=2)
        twice = done(model, pair, **told)[0].double().unflatten(0, (-1, 2))[..., hole[0] > 0]
        between = (twice[:, 0] - twice[:, 1]).square().mean().sqrt()
        found[name]["difference_of_two_fills"] = float(between / 127.5)
        sheet[name] = [x[:12], torch.where(hole > 0, 127, x)[:12], *(w[:12] for w in ways.values())]
        options.sheet(name, sheet[name], ["before", "masked", *ways])
        print(json.dumps({name: found[name]}, indent=1), flush=True)
    found["Telea"] = "measured" if cv2 else "left out: pip install opencv-python-headless"
    return found


def by_class(model, x, hole, labels, settings):
    """Every picture filled with its own class asked for."""
    fill = torch.empty_like(x)
    for k, name in enumerate(model.labels):
        rows = torch.nonzero(labels == k)[:, 0]
        if len(rows):
            wanted = Edit(image=x[rows], mask=hole, cond={"label": name}, seed=1000 * k)
            fill[rows] = done(model, wanted, **settings)[0]
    return fill


def correlation(a, b):
    """Mean over the pictures of the correlation of their pixels."""
    rows = [v.double().flatten(1) for v in (a, b)]
    rows = [v - v.mean(1, keepdim=True) for v in rows]
    rows = [v / v.norm(dim=1, keepdim=True).clamp(min=1e-9) for v in rows]
    return float((rows[0] * rows[1]).sum(1).mean())


def translation(model, x, labels, judge, options):
    """From class to class, over strength: up and down the ODE, and from the noised picture."""
    found, names = {}, list(model.labels)
    for source, target in PAIRS:
        if source not in names or target not in names:
            continue
        one, two = (x[labels == names.index(name)] for name in (source, target))
        count = min(len(one), len(two), options.n_translate)
        one, two = one[:count], two[:count]
        rows, sheet = {}, [one[:12]]
        for strength in STRENGTHS:
            walk = Edit(image=one, from_label=source, to_label=target, strength=strength)
            begun = Edit(image=one, cond={"label": target}, strength=strength)
            ways = {
                "ode": (walk, {"steps": options.ode_steps}),
                "ode, unguided": (walk, {"steps": options.ode_steps, "guidance": 1.0}),
                "noised": (begun, {"steps": options.steps}),
            }
            for way, (wanted, settings) in ways.items():
                if way == "noised" and strength == 1.0:
                    continue  # nothing of the picture is left
                made, _ = done(model, wanted, **settings)
                verdict = float((judge.look(made)[1] == names.index(target)).double().mean())
                told = {"accuracy": verdict, "correlation": correlation(one, made)}
                rows[f"{way} {strength}"] = told
                sheet += [made[:12]]
        same = Edit(image=one, from_label=source, to_label=source)
        back, _ = done(model, same, steps=options.ode_steps, guidance=1.0)
        error = ((back.double() - one.double()) / 255).square().mean()
        rows["to itself"] = {"psnr": float(-10 * error.log10())}
        rows["unrelated pictures"] = {"correlation": correlation(one, two), "n": count}
        found[f"{source} to {target}"] = rows
        options.sheet(f"{source} to {target}", sheet, ["before", *list(rows)[: len(sheet) - 1]])
    return found


def measure(run, options):
    """All of one run."""
    model = steerable.load(run)
    splits = known_to(splits_for(model, options.data), set(model.recipe.conditions))
    held = splits.held_out
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(0))[: options.n]
    x = held.x[order]
    labelled = "label" in held.cond
    labels = held.cond["label"][order] if labelled else torch.zeros(len(x), dtype=torch.int64)
    judge = judge_for(splits) if labelled else None
    found = {"run": Path(run).name, "data": model.spec.name, "n": len(x)}
    if judge is not None:
        _, predicted = judge.look(x)
        found["judge"] = judge.accuracy
        found["accuracy_of_whole_pictures"] = float((predicted == labels).double().mean())
        between = floor(judge.look(splits.train.x[: 4 * len(x)])[0], len(x))
        found["frechet_real_to_real"] = between.value
    found["inpainting"] = inpainting(model, x, labels, splits.train.x, judge, options)
    if judge is not None:
        every = held.cond["label"]
        found["translation"] = translation(model, held.x, every, judge, options)
    return found


class Options(argparse.Namespace):
    """The command line, and where sheets of pictures go."""

    def sheet(self, name, rows, titles):
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{self.run_name}-{name.replace(' ', '-')}.png"
        path.write_bytes(png(labelled_grid(rows, titles, [""] * 12)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("-n", type=int, default=300, help="held-out pictures to fill")
    parser.add_argument("--n-translate", type=int, default=60, help="pictures to translate")
    parser.add_argument("--data", default=None, help="the data, if it has moved")
    every = list(holes(8, 8))
    parser.add_argument("--holes", nargs="+", default=every, choices=every)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--steps", type=int, default=None, help="the model's own by default")
    parser.add_argument("--sampler", default=None)
    parser.add_argument("--repaint-steps", type=int, default=50)
    parser.add_argument("--ode-steps", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("out/editing"))
    options = parser.parse_args(namespace=Options())
    for run in options.runs:
        options.run_name = run.name
        try:
            found = measure(run, options)
        except UserError as error:
            raise SystemExit(f"{run.name}: {error}") from error
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
