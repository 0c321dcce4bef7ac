"""Pictures out of noise: in one pass, or step by step."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.calls import Array, Program, ask
from serving.manifest import Manifest
from serving.noise import Stream, normal
from serving.samplers import Sampler
from serving.samplers.denoiser import denoiser, start_scale

ClassIds = NDArray[np.int64]
"""A class for each image [count]."""


def one_pass(
    graph: Manifest, *, seed: int, count: int, class_id: ClassIds | None, truncation: float = 1.0
) -> Program[Array]:
    """A generator or decoder on latents from the prior; `truncation` scales them towards the mean, 0."""
    spec = graph.input("latent")
    assert spec is not None, "checked when the catalog was made"
    latent = normal(seed, count, spec.shape, Stream.PRIOR)
    if truncation != 1:
        latent *= truncation
    return (yield from draw(graph, latent, class_id, seed=seed))


def diffusion(
    graph: Manifest,
    decoder: Manifest | None,
    *,
    sampler: Sampler,
    sigmas: list[float],
    seed: int,
    count: int,
    class_id: ClassIds | None,
    guidance_scale: float,
) -> Program[Array]:
    """Noise walked down `sigmas` by a sampler, and then through the decoder where there is one."""
    spec = graph.input("x")
    assert spec is not None, "checked when the catalog was made"
    x = start_scale(graph, sigmas[0]) * normal(seed, count, spec.shape, Stream.PRIOR)
    noise = partial(normal, seed, count, spec.shape, Stream.STEP)
    x = yield from sampler(denoiser(graph, class_id, guidance_scale), x, sigmas, noise)
    return (yield from finish(decoder, x, class_id))


def finish(decoder: Manifest | None, x: Array, class_id: ClassIds | None) -> Program[Array]:
    """The picture of a denoised image, at the end and in previews: decoded where there is a decoder."""
    if decoder is None:
        return x
    return (yield from draw(decoder, x, class_id))


def draw(
    graph: Manifest, latent: Array, class_id: ClassIds | None, *, seed: int | None = None
) -> Program[Array]:
    """Latents [count, ...] through a generator or decoder.

    What noise the graph takes besides comes from the seed; without one it is zero, and the picture the mean.
    """
    inputs: dict[str, NDArray[np.generic]] = {"latent": latent}
    noise = graph.input("noise")
    if noise is not None:
        inputs["noise"] = (
            np.zeros((len(latent), *noise.shape), np.float32)
            if seed is None
            else normal(seed, len(latent), noise.shape, Stream.DECODER)
        )
    if graph.input("class_id") is not None:
        assert class_id is not None, "a conditional graph is asked with classes"
        inputs["class_id"] = class_id[:, None]
    return (yield from ask(graph.graph, inputs, "sample"))
