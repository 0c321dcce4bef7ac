"""`atelier versions`: what is published of a model, which versions are served, and to whom."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from export.publish import PublishError, published
from export.versions import add_probes, graphs_of, prune, set_policy, set_shares, versions_of
from serving.manifest import ManifestError
from serving.manifest.version_policy import VersionPolicy

T = TypeVar("T")


def main(arguments: list[str]) -> int:
    """Run `atelier versions`; 0 when done, 2 for what cannot be."""
    options = parser().parse_args(arguments)
    try:
        run(options, Console(highlight=False))
    except (ManifestError, PublishError) as error:
        print(f"atelier versions: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="atelier versions",
        description="Show the versions of published models, and decide which of them are served. Gateways "
        "that poll the repository follow at once, others when they are told to.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("model", nargs="?", metavar="MODEL", help="model (default: all of them)")
    add("--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="model repository")
    add(
        "--policy",
        type=_said(policy),
        metavar="POLICY",
        help="versions to serve: latest:N, all, or numbers such as 1,3",
    )
    add(
        "--shares",
        type=_said(shares),
        metavar="SHARES",
        help="shares of the requests that name no version, such as 1:0.9,2:0.1; none for all to the newest",
    )
    add("--keep", type=int, metavar="N", help="remove all versions but the newest N")
    add("--probe", action="store_true", help="record what versions compute that were published without")
    return result


def run(options: argparse.Namespace, console: Console) -> None:
    """Change what is asked for, and show what holds then."""
    repository = options.repository
    changes = options.policy or options.shares is not None or options.keep is not None
    if options.model is None and changes:
        raise PublishError("name the model whose versions --policy, --shares or --keep are about")
    models = sorted({manifest.model for manifest in published(repository).values()})
    asked = models if options.model is None else [options.model]
    if options.policy:
        set_policy(repository, options.model, options.policy)
    if options.shares is not None:
        set_shares(repository, options.model, options.shares)
    if options.keep is not None:
        gone = prune(repository, options.model, options.keep)
        console.print(f"removed: {', '.join(map(str, gone)) or 'nothing'}")
    if options.probe:
        for model in asked:
            add_probes(repository, model)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("model", "version", "published", "policy", "requests", "probe"):
        table.add_column(column, no_wrap=True)
    for model in asked:
        _add_rows(table, repository, model)
    console.print(table)


def policy(text: str) -> VersionPolicy:
    """The policy that a person wrote: `latest:2`, `all` or `1,3`."""
    return VersionPolicy.parse(text)


def shares(text: str) -> dict[int, float]:
    """The shares that a person wrote: `1:0.9,2:0.1` or `none`."""
    if text == "none":
        return {}
    return {int(version): float(share) for version, share in (each.split(":") for each in text.split(","))}


def _said(read: Callable[[str], T]) -> Callable[[str], T]:
    """A type for argparse, whose messages call it by the function's name."""

    def checked(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not understood: {error}") from error

    return checked


def _add_rows(table: Table, repository: Path, model: str) -> None:
    manifests = graphs_of(repository, model)
    first = manifests[0]
    versions = versions_of(manifests)
    served = first.version_policy.wanted(versions)
    given = first.canary or {served[-1]: 1.0} if served else {}
    for version in versions:
        share = given.get(version, 0.0) / (sum(given.values()) or 1.0)
        said = f"{share:.0%}" if version in served else "not served"
        probed = all(manifest.versions[version].probe is not None for manifest in manifests)
        table.add_row(
            model if version == versions[0] else "",
            str(version),
            first.versions[version].created[:10],
            str(first.version_policy) if version == versions[0] else "",
            said,
            "yes" if probed else "no",
        )
