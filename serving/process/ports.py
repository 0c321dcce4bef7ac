"""Ports to listen on: bound before anything starts, so that a taken one is one clear line."""

from __future__ import annotations

import os
import socket


class PortError(Exception):
    """A port that cannot be listened on: names it, why, and the flag that chooses another."""

    def __init__(self, host: str, port: int, flag: str, reason: str) -> None:
        super().__init__(
            f"cannot listen on {address(host, port)}: {reason}; "
            f"choose another with {flag}, or 0 for any free one"
        )


def address(host: str, port: int) -> str:
    """`host:port`, with IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(host: str, port: int, flag: str) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `PortError`.

    Its connections have TCP_NODELAY from the start, which not every event loop sees to: without it the body
    of an answer waits for the acknowledgement of its head, for 40 ms on a connection that is kept.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise PortError(host, port, flag, reason) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
