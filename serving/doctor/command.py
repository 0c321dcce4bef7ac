"""`atelier doctor`: every check in turn, with the remedy for what is wrong."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict

from rich.console import Console

from serving.doctor.doors import exposure, keys, ports, tls
from serving.doctor.findings import Finding, Status, failure
from serving.doctor.gpus import gpus
from serving.doctor.machine import clock, cores, disk, files, kubernetes, memory
from serving.doctor.models import models
from serving.settings import Settings, SettingsError, load_settings
from serving.settings_flags import add_flags, read_flags

CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    exposure,
    tls,
    keys,
    ports,
    disk,
    memory,
    cores,
    files,
    clock,
    kubernetes,
    gpus,
)
"""What is looked at before the models, in the order of the report."""

_SIGNS = {Status.OK: "[green]✓[/green]", Status.WARNING: "[yellow]![/yellow]", Status.FAILURE: "[red]✗[/red]"}


def main(arguments: list[str]) -> int:
    """Run the subcommand; exit status 0 where nothing keeps the gateway from serving, else 1."""
    parser = argparse.ArgumentParser(
        prog="atelier doctor",
        description="Look at everything that `atelier serve` needs with these settings, models and digests "
        "included, and say what is wrong and what to do about it. Starts no gateway.",
        epilog="The exit status is 0 where all is well or there are warnings, 1 where something fails, 2 for "
        "settings that cannot be used.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    add_flags(parser)
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(read_flags(given), config=given.config).settings
    except SettingsError as error:
        print(f"atelier doctor: {error}", file=sys.stderr)
        return 2
    findings = asyncio.run(examine(settings))
    failed = any(finding.status == Status.FAILURE for finding in findings)
    if given.json:
        print(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        _show(findings, Console(highlight=False, soft_wrap=True))
    return int(failed)


async def examine(settings: Settings) -> list[Finding]:
    """Every finding. A check that breaks is a finding too."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(settings)
        except Exception as error:
            found.append(_broken(check.__name__, error))
    try:
        found += [finding async for finding in models(settings)]
    except Exception as error:
        found.append(_broken("models", error))
    return found


def _broken(check: str, error: Exception) -> Finding:
    return failure(check, f"could not be looked at: {type(error).__name__}: {error}", "report this")


def _show(findings: list[Finding], console: Console) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        console.print(f"{_SIGNS[finding.status]} {finding.check:<{width}}  {_plain(finding.message)}")
        if finding.remedy:
            console.print(f"  {'':<{width}}  → {_plain(finding.remedy)}")
    counts = Counter(finding.status for finding in findings)
    console.print(
        f"\n{counts[Status.OK]} fine, {counts[Status.WARNING]} to see to, {counts[Status.FAILURE]} wrong"
    )


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
