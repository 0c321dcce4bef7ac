"""What clients are told: of a model, and of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.batching.ticket import Ticket
from serving.catalog import PublicModel
from serving.pb import image_generation_pb2 as pb
from serving.requests.generation import Generation
from serving.samplers import offered
from serving.samplers.schedules import SPACINGS

_NANOSECONDS = 10**9


def describe(
    model: PublicModel, ready: Sequence[int], refused: Mapping[int, str], *, loaded: bool = True
) -> pb.Model:
    """The model's message: the versions that are ready, those that were refused and why, and whether it is
    meant to be loaded at all. Width and height are 0 where they are the client's to choose."""
    channels, height, width = model.picture.shape
    message = pb.Model(
        name=model.name,
        family=model.first.family,
        versions=model.versions,
        default_version=max(ready, default=model.versions[-1]),
        tasks=[f"TASK_{task.upper()}" for task in model.tasks],
        width=max(width, 0),
        height=max(height, 0),
        channels=channels,
        class_labels=model.first.class_labels if model.conditional else (),
        directions=model.directions,
        latent_shape=model.latent.shape if model.latent else (),
        ready=bool(ready),
        metadata=_metadata(model, max(ready, default=model.versions[-1]), refused),
        version_status=[_status(v, model, ready, refused, loaded=loaded) for v in model.versions],
    )
    sampling = model.denoiser.sampling if model.denoiser else None
    if sampling:
        message.samplers.extend(offered(sampling))
        message.default_sampler = sampling.sampler
        message.default_steps = sampling.steps
        message.default_guidance_scale = sampling.guidance_scale
    return message


def run_info(model: PublicModel, ticket: Ticket, generation: Generation | None = None) -> pb.RunInfo:
    """What was really done for a request, and how long it waited and took."""
    info = pb.RunInfo(model=model.name, version=ticket.version)
    for time, seconds in (
        (info.queue_time, ticket.queue_seconds),
        (info.compute_time, ticket.compute_seconds),
    ):
        time.seconds, time.nanos = divmod(round(seconds * _NANOSECONDS), _NANOSECONDS)
    if generation is not None:
        info.seed = generation.seed
        if generation.steps is not None:
            info.sampler = generation.steps.sampler
            info.steps = generation.steps.steps
            info.guidance_scale = generation.steps.guidance_scale
    return info


def _status(
    version: int, model: PublicModel, ready: Sequence[int], refused: Mapping[int, str], *, loaded: bool
) -> pb.VersionStatus:
    if version in ready:
        share = model.shares(ready).get(version, 0.0)
        return pb.VersionStatus(version=version, state=pb.VERSION_STATE_READY, share=share)
    if version in refused:
        state = pb.VERSION_STATE_REFUSED
        return pb.VersionStatus(version=version, state=state, reason=refused[version])
    state = pb.VERSION_STATE_LOADING if loaded else pb.VERSION_STATE_UNLOADED
    return pb.VersionStatus(version=version, state=state)


def _metadata(model: PublicModel, version: int, refused: Mapping[int, str]) -> dict[str, str]:
    metadata = dict(model.first.metadata)
    for manifest in model.graphs.values():
        record = manifest.versions[version]
        metadata[f"sha256.{manifest.graph}"] = record.sha256
        metadata[f"max_abs_error.{manifest.graph}"] = f"{record.max_abs_error:.1e}"
        metadata |= {f"quality.{name}": f"{value:.4g}" for name, value in record.quality.items()}
        if record.created:
            metadata["created"] = record.created
    metadata |= {f"domain_{letter}": name for letter, name in zip("ab", model.first.domains, strict=False)}
    if model.denoiser:
        metadata["spacings"] = ", ".join(SPACINGS)
    if model.directions:
        image = model.first.input("image")
        assert image is not None, "checked when the catalog was made"
        metadata["multiple_of"] = str(image.multiple_of)
    if model.versions[-1] in refused:
        metadata["problem"] = refused[model.versions[-1]]
    return metadata
