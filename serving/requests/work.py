"""The calls that a request is going to make, known before the first of them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from serving.batching.ticket import Work
from serving.calls import Array, Call, Progress
from serving.requests.generation import Generation
from serving.samplers import Denoised, sampler


def generation_work(generation: Generation) -> tuple[Work, ...]:
    """Those that draw images: of one pass, or of every step and of the decoder behind them."""
    model, count = generation.model, generation.count
    if generation.steps is None:
        assert model.drawn is not None, "a model that generates in one pass has a generator or a decoder"
        return (Work(graph=model.drawn.graph, rows=count),)
    assert model.denoiser is not None, "steps are those of a denoiser"
    calls = calls_of(generation.steps.sampler, generation.steps.steps)
    denoising = Work(graph=model.denoiser.graph, rows=generation.rows, calls=calls)
    if generation.decoder is None:
        return (denoising,)
    return (denoising, Work(graph=generation.decoder.graph, rows=count))


@lru_cache(maxsize=4096)
def calls_of(name: str, steps: int) -> int:
    """How often a sampler calls the graph in so many steps: counted, by running it on a single number."""

    def denoise(x: Array, sigma: float) -> Denoised:
        yield Call(graph="", inputs={"x": x})
        return np.zeros_like(x)

    number = np.ones((1, 1, 1, 1), np.float32)
    program = sampler(name)(denoise, number, np.linspace(1, 0, steps + 1).tolist(), lambda step: number)
    return sum(not isinstance(wanted, Progress) for wanted in program)
