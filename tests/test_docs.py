"""The code in the docs is run as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def python_block(page: str, number: int = 0) -> str:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)[number]


def test_the_example_family_trains_exports_and_is_published(tmp_path, monkeypatch):
    from export import command as export_command
    from training import command as train_command
    from training.families import FAMILIES

    (tmp_path / "autoencoder_of_the_docs.py").write_text(python_block("adding-a-family.md"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FAMILIES, "autoencoder", "autoencoder_of_the_docs:FAMILY")
    monkeypatch.chdir(tmp_path)
    train = ["autoencoder", "--data", "digits", "--set", "steps=20", "--set", "tensorboard=false"]
    assert train_command.main([*train, "--run-dir", "runs/digits_autoencoder"]) == 0
    assert export_command.main(["runs/digits_autoencoder", "--to", "model_repository"]) == 0
    assert (tmp_path / "model_repository/digits_autoencoder/1/model.onnx").is_file()
    sys.modules.pop("autoencoder_of_the_docs")


def test_the_example_sampler_is_of_second_order():
    from serving.calls import Progress
    from serving.manifest import NoiseSchedule
    from serving.samplers.schedules import karras

    namespace: dict[str, object] = {}
    exec(python_block("adding-a-sampler.md"), namespace)

    def denoise(x, sigma):
        """The exact denoiser of data that are N(0, 1/4)."""
        return x / (1 + 4 * sigma**2)
        yield

    schedule = NoiseSchedule(kind="edm", sigma_min=0.01, sigma_max=10)
    errors = []
    for steps in (32, 64):
        levels = karras(schedule, steps).tolist()
        start = np.array([10.0])
        program = namespace["midpoint"](denoise, start, levels, lambda step: np.zeros(1))
        try:
            while True:
                assert isinstance(next(program), Progress)
        except StopIteration as stop:
            exact = start * np.sqrt((0.25 + levels[-1] ** 2) / (0.25 + levels[0] ** 2))
            errors.append(float(abs(stop.value - exact)[0]))
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), ROOT / "README.md"], ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", prose):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("name", ["api.md", "open-inference.md"])
def test_every_example_of_the_api_gets_an_answer(tmp_path, name):
    from serving.client.gateway import gateway

    page = (DOCS / name).read_text()
    with gateway(ROOT / "model_repository") as running:
        here = {
            "http://127.0.0.1:8080": running.http_address,
            "127.0.0.1:8081": running.grpc_address,
            "Client()": f'Client("{running.grpc_address}")',
        }
        for language, block in re.findall(r"```(sh|python)\n(.*?)```", page, re.DOTALL):
            if "make demo" in block or "grpcurl" in block:
                continue
            for written, meant in here.items():
                block = block.replace(written, meant)
            program = ["bash", "-ec"] if language == "sh" else [sys.executable, "-c"]
            environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
            ended = subprocess.run(
                [*program, block], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert ended.returncode == 0, block + ended.stderr
            refused = '"error":' in ended.stdout
            assert refused == ("eleven" in block or "[1, 5]" in block), block + ended.stdout[:500]
    for picture in tmp_path.iterdir():
        assert not picture.read_bytes().startswith(b"{"), f"{picture.name}: {picture.read_text()}"
