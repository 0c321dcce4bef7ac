"""Bound buffers give what arrays give, on the CPU, which binds as a GPU does; nothing is recorded there."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime
import pytest

from serving.backends.binding import RUNS_TO_RECORD, Bound, Direct, can_be_bound, sizes
from serving.catalog import scan
from serving.manifest import Manifest

Graph = tuple[onnxruntime.InferenceSession, Manifest]


@pytest.fixture
def graph(tiny_repository: Path) -> Graph:
    (manifest,) = (m for m in scan(tiny_repository).manifests if m.graph == "tiny_gan")
    path = tiny_repository / "tiny_gan" / "1" / "model.onnx"
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]), manifest


def bound(graph: Graph, *, least: int = 1, graphs: bool = False, device: Lock | None = None) -> Bound:
    session, manifest = graph
    return Bound(session, manifest, least=least, device=device or Lock(), kind="cpu", graphs=graphs)


def latents(manifest: Manifest, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.standard_normal((rows, *spec.shape)).astype(np.float32)
        if spec.dtype == "float32"
        else np.ones((rows, *spec.shape), np.int64)
        for spec in manifest.inputs
    }


@pytest.mark.parametrize("graphs", [False, True])
def test_every_number_of_rows_gives_what_the_session_gives(graph: Graph, graphs: bool) -> None:
    session, manifest = graph
    calls, direct = bound(graph, graphs=graphs), Direct(session, manifest)
    for rows in (1, 2, 3, 4, 5, 8, 7, 6, 2, 1, manifest.max_batch_size):
        inputs = latents(manifest, rows, seed=rows)
        expected = direct.run(inputs)
        for name, values in calls.run(inputs).items():
            np.testing.assert_array_equal(values, expected[name])


def test_a_result_is_not_overwritten_by_the_next_call(graph: Graph) -> None:
    calls, manifest = bound(graph), graph[1]
    first = calls.run(latents(manifest, 2, seed=1))["sample"]
    before = first.copy()
    calls.run(latents(manifest, 2, seed=2))
    np.testing.assert_array_equal(first, before)


def test_calls_side_by_side_have_buffers_of_their_own(graph: Graph) -> None:
    session, manifest = graph
    calls, direct = bound(graph), Direct(session, manifest)
    asked = [latents(manifest, 3, seed=seed) for seed in range(64)]
    with ThreadPoolExecutor(4) as pool:
        for inputs, found in zip(asked, pool.map(calls.run, asked), strict=True):
            np.testing.assert_array_equal(found["sample"], direct.run(inputs)["sample"])


def test_fewer_rows_than_the_least_are_padded(graph: Graph) -> None:
    session, manifest = graph
    inputs = latents(manifest, 1)
    found = bound(graph, least=4).run(inputs)["sample"]
    np.testing.assert_array_equal(found, Direct(session, manifest).run(inputs)["sample"])


def test_more_rows_than_the_most_are_refused(graph: Graph) -> None:
    with pytest.raises(ValueError, match="rows are more than the"):
        bound(graph).run(latents(graph[1], graph[1].max_batch_size + 1))


def test_a_tensor_of_another_shape_or_type_is_refused_by_its_name(graph: Graph) -> None:
    inputs = latents(graph[1], 2)
    with pytest.raises(ValueError, match="latent has rows of float64"):
        bound(graph).run({**inputs, "latent": inputs["latent"].astype(np.float64)})
    with pytest.raises(ValueError, match=r"latent has rows of float32 \[1\]"):
        bound(graph).run({**inputs, "latent": inputs["latent"][:, :1]})


def test_a_size_is_recorded_after_its_third_call(graph: Graph) -> None:
    calls = bound(graph, graphs=True)
    for call in range(1, RUNS_TO_RECORD + 1):
        assert calls.recorded() == []
        calls.run(latents(graph[1], 3, seed=call))
    assert calls.recorded() == [4]
    calls.run(latents(graph[1], 1))
    assert calls.recorded() == [4]


def test_nothing_is_recorded_while_the_device_is_taken(graph: Graph) -> None:
    device = Lock()
    calls = bound(graph, graphs=True, device=device)
    with device:
        for _ in range(2 * RUNS_TO_RECORD):
            calls.run(latents(graph[1], 2))
    assert calls.recorded() == []
    for _ in range(RUNS_TO_RECORD):
        calls.run(latents(graph[1], 2))
    assert calls.recorded() == [2]
    assert not device.locked()


def test_warming_up_records_nothing(graph: Graph) -> None:
    calls = bound(graph, graphs=True)
    for _ in range(2 * RUNS_TO_RECORD):
        calls.warm_up(latents(graph[1], 1))
    assert calls.recorded() == []


async def test_a_call_that_fails_gives_its_buffers_back(graph: Graph) -> None:
    session, manifest = graph
    calls = bound(graph)
    bad = {name: values[:, :0] for name, values in latents(manifest, 2).items()}
    for _ in range(3):
        with pytest.raises(ValueError, match="has rows of"):
            await asyncio.to_thread(calls.run, bad)
    inputs = latents(manifest, 2)
    np.testing.assert_array_equal(
        calls.run(inputs)["sample"], Direct(session, manifest).run(inputs)["sample"]
    )


def test_sizes_double_up_to_the_most() -> None:
    assert sizes(1, 64) == [1, 2, 4, 8, 16, 32, 64]
    assert sizes(2, 12) == [2, 4, 8, 12]
    assert sizes(1, 1) == [1]


def test_images_of_any_size_are_not_bound(tiny_repository: Path) -> None:
    manifests = {m.graph: m for m in scan(tiny_repository).manifests}
    assert can_be_bound(manifests["tiny_gan"])
    assert not can_be_bound(manifests["tiny_translator_a_to_b"])
