"""API keys: made at random, kept as digests in a TOML file, and looked up in constant time.

[keys.ci]
sha256 = "5f1d..."              # or several, while a key is being replaced
scopes = ["use"]                # use, admin
requests_per_second = 20        # and with it: burst, images_per_minute, concurrency
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from serving.access.callers import Caller
from serving.access.limits import Account, Limits
from serving.process.watched import FilesError, read_bytes

_PREFIX = "atelier_"  # by which secret scanners can tell what they have found
_BYTES = 32

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class KeyEntry(BaseModel):
    """One key in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sha256: Digest | list[Digest]
    """SHA-256 of the key in lower-case hexadecimal; several while an old one gives way to a new one."""
    scopes: list[Literal["use", "admin"]] = Field(default=["use"], min_length=1)
    """What the key opens: use (ask for images), admin (change the gateway)."""
    requests_per_second: float | None = Field(default=None, gt=0)
    """Requests a second in the long run; without it any number."""
    burst: int = Field(default=0, ge=0)
    """Requests that may come at once; 0 for those of one second."""
    images_per_minute: float | None = Field(default=None, gt=0)
    """Images a minute; without it any number."""
    concurrency: int = Field(default=0, ge=0)
    """Requests that may be under way at a time; 0 for any number."""

    @property
    def limits(self) -> Limits:
        """Its limits."""
        return Limits(
            requests_per_second=self.requests_per_second or math.inf,
            burst=self.burst,
            images_per_minute=self.images_per_minute or math.inf,
            concurrency=self.concurrency,
        )


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: dict[Name, KeyEntry] = Field(min_length=1)


class Keyring:
    """The callers by the digests of their keys."""

    def __init__(self, entries: Mapping[str, KeyEntry], accounts: dict[str, Account]) -> None:
        """`accounts` are what callers have had so far, by name; kept from one keyring to the next."""
        self._callers: list[tuple[bytes, Caller]] = []
        for name in accounts.keys() - entries.keys():
            del accounts[name]
        for name, entry in entries.items():
            account = accounts.setdefault(name, Account(name, entry.limits))
            account.adopt(entry.limits)
            caller = Caller(name=name, scopes=frozenset(entry.scopes), account=account)
            digests = [entry.sha256] if isinstance(entry.sha256, str) else entry.sha256
            self._callers += [(bytes.fromhex(digest), caller) for digest in digests]

    def find(self, key: str) -> Caller | None:
        """Whose key it is. Takes the same time whichever it is, and whether or not there is one."""
        shown, found = hashlib.sha256(key.encode()).digest(), None
        for digest, caller in self._callers:
            if hmac.compare_digest(digest, shown):
                found = caller
        return found

    def __len__(self) -> int:
        return len(self._callers)


def new_key() -> str:
    """A key of 256 random bits. One that cannot be guessed needs no slow hash to be kept by."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def digest_of(key: str) -> str:
    """What the file keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_entries(path: Path) -> Mapping[str, KeyEntry]:
    """The keys of a file by name. Raises `FilesError`, which quotes no value: it might be a key."""
    content = read_bytes(path, "api_keys")
    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FilesError(f"{path} is not TOML: make entries for it with `atelier keys new NAME`") from error
    try:
        return _File.model_validate(document).keys
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'the file'}: {detail['msg']}" for detail in error.errors()
        )
        raise FilesError(
            f"{path}: {reasons}; `atelier keys new NAME` prints an entry as it must be"
        ) from error
