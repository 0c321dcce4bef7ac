"""Everything that is written, by its path in the repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monitoring import alerts, recording
from monitoring.dashboards import DASHBOARDS
from monitoring.grafana import to_json
from monitoring.metrics_page import to_markdown
from monitoring.rules import to_yaml

ROOT = Path(__file__).parent.parent
"""The source tree."""
CHART = Path("helm/atelier/files")
"""What the chart ships to Prometheus and Grafana."""


def files() -> Mapping[Path, str]:
    """Text by path."""
    return {
        CHART / "rules/recording.yaml": to_yaml(recording.GROUPS),
        CHART / "rules/alerts.yaml": to_yaml(alerts.GROUPS),
        **{CHART / f"dashboards/{described.uid}.json": to_json(described) for described in DASHBOARDS},
        Path("docs/metrics.md"): to_markdown(),
    }
