import numpy as np
import torch

from training.randomness import DRAWS, GLOBAL, Order, mixed, numpy_rng, seed_torch


def test_every_epoch_shows_every_image_once_in_another_order():
    order = Order(50, 8, seed=3)
    seen = np.concatenate([order.indices(step) for step in range(25)])
    epochs = seen.reshape(4, 50)
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_the_images_of_a_step_do_not_depend_on_the_steps_before():
    order = Order(50, 8, seed=3)
    straight = [order.indices(step) for step in range(20)]
    assert all(np.array_equal(Order(50, 8, seed=3).indices(step), straight[step]) for step in (0, 6, 7, 19))


def test_a_batch_larger_than_the_data_takes_several_epochs():
    indices = Order(3, 8, seed=0).indices(0)
    assert np.bincount(indices).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_streams_steps_processes_and_seeds_all_have_numbers_of_their_own():
    places = [
        (seed, stream, step, rank)
        for seed in (0, 1)
        for stream in (DRAWS, GLOBAL)
        for step in (0, 1)
        for rank in (0, 1)
    ]
    assert len({mixed(*place) for place in places}) == len(places)
    assert numpy_rng(0, DRAWS, 1).random() == numpy_rng(0, DRAWS, 1).random()


def test_the_global_generator_is_seeded_as_by_manual_seed():
    seed_torch(torch.device("cpu"), 5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
