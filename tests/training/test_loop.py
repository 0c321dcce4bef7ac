import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from safetensors.torch import load_file
from torch.utils.tensorboard import SummaryWriter

from training import checkpoint
from training.checkpoint import CheckpointError
from training.coerce import ConfigError
from training.failures import TrainingError

PARTS = ("networks", "averages", "optimizers")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{p}/{k}": v for p in PARTS for k, v in load_file(folder / f"{p}.safetensors").items()}


def assert_same(one: Path, other: Path) -> None:
    left, right = tensors(one), tensors(other)
    assert left.keys() == right.keys()
    assert [key for key in left if not torch.equal(left[key], right[key])] == []


def test_a_run_that_is_resumed_ends_in_the_same_bits_as_one_that_never_stopped(train_toy):
    settings = {"steps": 23, "checkpoint_every": 9, "keep_checkpoints": 0, "evaluate_every": 4}
    straight = train_toy("straight", **settings)
    again = train_toy("again", resume=checkpoint.load(straight.run / "checkpoints/step-00000009"), **settings)
    assert_same(straight.checkpoint, again.checkpoint)
    rows = [checkpoint.load(r.run).curve for r in (straight, again)]
    timeless = [[{k: v for k, v in p.items() if "seconds" not in k} for p in points] for points in rows]
    assert timeless[0] == timeless[1]


def test_reading_ahead_changes_nothing(train_toy):
    one = train_toy("one", steps=10)
    other = train_toy("other", steps=10, prefetch=3)
    assert_same(one.checkpoint, other.checkpoint)


def test_augmented_images_differ_by_step_and_repeat_when_resumed(train_toy):
    plain = train_toy("plain", steps=10)
    settings = {"steps": 10, "augment": ["flip", "shift"], "checkpoint_every": 4, "keep_checkpoints": 0}
    straight = train_toy("straight", **settings)
    resume = checkpoint.load(straight.run / "checkpoints/step-00000004")
    assert_same(straight.checkpoint, train_toy("again", resume=resume, **settings).checkpoint)
    key = "networks/net.1.weight"
    assert not torch.equal(tensors(plain.checkpoint)[key], tensors(straight.checkpoint)[key])


def test_another_seed_gives_other_weights(train_toy):
    one, other = train_toy("one", steps=2), train_toy("other", steps=2, seed=1)
    key = "networks/net.1.weight"
    assert not torch.equal(tensors(one.checkpoint)[key], tensors(other.checkpoint)[key])


def test_a_run_learns_and_writes_what_it_says(train_toy):
    result = train_toy(
        steps=400,
        checkpoint_every=150,
        sample_every=200,
        evaluate_every=100,
        log_every=50,
        toy={"dropout": 0.0},
    )
    assert [p.name for p in checkpoint.listed(result.run)] == ["step-00000300", "step-00000400"]
    assert sorted(p.name for p in (result.run / "samples").iterdir()) == [
        "step-00000200.png",
        "step-00000400.png",
    ]
    with (result.run / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [50, 100, 150, 200, 250, 300, 350, 400]
    assert float(rows[-1]["net"]) < 0.8 * float(rows[0]["net"])
    assert [bool(row["held_out/error"]) for row in rows] == [False, True] * 4
    assert float(rows[-1]["held_out/error"]) < float(rows[1]["held_out/error"])
    found = checkpoint.load(result.run)
    assert (found.step, found.seed, found.data.digest) == (400, 0, "0123456789abcdef")
    assert found.cpu_seconds > 0


def test_tensorboard_gets_the_curve_and_the_grids(train_toy, monkeypatch):
    scalars, images = [], []
    add_scalar, add_image = SummaryWriter.add_scalar, SummaryWriter.add_image

    def scalar(self, tag, value, step):
        scalars.append((tag, step))
        add_scalar(self, tag, value, step)

    def image(self, tag, pixels, step, dataformats):
        images.append((tag, step, pixels.shape))
        add_image(self, tag, pixels, step, dataformats=dataformats)

    monkeypatch.setattr(SummaryWriter, "add_scalar", scalar)
    monkeypatch.setattr(SummaryWriter, "add_image", image)
    result = train_toy(steps=5, tensorboard=True, sample_count=8)
    assert scalars == [("train/net", 5), ("train/critic", 5), ("held_out/error", 5)]
    assert images == [("samples", 5, (8 * 68 - 4, 64, 1))]
    (events,) = (result.run / "tensorboard").iterdir()
    assert events.stat().st_size > 0


def test_a_loss_that_is_not_finite_stops_the_run_names_the_step_and_keeps_the_last_checkpoint(train_toy):
    with pytest.raises(TrainingError, match="loss 'net' is nan at step 13") as error:
        train_toy(steps=30, checkpoint_every=10, toy={"fail_at": 13})
    assert "the last good checkpoint is" in str(error.value)
    (kept,) = checkpoint.listed(Path(str(error.value).rpartition(" ")[2]).parent.parent)
    assert kept.name == "step-00000010"
    assert all(value.isfinite().all() for value in tensors(kept).values())


def test_weights_that_are_not_finite_are_never_saved(train_toy):
    def breaking(s):
        with torch.no_grad():
            s.networks["net"][1].bias.fill_(float("inf"))
        return {"net": torch.zeros(())}

    family = dataclasses.replace(toy.FAMILY, step=breaking)
    with pytest.raises(TrainingError, match=r"weights net\.1\.bias are not finite after step 1"):
        train_toy(steps=2, family=family)


def test_running_out_of_memory_is_told_with_the_step_and_the_remedy(train_toy):
    def greedy(s):
        if s.step == 3:
            torch.empty(1 << 60)
        return toy.step(s)

    family = dataclasses.replace(toy.FAMILY, step=greedy)
    with pytest.raises(TrainingError, match="out of memory at step 3 with batch_size = 8: set a smaller"):
        train_toy(steps=5, family=family)


def test_a_full_disk_between_checkpoints_is_told_with_the_step(train_toy, tmp_path):
    def filling(s):
        if s.step == 7:
            (tmp_path / "run" / "curve.csv").unlink()
            (tmp_path / "run" / "curve.csv").symlink_to("/dev/full")
        return toy.step(s)

    family = dataclasses.replace(toy.FAMILY, step=filling)
    with pytest.raises(
        TrainingError, match=r"No space left on device at step 10; the last good checkpoint is .*5$"
    ):
        train_toy(steps=20, family=family, checkpoint_every=5)


def test_a_folder_in_which_a_run_died_early_is_cleared_of_its_pictures(train_toy, tmp_path):
    (tmp_path / "run" / "samples").mkdir(parents=True)
    (tmp_path / "run" / "samples" / "step-00000001.png").touch()
    (tmp_path / "run" / "samples" / "mine.png").touch()
    result = train_toy(steps=2)
    assert sorted(p.name for p in (result.run / "samples").iterdir()) == ["mine.png", "step-00000002.png"]


def test_an_error_in_a_family_is_not_disguised(train_toy):
    def wrong(s):
        return s.networks["net"](torch.ones(1, 3))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train_toy(steps=5, family=dataclasses.replace(toy.FAMILY, step=wrong))


def test_half_precision_trains_float32_weights_and_sees_every_update(train_toy):
    seen = []

    def step(s):
        for _ in range(3):
            s.update("net", s.networks["net"](s.batch.images).square().mean())
            seen.append(s.networks["net"](s.batch.images).detach())
        return {"net": seen[-1].square().mean()}

    result = train_toy(
        steps=1, precision="bf16", family=dataclasses.replace(toy.FAMILY, step=step), toy={"dropout": 0.0}
    )
    assert seen[0].dtype == torch.bfloat16
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert {t.dtype for k, t in tensors(result.checkpoint).items() if "pool" not in k} == {torch.float32}


def test_prepared_data_take_the_place_of_the_given_ones_also_when_resumed(train_toy):
    calls = []

    class Zeros:
        spec = toy.open_toy(None).train.spec

        def __len__(self):
            return 4

        def batch(self, indices, rng):
            calls.append(int(indices.max()))
            return toy.Batch(images=torch.zeros(len(indices), 1, 4, 4))

    def prepare(config, networks, data):
        drawn.append(torch.rand(1).item())
        return Zeros()

    drawn: list[float] = []
    family = dataclasses.replace(toy.FAMILY, prepare=prepare)
    result = train_toy(steps=6, family=family, checkpoint_every=2, keep_checkpoints=0)
    assert max(calls) == 3
    train_toy(
        "again", steps=6, family=family, resume=checkpoint.load(result.run / "checkpoints/step-00000002")
    )
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": toy.open_toy(None, digest="another")},
            r"data .toy. are not what .* \(digest another, was 0123",
        ),
        ({"seed": 5}, "has seed 0, not 5"),
        ({"steps": 4}, "is finished: it has 4 of 4 steps; go on with --set steps=N"),
        ({"family": dataclasses.replace(toy.FAMILY, name="gan")}, "checkpoint of family 'toy', not of 'gan'"),
        ({"toy": {"widths": [9]}}, r"do not fit the configured networks \(size mismatch for net\.1\.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(train_toy, change, message):
    result = train_toy(steps=4)
    with pytest.raises(CheckpointError, match=message):
        train_toy("again", resume=checkpoint.load(result.run), **{"steps": 8} | change)


def test_a_family_that_translates_refuses_data_of_one_domain(train_toy):
    with pytest.raises(ConfigError, match="family 'toy' translates between two domains"):
        train_toy(steps=4, family=dataclasses.replace(toy.FAMILY, needs_pairs=True))


def test_every_image_of_an_epoch_is_seen_once(train_toy):
    data = toy.open_toy(None)
    seen: list[np.ndarray] = []
    read = data.train.batch
    data.train.batch = lambda indices, rng: (seen.append(indices), read(indices, rng))[1]
    train_toy(steps=25, data=data)
    assert np.bincount(np.concatenate(seen)).tolist() == [4] * toy.COUNT
