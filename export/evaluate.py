"""`atelier evaluate`: measures published models through a gateway, as any client would meet them.

Samples come out of the exported graphs and the samplers of `serving`; torch is used for nothing but the
judge. The figures and the card are kept with the model and shown by the API.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from export.asking import Sampling, as_served, generate, translate
from export.cards import FIGURES, card
from export.generation import Evaluation, ImageSet, evaluate_generation
from export.grids import generation_grid, translation_grid
from export.inception import InceptionError, inception_frechet_distance, require_inception
from export.publish import PublishError, update_quality
from export.translation import EXPLAINED, evaluate_translation
from serving.client import AtelierError, Client
from serving.client.gateway import GatewayError, gateway
from training.data import DataError, ImageData, Splits
from training.data.open import open_data
from training.data.pairs import PairData

MOST_TRAINING_IMAGES = 20_000
"""Training images that a judge is trained on, and that nearest neighbours are sought among."""
MOST_HELD_OUT_IMAGES = 2_000
"""Held-out images that are compared with."""


class EvaluationError(ValueError):
    """A model that cannot be measured: says why, and what to give."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        if options.inception_weights:
            require_inception(options.inception_weights)
        with ExitStack() as stack:
            address = options.address
            if address is None:
                with console.status("Starting a gateway ..."):
                    address = stack.enter_context(gateway(options.repository)).grpc_address
            found = {model: _evaluate(model, address, options, console) for model in options.models}
    except (AtelierError, DataError, EvaluationError, GatewayError, InceptionError, PublishError) as error:
        print(f"atelier evaluate: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(
            json.dumps({name: dict(each.quality) for name, each in found.items()}, indent=2)
        )
    if len(found) > 1:
        _print_summary(found)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="atelier evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="public models to measure")
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="where they are published"
    )
    parser.add_argument(
        "--address", help="host:port of a running gateway over that repository; default: one is started"
    )
    parser.add_argument("--samples", type=int, default=2000, help="images to draw (default 2,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the evaluation (default 0)")
    parser.add_argument("--steps", type=int, help="sampling steps; default: the model's own")
    parser.add_argument("--sampler", default="", help="sampler; default: the model's own")
    parser.add_argument("--guidance-scale", type=float, help="guidance scale; default: the model's own")
    parser.add_argument("--data", help="data set to compare with; default: what the model was trained on")
    parser.add_argument(
        "--inception-weights", type=Path, help="also report FID on Inception features with these weights"
    )
    parser.add_argument("--no-card", action="store_true", help="do not keep figures and card with the model")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is drawn to measure a model, and what it is compared with."""

    samples: int = 2000
    """Images to draw, or translations to make at most."""
    seed: int = 0
    """Seed of the evaluation."""
    sampling: Sampling = field(default_factory=Sampling)
    """How to sample, where it is not as the model says."""
    data: str | None = None
    """Data set to compare with; None for what the model was trained on."""
    inception_weights: Path | None = None
    """Weights for FID on Inception features."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found of a model."""

    evaluation: Evaluation
    """The figures."""
    grid: bytes
    """Some of what it drew, as PNG."""
    facts: Mapping[str, str]
    """What the card says above the figures."""
    explained: Mapping[str, str]
    """What the figures mean."""
    version: int
    """The version that was asked."""
    data: str
    """Name of the data set."""

    def card(self, model: str) -> str:
        """The card of the model."""
        return card(
            model=model,
            facts=self.facts,
            rows=self.evaluation.rows,
            notes=self.evaluation.notes,
            explained=self.explained,
        )


def measure(client: Client, model: str, trial: Trial, console: Console) -> Measured:
    """Measure a model through a gateway.

    Raises `EvaluationError`, `DataError` or `AtelierError` where it cannot be measured.
    """
    about = client.model(model)
    splits = _data(about, trial.data)
    evaluation, grid = (_translation if about.directions else _generation)(
        client, about, splits, trial, console
    )
    return Measured(
        evaluation=evaluation,
        grid=grid,
        facts=_facts(about),
        explained=EXPLAINED if about.directions else FIGURES,
        version=about.default_version,
        data=splits.train.spec.name,
    )


def _evaluate(model: str, address: str, options: argparse.Namespace, console: Console) -> Evaluation:
    trial = Trial(
        samples=options.samples,
        seed=options.seed,
        sampling=Sampling(
            steps=options.steps, sampler=options.sampler, guidance_scale=options.guidance_scale
        ),
        data=options.data,
        inception_weights=options.inception_weights,
    )
    with Client(address) as client:
        measured = measure(client, model, trial, console)
    _print_rows(f"{model} on {measured.data}", measured.evaluation)
    if not options.no_card:
        update_quality(
            options.repository,
            model,
            measured.version,
            measured.evaluation.quality,
            measured.card(model),
            measured.grid,
        )
    return measured.evaluation


def _data(about: Any, wanted: str | None) -> Splits:
    """The data set that was asked for, or the one that the model says it was trained on."""
    if wanted:
        return open_data(wanted)
    if "data" not in about.metadata:
        raise EvaluationError(f"{about.name} does not say what it was trained on: give it with --data")
    return open_data(about.metadata["data"], **json.loads(about.metadata.get("data_options", "{}")))


def _generation(
    client: Client, about: Any, splits: Splits, trial: Trial, console: Console
) -> tuple[Evaluation, bytes]:
    rng = np.random.default_rng(trial.seed)
    spec = splits.train.spec
    train = _images(splits.train, MOST_TRAINING_IMAGES, rng)
    held_out = _images(splits.held_out, MOST_HELD_OUT_IMAGES, rng)
    classes = len(about.class_labels)
    labels = np.arange(trial.samples) % classes if classes else None
    drawn = generate(
        client,
        about.name,
        labels,
        count=trial.samples,
        spec=spec,
        sampling=trial.sampling,
        seed=trial.seed,
        console=console,
    )
    with console.status("Training a classifier that judges, and measuring ..."):
        evaluation = evaluate_generation(
            spec, train, held_out, ImageSet(images=drawn.images, labels=labels), seed=trial.seed
        ).with_note(drawn.described)
    if trial.inception_weights:
        distance = inception_frechet_distance(held_out.images, drawn.images, trial.inception_weights)
        evaluation = evaluation.with_figure("inception_frechet_distance", distance)
    return evaluation, _png(generation_grid(drawn.images, classes))


def _translation(
    client: Client, about: Any, splits: Splits, trial: Trial, console: Console
) -> tuple[Evaluation, bytes]:
    train, held_out = splits.train, splits.held_out
    spec = train.spec
    if not isinstance(train, PairData) or not isinstance(held_out, PairData) or not held_out.paired:
        raise EvaluationError(f"{spec.name} has no held-out pairs to compare translations with: give --data")
    rng = np.random.default_rng(trial.seed)
    first, second = (
        _images(side, min(trial.samples, MOST_HELD_OUT_IMAGES), None)
        for side in (held_out.first, held_out.second)
    )
    sides = tuple(_images(side, MOST_TRAINING_IMAGES, rng) for side in (train.first, train.second))
    translated = {
        direction: translate(
            client,
            about.name,
            (first if direction == "a_to_b" else second).images,
            direction,
            spec=spec,
            console=console,
        )
        for direction in about.directions
    }
    with console.status("Training a classifier that judges, and measuring ..."):
        evaluation = evaluate_translation(
            spec, (sides[0], sides[1]), (first, second), translated, seed=trial.seed
        )
    return evaluation, _png(translation_grid(first.images, second.images, translated))


def _images(data: ImageData, most: int, rng: np.random.Generator | None) -> ImageSet:
    """The images of a split in their order, or `most` of them picked by `rng`."""
    indices = np.arange(min(len(data), most))
    if rng is not None and len(data) > most:
        indices = np.sort(rng.choice(len(data), most, replace=False))
    batch = data.batch(indices, np.random.default_rng(0))
    labels = None if batch.labels is None else batch.labels.numpy()
    # Whatever a data set knows of its images as whole numbers is a factor that can be read off them.
    attributes: Mapping[str, Any] = getattr(data, "attributes", {})
    factors = {name: values[indices] for name, values in attributes.items() if values.dtype == np.int64}
    if not factors and labels is not None:
        factors = {"class": labels}
    return ImageSet(images=as_served(batch.images.numpy(), data.spec), labels=labels, factors=factors)


def _facts(about: Any) -> dict[str, str]:
    """What the card says above its figures; empty values are left out."""
    known = about.metadata
    return {
        "Family": about.family,
        "Image": f"{about.width}×{about.height}, {'RGB' if about.channels == 3 else 'grey'}",
        "Classes": str(len(about.class_labels) or ""),
        "Directions": ", ".join(about.directions),
        "Trained on": f"{known.get('data', '')}, {int(known.get('data_images', 0)):,} images",
        "Data": known.get("data_source", ""),
        "Updates": f"{int(known.get('steps', 0)):,} of batch {known.get('batch_size', '')}",
        "Training seed": known.get("seed", ""),
        "Processor seconds": known.get("cpu_seconds", ""),
        "Method": known.get("paper", ""),
        "Precision": known.get("precision", ""),
        "Version": str(about.default_version),
    }


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _print_rows(title: str, evaluation: Evaluation) -> None:
    """The rows of the card, turned on their side to fit a terminal."""
    _print_columns(title, {row.name.strip("*"): row.figures for row in evaluation.rows})


def _print_summary(found: Mapping[str, Evaluation]) -> None:
    """Every model in a column, and the median of each figure that all of them have."""
    qualities = {model: evaluation.quality for model, evaluation in found.items()}
    shared = [name for name in next(iter(qualities.values())) if all(name in q for q in qualities.values())]
    medians = {name: statistics.median(q[name] for q in qualities.values()) for name in shared}
    _print_columns("Summary", {**qualities, "median": medians})


def _print_columns(title: str, columns: Mapping[str, Mapping[str, float]]) -> None:
    table = Table(title=title)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for figure in dict.fromkeys(name for figures in columns.values() for name in figures):
        cells = (f"{figures[figure]:.4f}" if figure in figures else "" for figures in columns.values())
        table.add_row(figure.replace("_", " "), *cells)
    Console().print(table)
