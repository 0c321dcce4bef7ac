"""What the gateway does under the Open Inference Protocol, in the terms of no transport.

Answers that hold no tensors are the protocol's own protobuf messages. Everything that a client may be told of
raises `ServingError`, in Triton's words where Triton has some.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Container, Iterable
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from tritonclient.grpc import service_pb2

from serving.batching.run import Runner
from serving.batching.statistics import Statistics
from serving.calls import Tensors, once
from serving.errors import Code, ServingError, invalid
from serving.manifest import Manifest
from serving.oip.checks import check_outputs, read_inputs, version_number
from serving.oip.graphs import Graphs
from serving.oip.messages import InferAnswer, InferRequest, OutputTensor, WantedOutput
from serving.oip.shared_memory import SharedMemory
from serving.oip.statistics import to_message
from serving.oip.tensors import BYTES, classify, datatype, to_bytes
from serving.repository.control import Control
from serving.requests.context import RequestContext, Requests, new_ticket

EXTENSIONS = (
    "classification",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
)
"""Extensions of the protocol that are here, by Triton's names."""


class OpenInference:
    """The graphs of the gateway, for whoever brings tensors. Built by `opening.open_service`."""

    def __init__(
        self,
        *,
        graphs: Graphs,
        control: Control,
        runner: Runner,
        requests: Requests,
        statistics: Statistics,
        shared_memory: SharedMemory,
    ) -> None:
        self.shared_memory = shared_memory
        self._graphs = graphs
        self._control = control
        self._runner = runner
        self._requests = requests
        self._statistics = statistics

    def server_metadata(self) -> Any:
        """ServerMetadataResponse."""
        return service_pb2.ServerMetadataResponse(
            name="atelier", version=importlib.metadata.version("atelier"), extensions=EXTENSIONS
        )

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a version of a graph can be called."""
        return self._graphs.is_ready(name, version)

    def model_metadata(self, name: str, version: str) -> Any:
        """ModelMetadataResponse: inputs and outputs."""
        return self._graphs.metadata(name, version)

    def model_config(self, name: str, version: str) -> Any:
        """ModelConfig, the `atelier.*` parameters included."""
        return self._graphs.config(name, version)

    def model_statistics(self, name: str, version: str) -> Any:
        """ModelStatisticsResponse: of every graph where no name is given."""
        number = version_number(version)
        manifest = self._graphs.manifest(name)
        if name and (manifest is None or not self._graphs.ready_versions(manifest)):
            raise invalid("name", f"requested model '{name}' is not available")
        manifests = self._graphs.manifests() if manifest is None else [manifest]
        found = [
            to_message(each.graph, ready, self._statistics.of(each.graph, ready))
            for each in manifests
            for ready in self._graphs.ready_versions(each)
            if number in (None, ready)
        ]
        if name and not found:
            raise invalid("version", f"requested model version is not available for model '{name}'")
        return service_pb2.ModelStatisticsResponse(model_stats=found)

    def repository_index(self, repository: str, ready: bool) -> Any:
        """RepositoryIndexResponse: every graph and version, or those that are ready."""
        _require_own(repository)
        return service_pb2.RepositoryIndexResponse(models=self._graphs.index(ready))

    async def infer(self, request: InferRequest, context: RequestContext) -> InferAnswer:
        """The outputs of a graph. Cancelling it withdraws its rows."""
        if request.timeout > 0:
            until = monotonic() + 1e-6 * request.timeout
            deadline = until if context.deadline is None else min(until, context.deadline)
            context = replace(context, deadline=deadline)
        if request.priority > 1:
            context = replace(context, priority="batch")
        known = self._graphs.manifest(request.graph)
        model, rows = (known.model, min(request.rows, known.max_batch_size)) if known else ("", 0)
        with self._requests.track("ModelInfer", model, context, images=max(0, rows)) as tracked:
            key = request.request_id or context.request_id
            manifest, version = self._graphs.find(request.graph, request.version, key)
            tracked.resolved("infer", version, self._graphs.keep(manifest, version))
            check_outputs(request, manifest)
            for place in request.places:
                self.shared_memory.check(place)
            with self._runner.hold(sum(place.byte_size for place in request.places)):
                outputs = await self._compute(request, context, manifest, version, tracked.deadline)
            return InferAnswer(
                graph=manifest.graph, version=version, request_id=request.request_id, outputs=outputs
            )

    async def load_model(
        self, repository: str, name: str, parameters: Iterable[str], context: RequestContext
    ) -> None:
        """Loads the model that a graph belongs to, as it lies in the repository. For admins.

        Nothing can be brought along: INVALID_ARGUMENT for parameters, such as uploaded files.
        """
        self._requests.require_admin(context)
        _check_control(repository, name, parameters, ())
        await self._control.load(name)

    async def unload_model(
        self, repository: str, name: str, parameters: Iterable[str], context: RequestContext
    ) -> None:
        """Takes no more requests for the model that a graph belongs to. For admins."""
        self._requests.require_admin(context)
        _check_control(repository, name, parameters, ("unload_dependents",))
        await self._control.unload(name)

    async def _compute(
        self,
        request: InferRequest,
        context: RequestContext,
        manifest: Manifest,
        version: int,
        deadline: float,
    ) -> tuple[OutputTensor, ...]:
        read = partial(read_inputs, request, manifest, self.shared_memory.read)
        inputs = await asyncio.to_thread(read) if request.places else read()
        rows = len(next(iter(inputs.values())))
        ticket = new_ticket(context, version, deadline, manifest, rows)
        with self._runner.admitted(ticket), self._runner.hold(_uncounted(manifest, inputs)):
            outputs = await self._runner.run(once(manifest.graph, inputs), ticket)
        wanted = request.outputs or [WantedOutput(name=spec.name) for spec in manifest.outputs]
        if any(each.classes or each.place for each in wanted):
            return await asyncio.to_thread(self._outputs, wanted, outputs)
        return self._outputs(wanted, outputs)

    def _outputs(self, wanted: Iterable[WantedOutput], outputs: Tensors) -> tuple[OutputTensor, ...]:
        return tuple(self._output(each, outputs) for each in {each.name: each for each in wanted}.values())

    def _output(self, wanted: WantedOutput, outputs: Tensors) -> OutputTensor:
        array: Any = outputs[wanted.name]
        name = datatype(array.dtype)
        if wanted.classes:
            array, name = classify(array, wanted.classes), BYTES
        shape = array.shape
        if wanted.place is not None:
            content = to_bytes(array)
            if len(content) > wanted.place.byte_size:
                raise invalid(
                    wanted.name,
                    f"shared memory size specified with the request for output '{wanted.name}' "
                    f"({wanted.place.byte_size} bytes) should be at least {len(content)} bytes "
                    f"to hold the results",
                )
            self.shared_memory.write(wanted.place, content)
            array = None
        return OutputTensor(name=wanted.name, datatype=name, shape=shape, array=array, place=wanted.place)


def _uncounted(manifest: Manifest, inputs: Tensors) -> int:
    """Bytes of inputs and outputs whose size the client has chosen, which the door has not counted."""
    if not any(-1 in spec.shape for spec in manifest.inputs):
        return 0
    return 2 * sum(array.nbytes for array in inputs.values())


def _check_control(repository: str, name: str, parameters: Iterable[str], known: Container[str]) -> None:
    _require_own(repository)
    if not name or not all(each.isalnum() or each in "_-." for each in name) or name.startswith("."):
        raise invalid("model_name", f"model name '{name}' is no name of a folder of the repository")
    for parameter in parameters:
        if parameter not in known:
            raise invalid(
                parameter,
                f"unrecognized load parameter '{parameter}': models are loaded as they lie in the folder, "
                f"and nothing is uploaded; publish a new version there",
            )


def _require_own(repository: str) -> None:
    if repository:
        raise ServingError(
            Code.UNIMPLEMENTED,
            "'repository_name' specification is not supported: there is one repository; leave it empty",
            field="repository_name",
        )
