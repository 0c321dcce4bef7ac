"""Distances between two sets of feature vectors, [n, features] and [m, features] in float64.

Every function takes features, whatever network or projection they come from; `real` is the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Features = NDArray[np.float64]


def frechet_distance(real: Features, fake: Features) -> float:
    """Fréchet distance of two Gaussians fitted to the features (Heusel et al. 2017, eq. 6).

    The trace of the square root of the product of covariances is that of a symmetric matrix with the
    same eigenvalues, which stays real where the covariances are singular.
    """
    mean_real, mean_fake = real.mean(0), fake.mean(0)
    cov_real, cov_fake = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = _symmetric_root(np.atleast_2d(cov_real))
    eigenvalues = np.linalg.eigvalsh(root @ np.atleast_2d(cov_fake) @ root)
    cross = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    difference = mean_real - mean_fake
    return float(difference @ difference + np.trace(np.atleast_2d(cov_real + cov_fake)) - 2 * cross)


def relative_frechet_distance(real: Features, fake: Features) -> float:
    """Fréchet distance in units of the total variance of `real`, so that scale and width drop out."""
    return frechet_distance(real, fake) / float(real.var(0, ddof=1).sum())


def kernel_distance(
    real: Features, fake: Features, *, subsets: int = 50, size: int = 500, seed: int = 0
) -> float:
    """Kernel distance KID: the unbiased squared MMD under k(x, y) = (x.y / d + 1)^3, averaged over subsets
    (Bińkowski et al. 2018)."""
    rng = np.random.default_rng(seed)
    size = min(size, len(real), len(fake))
    return float(
        np.mean(
            [
                _squared_mmd(
                    real[rng.choice(len(real), size, replace=False)],
                    fake[rng.choice(len(fake), size, replace=False)],
                )
                for _ in range(subsets)
            ]
        )
    )


@dataclass(frozen=True, kw_only=True)
class Manifold:
    """Agreement of two sets by their nearest-neighbour balls, all between 0 and 1 but density."""

    precision: float
    """Share of `fake` inside some ball of `real` (Kynkäänniemi et al. 2019)."""
    recall: float
    """Share of `real` inside some ball of `fake`."""
    density: float
    """Balls of `real` around each of `fake`, over k; about 1 for equal distributions (Naeem et al. 2020)."""
    coverage: float
    """Share of the balls of `real` that hold any of `fake` (Naeem et al. 2020)."""


def manifold(real: Features, fake: Features, *, k: int = 5) -> Manifold:
    """Precision, recall, density and coverage with balls that reach to the k-th nearest neighbour."""
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    distances = cdist(real, fake)
    in_real_ball = distances < real_radii[:, None]
    in_fake_ball = distances < fake_radii[None, :]
    return Manifold(
        precision=float(in_real_ball.any(0).mean()),
        recall=float(in_fake_ball.any(1).mean()),
        density=float(in_real_ball.sum(0).mean() / k),
        coverage=float(in_real_ball.any(1).mean()),
    )


def nearest_distances(queries: Features, references: Features, *, block: int = 512) -> NDArray[np.float64]:
    """Euclidean distance of each query to its nearest reference, [queries]."""
    nearest = [
        cdist(queries[start : start + block], references).min(1) for start in range(0, len(queries), block)
    ]
    return np.concatenate(nearest) if nearest else np.empty(0)


def memorisation(train: Features, held_out: Features, fake: Features) -> float:
    """How near samples lie to the training set, in units of how near held-out images lie to it.

    The ratio of the medians of nearest-neighbour distances in pixels: about 1 for new images of the
    same kind, towards 0 for copies.
    """
    return float(np.median(nearest_distances(fake, train)) / np.median(nearest_distances(held_out, train)))


def psnr(truth: NDArray[np.float64], image: NDArray[np.float64], *, peak: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB, the mean over images [n, ...] whose values span `peak`."""
    errors = ((truth - image) ** 2).reshape(len(truth), -1).mean(1)
    return float(np.mean(10 * np.log10(peak**2 / np.maximum(errors, 1e-12))))


def _radii(points: Features, k: int) -> NDArray[np.float64]:
    if len(points) <= k:
        raise ValueError(f"{len(points)} points have no {k}-th nearest neighbour: give more than {k}")
    distances = cdist(points, points)
    return np.asarray(np.partition(distances, k, axis=1)[:, k])


def _squared_mmd(x: Features, y: Features) -> float:
    def kernel(a: Features, b: Features) -> Features:
        return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)

    n = len(x)
    within_x, within_y = kernel(x, x), kernel(y, y)
    within = (within_x.sum() - np.trace(within_x) + within_y.sum() - np.trace(within_y)) / (n * (n - 1))
    return float(within - 2 * kernel(x, y).mean())


def _symmetric_root(matrix: Features) -> Features:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)
