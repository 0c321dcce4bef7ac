"""The dashboards, one a file."""

from __future__ import annotations

from monitoring.dashboards.engine import ENGINE
from monitoring.dashboards.gpu import GPU
from monitoring.dashboards.kubernetes import KUBERNETES
from monitoring.dashboards.model import MODEL
from monitoring.dashboards.overview import OVERVIEW

DASHBOARDS = (OVERVIEW, MODEL, ENGINE, GPU, KUBERNETES)
"""Every dashboard, from the whole to its parts."""
