import json
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch

from training import checkpoint
from training.checkpoint import CheckpointError
from training.families import FAMILIES


def test_a_run_and_a_checkpoint_of_it_both_open(train_toy):
    result = train_toy(steps=20, checkpoint_every=10)
    assert checkpoint.load(result.run).step == 20
    assert checkpoint.load(result.run / "checkpoints" / "step-00000010").step == 10
    assert checkpoint.load(str(result.run), expect_family="toy").family.name == "toy"


def test_averaged_networks_are_ready_to_export(train_toy):
    result = train_toy(steps=20)
    found = checkpoint.load(result.run)
    state = torch.get_rng_state()
    networks = found.averaged_networks()
    assert torch.equal(torch.get_rng_state(), state)
    assert not networks["net"].training
    assert torch.equal(networks["net"][1].weight, found.tensors("averages")["net.1.weight"])
    assert torch.equal(networks["critic"].weight, found.tensors("networks")["critic.weight"])
    assert not torch.equal(networks["net"][1].weight, found.tensors("networks")["net.1.weight"])
    assert networks["pool"].seen.item() == 20 * 8


def test_the_newest_checkpoints_are_kept(train_toy):
    result = train_toy(steps=10, checkpoint_every=2, keep_checkpoints=3)
    assert [p.name[-2:] for p in checkpoint.listed(result.run)] == ["06", "08", "10"]


def test_what_a_killed_run_was_writing_is_neither_opened_nor_left(train_toy):
    result = train_toy(steps=4)
    torn = result.run / "checkpoints" / "step-00000008.writing"
    shutil.copytree(result.checkpoint, torn)
    assert checkpoint.load(result.run).step == 4
    train_toy("run", resume=checkpoint.load(result.run), steps=6)
    assert not torn.exists()


@pytest.mark.parametrize("part", ["networks", "averages", "optimizers"])
def test_a_truncated_file_of_tensors_is_named(train_toy, part):
    result = train_toy(steps=2)
    path = result.checkpoint / f"{part}.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(
        CheckpointError, match=rf"{part}\.safetensors is truncated: it has [\d,]+ of [\d,]+ bytes"
    ):
        checkpoint.load(result.run)


def test_a_damaged_file_of_tensors_is_named(train_toy):
    result = train_toy(steps=2)
    path = result.checkpoint / "networks.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(
        CheckpointError, match=r"networks\.safetensors is damaged .*; use an earlier checkpoint"
    ):
        checkpoint.load(result.run).averaged_networks()


@pytest.mark.parametrize("text", ["{", '{"format": 1}', "[]", ""])
def test_a_damaged_description_is_named(train_toy, text):
    result = train_toy(steps=2)
    (result.checkpoint / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json is damaged"):
        checkpoint.load(result.run)


def test_a_layout_of_another_version_is_refused(train_toy):
    result = train_toy(steps=2)
    path = result.checkpoint / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(CheckpointError, match="has format 99, and this version of Atelier reads 1"):
        checkpoint.load(result.run)


def test_settings_that_no_longer_exist_are_refused(train_toy):
    result = train_toy(steps=2)
    path = result.checkpoint / "checkpoint.json"
    values = json.loads(path.read_text())
    values["config"]["toy"]["momentum"] = 0.9
    path.write_text(json.dumps(values))
    with pytest.raises(
        CheckpointError, match=r"another version of Atelier: there is no setting 'toy\.momentum'"
    ):
        checkpoint.load(result.run)


def test_a_family_that_is_not_known_is_named(train_toy, monkeypatch):
    result = train_toy(steps=2)
    monkeypatch.delitem(FAMILIES, "toy")
    with pytest.raises(ValueError, match="family 'toy' is not one of vae"):
        checkpoint.load(result.run)


def test_a_checkpoint_of_another_family_is_refused(train_toy):
    result = train_toy(steps=2)
    with pytest.raises(CheckpointError, match="is a checkpoint of family 'toy', not of 'vae'"):
        checkpoint.load(result.run, expect_family="vae")


def test_what_is_not_a_run_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"nowhere does not exist: give the folder of a run"):
        checkpoint.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"is not a run: it has no checkpoints/step-"):
        checkpoint.load(tmp_path)


def test_a_full_disk_leaves_earlier_checkpoints_as_they_were(train_toy):
    result = train_toy(steps=2)
    before = {p.name: p.read_bytes() for p in result.checkpoint.iterdir()}
    big = {part: {"x": torch.zeros(100_000)} for part in checkpoint.PARTS}
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(
            CheckpointError,
            match=r"cannot write the checkpoint .*step-00000003: File too large; the last one is as it",
        ):
            checkpoint.save(result.run, 3, big, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in (result.run / "checkpoints").iterdir()] == ["step-00000002"]
    assert {p.name: p.read_bytes() for p in result.checkpoint.iterdir()} == before
    assert checkpoint.load(result.run).step == 2


def test_tensors_that_share_memory_are_saved(train_toy):
    result = train_toy(steps=2)
    values = json.loads((result.checkpoint / "checkpoint.json").read_text())
    base = torch.arange(6.0)
    part = {"whole": base, "view": base[2:4], "turned": base.view(2, 3).T}
    saved = checkpoint.save(result.run, 9, dict.fromkeys(checkpoint.PARTS, part), values)
    read = checkpoint.load(saved).tensors("networks")
    assert all(torch.equal(read[key], part[key]) for key in part)
