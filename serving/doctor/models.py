"""The repository: read, and its models loaded as a gateway would, each file against its digest."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from serving.backends import BACKENDS, Backend
from serving.catalog import Catalog, PublicModel, build
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
    async for finding in _loaded(backend, catalog):
        yield finding
    told = ", ".join(f"{name} {value}" for name, value in backend.describe().items())
    yield fine("backend", f"{settings.backend}: {told}")


async def _loaded(backend: Backend, catalog: Catalog) -> AsyncIterator[Finding]:
    for model in catalog.models.values():
        try:
            for manifest in model.graphs.values():
                await backend.load(manifest.graph, model.versions[-1])
        except ServingError as error:
            yield _problem(model, error)
        except Exception as error:
            yield failure("models", f"{model.name}: {error}", "export it again")
        else:
            yield fine(
                "models", f"{model.name} version {model.versions[-1]}: loads, and its digests are right"
            )


def _problem(model: PublicModel, error: ServingError) -> Finding:
    said = f"{model.name} version {model.versions[-1]}: {error.message}"
    if error.code == Code.UNAVAILABLE:
        return failure("models", said, "give it what it asks for, or set device")
    if len(model.versions) > 1:
        return warning("models", said, "export it again; until then an older version is served")
    return failure("models", said, "export it again")
