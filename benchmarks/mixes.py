"""What is asked: mixes of requests, each a function from a number to a request, the same for all."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

SHORT_STEPS = 10
"""Requests of so many steps and fewer are the short ones of a mix."""

SAMPLERS = ("euler", "ddim", "dpmpp_2m", "heun", "euler_ancestral")
"""Samplers of a mix; servers that take tensors are told the place in this tuple."""

_STEPS = (4, 8, 10, 20, 30, 50)
_GUIDANCE = (1.0, 2.0, 4.0)
_COUNTS = (1, 1, 1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request for images."""

    model: str
    """Public model."""
    seed: int
    """Seed of all noise; no two requests of a run share one."""
    class_id: int
    """Class of every image."""
    count: int = 1
    """Number of images."""
    steps: int = 0
    """Steps of the sampler; 0 for a model of one pass."""
    sampler: str = "euler"
    """Sampler of a diffusion model."""
    guidance_scale: float = 1.0
    """Scale of classifier-free guidance; 1 is none and computes half of the rows."""
    timeout: float = 120.0
    """Seconds after which the client has no more use for the answer."""

    @property
    def rows(self) -> int:
        """Rows of the denoiser that it takes, or of the generator for a model of one pass."""
        if not self.steps:
            return self.count
        calls = 2 * self.steps - 1 if self.sampler == "heun" else self.steps
        return self.count * calls * (1 if self.guidance_scale == 1 else 2)

    @property
    def short(self) -> bool:
        """Whether it is a diffusion request of few steps."""
        return 0 < self.steps <= SHORT_STEPS


Mix = Callable[[int], Ask]
"""Request number i of a mix."""


def mixed(model: str, *, classes: int) -> Mix:
    """Steps, samplers, guidance and counts of every kind, half of the requests short.

    Every combination of them comes once before any comes again, in an order that is shuffled once for all.
    """

    def ask(number: int) -> Ask:
        deck = _deck()
        steps, sampler, guidance, count = deck[number % len(deck)]
        return Ask(
            model=model,
            seed=number,
            class_id=number % classes,
            count=count,
            steps=steps,
            sampler=sampler,
            guidance_scale=guidance,
        )

    return ask


def alike(template: Ask, *, classes: int) -> Mix:
    """The same request with other seeds and classes."""
    return lambda number: replace(template, seed=number, class_id=number % classes)


def hurried(mix: Mix, timeout: float) -> Mix:
    """The requests of a mix with a deadline."""
    return lambda number: replace(mix(number), timeout=timeout)


@cache
def _deck() -> list[tuple[int, str, float, int]]:
    deck = list(product(_STEPS, SAMPLERS, _GUIDANCE, _COUNTS))
    random.Random(0).shuffle(deck)
    return deck
