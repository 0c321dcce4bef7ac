"""Model cards: what a model is, how it was made and how well it does, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIGURES: dict[str, str] = {
    "accuracy": "share of images that an independently trained classifier reads as the class asked for",
    "frechet_distance": "Fréchet distance on the classifier's features, over the held-out features' variance",
    "kernel_distance": "kernel distance (KID) on the standardised features",
    "precision": "share of images inside the manifold of held-out ones",
    "recall": "share of held-out images inside the manifold of the model's",
    "density": "nearest-neighbour density; about 1 for the true distribution",
    "coverage": "share of held-out images with one of the model's close by",
    "memorisation": "distance to the nearest training image, over that of held-out images; 0 is a copy",
}
"""What the columns of the figures mean."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of figures."""

    name: str
    """What was measured."""
    figures: Mapping[str, float]
    """Figures by name."""


def card(
    *,
    model: str,
    facts: Mapping[str, str],
    rows: Sequence[Row],
    notes: Sequence[str],
    explained: Mapping[str, str] = FIGURES,
) -> str:
    """The card of a model: facts, a table of figures with what its columns mean, and notes."""
    lines = [f"# {model}", "", "![Samples](samples.png)", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts.items() if value]
    lines += ["", "## Figures", "", *table(rows)]
    shown = {name for row in rows for name in row.figures}
    lines += ["", *(f"- **{_title(name)}**: {text}." for name, text in explained.items() if name in shown)]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as a Markdown table, its columns in the order in which figures first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row.figures))
    return [
        "| | " + " | ".join(_title(name) for name in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
        *(
            f"| {row.name} | " + " | ".join(_figure(row.figures.get(name)) for name in columns) + " |"
            for row in rows
        ),
    ]


def _title(name: str) -> str:
    return name.replace("_", " ")


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"
