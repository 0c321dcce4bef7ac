"""The backend over Triton: the catalogue from what servers say, calls to whichever has least to do."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from serving.backends.triton.endpoint import LOADING, Endpoint, Model, Security, VersionState
from serving.backends.triton.failures import TritonError, lost
from serving.backends.triton.memory import Regions
from serving.backends.triton.models import Known, merged, problem, read, there
from serving.calls import Computed, Tensors
from serving.catalog import Index
from serving.errors import Code, ServingError
from serving.manifest import Manifest, ManifestError

if TYPE_CHECKING:
    from serving.settings import Settings

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_LOOK_SECONDS_GONE = 0.25
_LOADING_SECONDS = 0.1
_TRY_AGAIN_SECONDS = 30.0
_ORDER_SECONDS = 30.0  # what loads for longer, as where TensorRT builds engines, is there at a later look


class TritonBackend:
    """Graphs of one or several Triton servers over the same repository.

    A server that goes is noticed by the calls that it fails, or by being asked once a second what it has;
    calls go to the others then, and to it again as soon as it answers.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, instances: int) -> None:
        self._endpoints = endpoints
        self._most = instances
        self._known: dict[str, Known] = {}
        self._wanted: set[tuple[str, int]] = set()
        self._refused: dict[str, tuple[float, str]] = {}
        self._instances: dict[str, int] = {}
        self._watches: list[asyncio.Task[None]] = []
        self._doubts = {endpoint: asyncio.Event() for endpoint in endpoints}
        self._orders: dict[Endpoint, dict[str, asyncio.Task[None]]] = {e: {} for e in endpoints}

    @classmethod
    def from_settings(cls, settings: Settings) -> TritonBackend:
        """The backend that the settings describe."""
        security = Security(
            ca=settings.triton_tls_ca, certificate=settings.triton_tls_cert, key=settings.triton_tls_key
        )
        endpoints = [
            Endpoint(
                address,
                security,
                call_seconds=settings.default_deadline,
                regions=Regions(settings.triton_shared_memory, address),
            )
            for address in filter(None, (each.strip() for each in settings.triton_url.split(",")))
        ]
        return cls(endpoints, instances=settings.instances)

    async def index(self) -> Index:
        """What the servers have; UNAVAILABLE while none answers.

        Triton says what a model is only when it is loaded. So a server under explicit control is told to load
        whatever it never has, or failed to, or what has changed since; what somebody unloaded stays so.
        """
        if not self._watches:
            self._watches = [asyncio.create_task(self._watch(endpoint)) for endpoint in self._endpoints]
        await asyncio.gather(*(endpoint.look() for endpoint in self._endpoints))
        alive = self._alive()
        if not alive:
            raise self._nobody()
        await asyncio.gather(*(self._order(endpoint) for endpoint in alive))
        names = sorted({name for endpoint in alive for name in endpoint.models})
        await asyncio.gather(*(self._learn(name) for name in names))
        self._count()
        manifests: list[Manifest] = []
        refused: dict[str, str] = {}
        stamps: dict[tuple[str, int], Hashable] = {}
        for name in names:
            model = merged([endpoint.models[name] for endpoint in alive if name in endpoint.models])
            if name in self._known:
                manifest, amiss = there(self._known[name].manifest, model)
                manifests.append(manifest)
                refused |= amiss
                stamps |= {(name, version): said for version, said in model.versions.items()}
            else:
                refused[name] = self._refused.get(name, (0.0, problem(name, model)))[1]
        return Index(manifests=manifests, refused=refused, stamps=stamps)

    async def load(self, graph: str, version: int) -> None:
        """Ready at once where the servers have it; else they are told to load the graph."""
        alive = self._alive()
        if not alive:
            raise self._nobody()
        if all(graph not in endpoint.models for endpoint in alive):
            raise ServingError(Code.NOT_FOUND, f"no graph {graph} in Triton at {self._addresses()}")
        self._wanted.add((graph, version))
        results = await asyncio.gather(
            *(self._load(endpoint, graph, version) for endpoint in alive), return_exceptions=True
        )
        self._count()
        if not self.ready(graph, version):
            self._wanted.discard((graph, version))
            raise next(result for result in results if isinstance(result, BaseException))

    async def unload(self, graph: str, version: int) -> None:
        """Lets go of a version; Triton unloads a graph as a whole, so with the last of them."""
        if (graph, version) not in self._wanted:
            return
        self._wanted.discard((graph, version))
        if any(name == graph for name, _ in self._wanted):
            return
        for endpoint in self._alive():
            with suppress(TritonError, ServingError):  # under polling the folder alone decides what is loaded
                await endpoint.unload(graph)

    def ready(self, graph: str, version: int) -> bool:
        """Whether it was loaded here, and some server has it."""
        return (graph, version) in self._wanted and any(
            endpoint.ready(graph, version) for endpoint in self._endpoints
        )

    def instances(self, graph: str) -> int:
        """As many as the instance groups of the graph have on all servers that answer."""
        return self._most or self._instances.get(graph, 1)

    def slots(self) -> int:
        """As many as the graph with most instances has: those share the devices with the others'."""
        return self._most or max(self._instances.values(), default=1)

    def computes_here(self) -> bool:
        """Another process computes, and is idle for as long as messages take."""
        return False

    async def infer(
        self, graph: str, version: int, inputs: Tensors, *, first: bool = False, here: bool = False
    ) -> Computed:
        """One call, to the server with least to do; where that one goes, to another: calls are pure."""
        tried: set[Endpoint] = set()
        error: ServingError | None = None
        while endpoint := self._choose(graph, version, tried):
            tried.add(endpoint)
            known = self._known[graph]
            try:
                return await endpoint.infer(graph, version, inputs, known.manifest.outputs, known.instances)
            except ServingError as failed:
                if failed.code != Code.UNAVAILABLE:
                    raise
                self._doubts[endpoint].set()
                error = failed
        if error is not None:
            raise error
        if self._alive():
            raise ServingError(
                Code.UNAVAILABLE,
                f"version {version} of {graph} is not loaded in Triton at {self._addresses()}",
                retry_after=_LOOK_SECONDS,
            )
        raise self._nobody()

    def folder(self, graph: str) -> Path | None:
        """None: Triton shows no files."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Servers, and calls at a time."""
        return {
            "backend": "triton",
            "servers": {e.address: "answers" if e.alive else "does not answer" for e in self._endpoints},
            "instances": self.slots(),
        }

    async def close(self) -> None:
        """Lets the connections go; what is loaded in the servers stays."""
        tasks = [*self._watches, *(order for each in self._orders.values() for order in each.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))

    def _choose(self, graph: str, version: int, tried: set[Endpoint]) -> Endpoint | None:
        able = [e for e in self._endpoints if e not in tried and e.ready(graph, version)]
        return min(able, key=lambda endpoint: endpoint.outstanding, default=None)

    def _alive(self) -> list[Endpoint]:
        return [endpoint for endpoint in self._endpoints if endpoint.alive]

    def _addresses(self) -> str:
        return ", ".join(endpoint.address for endpoint in self._endpoints)

    def _nobody(self) -> ServingError:
        return ServingError(
            Code.UNAVAILABLE,
            f"no Triton answers at {self._addresses()}: start one, or name another with triton_url",
            retry_after=_LOOK_SECONDS,
        )

    def _count(self) -> None:
        """Instances of each graph on the servers that have it."""
        self._instances = {
            name: each.instances * (sum(endpoint.has(name) for endpoint in self._endpoints) or 1)
            for name, each in self._known.items()
        }

    async def _watch(self, endpoint: Endpoint) -> None:
        """Keeps looking at a server, and sees to it that one that comes back has what is wanted of it."""
        doubt = self._doubts[endpoint]
        while True:
            doubt.clear()
            await endpoint.look()
            self._count()
            if endpoint.alive:
                await self._restore(endpoint)
            # Not `wait_for`, which before Python 3.12 forgets that it was cancelled if doubts come just then.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS if endpoint.alive else _LOOK_SECONDS_GONE):
                    await doubt.wait()

    async def _restore(self, endpoint: Endpoint) -> None:
        """Loads what a server under explicit control has not loaded since it started."""
        missing = {graph for graph, _ in self._wanted if endpoint.never_loaded(graph)}
        for result in await asyncio.gather(*map(endpoint.load, missing), return_exceptions=True):
            if isinstance(result, Exception):
                log.error("%s", result)
        if missing:
            await endpoint.look()

    async def _order(self, endpoint: Endpoint) -> None:
        """Has a server load what is to be loaded, and waits a while for it."""
        under_way = self._orders[endpoint]
        for name in endpoint.models:
            if endpoint.takes_orders and name not in under_way and self._due(endpoint, name):
                under_way[name] = asyncio.create_task(self._order_one(endpoint, name))
        if under_way:
            await asyncio.wait(under_way.values(), timeout=_ORDER_SECONDS)
            await endpoint.look()

    def _due(self, endpoint: Endpoint, name: str) -> bool:
        tried, _ = self._refused.get(name, (-math.inf, ""))
        model = endpoint.models[name]
        return monotonic() - tried > _TRY_AGAIN_SECONDS and not model.unloaded

    async def _order_one(self, endpoint: Endpoint, name: str) -> None:
        try:
            await endpoint.load(name)
            self._refused.pop(name, None)
        except (TritonError, ServingError) as error:
            if endpoint.alive and endpoint.takes_orders:
                self._refused[name] = (monotonic(), str(error))
        finally:
            del self._orders[endpoint][name]

    async def _learn(self, name: str) -> None:
        """What a model is, from the first server that can say it."""
        for endpoint in self._alive():
            if endpoint.has(name):
                try:
                    config = await endpoint.config(name)
                    self._known[name] = read(config)
                except ManifestError as error:
                    self._refused[name] = (math.inf, str(error))  # a stranger, which is let be
                except (TritonError, ServingError) as error:
                    log.warning("%s", error)
                    continue
                return

    async def _load(self, endpoint: Endpoint, graph: str, version: int) -> None:
        """Has a server load a version. Raises `ServingError` where it does not, with its reason."""
        if endpoint.ready(graph, version):
            return
        said = ""
        try:
            await endpoint.load(graph)
        except (TritonError, ServingError) as error:
            said = str(error)
        while await endpoint.look() and not endpoint.ready(graph, version):
            model = endpoint.models.get(graph, Model())
            state = model.versions.get(version, VersionState(state=""))
            if state.state != LOADING:
                raise ServingError(Code.FAILED_PRECONDITION, state.reason or said or problem(graph, model))
            await asyncio.sleep(_LOADING_SECONDS)
        if not endpoint.alive:
            raise lost(endpoint.address)
