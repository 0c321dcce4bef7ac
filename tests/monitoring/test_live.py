"""A gateway under load, one over Triton, a real Prometheus that scrapes them: does every panel show data?"""

import asyncio
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import nvml
import promql_parser
import pytest
import pytest_asyncio
import tiny_graphs

from benchmarks.processes import running
from monitoring.dashboards import DASHBOARDS
from monitoring.files import CHART, ROOT
from monitoring.live import Prometheus, Target, answers, filled, gateway, prometheus
from monitoring.panels import Panel
from serving.client import AtelierError
from serving.client.async_client import AsyncClient
from serving.client.gateway import free_ports
from tests.triton.server import few_instances, missing, triton_server

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed"),
]

SECONDS = 8.0
PATIENCE = 30.0
"""Length of the load."""
PANELS = [
    pytest.param(panel, id=f"{dashboard.uid}: {panel.title}")
    for dashboard in DASHBOARDS
    for panels in dashboard.rows.values()
    for panel in panels
]


@contextmanager
def kubernetes() -> Iterator[str]:
    """An exporter of what Kubernetes would say: there is none here."""
    text = Path(__file__).with_name("kubernetes.prom").read_text("utf-8")
    scrapes = count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.replace("{n}", str(next(scrapes))).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


async def load(address: str, until: float) -> None:
    """Requests of every kind: well, alike, wrong, too large, cancelled."""
    loop = asyncio.get_running_loop()

    async def again(ask: Any) -> None:
        async with AsyncClient(address, timeout=20) as client:
            for seed in count():
                if loop.time() > until:
                    return
                with suppress(AtelierError, TimeoutError):
                    await ask(client, seed)
                await asyncio.sleep(0.01)

    async def leaves(client: AsyncClient, seed: int) -> None:
        async with asyncio.timeout(0.05):
            await client.generate("tiny_gaussian", steps=200, count=64, seed=seed)

    await asyncio.gather(
        again(lambda client, seed: client.generate("tiny_gan", class_id=0, seed=seed)),
        again(lambda client, seed: client.generate("tiny_gan", class_id=0, seed=seed % 2, version=1)),
        *(
            again(lambda client, seed: client.generate("tiny_gaussian", steps=9, seed=seed // 4))
            for _ in "1234"
        ),
        again(lambda client, seed: client.generate("tiny_gaussian", steps=5, count=200)),
        again(lambda client, seed: client.generate("nobody")),
        again(leaves),
    )


@contextmanager
def triton(repository: Path, folder: Path) -> Iterator[Any]:
    """A real Triton over one model; None where there is no Triton."""
    if missing() is not None:
        yield None
        return
    alone = folder / "alone"
    shutil.copytree(repository / "tiny_gan", alone / "tiny_gan")
    with triton_server(few_instances(alone, folder / "triton")) as server:
        yield server


@asynccontextmanager
async def alertmanager(folder: Path) -> AsyncIterator[str]:
    """host:port of an Alertmanager with the example of the docs; empty where it is not installed."""
    if shutil.which("prometheus-alertmanager") is None:
        yield ""
        return
    page = (ROOT / "docs/observability.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(route:.*?)```", page, re.DOTALL)
    config = folder / "alertmanager.yml"
    config.write_text(example)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = ["prometheus-alertmanager", f"--config.file={config}", f"--storage.path={folder}/alerts"]
    command += [f"--web.listen-address={address}", "--cluster.listen-address="]
    async with running(command, ready=lambda: answers(f"http://{address}/-/ready")):
        yield address


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Servers that go on running after the load."""

    prometheus: Prometheus
    alertmanager: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    repository = tiny_graphs.publish_all(folder / "repository")
    (repository / "broken").mkdir()
    driver = {"LD_LIBRARY_PATH": str(nvml.build(folder)), "FAKE_NVML": "two"}
    flags = ("--instances", "1", "--cache-bytes", "100000", "--max-pending-rows", "250")
    where = {"namespace": "studio", "pod": "atelier-0"}
    async with AsyncExitStack() as stack:
        cluster = stack.enter_context(kubernetes())
        embedded = await stack.enter_async_context(gateway(repository, *flags, environment=driver))
        asked = [embedded.grpc]
        targets = [
            Target(job="atelier", address=embedded.metrics, labels=where),
            Target(job="kube-state-metrics", address=cluster),
        ]
        server = stack.enter_context(triton(repository, folder))
        if server is not None:
            flags = ("--backend", "triton", "--triton-url", server.grpc_address)
            over = await stack.enter_async_context(gateway(repository, *flags))
            asked.append(over.grpc)
            targets += [
                Target(job="atelier", address=over.metrics, labels={**where, "pod": "atelier-1"}),
                Target(job="atelier-triton", address=server.metrics_url.split("/")[2]),
            ]
        alerts = await stack.enter_async_context(alertmanager(folder))
        scraping = await stack.enter_async_context(prometheus(targets, alertmanager=alerts))
        until = asyncio.get_running_loop().time() + SECONDS
        await asyncio.gather(*(load(address, until) for address in asked))
        await asyncio.sleep(2)
        yield Watched(prometheus=scraping, alertmanager=alerts)


def needs_triton(panel: Panel) -> bool:
    return any("nv_" in query.expr for query in panel.queries)


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_shows_data(watched: Watched, panel: Panel):
    if needs_triton(panel) and missing() is not None:
        pytest.skip(f"NO REAL TRITON: {missing()}")
    for query in panel.queries:
        deadline = time.monotonic() + PATIENCE
        series = watched.prometheus.range(query.expr)
        while not any(each.points for each in series) and time.monotonic() < deadline:
            time.sleep(1)  # GPUs are read every five seconds, on a busy machine late
            series = watched.prometheus.range(query.expr)
        assert any(each.points for each in series), query.expr
        for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
            assert any(label in each.labels for each in series), f"{query.legend}: {query.expr}"


def test_every_rule_evaluates_and_every_record_is_there(watched: Watched):
    rules = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 40
    assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]
    for rule in rules:
        if rule["type"] == "recording":
            assert watched.prometheus.range(rule["name"]), rule["name"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_every_variable_has_values(watched: Watched, dashboard: Any):
    for variable in dashboard.variables:
        path = f"label/{variable.name}/values"
        assert watched.prometheus.get(path, **{"match[]": variable.metric}), variable


def test_every_metric_of_a_panel_or_rule_is_one_that_somebody_gives_out(watched: Watched):
    known = set(watched.prometheus.get("label/__name__/values"))
    files = [*(ROOT / CHART / "dashboards").glob("*.json"), *(ROOT / CHART / "rules").glob("*.yaml")]
    assert files
    for file in files:
        text = file.read_text("utf-8").replace("kube-state-metrics", "")
        used = set(re.findall(r"\b(?:atelier|kube|container|process)_[a-z0-9_]+", text))
        used -= {"atelier_request_errors", "atelier_request_slow", "atelier_requests", "atelier_rows"}
        assert {name for name in used if not any(name in each for each in known)} == set(), file.name


def test_exemplars_come_with_a_trace_only_where_there_is_one(watched: Watched):
    assert (
        watched.prometheus.get("query_exemplars", query="atelier_request_seconds_bucket", start=0, end=2e9)
        == []
    )


def test_a_gpu_fault_reaches_whoever_is_on_call(watched: Watched):
    if not watched.alertmanager:
        pytest.skip("prometheus-alertmanager is not installed")
    url = f"--alertmanager.url=http://{watched.alertmanager}"
    told = subprocess.run(
        ["amtool", "alert", "query", url, "--output=json", "alertname=AtelierGpuXid"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    alerts = json.loads(told.stdout)
    assert {alert["labels"]["xid"] for alert in alerts} == {"31", "79"}
    assert {receiver["name"] for alert in alerts for receiver in alert["receivers"]} == {"on-call"}


@pytest.mark.parametrize("panel", PANELS)
def test_expressions_are_promql(panel: Panel):
    for query in panel.queries:
        promql_parser.parse(filled(query.expr))
