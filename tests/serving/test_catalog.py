import shutil
from pathlib import Path

import pytest
import tiny_graphs

from serving.catalog import build, scan
from serving.errors import Code, ServingError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tiny_graphs.publish_all(tmp_path)


def test_graphs_are_grouped_into_models_in_the_order_of_their_roles(repository: Path) -> None:
    catalog = build(scan(repository))
    assert list(catalog.models) == ["tiny_gan", "tiny_gaussian", "tiny_latent", "tiny_translator", "tiny_vae"]
    assert list(catalog.models["tiny_vae"].graphs) == ["decoder", "encoder"]
    assert catalog.models["tiny_translator"].directions == ("a_to_b", "b_to_a")
    assert catalog.models["tiny_gan"].versions == (1, 2)
    assert catalog.refused == {}


def test_the_picture_of_a_model_is_what_its_last_graph_gives(repository: Path) -> None:
    models = build(scan(repository)).models
    assert models["tiny_latent"].picture.shape == (1, 8, 8)
    assert models["tiny_gaussian"].picture.shape == (3, 8, 8)
    assert models["tiny_translator"].picture.shape == (3, -1, -1)
    assert models["tiny_latent"].latent is None
    assert models["tiny_vae"].latent is not None


def test_a_broken_configuration_is_refused_with_the_reason_and_the_rest_goes_on(repository: Path) -> None:
    (repository / "tiny_gan" / "config.pbtxt").write_text("name: {{{")
    (repository / "strange").mkdir()
    (repository / ".tiny_vae.half").mkdir()
    (repository / "README.md").write_text("not a folder")
    catalog = build(scan(repository))
    assert "does not parse" in catalog.refused["tiny_gan"]
    assert "no config.pbtxt" in catalog.refused["strange"]
    assert catalog.refused.keys() == {"tiny_gan", "strange"}
    assert "tiny_vae" in catalog.models
    with pytest.raises(ServingError, match=r"'tiny_gan' cannot be served: .*does not parse") as error:
        catalog.model("tiny_gan")
    assert error.value.code == Code.NOT_FOUND


def test_a_model_with_a_role_missing_is_refused(repository: Path) -> None:
    shutil.rmtree(repository / "tiny_vae_encoder")
    catalog = build(scan(repository))
    assert "tiny_vae" not in catalog.models
    assert "role encoder" in catalog.refused["tiny_vae"]


def test_a_version_is_served_when_every_role_has_its_file(tmp_path: Path) -> None:
    tiny_graphs.publish_gan(tmp_path, versions=3)
    (tmp_path / "tiny_gan" / "2" / "model.onnx").unlink()
    catalog = build(scan(tmp_path))
    assert catalog.models["tiny_gan"].versions == (1, 3)
    assert "2/model.onnx is not there" in catalog.refused["tiny_gan/2"]


def test_two_graphs_that_claim_one_role_are_refused(repository: Path) -> None:
    shutil.copytree(repository / "tiny_gan", repository / "copy")
    config = repository / "copy" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "tiny_gan"', 'name: "copy"'))
    catalog = build(scan(repository))
    assert "copy and tiny_gan both are its generator" in catalog.refused["tiny_gan"]


def test_a_graph_with_an_input_that_nobody_can_give_is_refused(repository: Path) -> None:
    config = repository / "tiny_gan" / "config.pbtxt"
    config.write_text(config.read_text().replace('"class_id"', '"style"'))
    assert "takes style, which this gateway cannot give" in build(scan(repository)).refused["tiny_gan"]


def test_an_unknown_model_is_answered_with_the_nearest_first(repository: Path) -> None:
    with pytest.raises(ServingError, match="no model 'tiny_gam'; there are tiny_gan, ") as error:
        build(scan(repository)).model("tiny_gam")
    assert (error.value.code, error.value.field) == (Code.NOT_FOUND, "model")


def test_a_version_that_is_not_there_is_answered_with_those_that_are(repository: Path) -> None:
    model = build(scan(repository)).models["tiny_gan"]
    with pytest.raises(ServingError, match="no version 7; it has 1, 2, and 0 is the newest") as error:
        model.version(7, ready=[1, 2])
    assert (error.value.code, error.value.field) == (Code.NOT_FOUND, "version")
    assert model.version(0, ready=[1]) == 1
    assert model.version(0, ready=[]) == 2
    assert model.version(2, ready=[1]) == 2
