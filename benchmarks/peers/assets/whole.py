"""Whole requests, sampled from beginning to end: what the model code of every peer calls.

A request is a few rows of a tensor, one an image: seed, class, steps, sampler, guidance. The programs are
those of Atelier, so the same seed gives the same picture; onnxruntime has the same options. Requests that a
batcher has joined and that have equal parameters are sampled in step, all of their rows in one call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.mixes import SAMPLERS
from serving.calls import Call, Tensors
from serving.catalog import MODEL_FILE, build, scan
from serving.programs.generate import diffusion, one_pass
from serving.samplers import sampler
from serving.samplers.schedules import sigmas

Rows = NDArray[np.float64]
"""[images, 5]: seed, class, steps (0 for one pass), place in `SAMPLERS`, guidance scale."""


def rows_of(
    seed: int, count: int, class_id: int, steps: int, sampler_name: str, guidance_scale: float
) -> Rows:
    """The rows of a request."""
    row = [seed, class_id, steps, SAMPLERS.index(sampler_name), guidance_scale]
    return np.array([row] * count, np.float64)


class Whole:
    """A model of the repository that samples whole requests."""

    def __init__(self, repository: Path, model: str, threads: int) -> None:
        self._model = build(scan(repository)).models[model]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = {
            graph.graph: onnxruntime.InferenceSession(
                str(repository / graph.graph / str(self._model.versions[-1]) / MODEL_FILE),
                options,
                providers=["CPUExecutionProvider"],
            )
            for graph in self._model.graphs.values()
            if graph.role != "encoder"
        }

    @classmethod
    def from_environment(cls) -> Whole:
        """The model that the benchmark has named in the environment."""
        return cls(
            Path(os.environ["BENCH_REPOSITORY"]),
            os.environ["BENCH_MODEL"],
            int(os.environ["BENCH_THREADS"]),
        )

    def images(self, rows: Rows) -> NDArray[np.uint8]:
        """Pixels [images, height, width, channels] of requests whose rows stand one after the other."""
        requests = [list(places) for _, places in groupby(range(len(rows)), lambda i: rows[i].tolist())]
        requests.sort(key=lambda places: _parameters(rows, places))
        pictures: list[NDArray[np.uint8]] = []
        order: list[int] = []
        for _, group in groupby(requests, lambda places: _parameters(rows, places)):
            alike = list(group)
            programs = [self._program(rows[places[0]], len(places)) for places in alike]
            pictures += [self._pixels(sample) for sample in self._run(programs)]
            order += [place for places in alike for place in places]
        together = np.concatenate(pictures)
        return together[np.argsort(order)]

    def _program(self, row: Rows, count: int) -> Any:
        seed, steps = int(row[0]), int(row[2])
        class_id = np.full(count, int(row[1]), np.int64)
        if not steps:
            drawn = self._model.drawn
            assert drawn is not None, "a model of one pass has a graph that draws"
            return one_pass(drawn, seed=seed, count=count, class_id=class_id)
        graph = self._model.denoiser
        assert graph is not None, "requests with steps are for models with a denoiser"
        assert graph.sampling is not None, "a denoiser's manifest says how it is sampled"
        return diffusion(
            graph,
            self._model.graphs.get("decoder"),
            sampler=sampler(SAMPLERS[int(row[3])]),
            sigmas=sigmas(graph.sampling.schedule, steps),
            seed=seed,
            count=count,
            class_id=class_id,
            guidance_scale=float(row[4]),
        )

    def _run(self, programs: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Runs programs that take the same steps, each call with the rows of all of them."""
        replies: list[Tensors | None] = [None] * len(programs)
        results: list[Any] = []
        while not results:
            calls = []
            for program, reply in zip(programs, replies, strict=True):
                try:
                    wanted = program.send(reply)
                    while not isinstance(wanted, Call):
                        wanted = program.send(None)
                    calls.append(wanted)
                except StopIteration as stop:
                    results.append(stop.value)
            if calls:
                replies = self._call(calls)
        return results

    def _call(self, calls: Sequence[Call]) -> list[Tensors | None]:
        session = self._sessions[calls[0].graph]
        feed = calls[0].inputs
        if len(calls) > 1:
            feed = {name: np.concatenate([call.inputs[name] for call in calls]) for name in feed}
        names = [output.name for output in session.get_outputs()]
        outputs = session.run(names, feed)
        replies: list[Tensors | None] = []
        at = 0
        for call in calls:
            rows = slice(at, at + call.rows)
            replies.append({name: output[rows] for name, output in zip(names, outputs, strict=True)})
            at += call.rows
        return replies

    def _pixels(self, sample: NDArray[np.float32]) -> NDArray[np.uint8]:
        low, high = self._model.first.value_range
        levels = np.clip(np.rint((sample - low) * (255 / (high - low))), 0, 255)
        return np.asarray(levels.transpose(0, 2, 3, 1), np.uint8)


def _parameters(rows: Rows, places: Sequence[int]) -> list[float]:
    """What requests must have in common to be sampled together."""
    parameters: list[float] = rows[places[0], 2:].tolist()
    return parameters
