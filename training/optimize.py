"""Optimizers, learning rates and the one way in which families update their networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training.family import OptimizerSpec


def learning_rate_factor(schedule: str, warmup_steps: int, step: int, steps: int) -> float:
    """Factor on the peak learning rate: a linear warm-up, then constant, or falling to zero at `steps`."""
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    done = max(0, step - warmup_steps) / max(1, steps - warmup_steps)
    if schedule == "cosine":
        return warmup * 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule == "linear":
        return warmup * (1.0 - done)
    return warmup


class Updates:
    """The optimizers of a run; called with an optimizer's name and a loss, it makes one update.

    The loss is differentiated with respect to that optimizer's parameters alone. With several processes the
    gradients are averaged here in one flat all-reduce rather than by DistributedDataParallel, which allows
    neither gradient penalties (`torch.autograd.grad` with a graph) nor several passes before a backward.
    """

    def __init__(self, fabric: Fabric, networks: nn.ModuleDict, specs: Mapping[str, OptimizerSpec]) -> None:
        self.fabric = fabric
        self.specs = specs
        self.factor = 1.0
        self.names: dict[str, list[str]] = {}
        self.parameters: dict[str, list[nn.Parameter]] = {}
        self.optimizers: dict[str, torch.optim.AdamW] = {}
        self._foreach = fabric.device.type in ("cpu", "cuda")
        # Gradient scaling of fp16 cannot clip the gradients of a fused optimizer.
        fused = self._foreach and fabric.strategy.precision.precision != "16-mixed"
        for name, spec in specs.items():
            found = {
                f"{network}.{key}": p
                for network in spec.networks
                for key, p in networks[network].named_parameters()
                if p.requires_grad
            }
            self.names[name], self.parameters[name] = list(found), list(found.values())
            self.optimizers[name] = torch.optim.AdamW(
                self.parameters[name],
                lr=spec.lr,
                betas=spec.betas,
                weight_decay=spec.weight_decay,
                fused=fused or None,
            )
        self._steppers: dict[str, Any] = {n: fabric.setup_optimizers(o) for n, o in self.optimizers.items()}
        self._mixed = fabric.strategy.precision.precision != "32-true"

    def __call__(self, name: str, loss: Tensor) -> None:
        """Back-propagate `loss` into the parameters of optimizer `name`, and step it."""
        if name not in self.optimizers:
            raise KeyError(f"optimizer {name!r} is not one of {', '.join(self.optimizers)}")
        parameters, optimizer, spec = self.parameters[name], self.optimizers[name], self.specs[name]
        for parameter in parameters:
            parameter.grad = None
        self.fabric.backward(loss, inputs=parameters)
        if self.fabric.world_size > 1:
            average_gradients(self.fabric, parameters)
        if spec.clip_norm is not None:
            self.fabric.strategy.precision.unscale_gradients(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, spec.clip_norm, foreach=self._foreach or None)
        for group in optimizer.param_groups:
            group["lr"] = spec.lr * self.factor
        self._steppers[name].step()
        if self._mixed:
            # Autocast keeps half-precision copies of weights, which are old now.
            torch.clear_autocast_cache()

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and counts as tensors named `optimizer/parameter/moment`."""
        return {
            f"{name}/{key}/{field}": value
            for name, optimizer in self.optimizers.items()
            for key, parameter in zip(self.names[name], self.parameters[name], strict=True)
            for field, value in optimizer.state.get(parameter, {}).items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state()` gave."""
        for name, optimizer in self.optimizers.items():
            places = {key: i for i, key in enumerate(self.names[name])}
            moments: dict[int, dict[str, Tensor]] = {}
            for full, value in state.items():
                owner, key, field = full.split("/")
                if owner == name:
                    moments.setdefault(places[key], {})[field] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def average_gradients(fabric: Fabric, parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= fabric.world_size
    parts = torch.split(flat, [g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])
