"""The figures of a translator, on shapes whose truth is known."""

import numpy as np
import pytest

from export.generation import ImageSet
from export.translation import evaluate_translation
from training.data.open import open_data


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    splits = open_data("shapes-stripes", size=16, count=700, held_out=200)

    def images(side):
        batch = side.batch(np.arange(len(side)), np.random.default_rng(0))
        factors = {name: side.attributes[name] for name in ("shape", "colour")}
        return ImageSet(images=batch.images.numpy(), factors=factors)

    train, held_out = splits.train, splits.held_out
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield (
            train.spec,
            (images(train.first), images(train.second)),
            (images(held_out.first), images(held_out.second)),
        )


def test_the_truth_is_all_right_and_the_input_is_in_the_wrong_domain(stripes):
    spec, train, held_out = stripes
    translated = {"a_to_b": held_out[1].images.copy(), "b_to_a": held_out[0].images.copy()}
    evaluation = evaluate_translation(spec, train, held_out, translated, seed=0)
    rows = {row.name: row.figures for row in evaluation.rows}
    for direction in translated:
        assert rows[f"**{direction}, this model**"]["all_right"] > 0.9
        assert rows[f"{direction}, the input"]["domain"] < 0.05
        assert rows[f"{direction}, the input"]["psnr"] < 30 < rows[f"**{direction}, this model**"]["psnr"]


def test_permuted_colours_are_found_out_though_the_domain_is_right(stripes):
    spec, train, held_out = stripes
    permuted = held_out[1].images[:, [1, 2, 0]]
    quality = evaluate_translation(spec, train, held_out, {"a_to_b": permuted}, seed=0).quality
    assert quality["a_to_b_domain"] > 0.8
    assert quality["a_to_b_colour"] < 0.5
    assert "b_to_a_psnr" not in quality
