"""The known mistakes of samplers, grids, schedules, processes, networks and of CFG, as edits."""

from __future__ import annotations

ANC, DDIM, EULER, HEUN, DPM = (
    f"samplers.{kind}" for kind in ("ancestral", "ddim", "euler", "heun", "dpmpp_2m")
)
ANC_MEAN = "x_s = spread(alpha_s, x_t) * estimate.x0 + spread(kept, x_t) * estimate.noise"
ANC_NOISE = "spread(tau, x_t) * noise.normal(x_t)"
SCALES = "schedule(t), schedule(s)"
SAMPLE, SCHEDULE, TYPES, PROCESS = "core.sample", "core.schedule", "core.types", "core.process"
DENOISE, CONDITION, STEER, CFG = "core.denoise", "core.condition", "core.steer", "guidance.cfg"
DPM3, UNIPC, SDE2M, ERSDE, LMS, DEIS, IPNDM = (
    f"samplers.{kind}"
    for kind in ("dpmpp_3m", "unipc", "dpmpp_2m_sde", "er_sde", "lms", "deis", "ipndm")
)
DPM2, EM, PC, CHURN, RESTART = (
    f"samplers.{kind}"
    for kind in ("dpm2", "euler_maruyama", "predictor_corrector", "heun_churn", "restart")
)
MULTISTEP, TRAPEZIUM = "nn.multistep", "nn.trapezium"
# modules that have checks of their own, in solvers.py
OF_SOLVERS = {DPM2, DPM3, UNIPC, SDE2M, ERSDE, LMS, DEIS, IPNDM, EM, PC, CHURN, RESTART}
OF_SOLVERS |= {MULTISTEP, TRAPEZIUM}
PLACE = "t.to(torch.float64).clamp(0.0, 1.0) * self.levels"
TWICE = """
    def _twice(self, guided, denoise, x, t, c):
        first = guided(x, t, c)
        return first.with_x0(torch.lerp(denoise(x, t, {}).x0, first.x0, self.weight))
"""
GROUPS = "    def _groups"  # the method before which it is put

# name: module, then pairs of the text to find and its replacement
MUTANTS = {
    # the sampler's step
    "re-noise x0-hat at the wrong level": (
        ANC,
        ANC_MEAN,
        "x_s = spread(alpha_t, x_t) * estimate.x0",
    ),
    "posterior of the level it comes from": (ANC, SCALES, "schedule(t), schedule(t)"),
    "abar of s shifted by one level": (ANC, SCALES, "schedule(t), schedule(s + 1e-3)"),
    "abar of t shifted by ten levels": (ANC, SCALES, "schedule(t + 1e-2), schedule(s)"),
    "table shifted by one": (SCHEDULE, PLACE, f"({PLACE} + 1.0).clamp(max=self.levels)"),
    "table shifted by ten": (SCHEDULE, PLACE, f"({PLACE} + 10.0).clamp(max=self.levels)"),
    "table shifted back by one": (SCHEDULE, PLACE, f"({PLACE} - 1.0).clamp(min=0.0)"),
    "no fresh noise": (ANC, ANC_NOISE, "0.0"),
    "fresh noise x 0.7": (ANC, ANC_NOISE, f"0.7 * {ANC_NOISE}"),
    "all noise x 0.7": ("core.noise", "mul_(-2.0).sqrt_()", "mul_(-0.98).sqrt_()"),
    "one noise for all items": (
        "core.noise",
        "keys[:, None] +",
        "keys[:1, None].expand(len(keys), 1) +",
    ),
    "noise in the last step": (
        SAMPLE,
        "x = ask(x, t).x0",
        "x = ask(x, t).x0 + 0.02 * noise.normal(x)",
    ),
    "plus under the root of eta": (ANC, "sigma_s**2 - tau**2", "sigma_s**2 + tau**2"),
    "eta squared": (ANC, "self.eta * torch.sqrt", "self.eta**2 * torch.sqrt"),
    "tau without its alpha": (ANC, "alpha_t / alpha_s * sigma_s", "sigma_s"),
    "no Tweedie": (SAMPLE, "elif s == 0:", "elif s < 0:"),
    "Euler-Maruyama": (
        ANC,
        ANC_MEAN,
        "x_s = x_t + spread(sigma_t**2 - sigma_s**2, x_t) * estimate.score",
        "spread(tau, x_t) *",
        "spread(torch.sqrt(sigma_t**2 - sigma_s**2), x_t) *",
    ),
    "uniform grid under another name": (
        "grids.log_snr",
        "return times_of(schedule, first + share * (last - first))",
        "return torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)",
    ),
    "grid past t = 0": (
        "grids.uniform",
        "torch.linspace(1.0, 0.0, steps + 1",
        "torch.linspace(1.0, -0.01, steps + 1",
    ),
    "grid that stops short of the data": (
        "grids.log_snr",
        "return times_of(schedule, first + share * (last - first))",
        "return times_of(schedule, first + share * (last - first)).clamp(min=1e-3)",
    ),
    "DDPM grid shifted by one": ("grids.ddpm", "(index + 1) / levels", "index / levels"),
    "trailing grid that leads": (
        "grids.ddpm",
        "torch.round(levels - place * levels / steps) - 1",
        "torch.floor((steps - 1 - place) * levels / steps)",
    ),
    "score sign": (TYPES, "return -self.noise /", "return self.noise /"),
    "score over sigma squared": (
        TYPES,
        "return -self.noise / spread(self.sigma, self.x_t)",
        "return -self.noise / spread(self.sigma, self.x_t) ** 2",
    ),
    "noise without alpha": (
        TYPES,
        "self.x_t - spread(self.alpha, self.x_t) * self.x0",
        "self.x_t - self.x0",
    ),
    "noise sign": (TYPES, "(self.x_t - spread(self.alpha", "(-self.x_t + spread(self.alpha"),
    "DDIM sign of the noise": (DDIM, "estimate.x0 + spread(", "estimate.x0 - spread("),
    "DDIM at the old level": (
        DDIM,
        "alpha_s, sigma_s = schedule(s)",
        "alpha_s, sigma_s = schedule(t)",
    ),
    "Euler up instead of down": (
        EULER,
        "spread(sigma_s, x_t) *",
        "spread(2.0 * alpha_s * schedule.level(t).exp() - sigma_s, x_t) *",
    ),
    "Euler without alpha": (
        EULER,
        "spread(sigma_s, x_t) *",
        "spread(sigma_s + (alpha_s / schedule(t)[0] - 1.0) * schedule(t)[1], x_t) *",
    ),
    "Euler under the name of Heun": (
        TRAPEZIUM,
        "return guess + rise * (first.x0 - second.x0)",
        "return guess",
    ),
    "Heun's second slope at the old time": (TRAPEZIUM, "ask(guess, s)", "ask(guess, t)"),
    "Heun's second slope at the old place": (
        TRAPEZIUM,
        "ask(guess, s)",
        "ask(x_t, s)",
    ),
    "Heun's line with the slope of the ratio": (
        TRAPEZIUM,
        "guess = spread(alpha_s, x_t) * first.x0 + spread(sigma_s, x_t) * first.noise",
        "kept, rise = spread(scale, x_t) * x_t, spread(sigma_s - scale * sigma_t, x_t)\n"
        "    guess = kept + rise * first.noise",
        "rise = spread((sigma_s - scale * sigma_t) * bend / 2.0, x_t)\n"
        "    return guess + rise * (first.x0 - second.x0)",
        "return kept + rise * (first.noise + second.velocity) / 2",
    ),
    "Heun from afar in the ratio": (HEUN, 'self.variable == "line"', "False"),
    "Euler under the name of 2M": (DPM, "if memory is not None:", "if False:"),
    "2M weighs the past twice": (DPM, "h / (2.0 * last_h)", "h / last_h"),
    "2M inverts the ratio of steps": (DPM, "h / (2.0 * last_h)", "last_h / (2.0 * h)"),
    "2M extrapolates backwards": (
        DPM,
        "extrapolated = x0 + spread(",
        "extrapolated = x0 - spread(",
    ),
    # the solvers of higher order
    "Euler under the name of DPM-Solver-2": (
        DPM2,
        "return end + spread(sigma_s - alpha_s / alpha_t * sigma_t, x_t) * change, None",
        "return end, None",
    ),
    "DPM-Solver-2 in the middle of t": (
        DPM2,
        "schedule.time_at((schedule.level(t) + schedule.level(s)) / 2)",
        "(t + s) / 2",
    ),
    "DPM-Solver-2 goes on from the middle": (
        DPM2,
        "spread(sigma_s - alpha_s / alpha_t * sigma_t, x_t) * change",
        "spread(sigma_s - alpha_s / alpha_m * sigma_m, x_t) * change",
    ),
    "3M without the 2 of its parabola": (DPM3, "2.0 * p2 / h - 1.0", "p2 / h - 0.5"),
    "3M with the parabola's sign": (
        DPM3,
        "change = change + spread(2.0",
        "change = change - spread(2.0",
    ),
    "3M with the steps exchanged": (
        DPM3,
        "first = first + spread(r0, x_t)",
        "first = first + spread(r1, x_t)",
    ),
    "2M under the name of 3M": (DPM3, "if len(history) > 2:", "if False:"),
    "history in the wrong order": (
        MULTISTEP,
        "((level, answer), *before)[:most]",
        "(*before, (level, answer))[-most:]",
    ),
    "history one too short": (MULTISTEP, "*before)[:most]", "*before)[: most - 1]"),
    "history kept across a turn": (MULTISTEP, "* (level - ahead) <= 0", "* (level - ahead) > 1e9"),
    "history dropped at every step": (MULTISTEP, "(level - ahead) <= 0", "(level - ahead) >= 0"),
    "Lagrange with the wrong node": (MULTISTEP, "(u - known[k]) /", "(u - known[j] + 1) /"),
    "integral without dr": (MULTISTEP, "at.exp() * weights", "weights"),
    "LMS in log sigma": (LMS, "start, end, torch.exp)", "start, end, lambda level: level)"),
    "LMS of order 3": (LMS, "most=4", "most=3"),
    "DEIS in sigma": (DEIS, "_VARIABLES[self.variable])", "torch.exp)"),
    "DEIS with half of beta": (DEIS, "4 * 9.95", "2 * 9.95"),
    "iPNDM's third weight": (IPNDM, "37 / 24", "36 / 24"),
    "iPNDM's weights of order 2": (IPNDM, "(3 / 2, -1 / 2)", "(1 / 2, 1 / 2)"),
    "UniPC without its corrector": (UNIPC, "if memory:", "if False:"),
    "UniPC corrects twice": (
        UNIPC,
        "bend = self._bend(memory, start, x0) - ",
        "bend = 2 * self._bend(memory, start, x0) - 2 * ",
    ),
    "UniPC corrects the wrong way": (
        UNIPC,
        "x_t = x_t - spread(weight, x_t) * bend",
        "x_t = x_t + spread(weight, x_t) * bend",
    ),
    "UniPC with bh1": (UNIPC, "base = torch.expm1(-h)\n", "base = -h\n"),
    "UniPC's factorial": (UNIPC, "factorial *= i + 2.0", "factorial *= i + 1.0"),
    "UniPC with weight 1 for 1/2": (UNIPC, "half = 0.5 if", "half = 1.0 if"),
    # the stochastic solvers
    "2M SDE without its noise": (SDE2M, "spread(fresh, x_t) *", "0.0 *"),
    "2M SDE with the noise of an ODE step": (SDE2M, "-2.0 * self.eta", "-self.eta"),
    "2M SDE keeps too much": (SDE2M, "torch.exp(-self.eta * h)", "torch.exp(0.0 * h)"),
    "2M SDE with its variants exchanged": (
        SDE2M,
        'self.solver == "midpoint"',
        'self.solver != "midpoint"',
    ),
    "ER-SDE with the variance of a full SDE": (
        ERSDE,
        "r_s**2 - (q * r_t) ** 2",
        "r_s**2 - (r_s**2 / r_t) ** 2",
    ),
    "ER-SDE noise without its root": (ERSDE, "torch.sqrt(variance)", "variance"),
    "ER-SDE as printed, of order 2": (
        ERSDE,
        "(ratios[0] - ratios[1]) / 2.0, x_t)",
        "0.0 * ratios[0], x_t)",
    ),
    "ER-SDE with another noise scale": (ERSDE, "r**0.3", "r**0.5"),
    "ER-SDE integral of the wrong moment": (
        ERSDE,
        "(density * (r - start.exp()))",
        "(density * r)",
    ),
    "Euler-Maruyama with half the drift": (
        EM,
        "kept = alpha_s * (sigma_s / alpha_s) ** 2 / (sigma_t / alpha_t)",
        "kept = alpha_s * ((sigma_s / alpha_s) ** 2 / (sigma_t / alpha_t) + sigma_t / alpha_t) / 2",
    ),
    "Euler-Maruyama with the noise of the level": (
        EM,
        "torch.sqrt(fall.clamp(min=0.0))",
        "sigma_t / alpha_t",
    ),
    "corrector noise without its 2": (PC, "torch.sqrt(2.0 * eps)", "torch.sqrt(eps)"),
    "snr not squared": (
        PC,
        "2.0 * (alpha_t / alpha_s * self.snr * sigma_t) ** 2",
        "2.0 * self.snr * (alpha_t / alpha_s * sigma_t) ** 2",
    ),
    "corrector down the density": (PC, "x_t + spread(eps, x_t) *", "x_t - spread(eps, x_t) *"),
    "corrector steps ignored": (PC, "range(self.corrector_steps)", "range(1)"),
    "churn with the sum of the levels": (
        CHURN,
        "sigma_u**2 - (scale * sigma_t) ** 2",
        "sigma_u**2 + (scale * sigma_t) ** 2",
    ),
    "churn asks at the old level": (CHURN, "+ fresh, higher", "+ fresh, t"),
    "churn everywhere": (
        CHURN,
        "self.churn_min <= math.exp(level) <= self.churn_max",
        "math.exp(level) > 0",
    ),
    "restart with the whole noise": (
        RESTART,
        "sigma_t**2 - (scale * sigma_s) ** 2",
        "sigma_t**2",
    ),
    "restart goes up by scaling": (RESTART, "spread(missing, x_s) *", "0.0 *"),
    "restart once only": (RESTART, "range(self.repeats)", "range(1)"),
    "restart from above the interval too": (
        RESTART,
        "if schedule.level(t) > math.log(self.low) >= bottom:",
        "if math.log(self.low) >= bottom:",
    ),
    "memory forgotten": (SAMPLE, "x, memory = sampler.step", "x, _ = sampler.step"),
    "climb without renoising": (SAMPLE, "if renoises:", "if False:"),
    "climb with the wrong variance": (SAMPLE, "(scale * sigma_t) ** 2", "sigma_t**2"),
    "climb with the whole noise": (SAMPLE, "sigma_s**2 - (scale * sigma_t) ** 2", "sigma_s**2"),
    # the schedule and the process
    "VP integral without its half": (SCHEDULE, "0.5 * t * (self.beta_max", "t * (self.beta_max"),
    "VE power without its two": (SCHEDULE, "/ (2.0 * log_base)", "/ log_base"),
    "cosine without its offset": (SCHEDULE, "(u + 0.008) / 1.008", "u"),
    "one t per batch": (PROCESS, "else noise.uniform(n)", "else noise.uniform(n)[:1].expand(n)"),
    "one stratified t per batch": (
        PROCESS,
        "noise.stratified(n) if",
        "noise.stratified(n)[:1].expand(n) if",
    ),
    "unit weight not squared": (
        PROCESS,
        "target(alpha, sigma)[2] ** 2",
        "target(alpha, sigma)[2].abs()",
    ),
    "noised with one level": (PROCESS, "spread(sigma, x0) * z", "spread(sigma.mean(), x0) * z"),
    "start without the data": (PROCESS, "math.hypot(float(sigma), ", "math.hypot(0.0, "),
    "v with the wrong sign": (
        "core.target",
        "alpha / rho**2, -sigma / rho",
        "alpha / rho**2, sigma / rho",
    ),
    "EDM skip without alpha": ("core.target", "alpha * d**2 / q**2", "d**2 / q**2"),
    "c_in without the data": ("core.target", "return 1.0 / q,", "return 1.0 / sigma,"),
    # what the network is told
    "respaced level told to the net": (
        DENOISE,
        "level = torch.log(sigma / alpha)",
        "level = self.process.schedule.level((t * 17).round() / 17)",
    ),
    "level upside down": (DENOISE, "torch.log(sigma / alpha)", "torch.log(alpha / sigma)"),
    "one level per batch": (
        DENOISE,
        ".to(x_t).expand(len(x_t))",
        ".to(x_t).mean().expand(len(x_t))",
    ),
    "null is not the trained null": (
        DENOISE,
        "condition.null.expand(",
        "torch.zeros_like(condition.null).expand(",
    ),
    "absent item gets a zero": (
        CONDITION,
        "self.null, encoded)",
        "0.0 * self.null, encoded)",
    ),
    "dropout per pixel": (
        CONDITION,
        "drop.reshape(-1, *[1] * (value.ndim - 1))",
        "torch.rand(value.shape) < self.dropout",
    ),
    "dropout per batch": (
        CONDITION,
        "noise.uniform(len(value)) <",
        "noise.uniform(len(value))[0] <",
    ),
    "dropout the wrong way round": (CONDITION, "< self.dropout", ">= self.dropout"),
    # guidance
    "guidance sign": (CFG, "x0 + (weight", "x0 - (weight"),
    "weight off by one": (CFG, "(weight - 1.0) *", "weight *"),
    "applied twice": (
        CFG,
        "return guided",
        "return lambda x, t, c: self._twice(guided, denoise, x, t, c)",
        GROUPS,
        f"{TWICE}\n{GROUPS}",
    ),
    "weight squared": (CFG, "(weight - 1.0) *", "(weight**2 - 1.0) *"),
    "weight one is not off": (CFG, "if group[1] != 1.0", "if group[1] != 0.0"),
    "own weights ignored": (CFG, "if k not in group} for", "if k not in cond} for"),
    "own weights add up on the sum": (
        CFG,
        "x0 = x0 + (weight - 1.0) * (full.x0",
        "x0 = x0 + (weight - 1.0) * (x0",
    ),
    "unconditional asked with the label": (
        CFG,
        "denoise(x_t, t, rest).x0",
        "denoise(x_t, t, cond).x0",
    ),
    "class 0 as the null": (CFG, "(absent_like(value)", "(torch.zeros_like(value)"),
    "y shuffled": (CFG, "torch.cat([value, *", "torch.cat([value.flip(0), *"),
    "halves swapped": (
        CFG,
        "first, *without = answer.x0.split(n)",
        "*without, first = answer.x0.split(n)",
    ),
    "start and stop ignored by CFG": (CFG, " if self.active(t) else []", ""),
    "start and stop ignored": (STEER, "return bool(torch.all(", "return True or bool(torch.all("),
    "start ignored": (STEER, "(t <= self.start) & ", ""),
    "stop ignored": (STEER, " & (t >= self.stop)", ""),
    "start and stop exchanged": (
        STEER,
        "(t <= self.start) & (t >= self.stop)",
        "(t <= self.stop) | (t >= self.start)",
    ),
    "interval open at its ends": (STEER, "(t <= self.start)", "(t < self.start)"),
}
