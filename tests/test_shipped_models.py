"""The models that ship: whole, proven, carded, small, made by committed recipes, and served."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from serving.catalog import scan
from serving.client import Client
from serving.client.gateway import gateway

ROOT = Path(__file__).parent.parent
REPOSITORY = ROOT / "model_repository"
MODELS = {
    "digits_gan",
    "digits_unet",
    "digits_unet_onestep",
    "digits_vae",
    "emoji_sketch_cyclegan",
    "emoji_unet",
    "shapes_cyclegan",
    "shapes_unet",
}
MANIFESTS = {manifest.graph: manifest for manifest in scan(REPOSITORY).manifests}


@pytest.fixture(scope="module")
def client():
    with gateway(REPOSITORY) as running, Client(running.grpc_address) as client:
        yield client


def test_all_of_them_are_there_and_each_has_a_recipe():
    assert {manifest.model for manifest in MANIFESTS.values()} == MODELS
    assert {path.stem for path in (ROOT / "training/recipes").glob("*.toml")} == MODELS


def test_together_they_take_at_most_32_megabytes():
    assert sum(path.stat().st_size for path in REPOSITORY.rglob("*") if path.is_file()) <= 32e6


@pytest.mark.parametrize("graph", sorted(MANIFESTS))
def test_every_graph_is_the_one_that_was_proven_equal_to_torch(graph):
    for version, record in MANIFESTS[graph].versions.items():
        model = REPOSITORY / graph / str(version) / "model.onnx"
        assert hashlib.sha256(model.read_bytes()).hexdigest() == record.sha256
        assert record.max_abs_error <= 1e-4


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_has_a_card_with_measured_figures_and_a_grid(model):
    manifests = [manifest for manifest in MANIFESTS.values() if manifest.model == model]
    (first,) = (each for each in manifests if each.role == each.roles[0])
    assert all(record.quality for each in manifests for record in each.versions.values())
    assert "this model**" in (REPOSITORY / first.graph / "card.md").read_text()
    assert (REPOSITORY / first.graph / "samples.png").is_file()


@pytest.mark.parametrize("model", sorted(MODELS - {"shapes_cyclegan", "emoji_sketch_cyclegan"}))
def test_every_generator_draws_the_same_picture_for_a_seed_and_another_for_another(client, model):
    pictures = [client.generate(model, class_id=1, seed=seed).arrays for seed in (1, 1, 2)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


@pytest.mark.parametrize("model", ["shapes_cyclegan", "emoji_sketch_cyclegan"])
@pytest.mark.parametrize("direction", ["a_to_b", "b_to_a"])
def test_every_translator_keeps_the_size_and_changes_the_picture(client, model, direction):
    source = client.generate(model.partition("_")[0] + "_unet", class_id=0, seed=1)
    translated = client.translate(model, list(source), direction=direction)
    assert translated[0].size == source[0].size
    assert (translated.arrays != source.arrays).mean() > 0.05
