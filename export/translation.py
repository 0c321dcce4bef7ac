"""How well a translator translates: against the known truth, pixel by pixel and as a judge reads it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from export.cards import Row
from export.generation import Evaluation, Images, ImageSet, Labels
from export.judge import Judge, cached_judge
from export.metrics import psnr, relative_frechet_distance
from training.data import DataSpec

EXPLAINED: dict[str, str] = {
    "psnr": "peak signal-to-noise ratio to the true translation, in dB, the mean over images",
    "all_right": "share in which the classifier reads the domain and every factor as in the truth",
    "domain": "share read as the domain that was asked for",
    "shape": "share read with the shape of the truth",
    "colour": "share read with the colour of the truth",
    "class": "share read as the class of the truth",
    "frechet_distance": "Fréchet distance on the classifier's features, over the variance of the truth's",
    "mean_absolute_error": "mean absolute error to the truth, of values in [-1, 1]",
}
"""What the columns of the figures mean."""

Domains = tuple[ImageSet, ImageSet]


def evaluate_translation(
    spec: DataSpec, train: Domains, held_out: Domains, translated: Mapping[str, Images], *, seed: int
) -> Evaluation:
    """Figures of the translations of held-out images, by direction.

    `held_out` is paired: image i of either domain is the truth of the other's. A judge reads the domain and,
    where factors are known, these; rows for the truth itself and for the untouched input stand
    beside the translations.
    """
    images = np.concatenate([side.images for side in train])
    judge = cached_judge(images, _heads(train), key=f"{spec.digest}-{images.shape[-1]}-domains")
    rows: list[Row] = []
    quality: dict[str, float] = {}
    for domain, direction in ((1, "a_to_b"), (0, "b_to_a")):
        if direction not in translated:
            continue
        source, truth = held_out[1 - domain], held_out[domain]
        wanted = {"domain": np.full(len(truth.images), domain), **truth.factors}
        found = _figures(judge, wanted, truth.images, translated[direction])
        rows += [
            Row(name=f"**{direction}, this model**", figures=found),
            Row(name=f"{direction}, the truth", figures=_figures(judge, wanted, truth.images, truth.images)),
            Row(name=f"{direction}, the input", figures=_figures(judge, wanted, truth.images, source.images)),
        ]
        quality |= {f"{direction}_{name}": value for name, value in found.items()}
    notes = (f"{len(held_out[0].images):,} held-out pairs; training saw no pairs. Seed {seed}.",)
    return Evaluation(quality=quality, rows=tuple(rows), notes=notes)


def _figures(judge: Judge, wanted: Mapping[str, Labels], truth: Images, subject: Images) -> dict[str, float]:
    read = judge.predict(subject)
    right = {head: read[head] == values for head, values in wanted.items()}
    compared = (
        {} if subject is truth else {"psnr": psnr(truth.astype(np.float64), subject.astype(np.float64))}
    )
    return {
        **compared,
        "mean_absolute_error": float(np.abs(truth - subject).mean()),
        "all_right": float(np.logical_and.reduce(list(right.values())).mean()),
        **{head: float(values.mean()) for head, values in right.items()},
        "frechet_distance": relative_frechet_distance(judge.features(truth), judge.features(subject)),
    }


def _heads(sides: Domains) -> dict[str, Labels]:
    """What the judge learns to read: the domain, and every factor that both sides know."""
    known = [name for name in sides[0].factors if name in sides[1].factors]
    return {
        "domain": np.repeat(np.arange(2), [len(side.images) for side in sides]),
        **{name: np.concatenate([side.factors[name] for side in sides]) for name in known},
    }
