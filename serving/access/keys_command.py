"""`atelier keys`: makes API keys for a gateway."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from serving.access.callers import SCOPES, USE
from serving.access.keys import digest_of, new_key, read_entries
from serving.process.watched import FilesError


def main(arguments: list[str]) -> int:
    """Run the subcommand and return its exit status."""
    given = _parser().parse_args(arguments)
    key = new_key()
    entry = _entry(given, digest_of(key))
    if given.file is None:
        print(entry, end="")
    else:
        try:
            _add(given.file, given.name, entry)
        except (FilesError, OSError) as error:
            print(f"atelier keys: {error}", file=sys.stderr)
            return 1
    # The entry goes to the file or down the pipe; the key is for a person's eyes, and shown this once.
    where = "" if given.file is None else f", whose digest now stands in {given.file}"
    print(f"The key of {given.name}{where}, shown this once:\n{key}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atelier keys",
        description="API keys for `atelier serve --api-keys FILE`, which reads it again when it changes.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser(
        "new",
        help="make a key: its entry is printed, or put into a file, and the key shown once on stderr",
        allow_abbrev=False,
    )
    new.add_argument("name", help="whose it is, for logs and limits")
    new.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        help="what it opens: use (ask for images), admin (change the gateway); repeatable (default: use)",
    )
    new.add_argument("--file", type=Path, help="file to add the entry to; made if it is not there")
    new.add_argument("--requests-per-second", type=float, metavar="N", help="in the long run")
    new.add_argument("--burst", type=int, metavar="N", help="requests at once (default: those of one second)")
    new.add_argument("--images-per-minute", type=float, metavar="N")
    new.add_argument("--concurrency", type=int, metavar="N", help="requests under way at a time")
    return parser


def _entry(given: argparse.Namespace, digest: str) -> str:
    scopes = ", ".join(f'"{scope}"' for scope in dict.fromkeys(given.scope or [USE]))
    lines = [f"[keys.{_quoted(given.name)}]", f'sha256 = "{digest}"', f"scopes = [{scopes}]"]
    for limit in ("requests_per_second", "burst", "images_per_minute", "concurrency"):
        value = getattr(given, limit)
        if value is not None:
            lines.append(f"{limit} = {value:g}")
    return "\n".join(lines) + "\n"


def _quoted(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else f'"{name}"'


def _add(path: Path, name: str, entry: str) -> None:
    """Adds an entry, in a file that is whole at any time. Raises `FilesError` where it would not do."""
    before = path.read_text("utf-8") if path.exists() else ""
    if before and name in read_entries(path):
        raise FilesError(
            f"{path} has a key of {name} already: take another name, or put the new digest beside the old one"
        )
    beside = path.with_name(f".{path.name}.new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{before.rstrip()}\n\n{entry}" if before.strip() else entry)
    try:
        read_entries(beside)
    except FilesError as error:
        beside.unlink()
        raise FilesError(str(error).replace(str(beside), str(path))) from error
    if path.exists():
        beside.chmod(path.stat().st_mode & 0o777)
    beside.replace(path)
