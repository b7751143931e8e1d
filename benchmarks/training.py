"""Training speed against the network's own convolutions, and sampling against training."""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from steerable.core.noise import Noise
from steerable.core.sample import trajectory
from steerable.core.types import Batch, Spec
from steerable.grids.log_snr import log_snr
from steerable.guidance.cfg import Cfg
from steerable.jobs.plan import forward_flops
from steerable.recipes.assembly import network
from steerable.recipes.part import Part
from steerable.recipes.presets.flow import flow
from steerable.samplers.dpmpp_2m import Dpmpp2M


def timed(work: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def convolutions(net: nn.Module, batch: int, run: Callable[[], object]) -> list[Callable[[], int]]:
    """Forward and backward of every 3x3 convolution alone, at the sizes that the network uses."""
    shapes: dict[nn.Conv2d, torch.Size] = {}
    hooks = [
        m.register_forward_hook(lambda mod, args, _: shapes.__setitem__(mod, args[0].shape))
        for m in net.modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    run()
    for hook in hooks:
        hook.remove()
    works = []
    for conv, shape in shapes.items():
        x = torch.randn(batch, *shape[1:]).to(memory_format=torch.channels_last).requires_grad_()
        out = conv(x)
        grad = torch.randn_like(out)
        flops = 3 * 2 * out.numel() * conv.in_channels * 9

        def work(
            conv: nn.Conv2d = conv,
            x: torch.Tensor = x,
            grad: torch.Tensor = grad,
            flops: int = flops,
        ) -> int:
            conv(x).backward(grad)
            return flops

        works.append(work)
    return works


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    spec = Spec("bench", (1, 28, 28), {"label": tuple("0123456789")}, std=0.7)
    net = network(flow(spec, data=Part(kind="fashion"), size="s"), spec)
    batch = Batch(torch.randn(128, 1, 28, 28), {"label": torch.arange(128) % 10})
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-6, fused=True)
    noise = Noise.of(0, iteration=0, items=torch.arange(128))

    def train() -> None:
        optimiser.zero_grad(set_to_none=True)
        net.process.loss(net, batch, noise).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()

    times = log_snr(net.process.schedule, 10)

    def sample(guidance: Cfg | None = None, n: int = 64) -> None:
        cond = {"label": torch.arange(n) % 10}
        ask = guidance(net) if guidance else net
        seeds = Noise(torch.arange(n))
        x = net.process.start(times[0], seeds, torch.empty(n, 1, 28, 28))
        with torch.inference_mode():
            for _ in trajectory(
                lambda x_t, t: ask(x_t, t, cond),
                x,
                schedule=net.process.schedule,
                sampler=Dpmpp2M(),
                times=times,
                noise=seeds,
            ):
                pass

    works = convolutions(net, 128, train)
    flops = 3 * forward_flops(net, batch) * 128
    train(), sample()
    rows = []
    for _ in range(options.turns):
        seconds_train = timed(train, 4)
        start = time.perf_counter()
        done = sum(work() for _ in range(2) for work in works)
        rate_convolutions = done / (time.perf_counter() - start)
        seconds_sample = timed(sample, 1) / 64
        rows.append(
            {
                "train_gflops": flops / seconds_train / 1e9,
                "convolution_gflops": rate_convolutions / 1e9,
                "train_over_convolutions": flops / seconds_train / rate_convolutions,
                "sampled_per_training_image": seconds_train / 128 / seconds_sample,
                "training_images_per_second": 128 / seconds_train,
            }
        )
    median = {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
    doubled, twice = Cfg(weight=2.0, together=65536), Cfg(weight=2.0, together=0)
    for n in (1, 4, 16, 64):
        ratios = []
        for _ in range(options.turns):
            one = timed(functools.partial(sample, doubled, n), 1)
            two = timed(functools.partial(sample, twice, n), 1)
            ratios.append(two / one)
        median[f"two_calls_over_doubled_batch_{n}"] = round(statistics.median(ratios), 3)
    print(json.dumps({"threads": options.threads, "turns": options.turns, **median}, indent=1))


if __name__ == "__main__":
    main()
