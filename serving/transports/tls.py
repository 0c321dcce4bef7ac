"""TLS for both transports, from files that are read again when certificates are renewed."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from serving.process.watched import FilesError, Watched, read_bytes
from serving.settings import Settings

log = logging.getLogger(__name__)

_SOON = timedelta(days=14)


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """What the gateway shows to its clients, and what they must show to it."""

    chain: bytes
    """PEM of the certificate, and of those between it and its authority."""
    key: bytes
    """PEM of its key."""
    client_ca: bytes | None
    """PEM of the authorities by which clients must be certified; None takes any client."""
    expires: datetime
    """When the certificate ends."""
    context: ssl.SSLContext
    """The same for a server of the standard library."""

    def concern(self, now: datetime | None = None) -> str | None:
        """What is amiss with the time that is left, if anything is."""
        left = self.expires - (now or datetime.now(UTC))
        if left > _SOON:
            return None
        said = "ended" if left < timedelta(0) else "ends"
        return f"the certificate {said} on {self.expires:%Y-%m-%d %H:%M} UTC: renew it"


class RotatingContext(ssl.SSLContext):
    """A context for a server that gives each new connection the certificates of the moment."""

    certificates: Watched[Certificates]

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """The TLS side of a new connection."""
        return self.certificates.value.context.wrap_bio(*arguments, **named)


def open_certificates(settings: Settings) -> Watched[Certificates] | None:
    """The certificates of the settings, None without. Raises `FilesError`."""
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if cert is None or key is None:
        return None
    paths = [path for path in (cert, key, client_ca) if path is not None]
    return Watched("TLS certificates", paths, lambda: read(cert, key, client_ca))


def rotating_context(certificates: Watched[Certificates]) -> ssl.SSLContext:
    """A context for a server over TLS 1.2 and later."""
    context = RotatingContext(ssl.PROTOCOL_TLS_SERVER)
    context.certificates = certificates
    return context


def grpc_credentials(certificates: Watched[Certificates]) -> grpc.ServerCredentials:
    """Credentials for a gRPC server; each new connection gets the certificates of the moment."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        now = certificates.value
        return grpc.ssl_server_certificate_configuration([(now.key, now.chain)], now.client_ca)

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        configuration,
        require_client_authentication=certificates.value.client_ca is not None,
    )


def read(cert: Path, key: Path, client_ca: Path | None) -> Certificates:
    """The files, checked to belong together. Raises `FilesError`."""
    chain, secret = read_bytes(cert, "tls_cert"), read_bytes(key, "tls_key")
    authorities = None if client_ca is None else read_bytes(client_ca, "tls_client_ca")
    leaf = _certificates(chain, cert, "tls_cert")[0]
    try:
        private = serialization.load_pem_private_key(secret, password=None)
    except TypeError as error:
        raise FilesError(f"{key} is locked by a passphrase: give tls_key one that is not") from error
    except (ValueError, NotImplementedError) as error:
        raise FilesError(f"{key} holds no private key in PEM: tls_key names the certificate's key") from error
    if private.public_key() != leaf.public_key():
        raise FilesError(
            f"{key} is not the key of the certificate in {cert}: tls_cert and tls_key belong together, and "
            "the certificate itself stands first in its file"
        )
    if authorities is not None and client_ca is not None:
        _certificates(authorities, client_ca, "tls_client_ca")
    certificates = Certificates(
        chain=chain,
        key=secret,
        client_ca=authorities,
        expires=leaf.not_valid_after_utc,
        context=_context(cert, key, authorities),
    )
    if concern := certificates.concern():
        log.warning("%s: %s", cert, concern)
    return certificates


def _certificates(pem: bytes, path: Path, setting: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise FilesError(
            f"{path} holds no certificate in PEM: {setting} names a file with -----BEGIN CERTIFICATE-----"
        ) from error


def _context(cert: Path, key: Path, authorities: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise FilesError(f"{cert} and {key} cannot be used: {error}") from error
    if authorities is not None:
        context.load_verify_locations(cadata=authorities.decode("ascii", "ignore"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context
