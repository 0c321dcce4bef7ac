import numpy as np
import pytest
import torch

from training.data import Batch
from training.data.augment import AUGMENTATIONS, DIFFERENTIABLE, augmented, differentiable_augment, shift_by


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 64, channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=generator(9)) * 2 - 1


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_every_transformation_changes_images_by_the_generator_alone(name: str) -> None:
    images = pictures()
    one, again, other = (differentiable_augment(images, [name], generator(seed)) for seed in (1, 1, 2))
    assert one.shape == images.shape
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, images)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_pass_through_every_transformation(name: str) -> None:
    images = pictures(4, size=6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: differentiable_augment(x, [name], generator(3)), images)


def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_others() -> None:
    images = pictures(400)
    changed = AUGMENTATIONS["flip"](images, generator())
    mirrored = (changed == images.flip(3)).flatten(1).all(1)
    same = (changed == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~same)
    assert 150 < mirrored.sum() < 250


def test_a_shift_moves_by_whole_pixels_in_all_directions_and_continues_the_edge() -> None:
    ramp = torch.arange(8.0).expand(500, 1, 8, 8)
    moved = shift_by(ramp, generator(), 2)
    by = {tuple(row.tolist()) for row in moved[:, 0, 0]}
    assert by == {tuple(float(min(max(x + d, 0), 7)) for x in range(8)) for d in (-2, -1, 0, 1, 2)}
    assert torch.equal(moved, moved[:, :, :1].expand_as(moved))


def test_cutout_greys_a_quarter_at_most_and_something_in_every_image() -> None:
    greyed = (DIFFERENTIABLE["cutout"](torch.ones(300, 1, 16, 16), generator()) == 0).float().mean((1, 2, 3))
    assert greyed.max() == 0.25
    assert greyed.min() > 0


def test_only_the_wanted_share_of_images_is_changed() -> None:
    images = pictures(1000, channels=1, size=8)
    changed = differentiable_augment(images, ["colour"], generator(), probability=0.3)
    share = (changed != images).flatten(1).any(1).float().mean()
    assert share == pytest.approx(0.3, abs=0.06)


def test_images_and_targets_are_changed_alike_and_labels_kept() -> None:
    images, labels = pictures(), torch.arange(64)
    batch = augmented(
        Batch(images=images, targets=-images, labels=labels), ["flip", "shift"], np.random.default_rng(5)
    )
    assert torch.equal(batch.images, -batch.targets)
    assert not torch.equal(batch.images, images)
    assert torch.equal(batch.labels, labels)


def test_nothing_that_would_leak_may_be_done_to_training_images() -> None:
    assert not {"colour", "cutout"} & AUGMENTATIONS.keys()


def test_without_augmentation_the_batch_stays_itself_and_no_number_is_drawn() -> None:
    batch, rng = Batch(images=pictures()), np.random.default_rng(0)
    assert augmented(batch, [], rng) is batch
    assert rng.integers(2**40) == np.random.default_rng(0).integers(2**40)
