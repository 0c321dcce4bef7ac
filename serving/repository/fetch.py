"""`atelier fetch`: a model repository out of a tar archive, used only if it has the digest it should have."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

AUTHORIZATION_VARIABLE = "ATELIER_FETCH_AUTHORIZATION"
"""Variable with the value of the Authorization header; it is sent over HTTPS, and to this machine."""

_CHUNK = 1 << 20
_ATTEMPTS = 4
_TIMEOUT = 60.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class FetchError(Exception):
    """An archive that cannot be had or is not the one that was asked for: names it and the remedy."""


class _GoneWrongError(Exception):
    """A download that failed, and may not the next time."""


def main(arguments: list[str]) -> int:
    """Run the subcommand; 0 when the repository is there."""
    options = _parser().parse_args(arguments)
    try:
        fetch(options.archive, options.sha256.lower(), options.to)
    except (FetchError, OSError) as error:
        print(f"atelier fetch: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def fetch(archive: str, sha256: str, to: Path) -> None:
    """Puts what is in the archive at an address or path into the folder `to`.

    The digest (in hexadecimal) is compared before anything is unpacked. Where `to` already holds this
    archive, nothing is done; else it is emptied. Raises `FetchError`.
    """
    to.mkdir(parents=True, exist_ok=True)
    done = to / f".fetched-{sha256}"
    if done.exists():
        print(f"{to} already holds {sha256[:12]}")
        return
    # On the same file system, so that what is unpacked is renamed into place.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=to) as place:
        file = Path(place) / "archive"
        found = _bring(archive, file)
        if found != sha256:
            raise FetchError(
                f"{archive} has the SHA-256 {found}, not {sha256}: it was changed, or the digest is another's"
            )
        unpacked = Path(place) / "unpacked"
        try:
            with tarfile.open(file) as tar:
                tar.extractall(unpacked, filter="data")
        except (tarfile.TarError, EOFError) as error:
            raise FetchError(f"{archive} cannot be unpacked: {error}; make it with `tar -czf`") from error
        for old in to.iterdir():
            if old != Path(place):
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        for new in unpacked.iterdir():
            new.rename(to / new.name)
    done.touch()
    print(f"{to} holds {sha256[:12]} from {archive}")


def _bring(archive: str, file: Path) -> str:
    """Writes the archive into a file, with patience for a network that fails, and returns its digest."""
    if "://" not in archive:
        with open(archive, "rb") as source:
            return _copy(source, file)
    for attempt in range(_ATTEMPTS):
        try:
            with _answer(archive) as source:
                return _copy(source, file, source.length)
        except _GoneWrongError as error:
            if attempt == _ATTEMPTS - 1:
                raise FetchError(f"{archive}: {error}, {_ATTEMPTS} times") from error
            print(f"{archive}: {error}; trying again", file=sys.stderr)
            time.sleep(2.0**attempt)
    raise AssertionError("the last attempt returns or raises")


class _Body:
    """The body of an answer, whose failures are worth another attempt."""

    def __init__(self, body: IO[bytes], length: int | None) -> None:
        self._body = body
        self.length = length

    def read(self, size: int) -> bytes:
        try:
            return self._body.read(size)
        except (OSError, HTTPException) as error:
            raise _GoneWrongError(str(error) or type(error).__name__) from error


@contextmanager
def _answer(url: str) -> Iterator[_Body]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"{url}: give an http or https address, or the path of a file")
    request = Request(url)  # noqa: S310 - http or https
    authorization = os.environ.get(AUTHORIZATION_VARIABLE)
    if authorization:
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise FetchError(f"{url}: {AUTHORIZATION_VARIABLE} is not sent in the clear: use https")
        # Not handed on to where a redirect leads.
        request.add_unredirected_header("Authorization", authorization)
    try:
        with urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - http or https
            length = response.headers.get("Content-Length")
            yield _Body(response, int(length) if length else None)
    except HTTPError as error:
        if error.code < 500 and error.code not in (408, 429):
            raise FetchError(f"{url}: the server says {error.code} {error.reason}") from error
        raise _GoneWrongError(f"the server says {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _GoneWrongError(str(error) or type(error).__name__) from error


def _copy(source: _Body | IO[bytes], file: Path, length: int | None = None) -> str:
    """Copies a stream into a file and returns its SHA-256 in hexadecimal."""
    digest, size = hashlib.sha256(), 0
    with file.open("wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
            size += len(chunk)
    if length is not None and size < length:
        raise _GoneWrongError(f"the connection ended after {size} of {length} bytes")
    return digest.hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atelier fetch",
        description="Fill a folder with the model repository in a tar archive, checked by its digest.",
        allow_abbrev=False,
    )
    parser.add_argument("archive", help="http or https address, or path, of a .tar, .tar.gz or .tar.xz")
    parser.add_argument("--sha256", required=True, type=_sha256, help="digest that the archive must have")
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="folder to fill; what it held before goes"
    )
    return parser


def _sha256(text: str) -> str:
    if len(text) != 64 or not set(text.lower()) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a SHA-256: give 64 hexadecimal digits")
    return text
