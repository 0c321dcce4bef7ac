"""The stock tritonclient in its four kinds behind one way of calling them, against one of two servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

KINDS = ("grpc", "grpc.aio", "http", "http.aio")

_CODES = {"400": "INVALID_ARGUMENT", "404": "NOT_FOUND", "500": "INTERNAL", "501": "UNIMPLEMENTED"}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server under test."""

    name: str
    """`atelier` or `triton`."""
    grpc: str
    """host:port of gRPC."""
    http: str
    """host:port of HTTP."""


@dataclass(kw_only=True)
class Stock:
    """A stock client; what is a coroutine is awaited."""

    kind: str
    """One of `KINDS`."""
    server: Server
    """Whom it asks."""
    client: Any
    """The client itself."""
    run: Callable[[Any], Any] = field(default=lambda answer: answer)
    """Waits for a coroutine."""

    @property
    def module(self) -> Any:
        """Where its inputs and outputs are defined."""
        return tritonclient.grpc if self.grpc else tritonclient.http

    @property
    def grpc(self) -> bool:
        """Whether it speaks gRPC."""
        return self.kind.startswith("grpc")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)
        return lambda *arguments, **options: self.run(method(*arguments, **options))

    def document(self, name: str, *arguments: Any) -> dict[str, Any]:
        """An answer as JSON."""
        options = {"as_json": True} if self.grpc else {}
        found: dict[str, Any] = getattr(self, name)(*arguments, **options)
        return found

    def input(self, name: str, array: NDArray[Any], **options: Any) -> Any:
        """An input with its elements; over HTTP, `binary_data` says whether they go raw."""
        tensor = self.module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, **({} if self.grpc else options))
        return tensor

    def output(self, name: str, **options: Any) -> Any:
        """An output that is asked for."""
        if self.grpc:
            options.pop("binary_data", None)
        return self.module.InferRequestedOutput(name, **options)

    def ask(self, model: str, tensors: Mapping[str, NDArray[Any]], **options: Any) -> Any:
        """The result of an inference."""
        return self.infer(model, [self.input(*each) for each in tensors.items()], **options)

    def error(self, call: Callable[[], Any]) -> tuple[str, str]:
        """Code and message of the error that a call ends in; HTTP's statuses are taken for their codes."""
        try:
            call()
        except InferenceServerException as error:
            status = str(error.status()).removeprefix("StatusCode.")
            return _CODES.get(status, status), error.message()
        raise AssertionError("the call was answered")


@contextmanager
def stock(kind: str, server: Server) -> Iterator[Stock]:
    """A client of a kind, closed at the end."""
    if kind == "grpc":
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            yield Stock(kind=kind, server=server, client=client)
    elif kind == "http":
        with tritonclient.http.InferenceServerClient(server.http) as client:
            yield Stock(kind=kind, server=server, client=client)
    else:
        module, address = (
            (tritonclient.grpc.aio, server.grpc)
            if kind == "grpc.aio"
            else (tritonclient.http.aio, server.http)
        )
        with asyncio.Runner() as runner:

            async def opened() -> Any:
                return module.InferenceServerClient(address)

            client = runner.run(opened())
            try:
                yield Stock(
                    kind=kind,
                    server=server,
                    client=client,
                    run=lambda answer: runner.run(answer) if asyncio.iscoroutine(answer) else answer,
                )
            finally:
                runner.run(client.close())


def latents(rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Inputs of `tiny_gan`."""
    random = np.random.default_rng(seed)
    return {
        "latent": random.standard_normal((rows, 4)).astype(np.float32),
        "class_id": random.integers(0, 3, (rows, 1)),
    }
