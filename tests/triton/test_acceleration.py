"""What a repository says of GPUs, before a real Triton on a machine that has none."""

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from export.publish import Candidate, publish
from serving.manifest import from_config
from tests.triton.server import TritonServer, need_triton, triton_server

TINY_MODELS = Path(__file__).parents[1] / "export" / "tiny_models.py"


def tiny_models() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_models", TINY_MODELS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published(folder: Path, *, instances: int) -> Path:
    """A model with TensorRT as its accelerator, on so many instances a GPU; 0 leaves them to Triton."""
    candidates: list[Candidate] = []
    for each in tiny_models().candidates(roles=("decoder",)):
        acceleration = dataclasses.replace(each.manifest.acceleration, instances=instances)
        manifest = dataclasses.replace(each.manifest, acceleration=acceleration)
        candidates.append(dataclasses.replace(each, manifest=manifest))
    publish(folder, candidates)
    return folder


def answer(server: TritonServer) -> np.ndarray:
    with triton.InferenceServerClient(server.grpc_address) as client:
        latent = triton.InferInput("latent", (2, 4), "FP32")
        latent.set_data_from_numpy(np.full((2, 4), 3.0, np.float32))
        return client.infer("tiny", [latent]).as_numpy("sample")


def test_accelerators_keep_nobody_from_the_cpu(tmp_path: Path) -> None:
    need_triton()
    with triton_server(published(tmp_path / "repository", instances=0)) as server:
        np.testing.assert_array_equal(answer(server), np.full((2, 4), 3.0, np.float32))
        with triton.InferenceServerClient(server.grpc_address) as client:
            config = client.get_model_config("tiny").config
    assert {group.kind for group in config.instance_group} == {ModelInstanceGroup.KIND_CPU}
    manifest = from_config(config)
    assert manifest.acceleration is not None
    assert manifest.acceleration.accelerator == "tensorrt"


def test_instances_on_a_gpu_are_refused_without_one_unless_the_variant_for_the_cpu_is_asked_for(
    tmp_path: Path,
) -> None:
    need_triton()
    repository = published(tmp_path / "repository", instances=2)
    with triton_server(repository) as server:
        with triton.InferenceServerClient(server.grpc_address) as client:
            assert not client.is_model_ready("tiny")
            (known,) = client.get_model_repository_index().models
        assert "no GPUs are available" in known.reason or "does not support GPUs" in known.reason
    with triton_server(repository, flags=["--model-config-name=cpu"]) as server:
        np.testing.assert_array_equal(answer(server), np.full((2, 4), 3.0, np.float32))
