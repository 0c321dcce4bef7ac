"""What the chart renders runs the real gateway: its command, variables, configuration, probes and metrics.

Only addresses differ from those of a pod: free ports on loopback, and folders of this machine for /models
and /etc/atelier.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import tiny_graphs
import yaml
from charts import (
    CHART,
    ROOT,
    VALUE_FILES,
    Manifest,
    containers,
    environment,
    kinds,
    of_file,
    of_sets,
    one,
    pods,
    render,
)
from server import need_triton

from benchmarks.triton.installation import installed
from benchmarks.triton.server import lay_out
from serving.client import Client
from serving.client.gateway import free_ports
from serving.settings import Settings

# Whatever else is in the environment of this machine, a pod has none of it.
BARE = {
    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with a model of every kind."""
    return tiny_graphs.publish_all(tmp_path_factory.mktemp("repository"))


@dataclass(frozen=True, kw_only=True)
class Running:
    """A gateway that the chart started."""

    process: subprocess.Popen[str]
    """Its process."""
    container: Manifest
    """The container that it is of."""
    ports: dict[str, int]
    """Its real port for each port of the container, by name."""

    def probe(self, kind: str) -> int:
        """The status that a probe of the container gets."""
        get = self.container[kind]["httpGet"]
        with urlopen(f"http://127.0.0.1:{self.ports[get['port']]}{get['path']}", timeout=10) as answer:
            return answer.status

    def metrics(self) -> str:
        """What Prometheus gets."""
        with urlopen(f"http://127.0.0.1:{self.ports['metrics']}/metrics", timeout=10) as answer:
            return answer.read().decode()


@contextmanager
def running(values: tuple[str, ...], repository: Path, place: Path, **instead: str) -> Iterator[Running]:
    """The gateway of the chart, as soon as its startup probe answers; `instead` replaces variables."""
    manifests = render(values)
    template = one(manifests, "Deployment")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    for config in kinds(manifests, "ConfigMap"):
        for name, text in config["data"].items():
            (place / "config").mkdir(exist_ok=True)
            (place / "config" / name).write_text(text, "utf-8")
    ports = dict(zip((p["name"] for p in container["ports"]), free_ports(3), strict=True))
    real = {str(p["containerPort"]): str(ports[p["name"]]) for p in container["ports"]}
    variables = {
        name: real.get(value, value)
        .replace("/etc/atelier", str(place))
        .replace("/models", str(repository))
        .replace("0.0.0.0", "127.0.0.1")
        for name, value in environment(container).items()
    } | instead
    process = subprocess.Popen(
        container["command"],
        env=BARE | variables,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started = Running(process=process, container=container, ports=ports)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert started.probe("startupProbe") == 200
                break
            except URLError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield started
    finally:
        process.kill()
        process.communicate()


def until_ready(gateway: Running) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            assert gateway.probe("readinessProbe") == 200
            return
        except URLError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def helm_test(
    values: tuple[str, ...], gateway: Running, place: Path, **secrets: str
) -> subprocess.CompletedProcess[str]:
    """What `helm test` runs, against the gateway that runs here."""
    (test,) = kinds(render(values), "Pod")
    (container,) = test["spec"]["containers"]

    def here(match: re.Match[str]) -> str:
        return f"127.0.0.1:{gateway.ports[{'8080': 'http', '8081': 'grpc'}[match[1]]]}"

    variables = {
        name: re.sub(r"[a-z-]+\.pictures\.svc:(\d+)", here, value)
        for name, value in environment(container).items()
    }
    assert secrets.keys() == {v["name"] for v in container["env"] if "valueFrom" in v}
    command = [word.replace("/etc/atelier", str(place)) for word in container["command"]]
    return subprocess.run(command, env=BARE | variables | secrets, capture_output=True, text=True, timeout=60)


def test_the_gateway_starts_answers_its_probes_passes_helms_test_and_ends(repository: Path, tmp_path: Path):
    values = of_sets(
        "config.max_count=5", "config.default_deadline=7.5", "drain.delaySeconds=0", "test.model=tiny_gan"
    )
    with running(values, repository, tmp_path) as gateway:
        until_ready(gateway)
        assert gateway.probe("livenessProbe") == 200

        ended = helm_test(values, gateway, tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert "tiny_gan: a picture of" in ended.stdout
        assert "gRPC: serving" in ended.stdout

        gateway.process.send_signal(signal.SIGTERM)
        said, _ = gateway.process.communicate(timeout=30)
        assert gateway.process.returncode == 0, said


def test_with_tls_and_keys_probes_need_neither_and_helms_test_shows_its_key(repository: Path, tmp_path: Path):
    key = "atelier_" + "k" * 43
    digest = hashlib.sha256(key.encode()).hexdigest()
    values = of_sets(
        *("access.anonymous=nobody", "tls.existingSecret=certificate", "test.apiKeySecret=key"),
        "access.apiKeys.toml=" + json.dumps(f'[keys.helm]\nsha256 = "{digest}"\n'),
    )
    secret = one(render(values), "Secret")["stringData"]
    (tmp_path / "api-keys").mkdir()
    for name, text in secret.items():
        (tmp_path / "api-keys" / name).write_text(text)
    (tmp_path / "tls").mkdir()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "1", "-subj", "/CN=gateway", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", str(tmp_path / "tls/tls.crt"), "-keyout", str(tmp_path / "tls/tls.key")),
        ],
        check=True,
        capture_output=True,
    )
    (tmp_path / "tls/tls.key").chmod(0o440)
    with running(values, repository, tmp_path) as gateway:
        until_ready(gateway)
        assert gateway.probe("livenessProbe") == 200
        ended = helm_test(values, gateway, tmp_path, API_KEY=key)
        assert ended.returncode == 0, ended.stderr
        assert "gRPC: serving" in ended.stdout
        stranger = helm_test(values, gateway, tmp_path, API_KEY=key.upper())
        assert stranger.returncode != 0
        assert "401" in stranger.stderr


def test_what_scales_it_asks_for_series_that_it_has(repository: Path, tmp_path: Path):
    with running((), repository, tmp_path) as gateway:
        until_ready(gateway)
        with Client(f"127.0.0.1:{gateway.ports['grpc']}") as client:
            client.generate("tiny_gan", class_id=0)
        series = set(re.findall(r"^(atelier_\w+)", gateway.metrics(), re.MULTILINE))

    adapter = yaml.safe_load((CHART / "files" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    made = {rule["name"]["as"] for rule in adapter}
    asked = {
        name
        for rule in adapter
        for name in re.findall(r"atelier_\w+", rule["seriesQuery"] + rule["metricsQuery"])
    }
    wanted = set()
    for values in VALUE_FILES:
        manifests = render(of_file(values))
        for hpa in kinds(manifests, "HorizontalPodAutoscaler"):
            wanted |= {metric["pods"]["metric"]["name"] for metric in hpa["spec"]["metrics"]}
        for scaled in kinds(manifests, "ScaledObject"):
            for trigger in scaled["spec"]["triggers"]:
                asked |= set(re.findall(r"atelier_\w+", re.sub(r'"[^"]*"', "", trigger["metadata"]["query"])))
    assert wanted == made
    assert asked >= {"atelier_rows_pending", "atelier_queue_seconds_sum", "atelier_queue_seconds_count"}
    assert asked <= series, f"not in /metrics: {sorted(asked - series)}"


def test_queries_choose_the_pods_of_the_gateways_and_no_others():
    scaled = one(render(of_file(CHART / "ci" / "triton-deployment-values.yaml")), "ScaledObject")
    (pattern,) = {re.search(r'pod=~"([^"]+)"', t["metadata"]["query"])[1] for t in scaled["spec"]["triggers"]}
    assert re.fullmatch(pattern, "test-atelier-6d4cf56db6-x7k2p")
    assert not re.fullmatch(pattern, "test-atelier-triton-0")
    assert not re.fullmatch(pattern, "other-atelier-6d4cf56db6-x7k2p")


def test_every_variable_is_a_setting_of_the_gateway():
    found = {
        name.removeprefix("ATELIER_").lower()
        for values in VALUE_FILES
        for pod in pods(render(of_file(values)))
        for container in pod["spec"]["containers"]
        for name in environment(container)
        if name.startswith("ATELIER_")
    }
    assert found - {"config"} <= Settings.model_fields.keys()


@pytest.fixture
def archive(repository: Path, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """The repository as an archive: its address on a server, its digest and its path."""
    path = tmp_path / "served" / "models.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        tar.add(repository, "models")
    handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield (
            f"http://127.0.0.1:{server.server_port}/{path.name}",
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path,
        )
        server.shutdown()
        thread.join()


def test_models_come_from_a_server_as_the_chart_says(archive: tuple[str, str, Path], tmp_path: Path):
    url, sha256, _ = archive
    values = of_sets(
        *(
            "modelRepository.source=http",
            f"modelRepository.archive.url={url}",
            "modelRepository.folder=models",
        ),
        f"modelRepository.archive.sha256={sha256}",
    )
    template = one(render(values), "Deployment")["spec"]["template"]
    (bring,) = template["spec"]["initContainers"]
    volume = tmp_path / "volume"
    command = [
        word.replace("/models", str(volume), 1) if word == "/models" else word for word in bring["command"]
    ]
    ended = subprocess.run(command, env=BARE, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    read = environment(template["spec"]["containers"][0])["ATELIER_REPOSITORY"].replace(
        "/models", str(volume), 1
    )
    assert (Path(read) / "tiny_gan" / "config.pbtxt").is_file()


def test_models_in_the_image_are_copied_for_triton(repository: Path, tmp_path: Path):
    template = one(render(of_file(CHART / "ci" / "triton-sidecar-values.yaml")), "Deployment")["spec"][
        "template"
    ]
    copy = template["spec"]["initContainers"][0]
    volume = tmp_path / "volume"
    volume.mkdir()
    places = {"/models": str(repository), "/repository": str(volume)}
    subprocess.run([places.get(word, word) for word in copy["command"]], check=True, timeout=30)
    assert {p.name for p in volume.iterdir()} == {p.name for p in repository.iterdir()}


def test_a_gateway_draws_over_the_triton_that_the_chart_starts(repository: Path, tmp_path: Path):
    need_triton()
    values = of_sets("triton.mode=deployment")
    pod = one(render(values), "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    models = lay_out(repository, tmp_path / "models", instances=1, graphs=["tiny_gan"])
    ports = dict(zip((p["name"] for p in container["ports"]), free_ports(3), strict=True))
    command = [word.replace("/models", str(models)) for word in container["command"]]
    for port in container["ports"]:
        command = [word.replace(f"={port['containerPort']}", f"={ports[port['name']]}") for word in command]
    triton = installed()
    command[0] = str(triton.server / "bin" / "tritonserver")
    command.append(f"--backend-directory={triton.server / 'backends'}")
    command += [f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")]
    variables = {
        "PATH": f"{triton.environment / 'bin'}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
    }
    with (tmp_path / "triton.log").open("w") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        here = f"127.0.0.1:{ports['grpc']}"
        with running(values, repository, tmp_path, ATELIER_TRITON_URL=here) as gateway:
            until_ready(gateway)
            for kind in ("startupProbe", "readinessProbe"):
                path = container[kind]["httpGet"]["path"]
                assert urlopen(f"http://127.0.0.1:{ports['http']}{path}", timeout=10).status == 200
            with Client(f"127.0.0.1:{gateway.ports['grpc']}") as client:
                (picture,) = client.generate("tiny_gan", class_id=0)
            assert picture.size
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print((tmp_path / "triton.log").read_text())


def test_every_command_is_of_an_image_that_has_it():
    """Images of others are not here; these are the words that their documentation gives."""
    known = {
        "gateway": {"atelier"},
        "models": {"atelier", "cp", "oras"},
        "download": {"rclone"},
        "triton": {"tritonserver"},
        "train": {"sh"},
        "publish": {"sh"},
        "test": {"python"},
    }
    for values in VALUE_FILES:
        for pod in pods(render(of_file(values))):
            for container in containers(pod):
                assert container["command"][0] in known[container["name"]]
