"""How much worse a variant draws than its float32 original: both asked by one client, with the same seeds."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from export.cards import Row
from export.evaluate import EvaluationError, Measured, Trial, measure
from export.onnx import ExportError
from export.publish import Candidate, publish
from export.variant import SPEED_ROWS
from serving.client import AtelierError, Client
from serving.client.gateway import GatewayError, gateway
from training.data import DataError

LARGEST_LOSS = 0.02
"""Largest loss of quality that a variant may show, unless told otherwise."""

_LESS_IS_BETTER = ("frechet_distance",)
_MORE_IS_BETTER = ("accuracy", "coverage", "all_right")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A variant beside its original."""

    measured: Measured
    """The variant, with the original among its rows and what was found in its notes."""
    change: Mapping[str, float]
    """Its figures less those of the original."""

    @property
    def loss(self) -> tuple[float, str]:
        """The largest loss of all figures that have a good side, and its figure."""
        return max((_loss(name, change), name) for name, change in self.change.items())


def compare(
    original: Sequence[Candidate], variant: Sequence[Candidate], trial: Trial, console: Console
) -> Comparison:
    """Measure both models through a gateway over a repository of their own.

    Raises `ExportError` where they cannot be measured.
    """
    names = [candidates[0].manifest.model for candidates in (original, variant)]
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "model_repository"
        for candidates in (original, variant):
            publish(repository, candidates)
        try:
            with gateway(repository) as running, Client(running.grpc_address) as client:
                before, after = (measure(client, name, trial, console) for name in names)
        except (AtelierError, DataError, EvaluationError, GatewayError) as error:
            raise ExportError(
                f"the quality of {names[1]} cannot be measured: {error}; see to that, or publish it "
                "unmeasured with --quality-samples 0"
            ) from error
    old, new = before.evaluation.quality, after.evaluation.quality
    change = {name: round(new[name] - old[name], 6) for name in new if name in old}
    record = next(c.record for c in variant if c.record.precision != "float32")
    first, *rest = after.evaluation.rows
    evaluation = dataclasses.replace(
        after.evaluation,
        rows=(first, Row(name=f"{names[0]}, float32, the same seeds", figures=old), *rest),
        notes=(
            *after.evaluation.notes,
            f"In {record.precision}: {record.relative_error:.3f} away from torch (root mean square, as a "
            f"share of the output's), {record.speedup:.2f} times the rows per second of float32, measured at "
            f"{SPEED_ROWS} rows on one core of the CPU that exported.",
        ),
    )
    return Comparison(measured=dataclasses.replace(after, evaluation=evaluation), change=change)


def require(comparison: Comparison, model: str, largest: float) -> None:
    """Raises `ExportError` with the figures where more quality is lost than is allowed."""
    loss, name = comparison.loss
    if loss > largest:
        new = comparison.measured.evaluation.quality[name]
        raise ExportError(
            f"{model} loses quality: its {name.replace('_', ' ')} is {new:.4f}, in float32 "
            f"{new - comparison.change[name]:.4f}, and {loss:.4f} is above the bound {largest:g}: keep it in "
            "float32, or allow it with --max-quality-loss"
        )


def _loss(name: str, change: float) -> float:
    if name.endswith(_LESS_IS_BETTER):
        return change
    return -change if name.endswith(_MORE_IS_BETTER) else float("-inf")
