"""`atelier serve` as a process: what it says, how it stops, how it fails, and what it never imports."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import onnxruntime
import pytest

from serving.access.keys import digest_of, new_key
from serving.client import AtelierError, Client, Images

FREE_PORTS = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]


def serve(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "atelier", "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A process that has said that it is ready, and its addresses by name."""
    process = serve(*arguments)
    addresses = {}
    try:
        for line in process.stdout:
            if line.startswith(("ready", "not ready")):
                break
            name, _, rest = line.partition(" ")
            addresses[name] = rest.split()[0]
        yield process, addresses
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_once_ready_full_collections_have_next_to_nothing_to_look_through(tiny_repository: Path):
    """Each would hold up every request for as long as it looks through all modules and models."""
    program = """
import asyncio, gc, os, signal, sys
from pathlib import Path
from serving.command import serve
from serving.settings import Settings

def say(text):
    if text.startswith("ready"):
        print(gc.get_freeze_count(), len(gc.get_objects()))
        os.kill(os.getpid(), signal.SIGTERM)

settings = Settings(repository=Path(sys.argv[1]), http_port=0, grpc_port=0, metrics_port=0)
asyncio.run(serve(settings, say))
"""
    said = subprocess.check_output([sys.executable, "-c", program, tiny_repository], text=True, timeout=60)
    set_aside, left = map(int, said.split())
    assert set_aside > 20 * left


def test_it_says_where_it_is_and_ends_with_0_when_told_to(tiny_repository: Path):
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving("--repository", tiny_repository, *FREE_PORTS) as (process, addresses):
            assert urlopen(f"http://{addresses['HTTP']}/readyz").status == 200
            assert urlopen(f"http://{addresses['metrics']}").status == 200
            assert urlopen(addresses["page"]).status == 200
            with Client(addresses["gRPC"]) as client:
                assert len(client.models()) == 5
            process.send_signal(number)
            status, said = ended(process)
        assert status == 0, said
        assert "Traceback" not in said


def test_a_request_under_way_is_finished_before_it_ends(tiny_repository: Path):
    with serving("--repository", tiny_repository, *FREE_PORTS) as (process, addresses):
        with Client(addresses["gRPC"]) as client:
            events = client.stream("tiny_gaussian", count=32, steps=200, seed=1)
            next(events)
            process.send_signal(signal.SIGTERM)
            *_, last = events
        assert isinstance(last, Images)
        assert ended(process)[0] == 0


def test_after_the_grace_it_ends_all_the_same_and_tells_whoever_it_cut_off(tiny_repository: Path):
    arguments = ("--repository", tiny_repository, *FREE_PORTS, "--shutdown-grace", "0")
    body = {"count": 256, "steps": 200, "guidance_scale": 3, "class_id": 1}
    with serving(*arguments) as (process, addresses), Client(addresses["gRPC"]) as client:
        events = client.stream("tiny_gaussian", **body)
        next(events)
        url = f"http://{addresses['HTTP']}/v1/models/tiny_gaussian:streamGenerate"
        with urlopen(Request(url, json.dumps(body).encode())) as stream:
            stream.readline()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(AtelierError, match="the gateway stopped before it was done"):
                list(events)
            assert b'"status": "UNAVAILABLE"' in stream.read()
        status, said = ended(process)
    assert status == 0
    assert "Traceback" not in said


def test_a_missing_repository_is_one_line(tmp_path: Path):
    status, said = ended(serve("--repository", tmp_path / "nowhere", *FREE_PORTS))
    assert status == 1
    assert str(tmp_path / "nowhere") in said
    assert "Traceback" not in said


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_taken_port_is_one_line_that_names_the_flag(tiny_repository: Path, flag: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = ended(serve("--repository", tiny_repository, *FREE_PORTS, flag, port))
    assert status == 1
    line = said.splitlines()[-1]
    assert line.startswith("atelier serve: cannot listen on")
    assert flag in line
    assert "Traceback" not in said


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="onnxruntime here may have a GPU"
)
def test_a_gpu_that_was_asked_for_and_is_not_there_is_not_ready(tiny_repository: Path):
    with serving("--repository", tiny_repository, *FREE_PORTS, "--device", "cuda") as (process, addresses):
        with pytest.raises(Exception, match="503"):
            urlopen(f"http://{addresses['HTTP']}/readyz")
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0


def test_settings_are_shown_with_who_said_them(tmp_path: Path):
    config = tmp_path / "gateway.toml"
    config.write_text("max_count = 7\nhttp_port = 1\ngrpc_port = 2\n")
    process = serve(
        "--config", config, "--http-port", 3, "--print-config", ATELIER_HTTP_PORT="4", ATELIER_GRPC_PORT="5"
    )
    shown, _ = process.communicate(timeout=60)
    lines = {line.split(" = ")[0]: line for line in shown.splitlines()}
    assert process.returncode == 0
    assert lines["http_port"].split() == ["http_port", "=", "3", "#", "--http-port"]
    assert lines["grpc_port"].split() == ["grpc_port", "=", "5", "#", "ATELIER_GRPC_PORT"]
    assert str(config) in lines["max_count"]
    assert "default" in lines["host"]


def test_a_setting_that_does_not_exist_is_named_with_the_nearest(tmp_path: Path):
    config = tmp_path / "gateway.toml"
    config.write_text("htp_port = 1\n")
    status, said = ended(serve("--config", config))
    assert status == 2
    assert "did you mean 'http_port'?" in said


def test_the_gateway_imports_nothing_that_a_serving_install_lacks():
    """A gateway over Triton has no onnx either: only graphs that are rewritten need it."""
    code = (
        "import pkgutil, importlib, sys\n"
        "sys.modules['onnx'] = None\n"
        "import serving, serving.command\n"
        "for module in pkgutil.walk_packages(serving.__path__, 'serving.'):\n"
        "    if not module.name.startswith('serving.backends.rewriting'):\n"
        "        importlib.import_module(module.name)\n"
        "lacking = {'torch', 'onnxscript', 'scipy', 'sklearn', 'safetensors', 'lightning_fabric'}\n"
        "print(sorted(lacking & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_while_it_drains_it_is_not_ready_and_still_serves(tiny_repository: Path):
    arguments = ("--repository", tiny_repository, *FREE_PORTS, "--drain-delay", "2")
    with serving(*arguments) as (process, addresses), Client(addresses["gRPC"]) as client:
        client.models()
        process.send_signal(signal.SIGTERM)
        for line in process.stdout:
            if line.startswith("not ready any more"):
                break
        for port in ("HTTP", "metrics"):
            with pytest.raises(HTTPError, match="503"):
                urlopen(f"http://{addresses[port].removesuffix('/metrics')}/readyz")
        assert client.generate("tiny_gan", class_id=1)
        with urlopen(f"http://{addresses['HTTP']}/healthz") as answer:
            assert answer.headers["connection"] == "close"
        assert ended(process)[0] == 0


def test_a_second_signal_ends_it_at_once(tiny_repository: Path):
    arguments = ("--repository", tiny_repository, *FREE_PORTS, "--drain-delay", "600")
    with serving(*arguments) as (process, _):
        process.send_signal(signal.SIGTERM)
        for line in process.stdout:
            if line.startswith("not ready any more"):
                break
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == -signal.SIGTERM


def test_sighup_reads_the_keys_again_and_a_change_does_so_by_itself(tiny_repository: Path, tmp_path: Path):
    path, keys = tmp_path / "keys.toml", [new_key(), new_key(), new_key()]

    def write(key: str) -> None:
        path.write_text(f'[keys.ci]\nsha256 = "{digest_of(key)}"\n')

    def until_welcome(key: str) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(AtelierError), Client(addresses["gRPC"], api_key=key) as client:
                client.models()
                return
            time.sleep(0.05)
        raise AssertionError("the key was never taken")

    write(keys[0])
    with serving("--repository", tiny_repository, *FREE_PORTS, "--api-keys", path) as (process, addresses):
        until_welcome(keys[0])
        write(keys[1])
        until_welcome(keys[1])
        write(keys[2])
        process.send_signal(signal.SIGHUP)
        until_welcome(keys[2])
        process.send_signal(signal.SIGTERM)
        status, said = ended(process)
    assert status == 0
    assert "SIGHUP" in said
    assert not any(key in said for key in keys)


def test_a_public_address_that_nothing_guards_is_refused_unless_asked_for_by_name(tiny_repository: Path):
    arguments = ("--repository", tiny_repository, *FREE_PORTS, "--host", "0.0.0.0")
    status, said = ended(serve(*arguments))
    assert status == 2
    for remedy in ("api_keys", "atelier keys new", "tls_client_ca", "127.0.0.1", "allow_anonymous"):
        assert remedy in said
    with serving(*arguments, "--allow-anonymous") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0


def test_a_keys_file_that_cannot_be_used_is_one_line(tiny_repository: Path, tmp_path: Path):
    path = tmp_path / "keys.toml"
    status, said = ended(serve("--repository", tiny_repository, *FREE_PORTS, "--api-keys", path))
    assert status == 1
    assert str(path) in said
    assert "Traceback" not in said
