"""Every family that ships, resumed, ends in the bits of a run that never stopped."""

from pathlib import Path

import pytest
import torch

from training import checkpoint
from training.command import main

SMALL = {
    "vae": ["--data", "digits"],
    "gan": ["--data", "digits"],
    "diffusion": ["--data", "digits", "--set", "diffusion.channels=8"],
    "cyclegan": ["--data", "shapes-stripes", "--set", "cyclegan.channels=4"],
}


@pytest.mark.parametrize("family", SMALL)
def test_a_resumed_run_of_a_family_ends_in_the_same_bits(family: str, tmp_path: Path):
    common = [
        *SMALL[family],
        "--set",
        "accelerator=cpu",
        "--set",
        "tensorboard=false",
        "--set",
        "batch_size=2",
    ]
    quiet = ["--set", "sample_count=2", "--set", "evaluate_count=2", "--set", "keep_checkpoints=0"]
    settings = [*common, *quiet, "--set", "steps=5", "--set", "checkpoint_every=3"]
    assert main([family, *settings, "--run-dir", str(tmp_path / "straight")]) == 0
    older = tmp_path / "straight" / "checkpoints" / "step-00000003"
    assert main(["--resume", str(older), "--run-dir", str(tmp_path / "again")]) == 0
    straight, again = (checkpoint.load(tmp_path / name) for name in ("straight", "again"))
    for part in checkpoint.PARTS:
        one, other = straight.tensors(part), again.tensors(part)
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == []
