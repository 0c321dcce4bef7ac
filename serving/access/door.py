"""The door that both transports share: who comes in, by the key that they show or the place they ask from."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from serving.access.callers import ANYBODY, LOCAL, Caller
from serving.access.keys import Keyring, read_entries
from serving.access.limits import Account
from serving.errors import Code, ServingError
from serving.process.watched import Watched
from serving.settings import Settings, SettingsError

_HOW = "send it as `authorization: Bearer KEY` or `x-api-key: KEY`"


class Door:
    """Tells callers apart. Without API keys everybody may use the gateway and this machine's callers are its
    admins; with them a key is needed, from wherever one asks."""

    def __init__(self, settings: Settings) -> None:
        """Reads the keys that the settings name. Raises `FilesError`."""
        self.keys: Watched[Keyring] | None = None
        if settings.api_keys is not None:
            path, accounts = settings.api_keys, dict[str, Account]()
            self.keys = Watched("API keys", [path], lambda: Keyring(read_entries(path), accounts))

    @property
    def needs_key(self) -> bool:
        """Whether one comes in with a key alone."""
        return self.keys is not None

    def enter(self, headers: Mapping[str, str], *, local: bool) -> Caller:
        """The caller, by their headers or metadata in lower case; a request of theirs is counted.

        UNAUTHENTICATED without a key that is known, RESOURCE_EXHAUSTED where the key has asked too often.
        """
        if self.keys is None:
            return LOCAL if local else ANYBODY
        key = _shown(headers)
        if not key:
            raise ServingError(
                Code.UNAUTHENTICATED, f"this gateway wants an API key: {_HOW}", turned_away="no_key"
            )
        caller = self.keys.value.find(key)
        if caller is None:
            raise ServingError(
                Code.UNAUTHENTICATED,
                "the API key is not known: it is misspelt or was withdrawn; whoever runs the gateway makes "
                "one with `atelier keys new NAME`",
                turned_away="unknown_key",
            )
        if caller.account is not None:
            caller.account.request()
        return caller


def check_exposure(settings: Settings) -> None:
    """Raises `SettingsError` for doors that fit badly, and for one that is open to the world by oversight."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        given, missing = ("tls_cert", "tls_key") if settings.tls_cert else ("tls_key", "tls_cert")
        raise SettingsError(f"{given} is given without {missing}: TLS takes both")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise SettingsError(
            "tls_client_ca is given without tls_cert and tls_key: client certificates are TLS"
        )
    if settings.allow_anonymous or is_loopback(settings.host):
        return
    if settings.api_keys is None and settings.tls_client_ca is None:
        raise SettingsError(
            f"host = {settings.host!r} can be reached from other machines, and nothing keeps strangers out: "
            "set api_keys (make one with `atelier keys new NAME`) or tls_client_ca, listen on 127.0.0.1, or "
            "say allow_anonymous = true where something else guards the door"
        )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(headers: Mapping[str, str]) -> str:
    """The key of a request; `x-api-key` first, since a proxy may have its own use for `authorization`."""
    key = headers.get("x-api-key", "").strip()
    if key:
        return key
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""
