"""The training step against one flat loop, option by option: feed, loss, clip, rate, averages."""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
from pathlib import Path

import torch
from scipy import optimize

from .rates import BATCH, BUDGET, DEFAULTS, ITEMS, OPTIONS, rate_of

RUN = 6  # iterations that are made, almost three epochs
REPORT = {"fingerprint": {"train": "0", "held_out": "0"}, "classes": {}}  # of the data

TREE = {
    "data": {"kind": "digits"},
    "process": {"kind": "flow"},
    "backbone": {"kind": "unet", "channels": [12, 20], "width": 16, "dropout": 0.2, "attention": 0},
    "conditions": {"label": {"kind": "label", "dropout": 0.3}},
}
# Settings of a run; every option of the training is changed in one of them.
CASES = {
    "plain": {},
    "rates": {"lr": 5e-3, "cooldown": 0.95, "floor": 0.9, "warmup": 3, "clip": 0.02},
    "adam": {
        "beta1": 0.6, "beta2": 0.8, "weight_decay": 0.8, "lr": 1e-2,
        "schedule": "step", "decay": 0.5, "every": 2,
    },
    "ema": {
        "ema": 0.2, "seed": 5, "budget": f"{BUDGET * BATCH} images",
        "schedule": "exponential", "decay": 0.6,
    },
    "power": {"ema_kind": "power", "lr": 1e-2, "schedule": "cosine"},
    "uncertainty": {"uncertainty": True, "lr": 2e-2, "schedule": "linear", "warmup": 0},
    "augment": {
        "flip": True, "augment": 0.8, "augmentations": ("flip", "turn", "rotate", "translate"),
        "force": True,
    },
    "self-conditioning": {"batch": 6, "seed": 2, "schedule": "constant"},
    "muon": {"optimiser": "muon", "batch": 12, "lr": 1e-2, "weight_decay": 0.5},
}  # fmt: skip
# Newton-Schulz runs in half precision, so that roundings grow.
ROOM = {"muon": 1e-3}


def job_of(kit, case, run):
    """A run that is ready to begin, without the second that measures its speed."""
    tree = copy.deepcopy(TREE)
    tree["training"] = OPTIONS | CASES[case]
    if case == "self-conditioning":
        tree["conditions"]["estimate"] = {"kind": "estimate"}
    recipe = kit("recipes.recipe").checked(tree)
    types = kit("core.types")
    spec = types.Spec("some", (1, 8, 8), {"label": ("a", "b", "c")}, std=0.4)
    g = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (ITEMS, 1, 8, 8), generator=g, dtype=torch.uint8)
    data = types.Dataset(spec, x, {"label": torch.arange(ITEMS) % 3})
    torch.manual_seed(recipe.training.seed)
    net = kit("recipes.assembly").network(recipe, spec)
    loud(net)
    plan = kit("jobs.plan").first_plan(recipe.training, rate=10.0, items=ITEMS)
    splits = types.Splits(data, data)
    return kit("jobs.prepare").Prepared(
        recipe,
        Path(run),
        splits,
        REPORT,
        net,
        {"images_per_second": 100.0, "warnings": []},
        plan,
        False,
    )


def loud(net):
    """Weights that are zero at the start replaced, so that all of them have gradients."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            if not bool(p.any()) and p.requires_grad:
                p.copy_(0.1 * torch.randn(p.shape, generator=g))


def order_of(kit, seed, epoch):
    keys = kit("core.noise").Noise.of(seed, iteration=-1 - epoch, items=torch.arange(ITEMS))
    return sorted(range(ITEMS), key=keys.uniform(ITEMS).tolist().__getitem__)


def batch_of(kit, job, o, i):
    """Pictures, conditions and the noise of iteration i."""
    noises, B = kit("core.noise").Noise, o["batch"]  # noqa: N806
    positions = torch.arange(B) + i * B
    epochs = {int(p) // ITEMS for p in positions}
    orders = {e: order_of(kit, o["seed"], e) for e in epochs}
    items = torch.tensor([orders[int(p) // ITEMS][int(p) % ITEMS] for p in positions])
    noise = noises.of(o["seed"], iteration=0, items=positions)
    data = job.splits.train
    x = data.x[items].to(torch.float32) / 127.5 - 1.0
    flip = noise.uniform(B) < 0.5
    if o["flip"]:
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
    cond = {"label": torch.where(noise.uniform(B) < 0.3, -1, data.cond["label"][items])}
    if o["augment"]:
        own = noises.of(o["seed"], iteration=1, items=positions)
        x, cond["augmentation"] = kit("jobs.augment").augmented(x, job.recipe.training, own)
    return x, cond, noise


def loss_of(net, x, cond, noise, estimates):
    """Times (B,) and the weighted square (B,) of every item; a first pass where it is told."""
    count = len(x)
    u = (torch.arange(count) + noise.uniform(count)) / count
    law, schedule = net.process.law, net.process.schedule
    t = schedule.time_at(law.mean + law.std * torch.special.ndtri(u))
    z = noise.normal(x)
    alpha, sigma = schedule(t)
    shape = (-1, 1, 1, 1)
    x_t = alpha.float().reshape(shape) * x + sigma.float().reshape(shape) * z
    if estimates:
        with torch.no_grad():
            x0 = net(x_t, t, cond).x0
        gone = noise.uniform(count) < 0.5
        cond = {**cond, "estimate": torch.where(gone.reshape(shape), math.nan, x0)}
    c_out = sigma / (alpha + sigma)
    square = (net(x_t, t, cond).x0 - x).square().flatten(1).mean(1)
    return t, (1 / c_out**2).float() * square


def gamma(width):
    return optimize.brentq(lambda g: (g + 1) / ((g + 2) ** 2 * (g + 3)) - width**2, 0.1, 1e4)


def matrices(net, batch):
    """The kernels for which an orthogonal update costs less than a tenth of the layer's work."""
    found = []
    for name, module in net.backbone.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and "level" not in name:
            rows, columns = len(module.weight), module.weight[0].numel()
            places = {"down.0": 64, "up.0": 64, "grow": 16, "film": 1}
            key = next((k for k in ("film", "down.0", "up.0") if k in name), "grow")
            m, n = min(rows, columns), max(rows, columns)
            share = 5 * (4 * m * m * n + 2 * m**3) / (6 * batch * places[key] * m * n)
            if share < 0.1 and name not in ("enter", "leave"):
                found.append(f"backbone.{name}.weight")
    return found


def flat_of(kit, case):
    """Losses, rates, norms, and at the end the weights and averages, of one flat loop."""
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(kit, case, folder)
    o = DEFAULTS | OPTIONS | CASES[case]
    net = job.denoiser.train()
    named = {n: p for n, p in net.named_parameters() if p.requires_grad}
    spared = [n for n, p in named.items() if p.ndim < 2 or n.endswith(("null", "table.weight"))]
    muons = matrices(net, o["batch"]) if o["optimiser"] == "muon" else []
    first = {n: torch.zeros_like(p) for n, p in named.items()}
    second = {n: torch.zeros_like(p) for n, p in named.items()}
    extra = kit("nn.uncertainty").Uncertainty(o["seed"]) if o["uncertainty"] else None
    if extra is not None:
        named |= {f"uncertainty.{n}": p for n, p in extra.named_parameters()}
        spared += [n for n in named if n.startswith("uncertainty.")]
        first |= {n: torch.zeros_like(named[n]) for n in spared}
        second |= {n: torch.zeros_like(named[n]) for n in spared}
    views = {n: rows_of(named[n].data, named[n]) for n in muons}
    muon = None
    if muons:
        options = {"momentum": 0.95, "ns_steps": 5, "adjust_lr_fn": "match_rms_adamw"}
        muon = torch.optim.Muon(list(views.values()), lr=1.0, weight_decay=o["weight_decay"],
                                **options)  # fmt: skip
    tracks, trace = {}, []
    for i in range(RUN):
        lr = rate_of(o, i)
        x, cond, noise = batch_of(kit, job, o, i)
        torch.manual_seed(hash((o["seed"], i)) & (2**63 - 1))
        for p in named.values():
            p.grad = None
        t, losses = loss_of(net, x, cond, noise, case == "self-conditioning")
        goal = losses
        if extra is not None:
            alpha, sigma = net.process.schedule(t)
            u = extra(torch.log(sigma / alpha).float())
            goal = losses / torch.exp(u) + u
        goal.mean().backward()
        grads = {n: p.grad for n, p in named.items() if p.grad is not None}
        own = [g for n, g in grads.items() if not n.startswith("uncertainty.")]
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in own))
        for g in own:
            g.mul_(min(1.0, o["clip"] / (norm + 1e-6)))
        with torch.no_grad():
            for n, g in grads.items():
                if n not in muons:
                    adam(named[n], g, first[n], second[n], i + 1, o, lr, n not in spared)
        if muon is not None:
            muon.param_groups[0]["lr"] = lr
            for n in muons:
                views[n].grad = rows_of(grads[n], named[n])
            muon.step()
        state = {n: v.clone() for n, v in net.state_dict().items()}
        averaged(tracks, state, i, o)
        trace.append((float(losses.mean().detach()), lr, norm))
    return trace, net.state_dict(), tracks, extra.state_dict() if extra else None


def rows_of(value, like):
    """A kernel as rows, in the order of its memory."""
    flat = value if like.is_contiguous() else value.permute(0, 2, 3, 1)
    return flat.reshape(len(flat), -1)


def adam(p, g, m, v, k, o, lr, decays):
    """One update of AdamW in place."""
    p.mul_(1 - lr * (o["weight_decay"] if decays else 0.0))
    m.mul_(o["beta1"]).add_((1 - o["beta1"]) * g)
    v.mul_(o["beta2"]).add_((1 - o["beta2"]) * g * g)
    root = torch.sqrt(v / (1 - o["beta2"] ** k)) + 1e-8
    p.sub_(lr * m / (1 - o["beta1"] ** k) / root)


def averaged(tracks, state, k, o):
    """The averages after update k, counted from 0, of the weights that it has made."""
    kinds = {"ema": lambda: min(o["ema"], (1 + k) / (10 + k))}
    if o["ema_kind"] == "power":
        kinds = {"ema": lambda: (1 - 1 / (k + 1)) ** (gamma(0.1) + 1),
                 "narrow": lambda: (1 - 1 / (k + 1)) ** (gamma(0.05) + 1)}  # fmt: skip
    for name, decay in kinds.items():
        d = decay() if k else 0.0
        old = tracks.get(name, state)
        tracks[name] = {n: d * old[n] + (1 - d) * v for n, v in state.items()}


def check_defaults(kit) -> None:
    """What is not set is what it was: a run that says nothing is the same in every version."""
    assert kit("recipes.training").Training().model_dump() == DEFAULTS


def loop_of(case):
    """The check that a run with these settings is the flat loop, in all that it leaves behind."""

    def check(kit) -> None:
        trace, weights, tracks, extra = flat_of(kit, case)
        with tempfile.TemporaryDirectory() as folder:
            job = job_of(kit, case, folder)
            run, got = kit("jobs.train").train(job), []
            for step in run:
                got.append((step.loss, step.lr, step.grad_norm))
                if step.i == RUN:
                    break
            run.close()
            found, _ = kit("jobs.checkpoint").newest(Path(folder))
        for i, (a, b) in enumerate(zip(got, trace, strict=True)):
            for name, x, y in zip(("loss", "lr", "norm"), a, b, strict=True):
                assert math.isclose(x, y, rel_tol=2e-3), f"{case}: {name} of {i}: {x} not {y}"
        assert found.iteration == RUN
        wants = {"model": weights, **tracks} | ({"uncertainty": extra} if extra else {})
        assert set(found.parts) == {"optimiser", *wants}, f"{case}: {sorted(found.parts)}"
        for part, tensors in wants.items():
            assert set(found.parts[part]) == set(tensors)
            for name, want in tensors.items():
                off = float((found.parts[part][name] - want).abs().max())
                assert off < ROOM.get(case, 2e-5), f"{case}: {part} {name} is off by {off:.1e}"

    check.__name__ = f"check_{case.replace('-', '_')}_run"
    return check


LOOPS = {case: loop_of(case) for case in CASES}


def state_of(kit, folder, case="power"):
    job = job_of(kit, case, folder)
    state = kit("jobs.state").fresh(job)
    x, cond, noise = batch_of(kit, job, DEFAULTS | OPTIONS | CASES[case], 0)
    return job, state, kit("core.types").Batch(x, cond), noise


def frozen(state):
    """All that an update changes, as one list of tensors."""
    tracks = [t.module for t in (state.ema, state.narrow) if t is not None]
    nets = [state.net, *tracks, *([state.uncertainty] if state.uncertainty else [])]
    tensors = [v for net in nets for v in net.state_dict().values()]
    return [v.clone() for v in (*tensors, *state.optimiser.tensors().values())]


def check_not_finite(kit) -> None:
    """A loss, a gradient or a goal that is not finite changes nothing but the counters."""
    step = kit("jobs.train")._step
    for case in ("power", "uncertainty"):
        for fault in ("loss", "gradient", "goal"):
            if fault == "goal" and case == "power":
                continue
            with tempfile.TemporaryDirectory() as folder:
                job, state, batch, noise = state_of(kit, folder, case)
                step(state, job, batch, noise)
                if fault == "goal":
                    with torch.no_grad():
                        state.uncertainty.leave.bias.fill_(math.inf)
                if fault == "gradient":
                    weight = state.net.backbone.leave.weight
                    weight.register_hook(lambda g: g * math.inf)
                before = frozen(state)
                bad = batch.x.clone()
                bad[1, 0, 2, 2] = math.inf if fault == "loss" else bad[1, 0, 2, 2]
                for k in (1, 2):
                    noise = kit("core.noise").Noise(torch.arange(BATCH))
                    step(state, job, kit("core.types").Batch(bad, batch.cond), noise)
                    assert (state.skipped, state.bad_in_a_row) == (k, k), f"{case} {fault}"
                    assert state.iteration == 1 + k
                after = frozen(state)
                assert all(
                    torch.equal(a.nan_to_num(7), b.nan_to_num(7))
                    for a, b in zip(before, after, strict=True)
                ), f"{case} {fault}: something was changed"
                assert int(state.ema.n_averaged) == 1
    with tempfile.TemporaryDirectory() as folder:
        job, state, batch, noise = state_of(kit, folder)
        state.bad_in_a_row = 5
        step(state, job, batch, noise)
        assert (state.bad_in_a_row, state.skipped) == (0, 0), "a good update ends the row"


class Counting(torch.nn.Module):
    """A layer whose buffers change: an average of them means nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def check_buffers(kit) -> None:
    """Averages hold the buffers of now, weights averaged from the first update on."""
    for kind in ("warmup", "power"):
        net, training = Counting(), kit("recipes.training").Training(ema_kind=kind, ema=0.4)
        tracks = kit("jobs.averaging").averages(net, training)
        assert (tracks[1] is None) == (kind == "warmup")
        wants = [None, None]
        for k in range(12):
            with torch.no_grad():
                net.weight.fill_(float((k + 1) ** 2))
                net.seen.fill_(float(k))
                net.count.fill_(k)
            for j, track in enumerate(tracks):
                if track is None:
                    continue
                track.update_parameters(net)
                d = min(0.4, (1 + k) / (10 + k))
                if kind == "power":
                    d = (1 - 1 / (k + 1)) ** (gamma((0.1, 0.05)[j]) + 1)
                old = (k + 1.0) ** 2 if wants[j] is None else wants[j]
                wants[j] = d * old + (1 - d) * (k + 1) ** 2
                got = track.module
                assert torch.equal(got.seen, net.seen), f"{kind}: a buffer was averaged"
                assert int(got.count) == k
                assert math.isclose(float(got.weight[0].detach()), wants[j], rel_tol=1e-5), (
                    f"{kind} {k}"
                )


DEAR = {"forward_mflop": 1e12}


def check_modes(kit) -> None:
    """Updates are made in training mode, also after a look at the model in eval mode."""
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(kit, "plain", folder)
        modes = []
        for module in (job.denoiser.backbone.down[0][0].dropout,):
            module.register_forward_hook(
                lambda m, a, out: modes.append((m.training, torch.is_grad_enabled()))
            )
        state, watch = kit("jobs.state").fresh(job), kit("jobs.watch")
        noise = kit("core.noise").Noise(torch.arange(BATCH))
        x, cond, _ = batch_of(kit, job, DEFAULTS | OPTIONS, 0)
        batch = kit("core.types").Batch(x, cond)
        for _ in range(2):
            kit("jobs.train")._step(state, job, batch, noise)
            assert modes and all(mode == (True, True) for mode in modes), "an update"
            modes.clear()
            first = watch.validation_loss(state.net, job.splits.held_out)
            assert first == watch.validation_loss(state.net, job.splits.held_out), "fixed noise"
            watch.preview([state.net], job.recipe, job.splits.train.spec)
            assert modes and not any(training for training, _ in modes), "a look in training mode"
            checks = kit("jobs.checks").Checks(dataclasses.replace(job, facts=DEAR))
            record = checks.check(state.net, 100, number=1)
            assert record["skipped"], "a sample that costs too much"
            assert modes and not any(training for training, _ in modes), "a look in training mode"
            assert state.net.training and all(m.training for m in state.net.modules())
            modes.clear()


def check_switches(kit) -> None:
    """`checkpoint_seconds` and `checks` switch what they name, `force` allows flips."""
    for seconds, want in ((1e-9, 2), (1e6, 0)):  # the save at the end is no event
        with tempfile.TemporaryDirectory() as folder:
            job = job_of(kit, "plain", folder)
            update = {"checkpoint_seconds": seconds}
            job = replaced(job, job.recipe.training.model_copy(update=update), total=3)
            steps = list(kit("jobs.train").train(job))
            events = [e for step in steps for e in step.events if e.get("event") == "checkpoint"]
            assert len(events) == want, f"{len(events)} checkpoints with {seconds} s"
    for choice in ("auto", "off"):
        with tempfile.TemporaryDirectory() as folder:
            job = job_of(kit, "plain", folder)
            training = job.recipe.training.model_copy(update={"checks": choice})
            job = replaced(job, training, total=3)
            watch = kit("jobs.watch").Watch(job, kit("jobs.run").Run(Path(folder)))
            assert (watch.checks is not None) == (choice == "auto")
    check = kit("jobs.augment").check_augmentation
    spec = kit("core.types").Spec("some", (1, 8, 8))
    for force in (True, False):
        training = kit("recipes.training").Training(flip=True, force=force)
        try:
            check(training, spec)
            allowed = True
        except kit("core.errors").UserError:
            allowed = False
        assert allowed == force, "force allows what may change the meaning"


def check_compile(kit) -> None:
    """`compile` says whether the backbone runs compiled."""
    for choice in ("on", "off"):
        with tempfile.TemporaryDirectory() as folder:
            job = job_of(kit, "plain", folder)
            training = job.recipe.training.model_copy(update={"compile": choice})
            job = replaced(job, training, total=1)
            with torch.compiler.set_stance("force_eager"):  # what is compiled is not at issue
                list(kit("jobs.train").train(job))
            compiled = job.denoiser.backbone._compiled_call_impl is not None
            assert compiled == (choice == "on"), choice


def check_threads(kit) -> None:
    """`threads` sets the number that torch computes with."""
    before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder:
            job = job_of(kit, "plain", folder)
            training = job.recipe.training.model_copy(update={"threads": before + 1})
            job = replaced(job, training, total=3)
            kit("jobs.prepare").prepare(job.recipe, folder, splits=job.splits)
            assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def replaced(job, training, *, total):
    """The job with other settings and another number of iterations."""
    recipe = job.recipe.model_copy(update={"training": training})
    plan = dataclasses.replace(job.plan, total=total)
    return dataclasses.replace(job, recipe=recipe, plan=plan)


CHECKS = (
    check_defaults,
    *LOOPS.values(),
    check_not_finite,
    check_buffers,
    check_modes,
    check_switches,
)
SLOW = (check_compile, check_threads)

TRAIN, AVERAGING, FEED = "jobs.train", "jobs.averaging", "jobs.feed"
OPTIMISERS, OBJECTIVE, AUGMENT, SELF = (
    "jobs.optimisers",
    "jobs.objective",
    "jobs.augment",
    "jobs.self_conditioning",
)
STEP = """        state.optimiser.step()
        for track in (state.ema, state.narrow):
            if track is not None:
                track.update_parameters(state.net)
"""
EARLY = """        for track in (state.ema, state.narrow):
            if track is not None:
                track.update_parameters(state.net)
        state.optimiser.step()
"""


def _run(case, *edits, module):
    """A mistake that the flat loop of a case must notice."""
    return (LOOPS[case], module, *edits)


MUTANTS = {
    ("training", "", "batch"): [
        _run("self-conditioning", "state.iteration * hyper.batch\n", "state.iteration * 4\n",
             module=TRAIN),
    ],
    ("training", "", "optimiser"): [
        _run("muon", 'if training.optimiser == "muon" else {}', "if False else {}",
             module=OPTIMISERS),
        _run("muon", "weight_decay=training.weight_decay,\n                momentum",
             "weight_decay=0.0,\n                momentum", module=OPTIMISERS),
        _run("muon", "MOMENTUM = 0.95", "MOMENTUM = 0.5", module=OPTIMISERS),
        _run("muon", "module not in ends", "True", module=OPTIMISERS),
        _run("muon", "MOST = 0.1", "MOST = 0.001", module=OPTIMISERS),
    ],
    ("training", "", "lr"): [
        _run("rates", "lr = hyper.lr * state", "lr = 2e-3 * state", module=TRAIN),
        _run("rates", "state.optimiser.rate(lr)", "pass", module=TRAIN),
    ],
    ("training", "", "schedule"): [
        _run("plain", "factor(state.iteration, ", "factor(state.iteration + 1, ", module=TRAIN),
    ],
    ("training", "", "weight_decay"): [
        _run("adam", '"weight_decay": weight_decay}', '"weight_decay": 0.01}', module=OPTIMISERS),
        _run("adam", "p.ndim >= 2 and id(p) not in tables", "True", module=OPTIMISERS),
        _run("adam", "and id(p) not in tables", "", module=OPTIMISERS),
    ],
    ("training", "", "beta1"): [
        _run("adam", "(training.beta1, training.beta2)", "(0.9, training.beta2)",
             module=OPTIMISERS),
    ],
    ("training", "", "beta2"): [
        _run("adam", "(training.beta1, training.beta2)", "(training.beta1, 0.99)",
             module=OPTIMISERS),
    ],
    ("training", "", "clip"): [
        _run("rates", "(state.net.parameters(), hyper.clip)", "(state.net.parameters(), 1.0)",
             module=TRAIN),
        _run("rates", "(state.net.parameters(), hyper.clip)",
             "(state.net.backbone.parameters(), hyper.clip)", module=TRAIN),
    ],
    ("training", "", "ema"): [
        _run("ema", "min(limit, (1.0 + k) / (10.0 + k))", "(1.0 + k) / (10.0 + k)",
             module=AVERAGING),
        (check_buffers, AVERAGING, "min(limit, (1.0 + k) / (10.0 + k))", "limit"),
        _run("plain", "(1.0 + k) / (10.0 + k)", "k / (10.0 + k)", module=AVERAGING),
        _run("ema", "_warming(training.ema)", "_warming(0.999)", module=AVERAGING),
        _run("plain", STEP, EARLY, module=TRAIN),
        (check_buffers, AVERAGING, "use_buffers=False", "use_buffers=True"),
        _run("plain", "1.0 - decay(int(k))", "decay(int(k))", module=AVERAGING),
    ],
    ("training", "", "ema_kind"): [
        _run("power", "(1.0 - 1.0 / (k + 1)) ** exponent", "(1.0 - 1.0 / (k + 2)) ** exponent",
             module=AVERAGING),
        _run("power", "gamma_of(width) + 1.0", "gamma_of(width)", module=AVERAGING),
        _run("power", "_averaged(net, _power(WIDE)), _averaged(net, _power(NARROW))",
             "_averaged(net, _power(NARROW)), _averaged(net, _power(WIDE))", module=AVERAGING),
        _run("power", "(state.ema, state.narrow)", "(state.ema,)", module=TRAIN),
        _run("power", STEP, EARLY, module=TRAIN),
    ],
    ("training", "", "uncertainty"): [
        _run("uncertainty", "torch.exp(-u) + u", "torch.exp(-u)", module="nn.uncertainty"),
        _run("uncertainty", "torch.exp(-u) + u", "torch.exp(u) + u", module="nn.uncertainty"),
        _run("uncertainty", "Uncertainty(hyper.seed) if hyper.uncertainty", "None if True",
             module="jobs.state"),
        _run("uncertainty", "return uncertainty.weighed(loss, level).mean(), mean",
             "return uncertainty.weighed(loss, level).mean(), uncertainty.weighed(loss, level)"
             ".mean()", module=OBJECTIVE),
        _run("uncertainty", "net.process.schedule.level(t)", "t", module=OBJECTIVE),
    ],
    ("training", "", "flip"): [
        _run("augment", "if hyper.flip:", "if False:", module=FEED),
        _run("plain", "if hyper.flip:", "if True:", module=FEED),
        _run("augment", "x.flip(-1), x)", "x.flip(-2), x)", module=FEED),
    ],
    ("training", "", "augment"): [
        _run("augment", "iteration=1, items=positions", "iteration=0, items=positions",
             module=FEED),
        _run("augment", 'cond["augmentation"] = teller.dropped(value, own)', "pass", module=FEED),
    ],
    ("training", "", "force"): [
        (check_switches, AUGMENT, "or training.force:", ":"),
        (check_switches, AUGMENT, "or training.force:", "or not training.force:"),
    ],
    ("training", "", "seed"): [
        _run("ema", "hash((hyper.seed, state.iteration))", "hash((0, state.iteration))",
             module=TRAIN),
        _run("ema", "noise = Noise.of(hyper.seed, iteration=0,", "noise = Noise.of(0, iteration=0,",
             module=FEED),
        _run("ema", "Noise.of(self.seed, iteration=-1 - epoch", "Noise.of(0, iteration=-1 - epoch",
             module=FEED),
        _run("ema", "iteration=-1 - epoch", "iteration=-1", module=FEED),
    ],
    ("training", "", "compile"): [
        (check_compile, TRAIN, 'job.recipe.training.compile == "on"', "False"),
        (check_compile, TRAIN, 'job.recipe.training.compile == "on"', "True"),
    ],
    ("training", "", "checkpoint_seconds"): [
        (check_switches, TRAIN, "> hyper.checkpoint_seconds", "> 60.0"),
        (check_switches, TRAIN, "> hyper.checkpoint_seconds", "< hyper.checkpoint_seconds"),
    ],
    ("training", "", "checks"): [
        (check_switches, "jobs.watch", 'on = job.recipe.training.checks == "auto"', "on = True"),
        (check_switches, "jobs.watch", 'on = job.recipe.training.checks == "auto"', "on = False"),
    ],
    ("training", "", "threads"): [
        (check_threads, "jobs.prepare", "set_num_threads(recipe.training.threads)",
         "set_num_threads(1)"),
    ],
    ("training", "", "defaults"): [
        (check_defaults, "recipes.training", "ema: float = Field(0.999", "ema: float = Field(0.99"),
        (check_defaults, "recipes.training", "clip: float = Field(1.0", "clip: float = Field(2.0"),
    ],
    ("training", "", "step"): [
        _run("plain", "torch.manual_seed(hash((hyper.seed, state.iteration)) & (2**63 - 1))",
             "pass", module=TRAIN),
        _run("plain", "state.optimiser.zero_grad()", "pass", module=TRAIN),
        (check_not_finite, TRAIN, "math.isfinite(value) and math.isfinite(norm) and",
         "True or"),
        (check_not_finite, TRAIN, "and math.isfinite(norm) and", "and"),
        (check_not_finite, TRAIN, " and math.isfinite(float(goal.detach()))", ""),
        (check_not_finite, TRAIN, "        state.bad_in_a_row = 0\n", ""),
        (check_not_finite, TRAIN, "        state.skipped += 1\n", ""),
    ],
    ("training", "", "self-conditioning"): [
        _run("self-conditioning", "owner.dropped(x0, noise)", "x0", module=SELF),
        _run("self-conditioning", "owner.dropped(x0, noise)", "owner.dropped(batch.x, noise)",
             module=SELF),
        _run("self-conditioning", "with torch.no_grad():", "if True:", module=SELF),
        _run("self-conditioning", "estimated(net, batch, t, z, noise), t, z)", "batch, t, z)",
             module=OBJECTIVE),
    ],
    ("training", "", "feed"): [
        _run("plain", "Condition.drop_all(conditions, told, noise)", "told", module=FEED),
        _run("plain", "flip = noise.uniform(len(positions)) < 0.5", "flip = torch.zeros(1) > 0",
             module=FEED),
        _run("plain", "div_(127.5)", "div_(128.0)", module="core.types"),
    ],
    ("training", "", "modes"): [
        (check_modes, "jobs.watch", "    net.train(was_training)\n    return float",
         "    return float"),
        (check_modes, "jobs.watch", "    was_training = net.training\n    net.eval()\n    count",
         "    was_training = net.training\n    count"),
        (check_modes, "jobs.watch", "        net.eval()\n        rows", "        rows"),
        (check_modes, "jobs.checks", "        net.eval()\n", ""),
        (check_modes, "jobs.checks", "            net.train(was_training)\n", "            pass\n"),
        (check_modes, "jobs.watch", "        net.train(was_training)\n", ""),
    ],
}  # fmt: skip
