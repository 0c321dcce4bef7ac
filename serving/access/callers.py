"""Who asks, and what they may: a name and scopes, decided at the door by each transport in the same way."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from serving.access.limits import Account
from serving.errors import Code, ServingError

USE = "use"
"""Scope of asking for images, and of everything that only reads."""
ADMIN = "admin"
"""Scope of what changes the gateway for everybody: loading and unloading models, reloading."""
SCOPES = (USE, ADMIN)
"""Every scope."""

_UNLIMITED = nullcontext()
_LOCAL_PEERS = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks."""

    name: str = ""
    """Name of the key that was shown; empty for somebody without one."""
    scopes: frozenset[str] = field(default_factory=lambda: frozenset({USE}))
    """What they may do, of `SCOPES`."""
    account: Account | None = field(default=None, compare=False, repr=False)
    """What they have had, held against the limits of their key; None without limits."""

    def require(self, scope: str) -> None:
        """Raises PERMISSION_DENIED, with the remedy, unless the caller has the scope."""
        if scope in self.scopes:
            return
        if self.name:
            had = " and ".join(sorted(self.scopes)) or "none"
            raise ServingError(
                Code.PERMISSION_DENIED,
                f"key {self.name!r} has the scopes {had} and this needs {scope}: use a key that has it",
                turned_away="scope",
            )
        raise ServingError(
            Code.PERMISSION_DENIED,
            f"this needs the scope {scope}: without API keys only a caller on the gateway's own machine has "
            "it; ask from there, or start the gateway with --api-keys and use a key that has it",
            turned_away="scope",
        )

    def work(self, images: int) -> AbstractContextManager[None]:
        """Holds a request of theirs while it is under way; RESOURCE_EXHAUSTED over the limits of the key."""
        return _UNLIMITED if self.account is None else self.account.work(images)


LOCAL = Caller(scopes=frozenset(SCOPES))
"""Somebody on the gateway's own machine, where there are no keys."""
ANYBODY = Caller()
"""Somebody elsewhere, where there are no keys."""


def is_local(peer: str) -> bool:
    """Whether a peer is on this machine: `127.0.0.1`, `::1`, or a socket of the file system (no address).

    The rest of 127.0.0.0/8 is not counted: meshes hand on what comes from outside from there.
    """
    return peer in _LOCAL_PEERS or peer == ""


def came_straight(host: str, origin: str, forwarded: Iterable[str]) -> bool:
    """Whether an HTTP request was sent by its peer, of its own accord.

    One with a forwarding header was sent by somebody behind the peer. One whose `Origin` is another page, or
    whose `Host` is no name of this machine, was sent by a browser for a stranger's page.
    """
    if any(forwarded):
        return False
    host = host.lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name in _LOCAL_NAMES and origin in ("", f"http://{host}", f"https://{host}")
