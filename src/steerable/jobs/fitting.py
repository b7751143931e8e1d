"""How the small networks that measure samples are trained, asked and named."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from steerable.core.condition import absent
from steerable.core.errors import UserError
from steerable.core.noise import Noise
from steerable.core.types import Dataset
from steerable.nn.classifier import Classifier
from steerable.recipes.sizing import FLOPS_PER_SECOND

__all__ = [
    "MOST", "PATIENCE", "affordable", "chunks", "digest", "fitted", "frozen", "known", "moved",
    "plain", "seen",
]  # fmt: skip

MOST = 480_000  # pictures seen, where nothing else is said
PATIENCE = 300.0  # seconds after which learning stops in any case, and is not the same next time
PEAK_LR = 4e-3  # of AdamW behind batch norms; the mean of the cycle is about half of it
WARM_UP = 0.2  # share of the training during which the learning rate climbs

Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs (B,K), index (B,)) -> ()
Move = Callable[[Tensor, Noise], Tensor]  # pictures (B,C,H,W) uint8 to others of the same meaning


def known(data: Dataset, name: str, part: str) -> Dataset:
    """The items whose condition `name` is known.

    Raises:
        UserError: E-DATA when there is none.
    """
    where = f"{part} pictures of '{data.spec.name}'"
    if name not in data.cond:
        got = f"conditions: {', '.join(data.cond) or 'none'}"
        raise UserError("E-DATA", where=where, got=got, takes=f"the condition '{name}' to learn")
    chosen = torch.nonzero(~absent(data.cond[name]))[:, 0]
    if len(chosen) == 0:
        raise UserError("E-DATA", where=where, got=f"no picture with the condition '{name}'")
    return data if len(chosen) == len(data) else data.take(chosen)


def moved(x: Tensor, noise: Noise, *, flip: bool) -> Tensor:
    """Bytes (B,C,H,W) moved by up to a fourteenth of each side, half of them flipped if allowed.

    The border pixels are repeated, which fits any background.
    """
    places = []
    for side in x.shape[-2:]:
        reach = max(1, round(side / 14))
        shift = noise.integers(len(x), 2 * reach + 1) - reach
        places.append((torch.arange(side) + shift[:, None]).clamp(0, side - 1))
    rows, columns = places
    if flip:
        turned = noise.uniform(len(x)) < 0.5
        columns = torch.where(turned[:, None], columns.flip(1), columns)
    item = torch.arange(len(x))[:, None, None]
    return x[item, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def affordable(shape: tuple[int, ...], seconds: float) -> int:
    """Pictures of a shape (C,H,W) that two usual cores learn from in a time, at most `MOST`.

    From the cost of a picture and not from the clock, so that the same data gives the same network
    on a busy machine too.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        Classifier(shape[0], 2)(torch.zeros(1, *shape))
    return min(MOST, round(seconds * FLOPS_PER_SECOND / (3 * counter.get_total_flops())))


def fitted(
    train: Dataset,
    outputs: int,
    *,
    loss: Loss,
    move: Move,
    seconds: float,
    seed: int,
    most: int = MOST,
) -> Classifier:
    """A network trained by AdamW with one cycle of the learning rate.

    It ends with the time or after `most` pictures seen, but within 8 to 60 epochs; in the latter
    case the same seed gives the same network.

    Args:
        train: Pictures to learn from.
        outputs: Width of the output.
        loss: Of the outputs of some pictures and their numbers.
        move: Applied to the pictures of every step.
        seconds: Most time to train.
        seed: Seed of the weights, of the order and of what `move` draws.
        most: Pictures to be seen.

    Raises:
        UserError: E-SHAPE for pictures below 4 x 4; E-LIMIT for a time that is not above 0.
    """
    spec = train.spec
    if not seconds > 0:
        where = f"seconds of training on '{spec.name}'"
        raise UserError("E-LIMIT", where=where, got=str(seconds), takes="above 0")
    if len(spec.shape) != 3 or min(spec.shape[1:]) < 4:
        raise UserError("E-SHAPE", where=spec.name, got=str(spec.shape), takes="(C,H,W), 4 x 4 up")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Classifier(spec.shape[0], outputs)
    count, begun, share = len(train), time.monotonic(), 0.0
    size = min(128, max(8, count // 8))
    total = math.ceil(count / size) * min(60, max(8, most // count))
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_LR, weight_decay=0.05)
    for iteration, index in enumerate(_shuffled(count, size, seed)):
        climb, fall = share / WARM_UP, (1.0 - share) / (1.0 - WARM_UP)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * max(0.01, min(climb, 0.5 - 0.5 * math.cos(math.pi * fall)))
        x = move(train.x[index], Noise.of(seed, iteration=iteration, items=index))
        value = loss(net(_floats(x, net)), index)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        share = max((iteration + 1) / total, (time.monotonic() - begun) / seconds)
        if share >= 1.0:
            break
    return net


def _shuffled(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Numbers of the items in batches, epoch after epoch without an end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(size)


def _floats(x: Tensor, net: Classifier) -> Tensor:
    return x.to(net.out.weight.device, torch.float32).div_(127.5).sub_(1.0)


def chunks(net: Classifier, x: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, features (B,128) float64 and outputs (B,K) of pictures (N,C,H,W) uint8, in parts."""
    net.eval()
    for start in range(0, len(x), 256):
        rows = slice(start, start + 256)
        with torch.inference_mode():
            inner = net.features(_floats(x[rows], net))
            out = net.out(inner)
        yield rows, inner.to("cpu", torch.float64), out.cpu()


def seen(net: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N,128) float64 and outputs (N,K) of pictures (N,C,H,W) uint8."""
    features = torch.empty(len(x), net.feature_width, dtype=torch.float64)
    outputs = torch.empty(len(x), net.out.out_features)
    for rows, inner, out in chunks(net, x):
        features[rows], outputs[rows] = inner, out
    return features, outputs


def frozen(net: Classifier) -> Classifier:
    """The network in evaluation mode, without gradients."""
    return net.eval().requires_grad_(False)


def plain(net: nn.Module) -> dict[str, Tensor]:
    """The weights as they are written to a file."""
    return {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors by name."""
    return hashlib.sha256(save(dict(tensors))).hexdigest()
