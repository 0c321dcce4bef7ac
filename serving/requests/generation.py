"""A checked request for images: everything decided, the seed included, so that it can be made again."""

from __future__ import annotations

import inspect
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from serving.calls import Array, Program
from serving.catalog import PublicModel
from serving.errors import invalid
from serving.manifest import Manifest, Sampling
from serving.noise import classes
from serving.pb import image_generation_pb2 as pb
from serving.programs.generate import ClassIds, diffusion, one_pass
from serving.requests import checks
from serving.samplers import Sampler, offered, sampler, split
from serving.samplers.schedules import sigmas

_GREATEST_GUIDANCE = 100.0
_GREATEST_TRUNCATION = 2.0


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How a diffusion is sampled."""

    sampler: str
    """Its name, with a spacing at the end where one was asked for."""
    steps: int
    """Number of noise levels."""
    guidance_scale: float
    """Scale of classifier-free guidance; 1 is none."""
    eta: float
    """Stochasticity of DDIM."""
    sampling: Sampling
    """What the denoiser's manifest says."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What is drawn, from which model, and how."""

    model: PublicModel
    """The model."""
    version: int
    """Its version."""
    count: int
    """Number of images."""
    seed: int
    """Seed of all noise."""
    class_id: ClassIds | None
    """Class of each image."""
    truncation: float
    """Scale of latents, for models of one pass."""
    image_format: int
    """Format of the answer."""
    steps: Steps | None
    """How it is sampled, for diffusion."""

    @property
    def rows(self) -> int:
        """Rows of its largest call."""
        guided = self.steps is not None and self.class_id is not None and self.steps.guidance_scale != 1
        return self.count * (2 if guided else 1)

    @property
    def decoder(self) -> Manifest | None:
        """The graph that turns what a diffusion ends with into the picture, if it has one."""
        return self.model.graphs.get("decoder")

    @property
    def bytes(self) -> int:
        """Bytes of all images as float32."""
        return self.count * 4 * math.prod(self.model.picture.shape)

    def program(self) -> Program[Array]:
        """The program that draws it."""
        if self.steps is None:
            drawn = self.model.drawn
            assert drawn is not None, "a model that generates in one pass has a generator or a decoder"
            return one_pass(
                drawn, seed=self.seed, count=self.count, class_id=self.class_id, truncation=self.truncation
            )
        denoiser = self.model.denoiser
        assert denoiser is not None, "steps are those of a denoiser"
        return diffusion(
            denoiser,
            self.decoder,
            sampler=_sampler(self.steps),
            sigmas=sigmas(self.steps.sampling.schedule, self.steps.steps, split(self.steps.sampler)[1]),
            seed=self.seed,
            count=self.count,
            class_id=self.class_id,
            guidance_scale=self.steps.guidance_scale,
        )


def plan(request: pb.GenerateImagesRequest, model: PublicModel, version: int, max_count: int) -> Generation:
    """The request, checked and with its defaults filled in; INVALID_ARGUMENT names the field at fault."""
    graph = model.denoiser or model.drawn
    assert graph is not None, "a model that generates has a graph to do it"
    count = checks.whole("count", request.count, 1, max_count, default=1)
    if request.preview_every < 0:
        raise invalid("preview_every", f"preview_every {request.preview_every} is negative: 0 is none")
    asked = checks.class_id(request, model, graph)
    seed = request.seed if request.HasField("seed") else secrets.randbits(32)
    class_id = None
    if graph.input("class_id") is not None:
        if asked is None:
            class_id = classes(seed, count, len(graph.class_labels))
        else:
            class_id = np.array([asked] * count, np.int64)
    return Generation(
        model=model,
        version=version,
        count=count,
        seed=seed,
        class_id=class_id,
        truncation=_truncation(request, model),
        image_format=checks.image_format(request.format),
        steps=_steps(request, model),
    )


def _truncation(request: pb.GenerateImagesRequest, model: PublicModel) -> float:
    if not request.HasField("truncation"):
        return 1.0
    if model.denoiser:
        raise invalid(
            "truncation", f"{model.name} is a diffusion model, which has none: leave truncation out"
        )
    return checks.real("truncation", request.truncation, 0, _GREATEST_TRUNCATION)


def _steps(request: pb.GenerateImagesRequest, model: PublicModel) -> Steps | None:
    if model.denoiser is None:
        for field in ("steps", "guidance_scale", "eta"):
            if request.HasField(field):
                raise invalid(field, f"{model.name} draws in one pass: leave {field} out")
        if request.sampler:
            raise invalid("sampler", f"{model.name} draws in one pass and has no sampler: leave sampler out")
        return None
    sampling = model.denoiser.sampling
    assert sampling is not None, "a denoiser's manifest says how it is sampled"
    name = request.sampler or sampling.sampler
    try:
        split(name, offered(sampling))
    except ValueError as error:
        raise invalid("sampler", str(error)) from error
    steps = request.steps if request.HasField("steps") else sampling.steps
    if not 1 <= steps <= sampling.max_steps:
        raise invalid("steps", f"steps {steps} is out of range: {model.name} takes 1 to {sampling.max_steps}")
    eta = checks.real("eta", request.eta, 0, 1)
    if eta and not _takes_eta(name):
        raise invalid("eta", f"sampler {name} has no eta: leave eta out, or take the sampler ddim")
    return Steps(
        sampler=name,
        steps=steps,
        guidance_scale=_guidance_scale(request, model, sampling),
        eta=eta,
        sampling=sampling,
    )


def _guidance_scale(request: pb.GenerateImagesRequest, model: PublicModel, sampling: Sampling) -> float:
    if not request.HasField("guidance_scale"):
        return sampling.guidance_scale
    scale = checks.real("guidance_scale", request.guidance_scale, 0, _GREATEST_GUIDANCE)
    if scale != 1 and not model.conditional:
        raise invalid("guidance_scale", f"{model.name} is unconditional: leave guidance_scale out")
    return scale


def _takes_eta(name: str) -> bool:
    return "eta" in inspect.signature(sampler(name)).parameters


def _sampler(steps: Steps) -> Sampler:
    chosen: Callable[..., Program[Array]] = sampler(steps.sampler, steps.sampling.schedule.kind)
    return partial(chosen, eta=steps.eta) if steps.eta else chosen
