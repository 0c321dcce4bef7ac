"""Training on a GPU in bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import atelier


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: this torch is built without CUDA")
def test_a_diffusion_model_trains_in_bfloat16_and_is_exported(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "unet"
    settings = ("accelerator=cuda", "precision=bf16", "steps=20")
    command = ["train", "diffusion", "--data", "digits", "--run-dir", str(run)]
    assert atelier.main([*command, *(part for setting in settings for part in ("--set", setting))]) == 0
    assert atelier.main(["export", str(run), "--to", str(tmp_path / "repository")]) == 0
