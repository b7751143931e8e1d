"""AdamW on everything, or Muon on the matrices where it pays and AdamW on the rest.

Muon moves a matrix by the orthogonal factor of its momentum, which costs a Newton-Schulz iteration
an update, whatever the batch. So it pays only for a layer whose own work, batch and positions
together, is much larger. Source: Jordan et al., 2024; the scale that lets it share the learning
rate and the weight decay of AdamW: Liu et al., arXiv 2502.16982.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from steerable.core.condition import Condition
from steerable.core.types import Batch
from steerable.nn.embeddings import LevelEmbedding, RandomLevelEmbedding
from steerable.nn.uncertainty import Uncertainty
from steerable.recipes.assembly import Network
from steerable.recipes.training import Training

__all__ = ["Optimiser", "as_matrix", "newton_schulz_share", "paying"]

MOST = 0.1  # of a layer's own work that may be spent on orthogonalising its update
ROUNDS = 5  # of Newton-Schulz
MOMENTUM = 0.95


def newton_schulz_share(rows: int, columns: int, positions: int, batch: int) -> float:
    """FLOP of a Newton-Schulz update over those of the layer's own training step.

    A round is X X^T and two products of its size; a layer runs forward once and backward twice.

    Args:
        rows: Outputs of the layer.
        columns: Inputs of the layer, for a convolution channels times kernel size.
        positions: Places of one item at which the layer is applied.
        batch: Items a training step.
    """
    m, n = min(rows, columns), max(rows, columns)
    return ROUNDS * (4 * m * m * n + 2 * m**3) / (6 * batch * positions * m * n)


def as_matrix(value: Tensor, *, like: Tensor) -> Tensor:
    """A weight (Cout,Cin,...) or its gradient as a matrix (Cout,-1) in the order of `like`.

    The matrix of `like` itself shares its memory. The columns of a kernel in channels_last come in
    another order than those of a plain one, which an orthogonal factor does not mind.
    """
    flat = value.detach()
    if like.ndim == 4 and not like.is_contiguous():
        flat = flat.permute(0, 2, 3, 1)
    return flat.reshape(len(flat), -1)


def paying(net: Network, batch: Batch, size: int) -> dict[str, nn.Parameter]:
    """The hidden matrices of the backbone for which Muon pays, by parameter name.

    Left out are the first and the last layer, what embeds the noise level, convolutions in groups,
    and every layer whose Newton-Schulz share is above a tenth.

    Args:
        net: The network.
        batch: Any batch: its first item is sent through the network.
        size: Items a training step.
    """
    inner = {
        id(part)
        for module in net.backbone.modules()
        if isinstance(module, (LevelEmbedding, RandomLevelEmbedding))
        for part in module.modules()
    }
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    names: dict[nn.Module, str] = {
        module: f"backbone.{name}.weight"
        for name, module in net.backbone.named_modules()
        if isinstance(module, kinds) and id(module) not in inner
    }
    positions: dict[nn.Module, int] = {}  # in the order in which the layers run

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        here = output.numel() // _shape(module)[0]
        positions[module] = positions.get(module, 0) + here

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad():
            item = {name: value[:1] for name, value in batch.cond.items()}
            net(batch.x[:1], torch.full((1,), 0.5, dtype=torch.float64), item)
    finally:
        for handle in handles:
            handle.remove()
    # What acts on the vector alone runs once an item: the ends are those of the map.
    through = [module for module, places in positions.items() if places > 1] or list(positions)
    ends = (through[0], through[-1])
    return {
        names[module]: module.weight
        for module, places in positions.items()
        if module not in ends
        and isinstance(module.weight, nn.Parameter)
        and getattr(module, "groups", 1) == 1
        and newton_schulz_share(*_shape(module), places, size) < MOST
    }


def _shape(module: nn.Module) -> tuple[int, int]:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return len(weight), weight[0].numel()


def _groups(
    net: nn.Module, weight_decay: float, apart: Iterable[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only; not on norms, biases, tables or nulls."""
    looked_up = [m for m in net.modules() if isinstance(m, (nn.Embedding, Condition))]
    tables = {id(p) for m in looked_up for p in m.parameters(recurse=False)}
    left = {id(p) for p in apart}
    own = [p for p in net.parameters() if id(p) not in left]
    decayed = [p for p in own if p.ndim >= 2 and id(p) not in tables]
    chosen = {id(p) for p in decayed}
    rest = [p for p in own if id(p) not in chosen]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


class Optimiser:
    """One step for all parameters; its state goes into a checkpoint by parameter name.

    Args:
        net: The network.
        training: Kind, rates and decay.
        batch: A batch to send one item of through the network, to see where Muon pays.
        uncertainty: What is trained along, in a group of its own and without decay.
    """

    def __init__(
        self,
        net: Network,
        training: Training,
        batch: Batch,
        uncertainty: Uncertainty | None = None,
    ) -> None:
        self.matrices = paying(net, batch, training.batch) if training.optimiser == "muon" else {}
        groups = _groups(net, training.weight_decay, self.matrices.values())
        self.names = dict(net.named_parameters())
        if uncertainty is not None:
            groups.append({"params": list(uncertainty.parameters()), "weight_decay": 0.0})
            own = uncertainty.named_parameters()
            self.names |= {f"uncertainty.{name}": parameter for name, parameter in own}
        betas = (training.beta1, training.beta2)
        self.adamw = torch.optim.AdamW(groups, lr=training.lr, betas=betas, fused=True)
        self.flat = {name: as_matrix(p, like=p) for name, p in self.matrices.items()}
        for name, parameter in self.matrices.items():
            assert self.flat[name].data_ptr() == parameter.data_ptr(), "a view, not a copy"
        self.muon = (
            torch.optim.Muon(
                list(self.flat.values()),
                lr=training.lr,
                weight_decay=training.weight_decay,
                momentum=MOMENTUM,
                ns_steps=ROUNDS,
                adjust_lr_fn="match_rms_adamw",
            )
            if self.flat
            else None
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of parameters, those of Muon last."""
        return [*self.adamw.param_groups, *(self.muon.param_groups if self.muon else ())]

    def rate(self, lr: float) -> None:
        """Set the learning rate."""
        for group in self.param_groups:
            group["lr"] = lr

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.names.values():
            parameter.grad = None

    def step(self) -> None:
        """One update."""
        self.adamw.step()
        if self.muon is not None:
            for name, parameter in self.matrices.items():
                grad = parameter.grad
                self.flat[name].grad = None if grad is None else as_matrix(grad, like=parameter)
            self.muon.step()

    def _owners(self) -> Iterator[tuple[str, Tensor, dict[Any, Any]]]:
        """Name, parameter and the state that holds its moments."""
        for name, parameter in self.names.items():
            if self.muon is not None and name in self.flat:
                yield name, self.flat[name], self.muon.state
            else:
                yield name, parameter, self.adamw.state

    def tensors(self) -> dict[str, Tensor]:
        """The moments, by parameter name and kind."""
        return {
            f"{name}.{key}": value
            for name, parameter, state in self._owners()
            for key, value in state.get(parameter, {}).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the moments back."""
        owners = {name: (parameter, state) for name, parameter, state in self._owners()}
        for name, value in tensors.items():
            owner, _, key = name.rpartition(".")
            parameter, state = owners[owner]
            # A fused step walks raw memory: a moment must lie in memory as its parameter does.
            same = value.shape == parameter.shape
            like = torch.empty_like(parameter) if same else value.clone()
            state[parameter][key] = like.copy_(value).detach()
