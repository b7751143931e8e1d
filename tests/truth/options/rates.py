"""The learning rate at every iteration, of every schedule and setting."""

from __future__ import annotations

import math

ITEMS, BATCH = 9, 4  # few items, so that six iterations are almost three epochs
BUDGET = 60  # iterations of the plan

OPTIONS = {"budget": f"{BUDGET} iterations", "batch": BATCH, "warmup": 2, "checks": "off",
           "compile": "off"}  # fmt: skip
DEFAULTS = {
    "budget": "10m", "batch": 128, "optimiser": "adamw", "lr": 2e-3, "schedule": "cooldown",
    "warmup": 100, "cooldown": 0.3, "floor": 0.0, "decay": 0.98, "every": 10, "weight_decay": 0.01,
    "beta1": 0.9, "beta2": 0.99, "clip": 1.0, "ema": 0.999, "ema_kind": "warmup",
    "uncertainty": False, "flip": False, "augment": 0.0, "augmentations": ("scale", "translate"),
    "force": False, "seed": 0, "compile": "auto", "checkpoint_seconds": 60.0, "checks": "auto",
    "threads": 0,
}  # fmt: skip


def rate_of(o, i):
    """The learning rate at iteration i."""
    epoch, rise = i * o["batch"] // ITEMS, min(1.0, (i + 1) / o["warmup"]) if o["warmup"] else 1.0
    if o["schedule"] == "constant":
        fall = 1.0
    elif o["schedule"] == "exponential":
        fall = o["decay"] ** epoch
    elif o["schedule"] == "step":
        fall = o["decay"] ** math.floor(epoch / o["every"])
    elif o["schedule"] == "cooldown":
        begins = BUDGET - round(BUDGET * o["cooldown"])
        fall = 1.0 if i < begins else (BUDGET - i) / (BUDGET - begins)
    else:
        left = min(1.0, (BUDGET - i) / (BUDGET - o["warmup"]))
        fall = left if o["schedule"] == "linear" else (1 + math.cos(math.pi * (1 - left))) / 2
    return o["lr"] * rise * max(o["floor"], fall)


def check_rates(kit) -> None:
    """The learning rate of every schedule and setting, iteration by iteration."""
    cases = [{"schedule": name} for name in ("cooldown", "constant", "cosine", "linear", "step",
                                             "exponential")]  # fmt: skip
    cases += [{**case, "floor": 0.3, "warmup": 0} for case in cases]
    cases += [
        {"floor": 0.6, "warmup": 3},
        {"cooldown": 0.0},
        {"cooldown": 1.0},
        {"schedule": "step", "every": 3, "decay": 0.7},
    ]
    cases += [{"schedule": "exponential", "decay": 0.5, "batch": 20}, {"warmup": 100}]
    for case in cases:
        o = DEFAULTS | OPTIONS | case
        training = kit("recipes.training").Training(**(OPTIONS | case))
        plan = kit("jobs.plan").first_plan(training, rate=10.0, items=ITEMS)
        o["warmup"] = min(o["warmup"], BUDGET // 20)
        for i in range(BUDGET):
            got = o["lr"] * plan.factor(i)
            assert math.isclose(got, rate_of(o, i), rel_tol=1e-9, abs_tol=1e-12), f"{case} {i}"
        assert plan.done(BUDGET) and not plan.done(BUDGET - 1)
    for budget, batch, want in (
        ("60 iterations", 4, 60),
        ("230 images", 4, 58),
        ("3 images", 8, 1),
    ):
        training = kit("recipes.training").Training(budget=budget, batch=batch)
        assert kit("jobs.plan").first_plan(training, rate=1.0).total == want, budget
    for text, seconds in (("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5m", 90)):
        assert kit("recipes.training").Budget.parse(text).seconds == seconds


CHECKS = (check_rates,)

PLAN = "jobs.plan"
MUTANTS = {
    ("training", "", "budget"): [
        (check_rates, PLAN, "-(-budget.images // batch)", "budget.images // batch"),
        (check_rates, "recipes.training", "hours * 3600", "hours * 60"),
        (check_rates, PLAN, "if budget.iterations is not None:", "if False:"),
    ],
    ("training", "", "batch"): [
        (check_rates, PLAN, "batch=training.batch,", "batch=1,"),
    ],
    ("training", "", "schedule"): [
        (check_rates, PLAN, 'if self.schedule == "cosine" else left', "if True else left"),
        (check_rates, PLAN, 'if self.schedule == "exponential":', "if False:"),
        (check_rates, PLAN, 'self.schedule == "constant" or', ""),
    ],
    ("training", "", "warmup"): [
        (check_rates, PLAN, "(iteration + 1) / self.warmup", "iteration / self.warmup"),
        (check_rates, PLAN, "min(training.warmup, max(1, total // 20))", "training.warmup"),
        (check_rates, PLAN, "self.total - self.warmup", "self.total"),
    ],
    ("training", "", "cooldown"): [
        (check_rates, PLAN, "round(total * training.cooldown)", "round(total * 0.3)"),
        (check_rates, PLAN, "max(1, self.total - self.cooldown)", "self.total"),
    ],
    ("training", "", "floor"): [
        (check_rates, PLAN, "floor=training.floor,", "floor=0.0,"),
        (check_rates, PLAN, "rise * max(self.floor,", "max(self.floor, rise *"),
    ],
    ("training", "", "decay"): [
        (check_rates, PLAN, "return self.decay**epoch", "return 0.98**epoch"),
    ],
    ("training", "", "every"): [
        (check_rates, PLAN, "epoch // self.every", "epoch // 10"),
        (check_rates, PLAN, "iteration * self.batch // self.items", "iteration // self.items"),
    ],
}  # fmt: skip
