"""Batches of a run: a process's share of every step's images, augmented and on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from lightning_fabric import Fabric

from training import randomness
from training.coerce import ConfigError
from training.config import TrainConfig
from training.data import Batch, ImageData
from training.data.augment import augmented


class Batches:
    """The batches of all steps; what a step sees depends on seed, step and process alone."""

    def __init__(self, config: TrainConfig, data: ImageData, fabric: Fabric) -> None:
        if config.batch_size % fabric.world_size:
            raise ConfigError(
                f"batch_size = {config.batch_size} cannot be shared among {fabric.world_size} processes: "
                f"set a multiple of {fabric.world_size}"
            )
        self._config, self._data, self._fabric = config, data, fabric
        self._order = randomness.Order(len(data), config.batch_size, config.seed)
        share = config.batch_size // fabric.world_size
        self._share = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
        on_cpu = fabric.device.type == "cpu"
        self._ahead = (0 if on_cpu else 2) if config.prefetch is None else config.prefetch
        self._pin = fabric.device.type == "cuda"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches") if self._ahead else None

    def from_step(self, begin: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) for every step that is left; with `prefetch` they are read ahead in a thread."""
        steps = range(begin, self._config.steps)
        if self._pool is None:
            for step in steps:
                yield step, self._to_device(self._read(step))
            return
        waiting: deque[tuple[int, Future[Batch]]] = deque()
        for step in steps:
            waiting.append((step, self._pool.submit(self._read, step)))
            if len(waiting) > self._ahead:
                due, future = waiting.popleft()
                yield due, self._to_device(future.result())
        for due, future in waiting:
            yield due, self._to_device(future.result())

    def close(self) -> None:
        """Stop reading ahead."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, step: int) -> Batch:
        indices = self._order.indices(step)[self._share]
        rng = randomness.numpy_rng(self._config.seed, randomness.DATA, step, self._fabric.global_rank)
        batch = augmented(self._data.batch(indices, rng), self._config.augment, rng)
        return pinned(batch) if self._pin else batch

    def _to_device(self, batch: Batch) -> Batch:
        device = self._fabric.device
        if device.type == "cpu":
            return batch
        images = batch.images.to(device, non_blocking=True)
        labels = None if batch.labels is None else batch.labels.to(device, non_blocking=True)
        targets = None if batch.targets is None else batch.targets.to(device, non_blocking=True)
        return Batch(images=images, labels=labels, targets=targets)


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory, from which a GPU copies while it computes."""

    def pin(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.pin_memory()

    return Batch(images=batch.images.pin_memory(), labels=pin(batch.labels), targets=pin(batch.targets))
