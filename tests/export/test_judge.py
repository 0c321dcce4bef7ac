"""The classifier that judges, on real digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from export.judge import cached_judge, train_judge


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = (data.images / 8 - 1).astype(np.float32)[:, None]
    return images[:1200], data.target[:1200], images[1200:], data.target[1200:]


@pytest.fixture(scope="module")
def judge(digits):
    images, labels, _, _ = digits
    return train_judge(images, {"class": labels}, epochs=15)


def test_it_reads_digits_that_it_has_not_seen(judge, digits):
    _, _, images, labels = digits
    assert (judge.predict(images)["class"] == labels).mean() > 0.9


def test_its_features_of_an_image_do_not_depend_on_the_others(judge, digits):
    images = digits[2]
    np.testing.assert_allclose(judge.features(images[:300])[:7], judge.features(images[:7]), atol=1e-4)


def test_a_damaged_cache_is_trained_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path))
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = (rng.normal(0, 0.1, (64, 1, 8, 8)) + labels[:, None, None, None]).astype(np.float32)
    first = cached_judge(images, {"class": labels}, key="tiny")
    (path,) = (tmp_path / "judges").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    again = cached_judge(images, {"class": labels}, key="tiny")
    np.testing.assert_array_equal(first.features(images), again.features(images))
    assert (again.predict(images)["class"] == labels).all()
