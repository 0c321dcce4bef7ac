"""One Triton server: its channel, what it has ready, and the calls that it has under way."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.backends.triton.failures import TritonError, failure, lost
from serving.backends.triton.memory import Region, Regions
from serving.backends.triton.under_way import UnderWay, cancelled_safely
from serving.calls import Computed, Tensors
from serving.errors import ServingError
from serving.manifest import TensorSpec
from serving.observing.tracing import inject

log = logging.getLogger(__name__)

READY, LOADING, UNLOADING = "READY", "LOADING", "UNLOADING"
UNLOADED = "unloaded"
"""The reason of a version that somebody has unloaded."""

_PROBE_SECONDS = 5.0
_MISSES = 2  # probes without an answer in time, after which a server counts as gone: a hung one, or a host
_CONTROL_SECONDS = 600.0  # TensorRT may build engines while a model loads
_MOST_LEFT = 64  # calls that were given up and never answered: it gets no more then
_CLOSE_SECONDS = 5.0

_NO_ORDERS = "explicit model load / unload is not allowed"

_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),  # in which a connection must stand, TLS and all
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),  # a call is repeated elsewhere rather than on the server that failed it
    # A channel of its own for each gateway of a process, as tests have them; and no proxy between the two.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, kw_only=True)
class Security:
    """Transport security of the connections to Triton; PEM files."""

    ca: str = ""
    """Certificates of authorities that the servers' are checked against; empty for no TLS."""
    certificate: str = ""
    """Certificate that the gateway shows, for mutual TLS."""
    key: str = ""
    """Its key."""


@dataclass(frozen=True, kw_only=True)
class VersionState:
    """What a server says of one version of a model."""

    state: str
    """READY, LOADING, UNLOADING or UNAVAILABLE; empty where it was never loaded."""
    reason: str = ""
    """Why it is not ready."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a server says of a model."""

    versions: Mapping[int, VersionState] = field(default_factory=dict)
    """Its versions; none where it was never loaded."""

    @property
    def unloaded(self) -> bool:
        """Whether somebody has unloaded it."""
        states = self.versions.values()
        return bool(states) and all(said.reason == UNLOADED or said.state == UNLOADING for said in states)


class Endpoint:
    """A server at an address. Its channel connects again by itself, at least once a second."""

    def __init__(self, address: str, security: Security, *, call_seconds: float, regions: Regions) -> None:
        self.address = address
        self.alive = False
        self.takes_orders = True
        self.models: Mapping[str, Model] = {}
        self._regions = regions
        self._calls = UnderWay(seconds=call_seconds)
        self._awaited: Counter[str] = Counter()
        self._misses = 0
        self._looks = 0
        self._newest_look = 0
        self._client = triton.InferenceServerClient(
            address,
            ssl=bool(security.ca),
            root_certificates=security.ca or None,
            private_key=security.key or None,
            certificate_chain=security.certificate or None,
            channel_args=_CHANNEL,
        )

    @property
    def outstanding(self) -> int:
        """Calls under way."""
        return self._awaited.total() + len(self._calls)

    def ready(self, graph: str, version: int) -> bool:
        """Whether it can be called with that version now."""
        model = self.models.get(graph)
        state = model.versions.get(version) if model and self.alive else None
        return state is not None and state.state == READY

    def has(self, graph: str) -> bool:
        """Whether it can be called with some version now."""
        return graph in self.models and any(self.ready(graph, each) for each in self.models[graph].versions)

    def never_loaded(self, graph: str) -> bool:
        """Whether it has a graph in its repository and has not loaded it since it started."""
        return graph in self.models and not self.models[graph].versions

    async def look(self) -> bool:
        """Asks what models it has, which tells at once whether it is there; False where it is not."""
        self._looks += 1
        look = self._looks
        try:
            said = await self._learn_version()
            index = await self._client.get_model_repository_index(client_timeout=_PROBE_SECONDS)
        except InferenceServerException as error:
            self._misses = self._misses + 1 if _late(error) else _MISSES
            if self._misses >= _MISSES:
                self._gone(error.message())
            return False
        if not self.alive:
            log.info("Triton at %s answers%s", self.address, said)
        self._misses = 0
        self.alive = True
        if look > self._newest_look:  # else it is older than what is known
            self._newest_look = look
            self.models = _models(index)
        return True

    async def config(self, graph: str) -> Any:
        """Triton's `ModelConfig` of a graph that is loaded. Raises as a call does."""
        return (await self._ask(self._client.get_model_config, graph, seconds=_PROBE_SECONDS)).config

    async def load(self, graph: str) -> None:
        """Has it load a graph, in the versions of its policy. Raises `TritonError` where it does not.

        One that follows its folder, or loads it once, takes no such orders: `takes_orders` is false then.
        """
        try:
            await self._ask(self._client.load_model, graph, seconds=_CONTROL_SECONDS)
        except ServingError as error:
            self.takes_orders = _NO_ORDERS not in error.message
            raise

    async def unload(self, graph: str) -> None:
        """Has it unload a graph, all versions. Raises `TritonError` where it does not."""
        await self._ask(self._client.unload_model, graph, seconds=_CONTROL_SECONDS)

    async def infer(
        self, graph: str, version: int, inputs: Tensors, outputs: Sequence[TensorSpec], instances: int
    ) -> Computed:
        """One call for these outputs of a graph that has so many instances.

        Raises `ServingError` UNAVAILABLE where the server has gone or goes. Cancelling is passed on to a
        server that survives it, but for a call in shared memory, where it may write until the call ends.
        """
        if len(self._calls) >= _MOST_LEFT:
            raise lost(self.address)
        awaited = self._awaited
        awaited[graph] += 1
        # Of n calls to k instances that are always busy, each takes n/k times as long as it computes.
        share = min(1.0, instances / awaited[graph])
        began = monotonic()
        try:
            found = await self._call(graph, version, inputs, outputs)
        except TimeoutError:
            raise lost(self.address) from None
        finally:
            awaited[graph] -= 1
        return Computed(found, share * (monotonic() - began))

    async def close(self) -> None:
        """Lets the channel and the shared memory go, after what is left of the calls where it may yet end."""
        await self._calls.close(_CLOSE_SECONDS if self.alive else 0)
        await self._regions.close(self._client if self.alive else None)
        await self._client.close()

    async def _call(
        self, graph: str, version: int, inputs: Tensors, outputs: Sequence[TensorSpec]
    ) -> Tensors:
        refused: TritonError | None = None
        rows = len(next(iter(inputs.values())))
        region = await self._regions.take(self._client, inputs, outputs, rows)
        if region is not None:
            shared = self._infer_shared(region, graph, version, inputs, outputs, rows)
            try:
                return await self._calls.run(shared, to_its_end=True)
            except TritonError as error:
                refused = error
        answer = await self._calls.run(self._infer(graph, version, _sent(inputs), _wanted(outputs)))
        if refused is not None:  # it was the sharing then, and not the call
            self._regions.refuse(str(refused))
        return {spec.name: answer.as_numpy(spec.name) for spec in outputs}

    async def _infer_shared(
        self,
        region: Region,
        graph: str,
        version: int,
        inputs: Tensors,
        outputs: Sequence[TensorSpec],
        rows: int,
    ) -> Tensors:
        given, wanted = region.put(inputs, outputs, rows)
        try:
            found = region.read(await self._infer(graph, version, given, wanted), outputs)
        except TritonError:
            self._regions.give_back(region)
            raise
        except BaseException:
            region.memory.close()  # a server that has not answered may still write: not for another call
            raise
        self._regions.give_back(region)
        return found

    async def _infer(self, graph: str, version: int, inputs: list[Any], outputs: list[Any]) -> Any:
        try:
            return await self._client.infer(graph, inputs, str(version), outputs, headers=inject() or None)
        except InferenceServerException as error:
            raise failure(error, self.address, f"version {version} of {graph}") from None

    async def _learn_version(self) -> str:
        """Learns whether it survives that a call is cancelled; in words where it may not.

        Raises `InferenceServerException` where it does not answer in time.
        """
        try:
            server = await self._client.get_server_metadata(client_timeout=_PROBE_SECONDS)
        except InferenceServerException as error:
            self._calls.cancellable = False
            if _late(error):
                raise
            # Not everybody may ask; where it is not there at all, that is said of the next question.
            return f", and does not say its version, so no calls are cancelled in it: {error.message()}"
        self._calls.cancellable = cancelled_safely(server.name, server.version)
        if self._calls.cancellable:
            return ""
        return f"; a cancelled call could be the end of {server.name} {server.version}, so it has none"

    async def _ask(self, method: Any, *arguments: Any, seconds: float) -> Any:
        try:
            return await method(*arguments, client_timeout=seconds)
        except InferenceServerException as error:
            raise failure(error, self.address, " ".join(arguments) or "the server") from None

    def _gone(self, why: str) -> None:
        if self.alive:
            log.error("Triton at %s is gone: %s", self.address, why)
        self.alive = False
        self.takes_orders = True
        self.models = {}
        self._regions.forget()
        self._calls.give_up()


def _late(error: Any) -> bool:
    return bool(error.status() == "StatusCode.DEADLINE_EXCEEDED")


def _models(index: Any) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for entry in index.models:
        versions = dict(models[entry.name].versions) if entry.name in models else {}
        if entry.version:
            versions[int(entry.version)] = VersionState(state=entry.state, reason=entry.reason)
        models[entry.name] = Model(versions=versions)
    return models


def _sent(inputs: Tensors) -> list[Any]:
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensors.append(tensor.set_data_from_numpy(array))
    return tensors


def _wanted(outputs: Sequence[TensorSpec]) -> list[Any]:
    return [triton.InferRequestedOutput(spec.name) for spec in outputs]
