"""`atelier serve`: the gateway over one repository, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry, disable_created_metrics

from serving.access.door import Door, check_exposure
from serving.errors import ServingError
from serving.observing import logs
from serving.observing.telemetry import open_tracer
from serving.opening import open_service
from serving.process.lifecycle import Life, keep_fresh
from serving.process.memory import set_aside
from serving.process.ports import PortError, address, listen
from serving.process.watched import FilesError, Watched
from serving.service import Service
from serving.settings import Settings, SettingsError, describe, load_settings
from serving.settings_flags import add_flags, read_flags
from serving.transports.grpc_api import GrpcServer
from serving.transports.http_api import create_app, create_metrics_app
from serving.transports.http_server import run_http
from serving.transports.tls import grpc_credentials, open_certificates, rotating_context

log = logging.getLogger(__name__)

# Exit statuses: as a shell has them for wrong usage, and one for a gateway that cannot start or be ready.
_USAGE, _FAILED = 2, 1


def main(arguments: list[str]) -> int:
    """Run the subcommand and return its exit status."""
    given = _parser().parse_args(arguments)
    config, print_config = given.config, given.print_config
    try:
        resolved = load_settings(read_flags(given), config=config)
    except SettingsError as error:
        return _complain(error, _USAGE)
    if print_config:
        print(describe(resolved), end="")
        return 0
    try:
        check_exposure(resolved.settings)
    except SettingsError as error:
        return _complain(error, _USAGE)
    repository = resolved.settings.repository
    if resolved.settings.backend == "onnxruntime" and not repository.is_dir():
        return _complain(
            f"no model repository at {repository}: name its folder with --repository, or make one with "
            "`atelier export`",
            _FAILED,
        )
    logs.configure(resolved.settings.log_level, resolved.settings.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(resolved.settings, say=partial(print, flush=True)))
    except (FilesError, ServingError, PortError) as error:
        return _complain(error, _FAILED)
    except KeyboardInterrupt:  # a second Ctrl-C: whoever presses it wants no more grace
        return 130


async def serve(settings: Settings, say: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status.

    At the end readiness and health turn first, while everybody is still served for `drain_delay` seconds;
    then nothing new is taken, and requests under way finish within `shutdown_grace` or are told that they
    were cut off. Raises `PortError` and `FilesError`.
    """
    started = time.monotonic()
    # A timestamp for each series would double what is scraped.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    life = Life()
    life.heed_signals()
    registry = CollectorRegistry()
    door, certificates = Door(settings), open_certificates(settings)
    with contextlib.ExitStack() as listeners:
        async with contextlib.AsyncExitStack() as opened:
            tracer = await opened.enter_async_context(open_tracer(os.environ))
            service = await opened.enter_async_context(open_service(settings, registry, tracer))

            def not_ready() -> str | None:
                return life.not_ready_reason() or service.not_ready_reason()

            http = listeners.enter_context(listen(settings.host, settings.http_port, "--http-port"))
            metrics = listeners.enter_context(listen(settings.host, settings.metrics_port, "--metrics-port"))
            credentials = None if certificates is None else grpc_credentials(certificates)
            tls = None if certificates is None else rotating_context(certificates)
            grpc_server = GrpcServer(service, settings, not_ready, door, credentials)
            ports = {"HTTP": _port(http), "gRPC": grpc_server.port, "metrics": _port(metrics)}
            metrics_app = create_metrics_app(registry, not_ready)
            app = create_app(service, settings, registry, not_ready, door)
            watched: list[Watched[Any]] = [files for files in (door.keys, certificates) if files is not None]
            async with asyncio.TaskGroup() as servers:
                fronts = [
                    servers.create_task(grpc_server.run(life.stopping, life.draining), name="grpc"),
                    servers.create_task(
                        run_http(app, http, settings, life.stopping, draining=life.draining, tls=tls),
                        name="http",
                    ),
                ]
                servers.create_task(run_http(metrics_app, metrics, settings, life.ended), name="metrics")
                say(_addresses(settings, ports))
                helpers = [
                    servers.create_task(_when_loaded(service, started, say), name="loading"),
                    servers.create_task(keep_fresh(life, watched, [service.reload]), name="fresh"),
                ]
                await life.draining.wait()
                if settings.drain_delay:
                    say(f"not ready any more; requests are served for another {settings.drain_delay:g} s")
                    await asyncio.sleep(settings.drain_delay)
                life.stopping.set()
                for helper in helpers:
                    helper.cancel()
                say(f"stopping: requests under way have {settings.shutdown_grace:g} s to finish")
                await asyncio.wait(fronts, timeout=settings.shutdown_grace)
                # The service ends before the servers: they still tell whoever was cut off.
                await service.cut_off()
                await opened.aclose()
                life.ended.set()
    say("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atelier serve",
        description="Serve a model repository over gRPC and HTTP, with a page to try it at /.",
        epilog="Every setting can stand in the TOML file of --config and in an ATELIER_* variable too, such "
        "as ATELIER_HTTP_PORT; flags win over variables, variables over the file.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--print-config", action="store_true", help="show every setting and who said it, and end"
    )
    add_flags(parser)
    return parser


def _complain(error: object, status: int) -> int:
    print(f"atelier serve: {error}", file=sys.stderr)
    return status


def _port(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def _addresses(settings: Settings, ports: dict[str, int]) -> str:
    host = settings.host
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    scheme, over = ("http", "") if settings.tls_cert is None else ("https", "  (TLS)")
    page = f"{scheme}://{address(reachable, ports['HTTP'])}"
    lines = [
        f"page     {page}/  (API: {page}/docs)",
        f"HTTP     {address(host, ports['HTTP'])}{over}",
        f"gRPC     {address(host, ports['gRPC'])}{over}",
        f"metrics  {address(host, ports['metrics'])}/metrics",
    ]
    return "\n".join(lines)


async def _when_loaded(service: Service, started: float, say: Callable[[str], None]) -> None:
    """Sets aside what is there to stay, and says what is served."""
    await service.wait_loaded()
    set_aside()
    seconds = time.monotonic() - started
    models = (await service.list_models()).models
    reason = service.not_ready_reason()
    say(f"not ready: {reason}" if reason else f"ready in {seconds:.1f} s with {len(models)} models:")
    for model in models:
        size = f"{model.width}×{model.height}" if model.width else "any size"
        say(f"  {model.name:<22} {model.family:<10} {size:<10}{'' if model.ready else ' not ready'}".rstrip())
