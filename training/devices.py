"""The processes and devices of a run, by Lightning Fabric."""

from __future__ import annotations

import logging
import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from training.coerce import ConfigError
from training.config import FABRIC_PRECISION, TrainConfig
from training.data import DataSpec

SMALL_PIXELS = 32 * 32
"""Images of at most so many pixels are trained on one CPU thread."""
MOST_THREADS = 4
"""Threads for larger ones, at most."""


def launch(config: TrainConfig) -> Fabric:
    """Fabric with its processes started; under torchrun the processes that it started, as many as they are.

    Without torchrun and with several `devices`, the command is run again for every further device.
    """
    devices, nodes = config.devices, config.nodes
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    several = devices * nodes > 1
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    precision = FABRIC_PRECISION[config.precision]
    if config.precision == "fp16" and _on_cpu(config.accelerator):
        raise ConfigError("precision = 'fp16' is not possible on the CPU: set precision=bf16 or float32")
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=DDPStrategy() if several else "auto",
            precision=precision,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"accelerator = {config.accelerator!r} with devices = {devices} is not possible here ({error}): "
            f"set accelerator=cpu, or fewer devices"
        ) from error
    fabric.launch()
    if fabric.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return fabric


def leave() -> None:
    """Leave the group of the run's processes, if there is one; the last thing that a process does in it.

    A thread of the group that still lets go of a tensor while the interpreter ends would abort the process.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _on_cpu(accelerator: str) -> bool:
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    return accelerator == "cpu" or (accelerator == "auto" and not accelerated)


def set_threads(threads: int, spec: DataSpec) -> None:
    """Set torch's CPU threads: as many as given, or for 0 as many as images of this size profit from."""
    if threads == 0:
        small = spec.height * spec.width <= SMALL_PIXELS
        threads = 1 if small else min(MOST_THREADS, len(os.sched_getaffinity(0)))
    torch.set_num_threads(threads)
