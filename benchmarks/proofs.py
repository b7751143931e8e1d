"""Does each kind of image model do what it is for? One command a proof, with its controls.

Budgets are counted in images, so the figures do not depend on how busy the machine is. Every proof
prints one JSON object; a run folder that exists already goes on or is used as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from vae import vae_samples

import steerable
from steerable.core.noise import Noise
from steerable.core.types import Dataset
from steerable.jobs import checkpoint
from steerable.jobs.effort import Effort
from steerable.jobs.evaluate import evaluate
from steerable.jobs.judged import judge_for
from steerable.jobs.model import fit
from steerable.jobs.pictures import labelled_grid, png
from steerable.jobs.prepare import prepare
from steerable.jobs.sample import sample, steered
from steerable.jobs.train import train
from steerable.jobs.wish import Wish
from steerable.metrics.accuracy import Accuracy
from steerable.metrics.binding import Binding
from steerable.metrics.density_coverage import DensityCoverage
from steerable.metrics.factors import NAMES, Factors
from steerable.metrics.frechet import Frechet, floor
from steerable.metrics.memorisation import Memorisation
from steerable.metrics.precision_recall import PrecisionRecall
from steerable.metrics.two_sample import TwoSample
from steerable.recipes.part import build

SEED = 5_000_000
CONTROL = "80000 images"


def trained(data, run, *, preset, budget, size="auto", settings=(), change=None):
    """(model, splits) of a run, trained now if it is not; `change` alters the splits first."""
    recipe = steerable.recipe(
        data, preset=preset, budget=budget, size=size, settings=list(settings)
    )
    splits = build("data", recipe.data)
    splits = change(splits) if change else splits
    if not (run / "done").exists():
        for step in train(prepare(recipe, run, splits=splits)):
            if step.i % 500 == 0:
                print(f"  {run.name} {step.i}/{step.total} loss {step.loss:.4f}", flush=True)
        (run / "done").write_text("")
    return steerable.load(run), splits


def drawn(model, wishes, **options):
    """Pictures (n,C,H,W) uint8."""
    *_, last = sample(model, steered(model.recipe, **options), wishes)
    return last.sample.x


def filled(metric, x):
    """The metric with all rows of x: features as they are, pixels in [-1,1]."""
    metric.update(x.double() if x.is_floating_point() else x.double() / 127.5 - 1)
    return metric


def two_sample(x, real):
    return filled(TwoSample(), x).value(filled(TwoSample(), real))["two_sample"]


def memorised(x, train, unseen):
    mine, known, others = (filled(Memorisation(), rows) for rows in (x, train, unseen))
    return mine.value(known, others)["memorisation"]


def frechet(a, b):
    one, two = Frechet(), Frechet()
    one.update(a)
    two.update(b)
    return one.distance(two)


def orders(n, repeats):
    """Random orders of n items, the same ones every time."""
    for seed in range(1, repeats + 1):
        yield torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def mean_of(found):
    """Mean and, as `..._std`, standard deviation of every value over the draws of a set."""
    columns = {key: torch.tensor([f[key] for f in found]) for key in found[0]}
    spread_ = {f"{key}_std": float(v.std()) for key, v in columns.items()}
    return {key: float(v.mean()) for key, v in columns.items()} | spread_


def look(path, x, titles):
    """Write a sheet of the first pictures of each title."""
    path.write_bytes(png(labelled_grid(x, titles)))


def shuffled(splits):
    """The training part with its labels exchanged among the pictures."""
    train_part = splits.train
    order = torch.randperm(len(train_part), generator=torch.Generator().manual_seed(0))
    cond = {"label": train_part.cond["label"][order]}
    return dataclasses.replace(splits, train=dataclasses.replace(train_part, cond=cond))


def classes(model, splits, judge, n, out, **options):
    """Accuracy, spread of known factors, two-sample test and memorisation of n samples."""
    names = model.labels
    wanted = torch.arange(n) % len(names)
    x = drawn(model, [Wish({"label": names[k]}, SEED + i) for i, k in enumerate(wanted)], **options)
    features, predicted = judge.look(x)
    accuracy = Accuracy(len(names))
    accuracy.update(predicted, wanted)
    real = splits.held_out
    unseen, seen = real.x[:n], splits.train.x
    found = {
        "accuracy": accuracy.value()["accuracy"],
        "n": n,
        "judge": judge.accuracy,
        "two_sample": two_sample(features[: len(unseen)], judge.look(unseen)[0]),
        "memorisation_pixels": memorised(x, seen, unseen),
        "memorisation_features": memorised(features, judge.look(seen)[0], judge.look(unseen)[0]),
    }
    if model.spec.name.startswith("shapes"):
        found |= spread(x, wanted, real.x, real.cond["label"], len(names))
    look(out, [x[wanted == k][:10] for k in range(len(names))], list(names))
    return found


def spread(x, wanted, real, label, count):
    """Std of every known factor within the classes, over that of real pictures."""
    mine, theirs = Factors(count), Factors(count)
    mine.update(x, wanted)
    theirs.update(real, label)
    a, b = (f.value()["per_class"] for f in (mine, theirs))
    ratio = {
        name: sum(p[name]["std"] / q[name]["std"] for p, q in zip(a, b, strict=True) if p) / count
        for name in NAMES
    }
    return {"factor_std_ratio": ratio, "blank": mine.value()["blank"]}


def class_conditional(root, budget):
    """S1 on drawn shapes: obeys, varies, copies nothing; untrained and shuffled runs do not."""
    options = {"preset": "class-ddpm", "budget": budget, "size": "xs"}
    shapes = ["data.size=16"]
    model, splits = trained("shapes", root / "s1", settings=shapes, **options)
    judge = judge_for(splits)
    found = {"trained": classes(model, splits, judge, 500, root / "s1.png")}
    for weight in (0.0, 0.5, 1.0, 1.5, 3.0, 5.0):
        part = classes(model, splits, judge, 500, root / f"s1-w{weight}.png", guidance=weight)
        found[f"guidance {weight}"] = part
    options["budget"] = CONTROL  # longer training cannot teach labels that say nothing
    mixed, _ = trained("shapes", root / "s1-shuffled", settings=shapes, change=shuffled, **options)
    found["labels shuffled"] = classes(mixed, splits, judge, 500, root / "s1-shuffled.png")
    options["budget"] = "1 iterations"
    raw, _ = trained("shapes", root / "s1-raw", settings=shapes, **options)
    found["untrained"] = classes(raw, splits, judge, 500, root / "s1-untrained.png")
    return found


def fast(root, budget):
    """S15 on the model of S1, without guidance: 20 calls against all 1000 ancestral steps."""
    options = {"preset": "class-ddpm", "budget": budget, "size": "xs"}
    model, splits = trained("shapes", root / "s1", settings=["data.size=16"], **options)
    judge, n = judge_for(splits), 500
    features = judge.look(splits.held_out.x[:n])[0]
    wanted = [Wish({"label": model.labels[i % 10]}, SEED + i) for i in range(n)]
    found = {"n": n, "real": frechet(judge.look(splits.train.x[:n])[0], features)}
    ways = [(kind, 20, None) for kind in ("dpmpp_2m", "dpmpp_2m_sde", "ddim", "ancestral")]
    for kind, steps, grid in (*ways, ("ancestral", 1000, "ddpm")):
        options = {"sampler": kind, "steps": steps, "grid_kind": grid, "guidance": 1.0}
        *_, last = sample(model, steered(model.recipe, **options), wanted)
        distance = frechet(judge.look(last.sample.x)[0], features)
        found[f"{kind} {steps}"] = {"frechet": distance, "calls": last.sample.calls}
    return found


def varied(x):
    """Mean over the pixels of their standard deviation."""
    return x.double().std(0).mean()


def repeated_denoising(splits, judge):
    """A network without time that undoes one small noise, applied ten times to pure noise."""
    torch.manual_seed(0)
    x = splits.train.x.flatten(1).float() / 255
    label = torch.nn.functional.one_hot(splits.train.cond["label"], 10).float()
    net = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1] + 10, 256), torch.nn.ReLU(), torch.nn.Linear(256, x.shape[1])
    )
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(60):
        for rows_ in torch.randperm(len(x)).split(64):
            noisy = x[rows_] + 0.1 * torch.randn_like(x[rows_])
            loss = (net(torch.cat([noisy, label[rows_]], 1)) - x[rows_]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    wanted = torch.arange(500) % 10
    asked = torch.nn.functional.one_hot(wanted, 10).float()
    made = torch.randn(500, x.shape[1])
    with torch.no_grad():
        for _ in range(10):
            made = net(torch.cat([made, asked], 1))
    pictures = (made.clamp(0, 1) * 255).to(torch.uint8).reshape(500, 1, 8, 8)
    right = (judge.look(pictures)[1] == wanted).double().mean()
    spread_ = sum(varied(pictures[wanted == k]) for k in range(10)) / 10
    real = splits.held_out
    usual = sum(varied(real.x[real.cond["label"] == k]) for k in range(10)) / 10
    return {"accuracy": float(right), "within_class_std_ratio": float(spread_ / usual)}


def mlp(root, budget):
    """S11 on 8x8 digits, from noise alone."""
    model, splits = trained("digits", root / "s11", preset="mlp-diffusion", budget=budget)
    judge = judge_for(splits)
    found = classes(model, splits, judge, 500, root / "s11.png")
    wanted = torch.arange(500) % 10
    wishes = [Wish({"label": model.labels[k]}, SEED + i) for i, k in enumerate(wanted)]
    x = drawn(model, wishes)
    real = splits.held_out
    label = real.cond["label"]
    std = [float(varied(x[wanted == k]) / varied(real.x[label == k])) for k in range(10)]
    predicted = judge.look(x)[1]
    found["within_class_std_ratio"] = sum(std) / 10
    found["accuracy_against_another_digit"] = float(
        (predicted == (wanted + 2) % 10).double().mean()
    )
    found["control: one noise level, repeated"] = repeated_denoising(splits, judge)
    nothing = drawn(model, [Wish({}, SEED + i) for i in range(500)])
    shares = torch.bincount(judge.look(nothing)[1], minlength=10) / 500
    found["unconditional_entropy"] = float(-(shares * shares.clamp(min=1e-9).log()).sum())
    return found


def score(root, budget, data):
    """S4: score SDE without labels; distance, class entropy, noise left on the background."""
    settings = ["conditions={}", "guidance=[]", "data.size=[14, 14]"]
    model, splits = trained(data, root / "s4", preset="score-sde", budget=budget, settings=settings)
    judge = judge_for(splits)
    real = splits.held_out.x
    features = judge.look(splits.train.x)[0]
    n = min(1000, len(features) // 2)
    between = floor(features, n)
    references = [features[order[:n]] for order in orders(len(features), 8)]
    dead = (splits.train.x == 0).double().mean(0) >= 0.99
    found = {"floor": between.value, "judge": judge.accuracy, "n": n, "held_out": len(real)}
    for kind, steps in (("heun", 18), ("predictor_corrector", 100), ("euler_maruyama", 200)):
        wishes = [Wish({}, SEED + i) for i in range(n)]
        x = drawn(model, wishes, sampler=kind, steps=steps)
        mine, predicted = judge.look(x)
        shares = torch.bincount(predicted, minlength=10) / n
        found[kind] = {
            "steps": steps,
            **mean_of([{"frechet": frechet(mine, f)} for f in references]),
            "entropy": float(-(shares * shares.clamp(min=1e-9).log()).sum()),
            "background_std": float((x.double() / 255)[:, dead].std()),
            "memorisation": memorised(x, splits.train.x, real),
        }
        look(root / f"s4-{kind}.png", [x[:10], x[10:20], x[20:30]], [""] * 3)
    return found


def prompts(part, spec):
    words = spec.tokens["prompt"]
    return [tuple(words[i] for i in row) for row in part.cond["prompt"].tolist()]


def binding(root, budget):
    """S5 on two-object scenes: obeys both objects, also pairs that training never showed."""
    model, splits = trained("scenes", root / "s5", preset="attention-score", budget=budget)
    held, words = splits.held_out, model.spec.tokens["prompt"]
    found = {}
    for name, start in (("seen pairs", 0), ("unseen pairs", 1)):
        index = torch.arange(start, len(held), 2)[:300]
        part = held.take(index)
        texts = prompts(part, model.spec)
        x = drawn(model, [Wish({"prompt": text}, SEED + i) for i, text in enumerate(texts)])
        for weight in (None, 1.0, 4.0):
            if weight is not None:
                wishes = [Wish({"prompt": text}, SEED + i) for i, text in enumerate(texts)]
                x = drawn(model, wishes, guidance=weight)
            metric = Binding(words)
            metric.update(x, part.cond["prompt"])
            value = metric.value()
            keys = ("accuracy", "whole", "swapped", "swapped_floor", "n")
            found[f"{name}, guidance {weight or 'default'}"] = {k: value[k] for k in keys}
            if weight is None:
                sheet = [x[i : i + 8] for i in range(0, 32, 8)]
                look(root / f"s5-{name.split()[0]}.png", sheet, [""] * 4)
    return found


def spectrum(x):
    """Mean power of each radial frequency of grey pictures, in log; (H/2,)."""
    grey = x.double().mean(1) / 127.5 - 1
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().square().mean(0)
    f = torch.fft.fftfreq(x.shape[-1]) * x.shape[-1]
    radius = (f[:, None] ** 2 + f**2).sqrt().round().long()
    bins = x.shape[-1] // 2
    sums = torch.zeros(bins + 1, dtype=torch.float64)
    counts = torch.zeros_like(sums)
    keep = radius <= bins
    sums.index_add_(0, radius[keep], power[keep])
    counts.index_add_(0, radius[keep], torch.ones_like(power[keep]))
    return (sums / counts)[1:].log()


def textures(x, real):
    """Distance of log spectra, and of colour histograms in grey levels (earth mover)."""
    between = (spectrum(x) - spectrum(real)).square().mean().sqrt()
    moved = [
        (x[:, c].flatten().double().sort().values - real[:, c].flatten().double().sort().values)
        .abs()
        .mean()
        for c in range(3)
    ]
    return {"spectrum": float(between), "colour": float(sum(moved) / 3)}


def forest(root, budget, data, seeds, settings, **solver):
    """S2 on aerial tiles: texture statistics, black pictures, EMA against raw weights."""
    found = {"seeds": {}}
    for seed in range(seeds):
        fixed = ["data.size=[32, 32]", f"training.seed={seed}", "data.flip=true"]
        run = root / f"s2-{seed}"
        options = {"preset": "convnext-ddpm", "budget": budget, "size": "xs"}
        model, splits = trained(data, run, settings=[*fixed, *settings], **options)
        real = splits.train.x
        n = len(real) // 2
        pairs = [(real[o[:n]], real[o[n : 2 * n]]) for o in orders(len(real), 20)]
        first = pairs[0][0]
        found |= {"n": n, "real_to_real": mean_of([textures(b, a) for a, b in pairs])}
        wishes = [Wish({}, SEED + i) for i in range(n)]
        x = drawn(model, wishes, **solver)
        latest, _ = checkpoint.newest(run)
        averaged = {k: v.clone() for k, v in model.denoiser.state_dict().items()}
        fit(model.denoiser, latest.parts["model"], "raw weights")
        raw = drawn(model, wishes, **solver)
        fit(model.denoiser, averaged, "averaged weights")
        found["seeds"][seed] = {
            "ema": mean_of([textures(x, a) for a, _ in pairs]),
            "raw": mean_of([textures(raw, a) for a, _ in pairs]),
            "black": int((x.double().mean((1, 2, 3)) / 255 < 0.02).sum()),
            "two_sample": two_sample(x, first),
            "memorisation": memorised(x, real, splits.held_out.x),
        }
        if seed == 0:
            look(root / "s2.png", [x[:8], x[8:16], first[:8]], ["drawn", "drawn", "real"])
    return found


def unconditional(root, budget, **solver):
    """S20 on drawn shapes: the prior passes the checks of S1 without labels; three nulls fail."""
    model, splits = trained(
        "shapes",
        root / "s20",
        preset="unconditional-ddpm",
        budget=budget,
        size="xs",
        settings=["data.size=16"],
    )
    judge, n = judge_for(splits), 500
    real = splits.held_out.x[:n]
    x = drawn(model, [Wish({}, SEED + i) for i in range(n)], **solver)
    one = splits.train.x[:1].expand(n, -1, -1, -1).double()
    noise = Noise(torch.arange(n)).normal(torch.zeros_like(one))
    collapsed = (one + 4 * noise).clamp(0, 255).to(torch.uint8)
    sets = {"model": x, "collapsed": collapsed, "blurred": mean_of_neighbours(splits.train, n)}
    sets["vae"] = vae_samples(splits.train, n, images=100_000)
    sets["real"] = splits.train.x[1000 : 1000 + n]
    look(root / "s20.png", [v[:10] for v in sets.values()], list(sets))
    features = judge.look(real)[0]
    found = {}
    for name, pictures in sets.items():
        mine = judge.look(pictures)[0]
        value = {"two_sample": two_sample(mine, features)}
        for metric in (PrecisionRecall, DensityCoverage):
            value |= filled(metric(), mine).value(filled(metric(), features))
        keys = ("two_sample", "precision", "recall", "coverage")
        found[name] = {"frechet": frechet(mine, features), **{k: value[k] for k in keys}}
        found[name]["memorisation"] = memorised(pictures, splits.train.x, real)
        one_class = torch.zeros(n, dtype=torch.long)
        found[name] |= spread(pictures, one_class, real, one_class, 1)
    return found


def mean_of_neighbours(data: Dataset, n):
    """A blurring generator: means of four training pictures of one class."""
    generator = torch.Generator().manual_seed(3)
    order = torch.argsort(data.cond["label"], stable=True)
    start = torch.randint(len(order) - 4, (n,), generator=generator)
    return torch.stack([data.x[order[s : s + 4]].double().mean(0) for s in start]).to(torch.uint8)


def few(splits):
    """300 training pictures."""
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(7))
    return dataclasses.replace(splits, train=splits.train.take(order[:300]))


@torch.no_grad()
def denoising_loss(net, data, repeats=8):
    """Mean loss of items at fixed noise."""
    every = torch.arange(len(data))
    losses = []
    for i in range(repeats):
        noise = Noise.of(11, iteration=i, items=every)
        losses.append(net.process.loss(net, data.batch(every), noise).mean())
    return float(sum(losses) / repeats)


PLAIN = ("training.weight_decay=0",)
REGULARISED = (
    "backbone.dropout=0.2",
    "training.weight_decay=0.05",
    "training.augment=0.5",
    "training.augmentations=[scale, translate]",
)


def regularised(root, budget, seeds):
    """S12: with 300 pictures, dropout, decay and told augmentation against none of them."""
    found = {}
    for seed in range(seeds):
        for name, settings in (
            ("plain", PLAIN),
            ("regularised", REGULARISED),
        ):
            model, splits = trained(
                "digits",
                root / f"s12-{name}-{seed}",
                preset="mlp-diffusion",
                budget=budget,
                settings=[*settings, f"training.seed={seed}"],
                change=few,
            )
            seen, unseen = splits.train, splits.held_out
            wishes = [Wish({"label": str(i % 10)}, SEED + i) for i in range(300)]
            x = drawn(model, wishes)
            net = model.denoiser
            losses = [denoising_loss(net, part) for part in (seen, unseen)]
            judge_data = steerable.recipe("digits").data
            judge = judge_for(build("data", judge_data))
            wanted = torch.arange(300) % 10
            found[f"{name}, seed {seed}"] = {
                "train_loss": losses[0],
                "held_out_loss": losses[1],
                "gap": losses[1] - losses[0],
                "memorisation": memorised(x, seen.x, unseen.x),
                "accuracy": float((judge.look(x)[1] == wanted).double().mean()),
            }
    pairs = [(found[f"plain, seed {s}"], found[f"regularised, seed {s}"]) for s in range(seeds)]
    found["smaller gap"] = sum(b["gap"] < a["gap"] for a, b in pairs)
    found["larger distance ratio"] = sum(b["memorisation"] > a["memorisation"] for a, b in pairs)
    return found


def hundred(splits):
    """Ten training pictures a class."""
    label = splits.train.cond["label"]
    index = torch.cat([torch.nonzero(label == c)[:10, 0] for c in range(10)])
    return dataclasses.replace(splits, train=splits.train.take(index))


def reports(root, budget):
    """What `evaluate` says of a model that copies, of a deaf one and of a sound one."""
    found = {}
    cases = {
        "100 pictures": (hundred, budget or "100000 images"),
        "labels shuffled": (shuffled, budget or "60000 images"),
        "all pictures": (None, budget or "60000 images"),
    }
    for name, (change, spent) in cases.items():
        run = root / f"report-{name.replace(' ', '-')}"
        model, splits = trained(
            "fashion", run, preset="flow", budget=spent, size="xs", change=change
        )
        *_, last = evaluate(
            model,
            splits,
            recipe=model.recipe,
            effort=Effort(n=1000),
            own=splits,
            folder=run / "eyes",
        )
        report = last.evaluation.result
        found[name] = {v["question"]: f"{v['answer']}: {v['sentence']}" for v in report["verdicts"]}
        found[name]["training pictures"] = len(splits.train)
    return found


def asked(options):
    """How to draw, if not as the model's own recipe says."""
    return {"sampler": options.sampler or None, "steps": options.steps or None}


PROOFS = {
    "class": lambda o: class_conditional(o.root, o.budget or "100000 images"),
    "fast": lambda o: fast(o.root, o.budget or "100000 images"),
    "mlp": lambda o: mlp(o.root, o.budget or "400000 images"),
    "score": lambda o: score(o.root, o.budget or "200000 images", o.data),
    "binding": lambda o: binding(o.root, o.budget or "200000 images"),
    "forest": lambda o: forest(
        o.root, o.budget or "20000 images", o.data, o.seeds, o.set, **asked(o)
    ),
    "regularised": lambda o: regularised(o.root, o.budget or "60000 images", o.seeds),
    "reports": lambda o: reports(o.root, o.budget),
    "unconditional": lambda o: unconditional(o.root, o.budget or "60000 images", **asked(o)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proof", choices=PROOFS)
    parser.add_argument("--root", type=Path, default=Path("runs/proofs"))
    parser.add_argument("--budget", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sampler", default="", help="for forest and unconditional")
    parser.add_argument("--steps", type=int, default=0, help="of it, or of the recipe's own")
    parser.add_argument("--set", action="append", default=[], help="path=value, for forest")
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    found = PROOFS[options.proof](options)
    (options.root / f"{options.proof}.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
