"""Samplers: each a generator function that asks for denoised images and walks down the noise levels.

Everything is in the space x = x0 + sigma·n, so one form of every sampler serves all parameterisations. A
sampler is `sampler(denoise, x, sigmas, noise)` with `sigmas` falling to 0: `steps` + 1 levels for `steps`
steps. It yields the calls of `denoise` and a `Progress` after each step, and returns the image. One more is
one function in a file of its own and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cache
from typing import Protocol, cast

from serving.calls import Array, Call, Program, Tensors
from serving.resolve import resolve

SAMPLERS: dict[str, str] = {
    "ddim": "serving.samplers.ddim:ddim",
    "ddpm": "serving.samplers.ddpm:ddpm",
    "dpmpp_2m": "serving.samplers.dpmpp:dpmpp_2m",
    "euler": "serving.samplers.euler:euler",
    "euler_ancestral": "serving.samplers.euler:euler_ancestral",
    "heun": "serving.samplers.heun:heun",
}
"""Samplers by name, as import strings that are resolved on use."""

Denoised = Generator[Call, Tensors, Array]
Noise = Callable[[int], Array]
"""Standard normal noise of the shape of x, by step."""


class Denoise(Protocol):
    """Asks for the denoised image: `denoised = yield from denoise(x, sigma)`."""

    def __call__(self, x: Array, sigma: float) -> Denoised:
        """E[x0 | x] at noise level sigma, for every row of x."""


class Sampler(Protocol):
    """A way down the noise levels."""

    def __call__(self, denoise: Denoise, x: Array, sigmas: list[float], noise: Noise) -> Program[Array]:
        """The image at the end, from x at `sigmas[0]`."""


@cache
def sampler(name: str) -> Sampler:
    """The sampler of that name, which must be in `SAMPLERS`."""
    return cast(Sampler, resolve(SAMPLERS, name, "sampler"))
