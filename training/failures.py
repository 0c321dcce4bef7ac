"""What stops a run, in words: the step, the reason and the remedy."""

from __future__ import annotations

import torch

from training.config import TrainConfig


class TrainingError(RuntimeError):
    """Training that cannot go on: names the step, the reason and the remedy."""


def known_reason(error: BaseException, step: int, config: TrainConfig) -> str | None:
    """Why a step failed and what helps, or None where only the error itself can tell."""
    text = str(error)
    no_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if no_memory or "can't allocate memory" in text or "out of memory" in text:
        return (
            f"out of memory at step {step} with batch_size = {config.batch_size}: "
            f"set a smaller batch_size or precision=bf16"
        )
    if config.compile and "double backward" in text:
        return (
            f"family {config.family!r} differentiates gradients, which compiled networks cannot do: "
            f"set compile=false"
        )
    return None
