"""The repository: read, and its models loaded as a gateway would, each file against its digest."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from serving.backends import BACKENDS, Backend
from serving.catalog import PublicModel, build
from serving.doctor.findings import Finding, failure, fine, warning
from serving.errors import Code, ServingError
from serving.resolve import resolve
from serving.settings import Settings


async def models(settings: Settings) -> AsyncIterator[Finding]:
    """Whether every model can be served on what there is."""
    folder = settings.repository
    if settings.backend != "triton":
        if not folder.is_dir():
            remedy = "name its folder with repository, or make one with `atelier export`"
            yield failure("repository", f"no model repository at {folder}", remedy)
            return
        if not os.access(folder, os.R_OK | os.X_OK):
            yield failure("repository", f"{folder} cannot be read", f"chmod o+rx {folder}, or its owner")
            return
    try:
        backend: Backend = resolve(BACKENDS, settings.backend, "backend").from_settings(settings)
    except Exception as error:
        yield failure("backend", f"{settings.backend}: {error}", "install it, or set backend")
        return
    try:
        async for finding in _with(backend, settings):
            yield finding
    finally:
        await backend.close()


async def _with(backend: Backend, settings: Settings) -> AsyncIterator[Finding]:
    try:
        catalog = build(await backend.index())
    except (OSError, ServingError) as error:
        remedy = (
            "see that Triton runs at triton_url" if settings.backend == "triton" else "see who may read it"
        )
        yield failure("repository", f"cannot be read: {error}", remedy)
        return
    for name, reason in catalog.refused.items():
        yield failure("repository", f"{name} is refused: {reason}", "export it again, or take it away")
    if not catalog.models:
        yield failure("repository", "there is no model to serve", "make one with `atelier export`")
    for model in catalog.models.values():
        for version in model.wanted:
            if settings.backend == "triton":  # others use it: nothing is loaded or unloaded there for a look
                yield fine("models", f"{model.name} version {version}: Triton has it")
            else:
                yield await _version(backend, model, version)
    told = ", ".join(f"{name} {value}" for name, value in backend.describe().items())
    yield fine("backend", f"{settings.backend}: {told}")


async def _version(backend: Backend, model: PublicModel, version: int) -> Finding:
    """Loads a version and lets go of it again."""
    name = f"{model.name} version {version}"
    try:
        for manifest in model.graphs.values():
            await backend.load(manifest.graph, version)
    except ServingError as error:
        if error.code == Code.UNAVAILABLE:
            return failure("models", f"{name}: {error.message}", "give it what it asks for, or set device")
        if len(model.wanted) > 1:
            remedy = "export it again; the other versions are served"
            return warning("models", f"{name}: {error.message}", remedy)
        return failure("models", f"{name}: {error.message}", "export it again")
    except Exception as error:
        return failure("models", f"{name}: {error}", "export it again")
    finally:
        for manifest in model.graphs.values():
            await backend.unload(manifest.graph, version)
    return fine("models", f"{name}: loads, and its digests are right")
