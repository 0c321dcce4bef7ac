"""FID on Inception features: what it needs is asked for before any work, and it measures what it says."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import atelier
from export import inception
from export.inception import InceptionError, inception_frechet_distance, require_inception
from export.metrics import frechet_distance


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is taken for the published one."""
    path = tmp_path / "weights.pth"
    path.write_bytes(b"as published")
    monkeypatch.setattr(inception, "WEIGHTS_SHA256", hashlib.sha256(b"as published").hexdigest())
    return path


def test_missing_weights_are_named_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "digits_gan", "--repository", str(tmp_path / "none")]
    assert atelier.main([*command, "--inception-weights", str(tmp_path / "inception.pth")]) == 1
    said = capsys.readouterr().err
    assert f"no Inception weights at {tmp_path}/inception.pth: give the file weights-inception-2015" in said


def test_a_folder_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InceptionError, match="no Inception weights at"):
        require_inception(tmp_path)


def test_other_weights_are_refused_unopened(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2)}, other)
    with pytest.raises(InceptionError, match=r"other\.pth is not weights-inception-2015-12-05-6726825d\.pth"):
        inception_frechet_distance(np.zeros((2, 1, 8, 8)), np.zeros((2, 1, 8, 8)), other)


def test_the_name_of_the_weights_bears_the_beginning_of_their_digest() -> None:
    assert inception.WEIGHTS.endswith(f"-{inception.WEIGHTS_SHA256[:8]}.pth")


def test_a_missing_package_is_named_with_how_to_install_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(InceptionError, match=r"FID needs torch-fidelity: pip install 'atelier\[fid\]'"):
        require_inception(weights)


def test_a_package_beside_the_wrong_torchvision_is_named_with_the_remedy(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a torchvision for CUDA says beside a torch for the CPU.
    (tmp_path / "torch_fidelity.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch_fidelity", raising=False)
    with pytest.raises(
        InceptionError, match=r"torchvision::nms does not exist; install the torchvision that"
    ):
        require_inception(weights)


@pytest.mark.slow
def test_the_distance_is_that_of_the_features_of_the_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With weights drawn at random, in the file format of the published ones."""
    pytest.importorskip("torch_fidelity", reason="atelier[fid] is not installed")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    with monkeypatch.context() as unloaded:
        unloaded.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda network, weights: None)
        unloaded.setattr(torch, "load", lambda *arguments, **options: {})
        network = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path="none")
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    weights = tmp_path / "random.pth"
    torch.save(network.state_dict(), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "WEIGHTS_SHA256", digest)

    rng = np.random.default_rng(0)
    real = rng.uniform(-1, 1, (12, 1, 32, 32)).astype(np.float32)
    fake = rng.uniform(-1, 0, (12, 1, 32, 32)).astype(np.float32)
    pixels = [np.rint((images + 1) * 127.5).astype(np.uint8).repeat(3, axis=1) for images in (real, fake)]
    features = [network(torch.from_numpy(each))[0].numpy().astype(np.float64) for each in pixels]
    expected = frechet_distance(*features)
    assert expected > 1
    assert inception_frechet_distance(real, fake, weights) == pytest.approx(expected, rel=1e-3)
    assert inception_frechet_distance(real, real, weights) == pytest.approx(0, abs=1e-3 * expected)
