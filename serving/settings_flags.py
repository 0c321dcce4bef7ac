"""Settings as flags of a subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.settings import flags


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting, and `--config` for a file of them."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of settings")
    for flag in flags():
        help_text = flag.help.replace("%", "%%")
        switch: dict[str, Any] = {"nargs": "?", "const": "true"} if flag.choices == ("true", "false") else {}
        parser.add_argument(flag.name, dest=flag.key, choices=flag.choices, help=help_text, **switch)


def read_flags(given: argparse.Namespace) -> Mapping[str, Any]:
    """What was given, by the keys of the settings; None for what was not."""
    return {flag.key: getattr(given, flag.key) for flag in flags()}
