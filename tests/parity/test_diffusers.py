"""Samplers against the schedulers of diffusers: the same network, the same noise, the same picture.

Both sides drive one small closed-form network, the optimal one for a mixture of two normal distributions. So
the preconditioning, the noise levels and the timesteps that the network is told of are compared as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from serving.calls import Array, Call
from serving.manifest import Manifest, NoiseSchedule, Parameterization, Sampling, TensorSpec
from serving.samplers import sampler
from serving.samplers.denoiser import SCALINGS, denoiser, start_scale
from serving.samplers.schedules import BETAS, sigmas

# diffusers hands torch tensors to np.array, which numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (2, 1, 4, 4)
STEPS = 10
TOLERANCE = 1e-5
# The product of a thousand float32 alphas is off by this much in sigma.
LEVELS_RTOL = 2e-4

BETA_SCHEDULES = {"vp_linear": "linear", "vp_cosine": "squaredcos_cap_v2"}
PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
RANGES = {
    "edm": (0.002, 80.0),
    "flow": (0.001, 999.0),
    "vp_linear": (0.01, 157.4),
    "vp_cosine": (0.0064, 20291.0),
}


def manifest(prediction: str, kind: str) -> Manifest:
    low, high = RANGES[kind]
    return Manifest(
        graph="net",
        model="net",
        role="denoiser",
        family="diffusion",
        tasks=("generate",),
        roles=("denoiser",),
        inputs=(TensorSpec(name="x", shape=SHAPE[1:]), TensorSpec(name="noise_level", shape=(1,))),
        outputs=(TensorSpec(name="prediction", shape=SHAPE[1:]),),
        sampling=Sampling(
            parameterization=Parameterization(prediction=prediction, sigma_data=0.5),
            schedule=NoiseSchedule(kind=kind, sigma_min=low, sigma_max=high),
            sampler="euler",
            steps=STEPS,
        ),
    )


def sigma_of(kind: str, level: float) -> float:
    """The noise level that a network is told of as `level`."""
    if kind == "edm":
        return float(np.exp(4 * level))
    if kind == "flow":
        return level / (1 - level)
    alpha_bar = np.cumprod(1 - BETAS[kind](1000))
    return float(np.exp(np.interp(level, np.arange(1000), 0.5 * np.log((1 - alpha_bar) / alpha_bar))))


def network(net: Manifest, fed: Array, level: float) -> Array:
    """The optimal prediction for the data ½ N(0.5, 0.25) + ½ N(-0.5, 0.25), each pixel by itself."""
    sigma = sigma_of(net.sampling.schedule.kind, level)
    c_in, c_skip, c_out = SCALINGS[net.sampling.parameterization.prediction](sigma, 0.5)
    x = fed.astype(np.float64) / c_in
    total = 0.25 + sigma**2
    denoised = (0.25 * x + sigma**2 * 0.5 * np.tanh(0.5 * x / total)) / total
    return ((denoised - c_skip * x) / c_out).astype(np.float32)


def ours(
    name: str,
    net: Manifest,
    x: Array,
    levels: list[float],
    generator: torch.Generator,
    kind: str = "edm",
    **options: float,
) -> Array:
    """What a sampler draws, its form for a kind of schedule."""

    def noise(step: int) -> Array:
        return torch.randn(SHAPE, generator=generator).numpy()

    program = partial(sampler(name, kind), **options)(denoiser(net, None, 1.0), x, levels, noise)
    answer = None
    try:
        while True:
            wanted = program.send(answer)
            answer = None
            if isinstance(wanted, Call):
                level = wanted.inputs["noise_level"]
                assert np.ptp(level) == 0
                answer = {"prediction": network(net, wanted.inputs["x"], float(level[0, 0]))}
    except StopIteration as stop:
        return stop.value


def theirs(
    scheduler: Any,
    net: Manifest,
    x: Array,
    generator: torch.Generator | None,
    unit: float = 1.0,
    **options: float,
) -> Array:
    """What a scheduler draws; its timesteps over `unit` are what the network is told."""
    if generator is not None:
        options["generator"] = generator
    sample = torch.from_numpy(x)
    for time in scheduler.timesteps:
        fed = scheduler.scale_model_input(sample, time) if hasattr(scheduler, "scale_model_input") else sample
        answer = network(net, fed.numpy(), float(time) / unit)
        sample = scheduler.step(torch.from_numpy(answer), time, sample, **options).prev_sample
    return sample.numpy()


def variance_preserving(scheduler: str, kind: str, prediction: str, **settings: Any) -> Any:
    return getattr(diffusers, scheduler)(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule=BETA_SCHEDULES[kind],
        prediction_type=PREDICTIONS[prediction],
        **settings,
    )


def visited(scheduler: Any) -> list[float]:
    """The noise levels of a scheduler's timesteps, and 0."""
    known = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    return [*known[scheduler.timesteps.long().unique().flip(0)].tolist(), 0.0]


TRAILING = {"timestep_spacing": "trailing"}
UNCLIPPED = {"clip_sample": False, **TRAILING}


@dataclass(frozen=True, kw_only=True)
class Case:
    sampler: str
    scheduler: str
    settings: dict[str, Any] = field(default_factory=dict)
    scaled: bool = True
    """Whether their sample has unit variance; otherwise it is x0 + sigma n, as ours."""
    stochastic: bool = False
    options: dict[str, float] = field(default_factory=dict)


CASES = [
    Case(sampler="ddim", scheduler="DDIMScheduler", settings=UNCLIPPED),
    Case(
        sampler="ddim", scheduler="DDIMScheduler", settings=UNCLIPPED, stochastic=True, options={"eta": 0.6}
    ),
    Case(sampler="ddpm", scheduler="DDPMScheduler", settings=UNCLIPPED, stochastic=True),
    Case(sampler="euler", scheduler="EulerDiscreteScheduler", settings=TRAILING, scaled=False),
    Case(
        sampler="euler_ancestral",
        scheduler="EulerAncestralDiscreteScheduler",
        settings=TRAILING,
        scaled=False,
        stochastic=True,
    ),
    Case(sampler="heun", scheduler="HeunDiscreteScheduler", settings=TRAILING, scaled=False),
    Case(sampler="dpmpp_2m", scheduler="DPMSolverMultistepScheduler", settings=TRAILING),
    Case(
        sampler="dpmpp_2m_sde",
        scheduler="DPMSolverMultistepScheduler",
        settings={"algorithm_type": "sde-dpmsolver++", **TRAILING},
        stochastic=True,
    ),
    Case(sampler="unipc", scheduler="UniPCMultistepScheduler", settings=TRAILING),
    Case(sampler="unipc_3", scheduler="UniPCMultistepScheduler", settings={"solver_order": 3, **TRAILING}),
    Case(sampler="lms", scheduler="LMSDiscreteScheduler", settings=TRAILING, scaled=False),
]


def comparisons() -> Iterator[Any]:
    """Every case under every schedule and prediction that float32 and diffusers allow."""
    for case in CASES:
        for kind in BETA_SCHEDULES:
            for prediction in PREDICTIONS:
                # The cosine schedule begins at sigma 20,000: there x - sigma epsilon is lost in rounding, and
                # so is x + (sigma_next - sigma) slope, as the schedulers without unit variance have it.
                lost = kind == "vp_cosine" and (prediction == "epsilon" or not case.scaled)
                unknown = case.sampler == "euler_ancestral" and prediction == "x0"
                if not lost and not unknown:
                    name = case.sampler + ("-eta" if case.options else "")
                    yield pytest.param(case, kind, prediction, id=f"{name}-{kind}-{prediction}")


@pytest.mark.parametrize(("case", "kind", "prediction"), [*comparisons()])
def test_a_sampler_draws_what_the_scheduler_of_its_name_draws(case: Case, kind: str, prediction: str) -> None:
    net = manifest(prediction, kind)
    scheduler = variance_preserving(case.scheduler, kind, prediction, **case.settings)
    scheduler.set_timesteps(STEPS)
    levels = visited(scheduler)
    np.testing.assert_allclose(levels, sigmas(net.sampling.schedule, STEPS), rtol=LEVELS_RTOL)
    prior = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    x = np.float32(start_scale(net, levels[0])) * prior
    seeded = torch.Generator().manual_seed(7)
    drawn = ours(case.sampler, net, x, levels, seeded, **case.options)
    again = torch.Generator().manual_seed(7) if case.stochastic else None
    expected = theirs(scheduler, net, prior if case.scaled else x, again, **case.options)
    np.testing.assert_allclose(drawn, expected, atol=TOLERANCE)


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm_draws_what_the_scheduler_of_its_name_draws(steps: int) -> None:
    """Their c_skip, 1e-7 at the timesteps that are visited, keeps no trace of x; ours is 0."""
    net = manifest("v", "vp_linear")
    scheduler = variance_preserving("LCMScheduler", "vp_linear", "v", clip_sample=False)
    scheduler.set_timesteps(steps)
    levels = visited(scheduler)
    prior = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    x = np.float32(start_scale(net, levels[0])) * prior
    drawn = ours("lcm", net, x, levels, torch.Generator().manual_seed(7))
    expected = theirs(scheduler, net, prior, torch.Generator().manual_seed(7))
    np.testing.assert_allclose(drawn, expected, atol=TOLERANCE)


def flow_start(levels: list[float]) -> tuple[Manifest, Array, Array]:
    """A flow, its noise, and x where it starts."""
    net = manifest("flow", "flow")
    prior = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    return net, prior, np.float32(start_scale(net, levels[0])) * prior


def test_euler_on_a_flow_draws_what_flow_matching_euler_draws() -> None:
    levels = np.array(sigmas(manifest("flow", "flow").sampling.schedule, STEPS))
    net, prior, x = flow_start(levels.tolist())
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=(levels / (1 + levels))[:-1])
    drawn = ours("euler", net, x, levels.tolist(), torch.Generator(), "flow")
    np.testing.assert_allclose(drawn, theirs(scheduler, net, prior, None, unit=1000), atol=TOLERANCE)


def test_heun_on_a_flow_draws_what_flow_matching_heun_draws() -> None:
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    scheduler.sigma_max = 0.999
    scheduler.set_timesteps(STEPS)
    time = scheduler.timesteps.double().unique().flip(0).numpy() / 1000
    levels = [*(time / (1 - time)).tolist(), 0.0]
    net, prior, x = flow_start(levels)
    drawn = ours("heun", net, x, levels, torch.Generator(), "flow")
    np.testing.assert_allclose(drawn, theirs(scheduler, net, prior, None, unit=1000), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "scheduler", "spacing"),
    [
        ("euler", "EDMEulerScheduler", "karras"),
        ("euler", "EDMEulerScheduler", "exponential"),
        ("dpmpp_2m", "EDMDPMSolverMultistepScheduler", "karras"),
    ],
)
def test_an_edm_model_draws_what_the_edm_schedulers_draw(name: str, scheduler: str, spacing: str) -> None:
    net = manifest("edm", "edm")
    built = getattr(diffusers, scheduler)(sigma_min=0.002, sigma_max=80.0, sigma_schedule=spacing)
    built.set_timesteps(STEPS)
    levels = sigmas(net.sampling.schedule, STEPS, spacing)
    np.testing.assert_allclose(levels, built.sigmas, rtol=1e-5)
    x = 80 * np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    drawn = ours(name, net, x, levels, torch.Generator())
    np.testing.assert_allclose(drawn, theirs(built, net, x, None), atol=TOLERANCE)


@pytest.mark.parametrize("spacing", ["karras", "exponential"])
@pytest.mark.parametrize("kind", BETA_SCHEDULES)
def test_a_spacing_is_the_one_of_its_name(kind: str, spacing: str) -> None:
    scheduler = variance_preserving(
        "DPMSolverMultistepScheduler", kind, "x0", **{f"use_{spacing}_sigmas": True}
    )
    scheduler.set_timesteps(STEPS)
    ends = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()[[0, -1]].tolist()
    schedule = NoiseSchedule(kind=kind, sigma_min=ends[0], sigma_max=ends[1])
    np.testing.assert_allclose(sigmas(schedule, STEPS, spacing), scheduler.sigmas, rtol=1e-5)
