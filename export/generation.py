"""How well a model draws: its images against held-out ones, with reference rows beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from export.cards import Row
from export.judge import Judge, cached_judge
from export.metrics import Features, kernel_distance, manifold, memorisation, relative_frechet_distance
from export.references import COMPONENTS, class_gaussians, class_means
from training.data import DataSpec
from training.data.shapes import COLOURS

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

LEADING_PIXEL_COMPONENTS = 64
"""Features of data without classes, for which no classifier can be trained."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images and what they show."""

    images: Images
    """[n, channels, height, width] in [-1, 1]."""
    labels: Labels | None = None
    """[n], None without classes."""
    factors: Mapping[str, Labels] = field(default_factory=dict)
    """What else is known of each image and can be read off it, each [n]: shape, colour."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found."""

    quality: Mapping[str, float]
    """The model's own figures."""
    rows: tuple[Row, ...]
    """The same among the reference rows."""
    notes: tuple[str, ...]
    """What to know when reading them."""

    def with_note(self, note: str) -> Evaluation:
        """The same with one more note."""
        return replace(self, notes=(*self.notes, note))

    def with_figure(self, name: str, value: float) -> Evaluation:
        """The same with one more figure of the model itself, in the first row."""
        first = Row(name=self.rows[0].name, figures={**self.rows[0].figures, name: value})
        return replace(self, quality={**self.quality, name: value}, rows=(first, *self.rows[1:]))


def heads(spec: DataSpec, labels: Labels) -> dict[str, Labels]:
    """What a judge is asked of images with these labels: the class, or its factors where it has some."""
    if spec.name.startswith("shapes"):
        return {"shape": labels // len(COLOURS), "colour": labels % len(COLOURS)}
    return {"class": labels}


def evaluate_generation(
    spec: DataSpec, train: ImageSet, held_out: ImageSet, drawn: ImageSet, *, seed: int
) -> Evaluation:
    """Figures of images drawn with the labels `drawn.labels`, on a judge that never saw any of them.

    Without classes the features are the leading principal components of the pixels, and there is no accuracy.
    """
    judge = None
    if train.labels is not None:
        judge = cached_judge(
            train.images, heads(spec, train.labels), key=f"{spec.digest}-{train.images.shape[-1]}"
        )
    features = _standardised(judge.features if judge else _pixel_features(train.images), held_out.images)
    real = features(held_out.images)

    def row(name: str, subject: ImageSet, reference: Features = real) -> Row:
        own = features(subject.images)
        figures = {"accuracy": accuracy(judge, spec, subject)} if judge and subject.labels is not None else {}
        return Row(name=name, figures={**figures, **distances(reference, own)})

    found = row("this model", drawn)
    quality = {
        **found.figures,
        "memorisation": memorisation(_flat(train.images), _flat(held_out.images), _flat(drawn.images)),
    }
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(train.images), min(len(train.images), len(drawn.images)), replace=False)
    subset = ImageSet(
        images=train.images[chosen], labels=None if train.labels is None else train.labels[chosen]
    )
    rows = [Row(name="**this model**", figures=quality), row("training images", subset)]
    rows.append(_halves(real, rng))
    if train.labels is not None and drawn.labels is not None:
        wanted = drawn.labels
        means = class_means(train.images, train.labels, wanted)
        # Equal features would make nearest-neighbour balls of radius zero.
        means = (means + rng.normal(0, 1e-6, means.shape)).astype(np.float32)
        rows.append(row("class means", ImageSet(images=means, labels=wanted)))
        gaussians = class_gaussians(train.images, train.labels, wanted, levels=spec.levels, rng=rng)
        gaussian = row(
            f"Gaussian per class ({COMPONENTS} components)", ImageSet(images=gaussians, labels=wanted)
        )
        rows.append(gaussian)
        quality["frechet_ratio"] = quality["frechet_distance"] / gaussian.figures["frechet_distance"]
    notes = [
        f"{len(drawn.images):,} images, seed {seed}, against {len(held_out.images):,} held-out ones.",
        "Fréchet distances depend on the classifier: compare within this table only.",
    ]
    if judge is None:
        notes.append("Without classes the features are principal components of the pixels.")
    return Evaluation(quality=quality, rows=tuple(rows), notes=tuple(notes))


def accuracy(judge: Judge, spec: DataSpec, subject: ImageSet) -> float:
    """Share of images in which the judge reads every factor as asked for."""
    assert subject.labels is not None
    right = np.ones(len(subject.images), bool)
    read = judge.predict(subject.images)
    for name, values in heads(spec, subject.labels).items():
        right &= read[name] == values
    return float(right.mean())


def distances(real: Features, fake: Features) -> dict[str, float]:
    """Every distance of the card."""
    found = manifold(real, fake)
    return {
        "frechet_distance": relative_frechet_distance(real, fake),
        "kernel_distance": kernel_distance(real, fake),
        "precision": found.precision,
        "recall": found.recall,
        "density": found.density,
        "coverage": found.coverage,
    }


def _halves(real: Features, rng: np.random.Generator) -> Row:
    order = rng.permutation(len(real))
    middle = len(real) // 2
    return Row(
        name="half of the held-out images against the rest",
        figures=distances(real[order[:middle]], real[order[middle:]]),
    )


def _standardised(features: Callable[[Images], Features], reference: Images) -> Callable[[Images], Features]:
    """The features in units of their overall deviation on `reference`, which the kernel distance needs."""
    own = features(reference)
    mean, scale = own.mean(0), float(np.sqrt(own.var(0).mean()))
    return lambda images: (features(images) - mean) / scale


def _pixel_features(images: Images) -> Callable[[Images], Features]:
    flat = _flat(images[:5000])
    mean = flat.mean(0)
    components = np.linalg.svd(flat - mean, full_matrices=False)[2][:LEADING_PIXEL_COMPONENTS]
    return lambda subject: (_flat(subject) - mean) @ components.T


def _flat(images: Images) -> Features:
    return images.reshape(len(images), -1).astype(np.float64)
