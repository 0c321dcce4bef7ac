"""Samplers: each a generator function that asks for denoised images and walks down the noise levels.

Everything is in the space x = x0 + sigma·n, so one form of every sampler serves all parameterisations. A
sampler is `sampler(denoise, x, sigmas, noise)` with `sigmas` falling to 0: `steps` + 1 levels for `steps`
steps. It yields the calls of `denoise` and a `Progress` after each step, and returns the image. One more is
one function in a file of its own and one line here.

A request names a sampler, and after it, if it likes, one of `SPACINGS` in place of the spacing that comes
with the model's schedule: `dpmpp_2m`, or `dpmpp_2m_karras`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from functools import cache
from typing import Protocol, cast

from serving.calls import Array, Call, Program, Tensors
from serving.errors import one_of
from serving.manifest import Sampling, Schedule
from serving.resolve import resolve
from serving.samplers.schedules import SPACINGS

SAMPLERS: dict[str, str] = {
    "ddim": "serving.samplers.ddim:ddim",
    "ddpm": "serving.samplers.ddpm:ddpm",
    "dpmpp_2m": "serving.samplers.dpmpp:dpmpp_2m",
    "dpmpp_2m_sde": "serving.samplers.dpmpp:dpmpp_2m_sde",
    "euler": "serving.samplers.euler:euler",
    "euler_ancestral": "serving.samplers.euler:euler_ancestral",
    "heun": "serving.samplers.heun:heun",
    "heun_churn": "serving.samplers.heun:heun_churn",
    "lms": "serving.samplers.lms:lms",
    "unipc": "serving.samplers.unipc:unipc",
    "unipc_3": "serving.samplers.unipc:unipc_3",
}
"""Samplers by name, as import strings that are resolved on use."""

FEW_STEP: dict[str, str] = {"lcm": "serving.samplers.lcm:lcm"}
"""Samplers for distilled models alone, whose denoised image is the end of the flow."""

UNIT_TIME: dict[str, str] = {
    "heun": "serving.samplers.heun:heun_unit_time",
    "heun_churn": "serving.samplers.heun:heun_churn_unit_time",
}
"""What stands for a sampler on the schedules that begin near pure noise, all but `edm`."""

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
def sampler(name: str, kind: Schedule = "edm") -> Sampler:
    """The sampler of that name, with or without a spacing, for a schedule of that kind."""
    name, _ = split(name)
    if kind != "edm" and name in UNIT_TIME:
        return cast(Sampler, resolve(UNIT_TIME, name, "sampler"))
    return cast(Sampler, resolve(SAMPLERS | FEW_STEP, name, "sampler"))


def offered(sampling: Sampling) -> list[str]:
    """Names of the samplers that a model can be drawn with."""
    return [*SAMPLERS, *FEW_STEP] if sampling.distilled else [*SAMPLERS]


def split(name: str, known: Collection[str] = (*SAMPLERS, *FEW_STEP)) -> tuple[str, str | None]:
    """The sampler and the spacing in a name, the latter None where it has none.

    A ValueError says which names there are.
    """
    if name in known:
        return name, None
    base, _, spacing = name.rpartition("_")
    if base in known and spacing in SPACINGS:
        return base, spacing
    raise ValueError(
        f"sampler {name!r} is not one of {one_of(known, name)}; each of them also with a spacing at its end: "
        f"{one_of(f'_{spacing}' for spacing in SPACINGS)}"
    )
