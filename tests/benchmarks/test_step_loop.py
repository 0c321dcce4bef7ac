"""The scenario of the step loop, on models whose probes a backend of zeros alone would not pass."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plan import Plan
from benchmarks.scenarios.null_backend import NullBackend
from benchmarks.scenarios.step_loop import step_loop
from serving.catalog import scan
from serving.settings import Settings

SHIPPED = Path(__file__).parents[2] / "model_repository"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for graph in ("digits_unet_denoiser", "digits_unet_decoder"):
        shutil.copytree(SHIPPED / graph, tmp_path / graph)
    assert all(m.versions[1].probe for m in scan(tmp_path).manifests), "the shipped models have probes"
    return tmp_path


async def test_the_step_loop_is_measured_over_models_with_probes(repository: Path):
    plan = Plan(
        repository=repository,
        peers=(),
        scenarios=("step_loop",),
        runs=1,
        seconds=0.3,
        warm_up=0.0,
        cores=1,
        clients=4,
        diffusion=("digits_unet", "not_there"),
    )
    results = await step_loop(plan, lambda words: None)
    (run,) = results["digits_unet"]
    assert set(results) == {"digits_unet"}
    assert all(math.isfinite(run[key]) and run[key] > 0 for key in ("own", "call", "share"))


async def test_a_null_backend_computes_once_and_then_gives_zeros_of_any_size(tiny_repository: Path):
    backend = NullBackend.from_settings(Settings(repository=tiny_repository))
    await backend.load("tiny_translator_a_to_b", 1)
    for side in (8, 12):
        image = np.ones((2, 3, side, side), np.float32)
        first = (await backend.infer("tiny_translator_a_to_b", 1, {"image": image})).outputs["translated"]
        again = (await backend.infer("tiny_translator_a_to_b", 1, {"image": image[:1]})).outputs["translated"]
        np.testing.assert_array_equal(first, -image)
        np.testing.assert_array_equal(again, np.zeros((1, 3, side, side), np.float32))
    await backend.load("tiny_translator_a_to_b", 1)
    loaded_anew = await backend.infer("tiny_translator_a_to_b", 1, {"image": image})
    np.testing.assert_array_equal(loaded_anew.outputs["translated"], -image)
    await backend.close()
