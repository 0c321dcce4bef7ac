"""A real Prometheus on the loopback, with the rules of the chart, and a gateway for it to scrape."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from benchmarks.processes import running
from monitoring.files import CHART, ROOT
from serving.client.gateway import free_ports

RATE_INTERVAL = "5s"
"""What Grafana's `$__rate_interval` is for a scrape every second."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is scraped."""

    job: str
    """Its job."""
    address: str
    """host:port of its /metrics."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """More labels, as service discovery would add them."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series of an answer."""

    labels: Mapping[str, str]
    """Its labels."""
    points: Sequence[tuple[float, float]]
    """Times and finite values."""


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.started = time.time()

    def get(self, path: str, **query: Any) -> Any:
        """The data of an answer of its API. Raises `HTTPError` for an expression that is none."""
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(query, doseq=True)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def range(self, expr: str, step: float = 1.0) -> list[Series]:
        """What an expression was from the beginning to now; Grafana's variables stand for everything."""
        now = time.time()
        data = self.get("query_range", query=filled(expr), start=self.started, end=now, step=step)
        return [
            Series(
                labels=series["metric"],
                points=[(at, float(v)) for at, v in series["values"] if math.isfinite(float(v))],
            )
            for series in data["result"]
        ]


def filled(expr: str) -> str:
    """An expression with values for Grafana's variables: all of each."""
    expr = expr.replace("$__rate_interval", RATE_INTERVAL)
    for variable in ("namespace", "job", "instance", "model", "graph", "deployment", "pod"):
        expr = expr.replace(f'"${variable}"', '".*"')
    return expr


@asynccontextmanager
async def prometheus(targets: Sequence[Target], *, alertmanager: str = "") -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes and evaluates every second, from an empty store."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / CHART / "rules/*.yaml")],
            "scrape_configs": [
                {
                    "job_name": f"{number}",
                    "honor_labels": True,
                    "static_configs": [
                        {"targets": [target.address], "labels": {"job": target.job, **target.labels}}
                    ],
                }
                for number, target in enumerate(targets)
            ],
        }
        if alertmanager:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        file = Path(folder) / "prometheus.yml"
        file.write_text(yaml.safe_dump(config), "utf-8")
        command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"]
        url = f"http://127.0.0.1:{port}"
        async with running(command, ready=lambda: answers(f"{url}/-/ready")):
            yield Prometheus(url)


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A gateway that runs."""

    grpc: str
    """host:port"""
    http: str
    """http://host:port"""
    metrics: str
    """host:port"""
    process_id: int
    """Of its process."""


@asynccontextmanager
async def gateway(
    repository: Path, *flags: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Gateway]:
    """A ready gateway in a process of its own."""
    ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
    command = [sys.executable, "-m", "atelier", "serve", "--repository", str(repository), *flags]
    for name, port in ports.items():
        command += [f"--{name}-port", str(port)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    async with running(
        command,
        ready=lambda: answers(f"http://127.0.0.1:{ports['http']}/readyz"),
        environment={"PYTHONPATH": path, **(environment or {})},
    ) as process:
        yield Gateway(
            grpc=f"127.0.0.1:{ports['grpc']}",
            http=f"http://127.0.0.1:{ports['http']}",
            metrics=f"127.0.0.1:{ports['metrics']}",
            process_id=process.pid,
        )


async def answers(url: str) -> bool:
    """Whether a server says that it is well."""

    def ask() -> bool:
        try:
            with urlopen(url, timeout=5):
                return True
        except (URLError, OSError):
            return False

    return await asyncio.to_thread(ask)
