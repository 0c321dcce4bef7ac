"""`atelier doctor`: what is wrong is found, with a remedy, and what is well is not complained of."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from certificates import Authority

from serving.access.keys import digest_of, new_key
from serving.client.gateway import gateway
from serving.doctor.command import examine, main
from serving.doctor.findings import Finding, Status
from serving.settings import Settings

FREE = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, "device": "cpu"}


async def found(repository: Path, **settings: Any) -> Sequence[Finding]:
    """What is not well."""
    findings = await examine(Settings(repository=repository, **(FREE | settings)))
    assert all(finding.remedy for finding in findings if finding.status != Status.OK)
    return [finding for finding in findings if finding.status != Status.OK]


async def test_a_deployment_that_is_well_has_nothing_wrong(tiny_repository: Path, tmp_path: Path):
    pair, keys = Authority(tmp_path).certify("gateway"), tmp_path / "keys.toml"
    pair.key.chmod(0o600)
    keys.touch(0o600)
    keys.write_text(f'[keys.root]\nsha256 = "{digest_of(new_key())}"\nscopes = ["admin"]\n')
    doors = {"host": "0.0.0.0", "tls_cert": pair.cert, "tls_key": pair.key, "api_keys": keys}
    assert await found(tiny_repository, **doors) == []


async def test_a_file_that_is_not_what_its_digest_says_is_named(tiny_repository: Path, tmp_path: Path):
    broken = tmp_path / "repository"
    shutil.copytree(tiny_repository, broken)
    model = broken / "tiny_gan/1/model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    (problem,) = await found(broken)
    assert (problem.check, problem.status) == ("models", Status.WARNING)
    assert "tiny_gan version 1" in problem.message
    shutil.rmtree(broken / "tiny_gan/2")
    assert {finding.status for finding in await found(broken)} == {Status.FAILURE}


async def test_a_configuration_that_cannot_be_read_is_named(tiny_repository: Path, tmp_path: Path):
    broken = tmp_path / "repository"
    shutil.copytree(tiny_repository, broken)
    (broken / "tiny_gan/config.pbtxt").write_text("nonsense {")
    (problem,) = await found(broken)
    assert (problem.check, problem.status) == ("repository", Status.FAILURE)
    assert "tiny_gan" in problem.message


@pytest.mark.parametrize("backend", ["onnxruntime", "triton"])
async def test_a_repository_that_is_not_there_is_one_failure(tmp_path: Path, backend: str):
    settings = {"backend": backend, "triton_url": "127.0.0.1:1"}
    (problem,) = await found(tmp_path / "nowhere", **settings)
    assert (problem.check, problem.status) == ("repository", Status.FAILURE)
    assert ("nowhere" if backend == "onnxruntime" else "127.0.0.1:1") in problem.message


async def test_doors_are_looked_at(tiny_repository: Path, tmp_path: Path):
    authority = Authority(tmp_path)
    one, other = authority.certify("one"), authority.certify("other", timedelta(days=2))
    keys = tmp_path / "keys.toml"

    async def statuses(**settings: Any) -> dict[str, Status]:
        return {finding.check: finding.status for finding in await found(tiny_repository, **settings)}

    assert await statuses(host="0.0.0.0") == {"address": Status.FAILURE}
    assert await statuses(host="0.0.0.0", allow_anonymous=True) == {"address": Status.WARNING}
    assert await statuses(tls_cert=one.cert, tls_key=other.key) == {"tls": Status.FAILURE}
    assert await statuses(tls_cert=other.cert, tls_key=other.key) == {"tls": Status.WARNING}
    assert await statuses(api_keys=keys) == {"keys": Status.FAILURE}
    keys.write_text(f'[keys.ci]\nsha256 = "{digest_of(new_key())}"\nscopes = ["admin"]\n')
    keys.chmod(0o644)
    assert await statuses(api_keys=keys) == {"keys": Status.WARNING}
    keys.chmod(0o600)
    assert await statuses(api_keys=keys) == {}


async def test_the_machine_is_looked_at(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    late = tmp_path / "repository"
    shutil.copytree(tiny_repository, late)
    os.utime(late / "tiny_gan/config.pbtxt", (time.time() + 3600,) * 2)
    problems = await found(late, cache_bytes=2**60, instances=256)
    assert {finding.check for finding in problems} == {"kubernetes", "clock", "memory", "cores"}
    assert await found(tiny_repository, drain_delay=5) == []


async def test_a_gpu_that_was_asked_for_and_is_not_there_is_a_failure(tiny_repository: Path):
    problems = await found(tiny_repository, device="cuda")
    assert all(finding.status == Status.FAILURE for finding in problems)


def test_a_port_is_free_or_a_gateway_s_or_taken(tiny_repository: Path, capsys: pytest.CaptureFixture[str]):
    with gateway(tiny_repository) as running:
        http, grpc = running.http_address.rpartition(":")[2], running.grpc_address.rpartition(":")[2]
        arguments = ["--repository", str(tiny_repository), "--json", "--device", "cpu"]
        status = main([*arguments, "--http-port", http, "--grpc-port", "0", "--metrics-port", http])
        said = capsys.readouterr().out
        assert status == 0
        assert "a gateway is there, and it is ready" in said
        assert main([*arguments, "--http-port", grpc, "--grpc-port", "0", "--metrics-port", "0"]) == 1
        findings = json.loads(capsys.readouterr().out)
        (problem,) = [finding for finding in findings["findings"] if finding["status"] != "ok"]
        assert findings["ok"] is False
        assert "--http-port" in problem["message"]


def test_the_report_is_for_people_and_says_how_many_are_wrong(tmp_path: Path):
    command = [sys.executable, "-m", "atelier", "doctor", "--repository", str(tmp_path / "x [y]")]
    ran = subprocess.run([*command, "--http-port", "0"], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "x [y]" in ran.stdout
    assert "→" in ran.stdout
    assert "1 wrong" in ran.stdout


def test_settings_that_cannot_be_used_end_with_2(capsys: pytest.CaptureFixture[str]):
    assert main(["--http-port", "many"]) == 2
    assert "--http-port" in capsys.readouterr().err
