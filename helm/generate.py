"""Writes what follows from elsewhere into the chart: its README and the schema of `config`.

The table of values follows from values.yaml, the schema from the settings of the gateway.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serving.settings import Settings

CHART = Path(__file__).parent / "atelier"

OWNED = frozenset(
    {
        "allow_anonymous",
        "api_keys",
        "backend",
        "device",
        "drain_delay",
        "engine_cache",
        "grpc_port",
        "host",
        "http_port",
        "metrics_port",
        "repository",
        "shutdown_grace",
        "tls_cert",
        "tls_client_ca",
        "tls_key",
        "triton_tls_ca",
        "triton_tls_cert",
        "triton_tls_key",
        "triton_url",
    }
)
"""Settings that other values of the chart decide; `config` refuses them."""

_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z][^ :]*):.*")
_BEGIN, _END = "<!-- values: generated -->", "<!-- values: end -->"


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of the chart."""

    path: tuple[str, ...]
    """Keys that lead to it."""
    default: Any
    """Its default."""
    description: str
    """What its comment says."""


def values(text: str) -> list[Value]:
    """Every value of a values.yaml with its comment, in order.

    A table counts as one value where the comment stands above it and none within. Raises ValueError for a
    value without a comment.
    """
    defaults = yaml.safe_load(text)
    comments = dict(_keys(text))
    described = [path for path, comment in comments.items() if comment]
    tables = {path[:depth] for path in described for depth in range(1, len(path))}
    found = [path for path in described if path not in tables]
    for path in comments:
        if path not in tables and not any(path[: len(above)] == above for above in found):
            raise ValueError(f"values.yaml: {'.'.join(path)} has no comment that begins with `# --`")
    return [Value(path=path, default=_at(defaults, path), description=comments[path]) for path in found]


def _keys(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of every key, and the comment right above it."""
    comment: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#") and comment:
            comment.append(stripped.removeprefix("#").strip())
        elif match := _KEY.fullmatch(line):
            indent = len(match["indent"])
            path = [(depth, key) for depth, key in path if depth < indent] + [(indent, match["key"])]
            yield tuple(key for _, key in path), " ".join(comment)
            comment = []


def config_schema() -> dict[str, Any]:
    """JSON schema of `config`: the settings of the gateway but for those that are the chart's own."""
    schema = Settings.model_json_schema()
    properties = {key: value for key, value in schema["properties"].items() if key not in OWNED}
    for value in properties.values():
        value.pop("title", None)
    return {"type": "object", "additionalProperties": False, "properties": properties}


def readme(text: str, described: list[Value]) -> str:
    """The README with its table of values brought up to date."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    rows = [
        f"| `{'.'.join(value.path)}` | `{json.dumps(value.default)}` | {value.description} |"
        for value in described
    ]
    return "\n".join(
        [
            f"{before}{_BEGIN}",
            "",
            "| value | default | what it is |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"{_END}{after}",
        ]
    )


def generated() -> dict[Path, str]:
    """The files as they ought to be."""
    schema_path, readme_path = CHART / "values.schema.json", CHART / "README.md"
    schema = json.loads(schema_path.read_text("utf-8"))
    schema["properties"]["config"] = config_schema()
    described = values((CHART / "values.yaml").read_text("utf-8"))
    return {
        schema_path: json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        readme_path: readme(readme_path.read_text("utf-8"), described),
    }


def main() -> int:
    """Write the files, or with --check compare them; 1 where they are not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where something is not current"
    )
    check = parser.parse_args().check
    stale = [path for path, text in generated().items() if path.read_text("utf-8") != text]
    if check:
        for path in stale:
            print(f"{path.name} is not current: run `make chart`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in generated().items():
        path.write_text(text, "utf-8")
    return 0


def _at(defaults: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        defaults = defaults[key]
    return defaults


if __name__ == "__main__":
    sys.exit(main())
