"""The figures of a model, on real digits and on samplers whose faults are known."""

import numpy as np
import pytest

from export.generation import ImageSet, evaluate_generation
from training.data.open import open_data


@pytest.fixture(scope="module")
def digits():
    splits = open_data("digits")
    sets = []
    for part in (splits.train, splits.held_out):
        batch = part.batch(np.arange(len(part)), np.random.default_rng(0))
        sets.append(ImageSet(images=batch.images.numpy(), labels=batch.labels.numpy()))
    return splits.train.spec, *sets


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def rows_of(evaluation):
    return {row.name: row.figures for row in evaluation.rows}


def test_the_class_means_row_is_perfectly_accurate_and_covers_nothing(digits, cache):
    spec, train, held_out = digits
    rows = rows_of(evaluate_generation(spec, train, held_out, held_out, seed=0))
    assert rows["class means"]["accuracy"] == 1
    assert rows["class means"]["coverage"] < 0.3
    assert rows["class means"]["frechet_distance"] > 5 * rows["training images"]["frechet_distance"]


def test_training_images_given_as_samples_are_found_out(digits, cache):
    spec, train, held_out = digits
    evaluation = evaluate_generation(spec, train, held_out, train, seed=0)
    assert evaluation.quality["memorisation"] < 1e-3
    assert evaluation.quality["frechet_ratio"] < 0.7


def test_swapped_labels_cost_accuracy_but_no_distance(digits, cache):
    spec, train, held_out = digits
    swapped = ImageSet(images=train.images, labels=(train.labels + 1) % 10)
    wrong = evaluate_generation(spec, train, held_out, swapped, seed=0).quality
    right = evaluate_generation(spec, train, held_out, train, seed=0).quality
    assert wrong["accuracy"] < 0.01 < 0.99 < right["accuracy"]
    assert wrong["frechet_distance"] == pytest.approx(right["frechet_distance"])


def test_data_without_classes_are_measured_on_their_pixels(digits, cache):
    spec, train, held_out = digits
    bare = [ImageSet(images=each.images, labels=None) for each in (train, held_out)]
    rng = np.random.default_rng(0)
    noise = ImageSet(images=rng.uniform(-1, 1, train.images.shape).astype(np.float32), labels=None)
    good, bad = (
        evaluate_generation(spec, *bare, drawn, seed=0).quality["frechet_distance"]
        for drawn in (bare[0], noise)
    )
    assert good < 0.05
    assert bad > 10 * good
