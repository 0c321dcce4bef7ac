"""Training and serving hold one view of noise, in torch and in numpy: they draw the same pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from export.contract import manifests
from export.onnx import export_graph
from export.validate import open_session
from serving.calls import Array, Call, Program
from serving.manifest import Manifest, NoiseSchedule, Parameterization, Sampling
from serving.noise import Stream, normal
from serving.programs.generate import diffusion
from serving.samplers import SAMPLERS, sampler
from serving.samplers import denoiser as serving
from serving.samplers.schedules import sigmas
from training import checkpoint, preconditioning
from training.config import TrainConfig
from training.data import DataSpec
from training.families.diffusion import FAMILY, sampling
from training.families.diffusion.graphs import sampling as sampling_of
from training.families.diffusion.settings import DiffusionSettings, Sampler
from training.family import Graph

DIGITS = DataSpec(
    name="digits", channels=1, height=8, width=8, class_labels=tuple("0123456789"), levels=17, enlarge=4
)
SETTINGS = {
    "edm": {"prediction": "edm"},
    "flow": {"prediction": "flow"},
    **{
        f"{prediction} on {schedule}": {"prediction": prediction, "vp_schedule": schedule}
        for prediction in ("epsilon", "x0", "v")
        for schedule in ("vp_linear", "vp_cosine")
    },
}
# Steps that visit whole timesteps of 1,000, since training rounds them and serving does not.
STEPS = [1, 2, 10, 50]
LEVELS = [0.02, 0.1, 0.5, 1.0, 7.0, 60.0]


def config_of(case: str, **settings: object) -> DiffusionSettings:
    return DiffusionSettings(
        channels=16, multipliers=(1, 2), blocks=1, attention=(), **SETTINGS[case], **settings
    )


def schedule_of(config: DiffusionSettings) -> NoiseSchedule:
    return NoiseSchedule(**sampling_of(config)["schedule"])


def test_every_sampler_that_a_recipe_may_name_is_one_that_serving_has() -> None:
    assert set(get_args(Sampler)) <= set(SAMPLERS)


@pytest.mark.parametrize("case", SETTINGS)
def test_the_coefficients_are_the_same(case: str) -> None:
    config = config_of(case)
    trained = preconditioning.SCALINGS[config.prediction](torch.tensor(LEVELS, dtype=torch.float64), 0.4)
    served = [serving.SCALINGS[config.prediction](sigma, 0.4) for sigma in LEVELS]
    np.testing.assert_allclose(served, torch.stack(list(trained), dim=1), rtol=1e-12)


@pytest.mark.parametrize("case", SETTINGS)
def test_the_network_is_told_of_a_noise_level_in_the_same_words(case: str) -> None:
    config = config_of(case)
    level = torch.tensor(LEVELS, dtype=torch.float64)
    trained = preconditioning.noise_level(config.schedule, level, config.timesteps)
    served = [serving.noise_level(schedule_of(config), sigma) for sigma in LEVELS]
    np.testing.assert_allclose(served, trained, rtol=1e-9)


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("steps", STEPS)
def test_sampling_steps_through_the_same_levels(case: str, steps: int) -> None:
    config = config_of(case)
    trained = sampling.sampling_sigmas(config, steps)
    np.testing.assert_allclose(sigmas(schedule_of(config), steps), trained, rtol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A U-Net that nobody trained, as torch has it and as the gateway has it."""

    graphs: dict[str, Graph]
    manifests: dict[str, Manifest]
    sessions: dict[str, onnxruntime.InferenceSession]

    def sampled_in_torch(
        self,
        config: DiffusionSettings,
        solve: Callable[..., Tensor],
        noise: Array,
        class_id: Tensor,
        steps: int,
    ) -> Array:
        """Sampled by training's own code, and enlarged."""
        levels = sampling.sampling_sigmas(config, steps)
        unet = self.graphs["denoiser"].module
        denoise = sampling.denoiser(config, unet, class_id, 10, config.guidance_scale)
        with torch.no_grad():
            x = solve(denoise, sampling.start(config, torch.from_numpy(noise), levels[0]), levels)
            enlarged: Tensor = self.graphs["decoder"].module(x)
        return enlarged.numpy()

    def served(self, program: Program[Array]) -> Array:
        """A program of the gateway, its calls answered by onnxruntime."""
        answer = None
        try:
            while True:
                wanted = program.send(answer)
                answer = None
                if isinstance(wanted, Call):
                    session = self.sessions[wanted.graph]
                    names = [output.name for output in session.get_outputs()]
                    answer = dict(zip(names, session.run(names, dict(wanted.inputs)), strict=True))
        except StopIteration as stop:
            return stop.value


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The graphs are the same whatever the network is said to predict."""
    config = config_of("flow")
    torch.manual_seed(0)
    networks = FAMILY.networks(config, DIGITS)
    for parameter in networks.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    values = {
        "family": "diffusion",
        "data": dataclasses.asdict(DIGITS),
        "config": TrainConfig(
            family="diffusion", data="digits", name="net", steps=1, settings=config
        ).plain(),
        "curve": [],
        "scaler": {},
        "seed": 0,
        "cpu_seconds": 0.0,
        "seconds": 0.0,
    }
    weights = networks.state_dict()
    folder = tmp_path_factory.mktemp("run")
    checkpoint.save(folder, 1, {"networks": weights, "averages": weights, "optimizers": {}}, values)
    graphs = FAMILY.graphs(config, networks, DIGITS)
    of_graphs = manifests(checkpoint.load(folder), graphs, model="net", max_batch_size=8)
    return Exported(
        graphs={graph.role: graph for graph in graphs},
        manifests={manifest.role: manifest for manifest in of_graphs},
        sessions={
            manifest.graph: open_session(export_graph(graph, size=(8, 8)).model)
            for graph, manifest in zip(graphs, of_graphs, strict=True)
        },
    )


@pytest.mark.parametrize(
    ("case", "name", "steps"),
    [
        *[(case, "euler", 10) for case in SETTINGS],
        *[(case, "ddim", 1) for case in SETTINGS],
        ("flow", "heun", 4),
        ("v on vp_linear", "heun", 4),
        ("v on vp_cosine", "heun", 4),
    ],
)
def test_the_gateway_draws_what_training_draws(exported: Exported, case: str, name: str, steps: int) -> None:
    # Epsilon at a great sigma is noise times sigma with an untrained network: clipping keeps it in range.
    config = config_of(case, guidance_scale=2.0, clip_denoised=case.startswith("epsilon"))
    said = sampling_of(config)
    net = dataclasses.replace(
        exported.manifests["denoiser"],
        sampling=Sampling(
            parameterization=Parameterization(**said.pop("parameterization")),
            schedule=NoiseSchedule(**said.pop("schedule")),
            **said,
        ),
    )
    class_id = np.array([3, 1, 4])
    program = diffusion(
        net,
        exported.manifests["decoder"],
        sampler=sampler(name, config.schedule),
        sigmas=sigmas(net.sampling.schedule, steps),
        seed=5,
        count=3,
        class_id=class_id,
        guidance_scale=config.guidance_scale,
    )
    noise = normal(5, 3, (1, 8, 8), Stream.PRIOR)
    solve = sampling.heun if name == "heun" else sampling.euler
    expected = exported.sampled_in_torch(config, solve, noise, torch.from_numpy(class_id)[:, None], steps)
    drawn = exported.served(program)
    assert drawn.shape == (3, 1, 32, 32)
    assert drawn.std() > 0.01
    np.testing.assert_allclose(drawn, expected, atol=1e-4)
