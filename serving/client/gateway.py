"""A gateway of one's own: started on free ports over a repository, and ended by its own process id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

START_SECONDS = 120.0
"""How long a gateway may take to become ready."""


class GatewayError(RuntimeError):
    """A gateway that did not start: carries what it said."""


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A running gateway."""

    grpc_address: str
    """host:port, with https:// before it for TLS"""
    http_address: str
    """http://host:port, or https://"""
    process: subprocess.Popen[str]
    """Its process."""


@contextmanager
def gateway(
    repository: Path, *flags: str, http_port: int = 0, grpc_port: int = 0, metrics_port: int = 0
) -> Iterator[Gateway]:
    """A ready `atelier serve` over the repository, on free ports unless told otherwise.

    `flags` are more of those of `atelier serve`. It is stopped when the block is left. Raises `GatewayError`
    with its words where it does not start.
    """
    free = free_ports(3)
    ports = [wanted or port for wanted, port in zip((http_port, grpc_port, metrics_port), free, strict=True)]
    command = [sys.executable, "-m", "atelier", "serve", "--repository", str(repository)]
    command += ["--host", "127.0.0.1", "--http-port", str(ports[0])]
    command += ["--grpc-port", str(ports[1]), "--metrics-port", str(ports[2]), *flags]
    tls = "--tls-cert" in flags or os.environ.get("ATELIER_TLS_CERT")
    secure = "https://" if tls else ""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)  # noqa: S603 - ours
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{ports[2]}/readyz", log)
            yield Gateway(
                grpc_address=f"{secure}127.0.0.1:{ports[1]}",
                http_address=f"{secure or 'http://'}127.0.0.1:{ports[0]}",
                process=process,
            )
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_ready(process: subprocess.Popen[str], url: str, log: IO[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise GatewayError(f"the gateway ended with status {process.returncode}:\n{_said(log)}")
        try:
            with urlopen(url, timeout=2):  # noqa: S310 - loopback http
                return
        except (URLError, OSError):
            time.sleep(0.05)
    raise GatewayError(f"the gateway was not ready after {START_SECONDS:.0f} s:\n{_said(log)}")


def _said(log: IO[str]) -> str:
    log.seek(0)
    return log.read().strip()
