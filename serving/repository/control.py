"""Who decides what is loaded: the repository as it stands, a poll of it, or whoever says so."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Literal

from serving.backends import Backend
from serving.batching.calibration import calibrate
from serving.batching.engine import Engine
from serving.errors import Code, ServingError
from serving.repository.live import Repository, UnreachableError

log = logging.getLogger(__name__)

ModelControl = Literal["none", "poll", "explicit"]

_FIRST_LOOKS = 2.0  # seconds between them, while there is no repository to read


class Control:
    """Starts the repository, follows it, and takes orders."""

    def __init__(
        self,
        repository: Repository,
        backend: Backend,
        engine: Engine,
        *,
        mode: ModelControl,
        poll_seconds: float,
    ) -> None:
        self._repository = repository
        self._backend = backend
        self._engine = engine
        self._mode = mode
        self._poll_seconds = poll_seconds
        self._calibration: asyncio.Task[None] | None = None
        self.newest_loaded = asyncio.Event()

    async def open(self) -> None:
        """Reads what there is, so that it can be said what is being loaded."""
        try:
            await self._repository.look(patient=False)
        except UnreachableError:
            return  # `run` looks again
        only, there = self._repository.only, self._repository.catalog.models
        if only is not None and "*" in only:
            only.update(there)
            only.discard("*")
        for name in sorted((only or set()) - there.keys()):
            log.error("%s of load_models is no model of the repository", name)

    async def run(self) -> None:
        """Loads what there is, the newest versions first; then measures, and follows what changes."""
        began = monotonic()
        while self._repository.unreachable is not None:
            await asyncio.sleep(_FIRST_LOOKS)
            await self.open()
        await self._repository.settle(newest_alone=True)
        self.newest_loaded.set()
        ready = {manifest.model for manifest, _ in self._repository.loaded()}
        asked = [name for name in self._repository.catalog.models if self._repository.asked_for(name)]
        seconds = monotonic() - began
        log.info(
            "%d of %d models ready in %.2f s: %s", len(ready), len(asked), seconds, self._backend.describe()
        )
        await self._repository.settle()
        self._calibration = asyncio.create_task(calibrate(self._engine, self._repository.loaded()))
        try:
            if self._mode == "poll":
                await self._poll()
            await self._calibration
        finally:
            self._calibration.cancel()
            await asyncio.gather(self._calibration, return_exceptions=True)

    def not_ready_reason(self) -> str | None:
        """Why the gateway is not ready; None once every newest version has loaded or been refused.

        A model that is broken keeps nobody from the others, but a device that was asked for and is not there
        keeps the gateway from ever being ready.
        """
        repository = self._repository
        models = [model for name, model in repository.catalog.models.items() if repository.asked_for(name)]
        waiting = [model for model in models if not repository.ready_versions(model)]
        refused = [repository.refusal(model, version) for model in waiting for version in model.versions]
        errors = [error for error in refused if error is not None]
        for error in errors:
            if error.code == Code.UNAVAILABLE:
                return error.message
        if not models and repository.unreachable:
            return repository.unreachable
        if not models and repository.only is None:
            why = "; ".join(repository.catalog.refused.values())
            return f"the repository has no models{': ' + why if why else ''}"
        if not self.newest_loaded.is_set():
            newest = [(m.graph, model.versions[-1]) for model in models for m in model.graphs.values()]
            done = sum(self._backend.ready(*graph) for graph in newest)
            return f"loading: {done} of {len(newest)} graphs are done"
        if models and len(waiting) == len(models):
            if repository.unreachable:
                return repository.unreachable
            return f"no model could be loaded: {errors[0].message if errors else 'none is there any more'}"
        return None

    async def load(self, name: str) -> None:
        """Loads a model as it lies in the repository now. Raises `ServingError` where its newest version is
        refused; what was served of it before goes on."""
        self._require_explicit("loaded")
        repository = self._repository
        await self._look()
        name = repository.public_name(name)
        assert repository.only is not None, "models are told apart where they are loaded one by one"
        new = name not in repository.only
        repository.only.add(name)
        repository.try_again()
        try:
            await repository.settle_model(name)
        except asyncio.CancelledError:
            if new:
                repository.only.discard(name)
            raise
        model = repository.catalog.model(name)
        error = repository.refusal(model, model.versions[-1])
        if error is not None:
            raise error.again()

    async def unload(self, name: str) -> None:
        """Takes no more requests for a model, and lets go of it when those under way have ended."""
        self._require_explicit("unloaded")
        name = self._repository.public_name(name)
        assert self._repository.only is not None, "models are told apart where they are loaded one by one"
        self._repository.only.discard(name)
        await self._repository.settle_model(name)

    async def reload(self) -> None:
        """Brings everything to what lies in the repository now, and tries again what was refused.

        UNAVAILABLE where the repository cannot be read; what is loaded is then served as before.
        """
        await self._look()
        self._repository.try_again()
        await self._repository.settle()

    async def _look(self) -> None:
        try:
            await self._repository.look(patient=False)
        except UnreachableError as error:
            raise ServingError(Code.UNAVAILABLE, f"{error}; what is loaded is served as before") from error

    async def _poll(self) -> None:
        """Looks every few seconds; nothing that is found, or not found, ends it."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._repository.look(patient=True)
                await self._repository.settle()
            except UnreachableError:
                continue  # said where it was noticed
            except Exception:
                log.exception("a look at the repository failed; the next is in %g s", self._poll_seconds)

    def _require_explicit(self, done: str) -> None:
        if self._mode != "explicit":
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"models are {done} one by one only where model_control is explicit, and it is {self._mode}: "
                f"start the gateway with --model-control explicit, or change the repository",
            )
