"""The graphs as the protocol's models: which are there, which version is meant, what they are like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from tritonclient.grpc import model_config_pb2, service_pb2

from serving.backends import Backend
from serving.errors import Code, ServingError, not_found
from serving.manifest import Manifest, to_config
from serving.oip.checks import version_number
from serving.oip.tensors import datatype
from serving.repository.live import Repository

PLATFORM = "onnxruntime_onnx"
"""Triton's name for an ONNX model in onnxruntime."""


class Graphs:
    """The graphs of the models that are served, each with the versions of its model."""

    def __init__(self, repository: Repository, backend: Backend) -> None:
        self._repository = repository
        self._backend = backend

    def manifest(self, name: str) -> Manifest | None:
        """The graph of that name."""
        return self._repository.catalog.manifests.get(name)

    def manifests(self) -> list[Manifest]:
        """Every graph, by name."""
        return [manifest for _, manifest in sorted(self._repository.catalog.manifests.items())]

    def ready_versions(self, manifest: Manifest) -> list[int]:
        """Versions that can be called, rising."""
        return self._repository.ready_versions(self._repository.catalog.models[manifest.model])

    def find(self, name: str, asked: str, key: str = "") -> tuple[Manifest, int]:
        """The graph and the version that a request means. NOT_FOUND unless that can be called.

        `key` decides where a canary shares out the requests that name no version.
        """
        number = version_number(asked)
        manifest = self.manifest(name)
        if manifest is None:
            raise not_found("model_name", f"Request for unknown model: '{name}' is not found")
        ready = self.ready_versions(manifest)
        if not ready:
            raise not_found("model_name", f"Request for unknown model: '{name}' has no available versions")
        if number is None:
            return manifest, self._repository.catalog.models[manifest.model].version(0, ready, key)
        if number not in ready:
            raise not_found(
                "model_version", f"Request for unknown model: '{name}' version {number} is not found"
            )
        return manifest, number

    def keep(self, manifest: Manifest, version: int) -> AbstractContextManager[None]:
        """Holds a version of a graph's model that is loaded until the block ends."""
        return self._repository.keep(self._repository.catalog.models[manifest.model], version)

    def is_ready(self, name: str, asked: str) -> bool:
        """Whether that can be called. INVALID_ARGUMENT for a version that is no number."""
        try:
            self.find(name, asked)
        except ServingError as error:
            if error.code == Code.NOT_FOUND:
                return False
            raise
        return True

    def metadata(self, name: str, asked: str) -> Any:
        """ModelMetadataResponse: the tensors, with the batch as their first axis."""
        manifest, _ = self.find(name, asked)
        answer = service_pb2.ModelMetadataResponse(
            name=manifest.graph,
            versions=[str(version) for version in self.ready_versions(manifest)],
            platform=PLATFORM,
        )
        for specs, tensors in ((manifest.inputs, answer.inputs), (manifest.outputs, answer.outputs)):
            for spec in specs:
                tensors.add(name=spec.name, datatype=datatype(spec.dtype), shape=[-1, *spec.shape])
        return answer

    def config(self, name: str, asked: str) -> Any:
        """ModelConfig, with what this engine makes of it."""
        manifest, _ = self.find(name, asked)
        config = to_config(manifest)
        config.platform = PLATFORM
        config.default_model_filename = "model.onnx"
        if not config.instance_group:
            config.instance_group.add(
                name=manifest.graph,
                count=self._backend.instances(manifest.graph),
                kind=model_config_pb2.ModelInstanceGroup.KIND_CPU,
            )
        return config

    def index(self, ready_only: bool) -> Iterator[Any]:
        """RepositoryIndexResponse.ModelIndex of every version, and of what is refused with the reason."""
        entry = service_pb2.RepositoryIndexResponse.ModelIndex
        for manifest in self.manifests():
            ready = self.ready_versions(manifest)
            for version in sorted({*ready, *manifest.versions}):
                if version in ready:
                    yield entry(name=manifest.graph, version=str(version), state="READY")
                elif not ready_only:
                    yield entry(
                        name=manifest.graph, version=str(version), state="UNAVAILABLE", reason="not loaded"
                    )
        if not ready_only:
            for place, reason in sorted(self._repository.catalog.refused.items()):
                name, _, refused = place.partition("/")
                yield entry(name=name, version=refused, state="UNAVAILABLE", reason=reason)
