"""Dashboards as Grafana reads them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from monitoring.panels import Dashboard, Panel, Query

_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT, _WIDTH = 8, 24
_FIGURE_HEIGHT = 4


def to_json(described: Dashboard) -> str:
    """The dashboard's file."""
    built = (
        dashboard.Dashboard(described.title)
        .uid(described.uid)
        .description(described.description)
        .tags(["atelier"])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .link(
            dashboard.DashboardLink("Atelier")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["atelier"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in described.variables:
        built = built.with_variable(
            dashboard.QueryVariable(variable.name)
            .label(variable.name)
            .datasource(_SOURCE)
            .query(f"label_values({variable.metric}, {variable.name})")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    ids = count(1)
    for title, panels in described.rows.items():
        built = built.with_row(dashboard.Row(title).id(next(ids)))
        for panel in panels:
            built = built.with_panel(_panel(panel).id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def _panel(described: Panel) -> Any:
    panel = _KINDS[described.kind](described)
    panel = panel.title(described.title).description(described.description).datasource(_SOURCE)
    panel = panel.span(described.width).height(_FIGURE_HEIGHT if described.kind == "figure" else _HEIGHT)
    for place, query in enumerate(described.queries):
        panel = panel.with_target(_target(query, chr(ord("A") + place), described.kind))
    return panel.unit(described.unit) if described.kind != "heatmap" else panel


def _target(query: Query, letter: str, kind: str) -> Any:
    target = (
        prometheus.Dataquery()
        .ref_id(letter)
        .expr(query.expr)
        .legend_format(query.legend or "__auto")
        .datasource(_SOURCE)
    )
    if kind in ("figure", "table"):
        target = target.instant()
    elif kind == "heatmap":
        target = target.range().format(prometheus_models.PromQueryFormat.HEATMAP).exemplar(True)
    else:
        target = target.range().exemplar("_bucket" in query.expr)
    return target.format(prometheus_models.PromQueryFormat.TABLE) if kind == "table" else target


def _lines(described: Panel) -> Any:
    panel = (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    return panel if described.most is None else panel.max(described.most)


def _stacked(described: Panel) -> Any:
    stacking = common.StackingConfig().mode(common_models.StackingMode.NORMAL)
    return _lines(described).stacking(stacking).fill_opacity(30)


def _figure(described: Panel) -> Any:
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = stat.Panel().graph_mode(common_models.BigValueGraphMode.NONE).reduce_options(last)
    steps = [models.Threshold(value=None, color="green")]
    if described.good is not None:
        for value, color in zip(described.good, ("orange", "red"), strict=True):
            steps.append(models.Threshold(value=value, color=color))
    thresholds = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
    return panel.thresholds(thresholds)


def _heatmap(described: Panel) -> Any:
    return heatmap.Panel().calculate(False)


def _table(described: Panel) -> Any:
    return table.Panel()


_KINDS: dict[str, Callable[[Panel], Any]] = {
    "lines": _lines,
    "stacked": _stacked,
    "figure": _figure,
    "heatmap": _heatmap,
    "table": _table,
}
