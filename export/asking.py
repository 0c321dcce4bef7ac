"""Asking a gateway for many images, and reading them as the arrays that the model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from serving.client import Client, Images
from training.data import DataSpec
from training.layers import Enlarge, Shrink

Pixels = NDArray[np.float32]
Labels = NDArray[np.int64]

IMAGES_A_REQUEST = 50
REQUESTS_AT_A_TIME = 4


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample, where it is not as the model says."""

    steps: int | None = None
    """Number of steps."""
    sampler: str = ""
    """Name of the sampler."""
    guidance_scale: float | None = None
    """Scale of classifier-free guidance."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Images that a gateway made."""

    images: Pixels
    """[n, channels, height, width] in [-1, 1], at the size that was trained on."""
    described: str
    """How they were made, in a sentence."""


def generate(
    client: Client,
    model: str,
    labels: Labels | None,
    *,
    count: int,
    spec: DataSpec,
    sampling: Sampling,
    seed: int,
    console: Console,
) -> Drawn:
    """`count` images of a model, image i of class `labels[i]`; every request has a seed of its own."""
    groups = (
        [np.arange(count)] if labels is None else [np.flatnonzero(labels == c) for c in np.unique(labels)]
    )
    requests = [
        group[start : start + IMAGES_A_REQUEST]
        for group in groups
        for start in range(0, len(group), IMAGES_A_REQUEST)
    ]

    def ask(number: int) -> Images:
        rows = requests[number]
        return client.generate(
            model,
            count=len(rows),
            class_id=None if labels is None else int(labels[rows[0]]),
            seed=seed * 1_000_003 + number,
            steps=sampling.steps,
            sampler=sampling.sampler,
            guidance_scale=sampling.guidance_scale,
        )

    answers = _asked(ask, len(requests), [len(rows) for rows in requests], f"Drawing from {model}", console)
    order = np.argsort(np.concatenate(requests))
    run = answers[0].run
    how = f"Sampled with {run.sampler}, {run.steps} steps" if run.sampler else "Sampled in one pass"
    guidance = f", guidance {run.guidance_scale:g}" if run.sampler and labels is not None else ""
    return Drawn(
        images=native(np.concatenate([answer.arrays for answer in answers])[order], spec),
        described=f"{how}{guidance}, in the exported graphs and through the gateway.",
    )


def translate(
    client: Client, model: str, images: Pixels, direction: str, *, spec: DataSpec, console: Console
) -> Pixels:
    """Images [n, channels, height, width] in [-1, 1] carried to the other domain."""
    pictures = to_bytes(images).transpose(0, 2, 3, 1)
    starts = range(0, len(pictures), IMAGES_A_REQUEST)

    def ask(number: int) -> Images:
        start = starts[number]
        return client.translate(model, list(pictures[start : start + IMAGES_A_REQUEST]), direction=direction)

    sizes = [len(pictures[start : start + IMAGES_A_REQUEST]) for start in starts]
    answers = _asked(ask, len(starts), sizes, f"Translating {direction} with {model}", console)
    return native(np.concatenate([answer.arrays for answer in answers]), spec)


def native(pictures: NDArray[np.uint8], spec: DataSpec) -> Pixels:
    """Pictures [n, height, width, channels] of a gateway as images at the size that was trained on."""
    images = torch.from_numpy(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)
    return np.asarray(Shrink(spec.enlarge)(images).numpy()) if spec.enlarge > 1 else images.numpy()


def as_served(images: Pixels, spec: DataSpec) -> Pixels:
    """Real images as they would come back from a gateway: enlarged, in 8 bits, and taken back."""
    enlarged = Enlarge(spec.enlarge)(torch.from_numpy(images)).numpy() if spec.enlarge > 1 else images
    return native(to_bytes(enlarged).transpose(0, 2, 3, 1), spec)


def to_bytes(images: Pixels) -> NDArray[np.uint8]:
    """Images in [-1, 1] in 8 bits, rounded to nearest."""
    return np.round((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def _asked(
    ask: Callable[[int], Images], count: int, sizes: Sequence[int], title: str, console: Console
) -> list[Images]:
    """The answers to `count` requests in their order, several at a time, with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(REQUESTS_AT_A_TIME) as pool:
        bar = progress.add_task(title, total=sum(sizes))
        answers = []
        for size, answer in zip(sizes, pool.map(ask, range(count)), strict=True):
            answers.append(answer)
            progress.advance(bar, size)
    return answers
