from itertools import product

import numpy as np
import pytest

from benchmarks.mixes import SAMPLERS, Ask, mixed
from serving.calls import Call
from serving.catalog import build, scan
from serving.programs.generate import diffusion
from serving.samplers import sampler
from serving.samplers.schedules import sigmas


def test_a_mix_deals_every_combination_once_before_any_comes_again():
    deal = mixed("any", classes=3)
    asks = [deal(number) for number in range(6 * 5 * 3 * 5)]
    kinds = {(ask.steps, ask.sampler, ask.guidance_scale) for ask in asks}
    assert kinds == set(product((4, 8, 10, 20, 30, 50), SAMPLERS, (1.0, 2.0, 4.0)))
    assert sum(ask.short for ask in asks) == len(asks) / 2
    assert len({ask.seed for ask in asks}) == len(asks)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_the_rows_of_a_request_are_those_that_its_program_calls_for(tiny_repository, name, guidance_scale):
    graph = build(scan(tiny_repository)).models["tiny_gaussian"].denoiser
    ask = Ask(
        model="tiny_gaussian", seed=1, class_id=0, count=3, steps=6, sampler=name,
        guidance_scale=guidance_scale,
    )  # fmt: skip
    program = diffusion(
        graph,
        None,
        sampler=sampler(name),
        sigmas=sigmas(graph.sampling.schedule, ask.steps),
        seed=1,
        count=ask.count,
        class_id=np.zeros(ask.count, np.int64),
        guidance_scale=guidance_scale,
    )
    rows, reply = 0, None
    try:
        while True:
            wanted = program.send(reply)
            reply = None
            if isinstance(wanted, Call):
                rows += wanted.rows
                reply = {"prediction": np.zeros_like(wanted.inputs["x"])}
    except StopIteration:
        assert rows == ask.rows
