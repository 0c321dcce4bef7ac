"""The training that the chart renders trains for real, on one node and on two, and publishes its model."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from charts import Manifest, kinds, of_sets, one, render
from test_gateway import BARE

from serving.client.gateway import free_ports

RECIPE = 'family = "vae"\ndata = "digits"\nsteps = 4\ntensorboard = false\n'
TRAINING = (
    *("modelRepository.source=pvc", "modelRepository.pvc.create=true", "training.enabled=true"),
    *("training.model=digits_small", f"training.recipe={RECIPE}"),
)


def start(job: Manifest, name: str, index: int, place: Path) -> subprocess.Popen[str]:
    """A container of a Job's pod, with folders of this machine for those of the pod."""
    spec = job["spec"]["template"]["spec"]
    (container,) = [c for c in [*spec["initContainers"], *spec["containers"]] if c["name"] == name]
    shell, option, script = container["command"]
    port = (place / "port").read_text()
    for there, here in {
        "/models": str(place / "models"),
        "/etc/atelier/training": str(place),
        "--master-port=29500": f"--master-port={port}",
        "$JOB_NAME-0.test-atelier-training": "127.0.0.1",
    }.items():
        script = script.replace(there, here)
    variables = BARE | {
        "JOB_COMPLETION_INDEX": str(index),
        "JOB_NAME": job["metadata"]["name"],
        "HOME": str(place),
    }
    return subprocess.Popen(
        [shell, option, script],
        env=variables,
        cwd=place,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def end(*processes: subprocess.Popen[str]) -> None:
    """Waits for them; all must have succeeded."""
    try:
        said = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)


def prepared(place: Path, *sets: str) -> Manifest:
    """The Job, with its recipe where it finds it."""
    manifests = render(of_sets(*TRAINING, *sets))
    (recipe,) = [m for m in kinds(manifests, "ConfigMap") if "recipe.toml" in m["data"]]
    (place / "recipe.toml").write_text(recipe["data"]["recipe.toml"])
    (place / "port").write_text(str(free_ports(1)[0]))
    return one(manifests, "Job")


@pytest.mark.slow
def test_a_pod_trains_and_publishes(tmp_path: Path):
    job = prepared(tmp_path)
    end(start(job, "train", 0, tmp_path))
    end(start(job, "publish", 0, tmp_path))
    end(start(job, "train", 0, tmp_path))  # the pod is started again, when all is done
    assert (tmp_path / "models/digits_small_decoder/1/model.onnx").is_file()
    assert [p.name for p in (tmp_path / "models/.runs").iterdir()] == [job["metadata"]["name"]]


@pytest.mark.slow
def test_two_nodes_train_together_and_the_first_publishes(tmp_path: Path):
    job = prepared(tmp_path, "training.nodes=2")
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    end(*(start(job, "train", index, tmp_path) for index in (0, 1)))
    end(start(job, "publish", 1, tmp_path))
    assert not list((tmp_path / "models").glob("digits_small*"))
    end(start(job, "publish", 0, tmp_path))
    assert (tmp_path / "models/digits_small_decoder/1/model.onnx").is_file()


def test_the_pods_of_a_training_find_each_other():
    manifests = render(of_sets(*TRAINING, "training.nodes=2"))
    job, spec = one(manifests, "Job"), one(manifests, "Job")["spec"]["template"]["spec"]
    service = one(manifests, "Service", spec["subdomain"])
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert job["spec"]["completionMode"] == "Indexed"
    assert f"$JOB_NAME-0.{spec['subdomain']}" in spec["initContainers"][0]["command"][-1]
    # Kubernetes names the host of a pod JOB-INDEX, which must be a label of DNS.
    assert len(f"{job['metadata']['name']}-{spec and job['spec']['completions'] - 1}") <= 63
