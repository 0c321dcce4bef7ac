"""Who gets in: the address, TLS, keys, and the ports."""

from __future__ import annotations

import http.client
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

from serving.access.callers import ADMIN
from serving.access.door import check_exposure, is_loopback
from serving.access.keys import read_entries
from serving.doctor.findings import Finding, failure, fine, warning
from serving.process.ports import PortError, address, listen
from serving.process.watched import FilesError
from serving.settings import Settings, SettingsError, flag_name
from serving.transports.tls import read

_ANSWER_SECONDS = 2.0


def exposure(settings: Settings) -> Iterator[Finding]:
    """Whether the doors fit the address."""
    try:
        check_exposure(settings)
    except SettingsError as error:
        yield failure("address", str(error), "set one of these")
        return
    if is_loopback(settings.host):
        yield fine("address", f"{settings.host}: this machine alone gets in")
    elif settings.api_keys is None and settings.tls_client_ca is None:
        yield warning(
            "address",
            f"{settings.host}: whoever reaches it may use the gateway",
            "set api_keys or tls_client_ca, unless something in front of it asks who comes",
        )
    elif settings.tls_cert is None:
        yield warning(
            "address",
            f"{settings.host}: API keys travel in the clear",
            "set tls_cert and tls_key, unless something in front of it speaks TLS",
        )
    else:
        yield fine("address", f"{settings.host}: over TLS, with {_guards(settings)}")


def tls(settings: Settings) -> Iterator[Finding]:
    """Whether the certificate can be used, and for how long."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None or key is None:
        return
    try:
        certificates = read(cert, key, settings.tls_client_ca)
    except FilesError as error:
        yield failure("tls", str(error), "put files there that belong together")
        return
    if concern := certificates.concern():
        yield warning("tls", f"{cert}: {concern}", "the gateway takes the new one without a restart")
    else:
        yield fine("tls", f"{cert}: until {certificates.expires:%Y-%m-%d}")
    yield from _secret("tls", key)


def keys(settings: Settings) -> Iterator[Finding]:
    """Whether the keys can be read, by the gateway and by nobody else."""
    path = settings.api_keys
    if path is None:
        return
    try:
        entries = read_entries(path)
    except FilesError as error:
        yield failure("keys", str(error), "`atelier keys new NAME` prints an entry as it must be")
        return
    if any(ADMIN in entry.scopes for entry in entries.values()):
        yield fine("keys", f"{path}: {len(entries)}")
    else:
        yield warning(
            "keys",
            f"{path}: {len(entries)}, none of them with the scope {ADMIN}, so that nobody can load models",
            f"`atelier keys new NAME --scope {ADMIN}`, if somebody should",
        )
    yield from _secret("keys", path)


def ports(settings: Settings) -> Iterator[Finding]:
    """Whether the ports can be listened on, or a gateway is there already."""
    for setting in ("http_port", "grpc_port", "metrics_port"):
        port = getattr(settings, setting)
        where = address(settings.host, port)
        if port == 0:
            yield fine("ports", f"{setting}: any that is free")
            continue
        try:
            listen(settings.host, port, flag_name(setting)).close()
        except PortError as error:
            # gRPC says less of itself: the gateway beside it speaks for it.
            asked = settings.metrics_port if setting == "grpc_port" else port
            said = _readiness(
                settings, asked, secure=setting == "http_port" and settings.tls_cert is not None
            )
            if said is None:
                yield failure("ports", str(error), f"end what is there, or set {setting}")
            else:
                yield fine("ports", f"{where}: a gateway is there, and {said}")
        else:
            yield fine("ports", f"{where}: free")


def _readiness(settings: Settings, port: int, *, secure: bool) -> str | None:
    """What the gateway on a port of HTTP says of itself; None where there is none."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # it is asked for nothing but its state
    connection = (
        http.client.HTTPSConnection(host, port, timeout=_ANSWER_SECONDS, context=context)
        if secure
        else http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    )
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(1000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if answer.status == 200 and text == "ready":
        return "it is ready"
    return f"it is not ready: {text}" if answer.status == 503 else None


def _secret(check: str, path: Path) -> Iterator[Finding]:
    mode = path.stat().st_mode
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        yield warning(
            check,
            f"{path} has the permissions {stat.S_IMODE(mode):o}: others can read or change it",
            f"chmod 600 {path} (a mounted secret: defaultMode 0400 or 0440)",
        )


def _guards(settings: Settings) -> str:
    guards = {"API keys": settings.api_keys, "client certificates": settings.tls_client_ca}
    return " and ".join(name for name, given in guards.items() if given is not None) or "no keys"
