"""What a command is told of keys and certificates, and clients that show them."""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.client.sync_client import Client

KEY_VARIABLE = "ATELIER_API_KEY"
CA_VARIABLE = "ATELIER_TLS_CA"


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a command gets in."""

    api_key: str | None = field(default=None, repr=False)
    """Key that the gateway knows."""
    tls_ca: Path | None = None
    """PEM file of the authorities that certify the gateway, where they are not the system's."""
    tls_cert: Path | None = None
    """PEM file of the client's own certificate."""
    tls_key: Path | None = None
    """PEM file of its key."""

    def client(self, address: str, *, timeout: float | None = None) -> Client:
        """A client of the gateway at that address of gRPC."""
        return Client(
            address,
            timeout=timeout,
            api_key=self.api_key,
            tls_ca=self.tls_ca,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
        )

    @property
    def headers(self) -> Mapping[str, str]:
        """What goes with every request over HTTP."""
        return {"x-api-key": self.api_key} if self.api_key else {}

    def context(self, url: str) -> ssl.SSLContext | None:
        """TLS for a request over HTTP, where the address wants it."""
        if not url.startswith("https://"):
            return None
        context = ssl.create_default_context(cafile=self.tls_ca)
        if self.tls_cert is not None:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        return context


def add_access(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that asks a gateway."""
    parser.add_argument(
        "--api-key",
        default=os.environ.get(KEY_VARIABLE),
        metavar="KEY",
        help=f"key that the gateway knows (default: {KEY_VARIABLE}, which no process list shows)",
    )
    parser.add_argument(
        "--tls-ca",
        type=Path,
        default=os.environ.get(CA_VARIABLE),
        metavar="FILE",
        help=f"PEM of the authorities that certify the gateway (default: {CA_VARIABLE}, else the system's)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM of a certificate of one's own")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM of its key")


def access_of(options: argparse.Namespace) -> Access:
    """What the flags said."""
    return Access(
        api_key=options.api_key, tls_ca=options.tls_ca, tls_cert=options.tls_cert, tls_key=options.tls_key
    )
