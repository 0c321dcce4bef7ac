"""Where a gateway is and how it is reached: address, TLS, and the API key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

DEFAULT_ADDRESS = "127.0.0.1:8081"
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How a client reaches a gateway's gRPC port."""

    address: str = DEFAULT_ADDRESS
    """`host:port`, with `https://` before it for TLS."""
    api_key: str | None = field(default=None, repr=False)
    """Key that the gateway knows; goes with every call."""
    tls_ca: Path | None = None
    """PEM file of the authorities that certify the gateway, where they are not the system's; means TLS."""
    tls_cert: Path | None = None
    """PEM file of the client's own certificate, for a gateway that asks for one."""
    tls_key: Path | None = None
    """PEM file of its key."""

    @property
    def secure(self) -> bool:
        """Whether it goes over TLS."""
        return self.address.startswith("https://") or self.tls_ca is not None or self.tls_cert is not None

    @property
    def target(self) -> str:
        """`host:port`."""
        return self.address.removeprefix("https://").removeprefix("http://").rstrip("/")

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """What goes with every call."""
        return (("x-api-key", self.api_key),) if self.api_key else ()

    def channel(self) -> grpc.Channel:
        """A channel for programs that wait."""
        if not self.secure:
            return grpc.insecure_channel(self.target, options=CHANNEL_OPTIONS)
        return grpc.secure_channel(self.target, self._credentials(), options=CHANNEL_OPTIONS)

    def aio_channel(self) -> grpc.aio.Channel:
        """A channel for programs on asyncio."""
        if not self.secure:
            return grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(self.target, self._credentials(), options=CHANNEL_OPTIONS)

    def _credentials(self) -> grpc.ChannelCredentials:
        ca, cert, key = (
            None if path is None else Path(path).read_bytes()
            for path in (self.tls_ca, self.tls_cert, self.tls_key)
        )
        return grpc.ssl_channel_credentials(ca, key, cert)
