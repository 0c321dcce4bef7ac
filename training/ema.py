"""An exponential moving average of weights, ramped up at the beginning."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """Averages of the parameters of some networks; their buffers are taken as they are.

    The decay of a step is min(decay, (1 + step) / (10 + step)): the initial weights are soon forgotten.
    """

    def __init__(self, networks: nn.ModuleDict, names: tuple[str, ...], decay: float) -> None:
        self.decay = decay
        self.names = names
        self._networks = networks
        self.networks = copy.deepcopy(networks).eval().requires_grad_(False)
        self._live: list[Tensor] = [p for n in names for p in networks[n].parameters()]
        self._averages: list[Tensor] = [p for n in names for p in self.networks[n].parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the weights that `step` (from 0) left."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._live, 1.0 - decay)

    @torch.no_grad()
    def module(self) -> nn.ModuleDict:
        """All networks in eval mode: averaged weights where there is an average, present ones elsewhere."""
        for name, network in self.networks.items():
            live = self._networks[name]
            if name not in self.names:
                for mine, parameter in zip(network.parameters(), live.parameters(), strict=True):
                    mine.copy_(parameter)
            for kept, buffer in zip(network.buffers(), live.buffers(), strict=True):
                kept.copy_(buffer)
        return self.networks

    def state(self) -> dict[str, Tensor]:
        """The averaged networks' tensors by name, as in the `state_dict` of all networks."""
        module = self.module()
        return {f"{name}.{k}": v for name in self.names for k, v in module[name].state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state()` gave."""
        own = self.networks.state_dict()
        with torch.no_grad():
            for key, value in state.items():
                own[key].copy_(value)
