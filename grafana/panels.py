"""What the dashboards are made of: panels, variables and the page around them.

A dashboard's file says what it shows with these and knows nothing of the SDK's builders.
"""

# mypy reads this as Python 3.10, for which the SDK is not written: its Self and StrEnum are Any.
# mypy: disable-error-code="no-any-return, arg-type"

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from grafana import queries, sdk
from grafana.sdk import common_model, model
from pbmon.catalog import Attribute, Metric

Panel = sdk.stat.Panel | sdk.timeseries.Panel | sdk.barchart.Panel | sdk.table.Panel

DATASOURCE = common_model.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "pbmon"

EXPORT_INTERVAL = "1m"
"""OpenTelemetry's default. As the least step of a graph it makes `$__rate_interval` four of
them, also where the data source was left at Grafana's 15 s and would find one sample or none."""

EXACT_NUMBER = "locale"
"""Grafana's unit for all digits with separators: `short` would show 12,345.67 as 12.3 K."""

SECONDS = "s"
"""Grafana's unit for 0.3 as 300 ms."""

SHARE = "percentunit"
"""Grafana's unit for 0.25 as 25 %."""


@dataclass(frozen=True)
class Query:
    """One query of a panel. legend: a text (`queries.legend`), or the attribute whose values name
    the series. has_traces: dots on the graph open a trace of the histogram that it reads."""

    expr: str
    legend: str | Attribute = ""
    has_traces: bool = False


@dataclass(frozen=True)
class Column:
    """A figure of a table's rows: its heading, its query, its unit. red_from: as of stat()."""

    name: str
    expr: str
    unit: str
    decimals: int | None = None
    red_from: float | None = None
    red_below: float | None = None


@dataclass(frozen=True)
class Choice:
    """A variable beside service and environment, and its values in the metrics of the page."""

    name: str
    label: str
    description: str
    attribute: Attribute

    @property
    def matcher(self) -> str:
        return f'{queries.label(self.attribute)}=~"${self.name}"'


@dataclass(frozen=True)
class Frame:
    """What every panel has: the question it answers, its unit and its place.

    width: in columns of 24. height: in rows of 30 pixels. no_value: what stands there without data.
    """

    title: str
    description: str
    unit: str
    width: int
    height: int
    no_value: str = "No data"
    decimals: int | None = None


def stat(frame: Frame, *shown: Query, red_from: float | None = None) -> Panel:
    """Big numbers, one line per series, as of the end of the dashboard's time range; red from a
    value on."""
    panel = sdk.stat.Panel()
    for query in shown:
        panel.with_target(_target(query).instant())
    _frame(panel, frame)
    return (
        panel.graph_mode(common_model.BigValueGraphMode.NONE)
        .color_mode(
            common_model.BigValueColorMode.NONE
            if red_from is None
            else common_model.BigValueColorMode.VALUE
        )
        .text_mode(common_model.BigValueTextMode.VALUE_AND_NAME)
        .orientation(common_model.VizOrientation.HORIZONTAL)
        .reduce_options(sdk.common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_colours(red_from))
    )


def timeseries(
    frame: Frame,
    *shown: Query,
    colours: Mapping[str, str] = MappingProxyType({}),
    dashed: str = "",
    from_zero: bool = True,
) -> Panel:
    """Lines over time. colours: of the series with these names. dashed: /pattern/ of those that are
    drawn so. from_zero: whether the axis begins there."""
    panel = sdk.timeseries.Panel()
    for query in shown:
        panel.with_target(_target(query).range().interval(EXPORT_INTERVAL))
    if dashed:
        dashes = {"fill": "dash", "dash": [8, 8]}
        panel.override_by_regexp(dashed, [model.DynamicConfigValue("custom.lineStyle", dashes)])
    _frame(panel, frame)
    _paint(panel, colours)
    if from_zero:
        panel.min(0)
    return (
        panel.line_width(1)
        .fill_opacity(10)
        .legend(_legend())
        .tooltip(
            sdk.common.VizTooltipOptions()
            .mode(common_model.TooltipDisplayMode.MULTI)
            .sort(common_model.SortOrder.DESCENDING)
        )
    )


def bars(
    frame: Frame,
    expr: str,
    *,
    row: Attribute,
    column: Attribute,
    stacked: bool = True,
    by_name: bool = False,
    colours: Mapping[str, str] = MappingProxyType({}),
) -> Panel:
    """A bar for each value of `row` made of those of `column`, or one beside the other.

    Horizontal, the longest first; or by_name: upright in the order of their names. colours: of
    values of `column`.
    """
    panel = sdk.barchart.Panel()
    panel.with_target(_target(Query(expr)).instant().format(sdk.PromQueryFormat.TABLE))
    for transformation in _matrix(row, column, by_name=by_name):
        panel.with_transformation(transformation)
    _frame(panel, frame)
    _paint(panel, colours)
    upright, lying = common_model.VizOrientation.VERTICAL, common_model.VizOrientation.HORIZONTAL
    together, apart = common_model.StackingMode.NORMAL, common_model.StackingMode.NONE
    return (
        panel.min(0)
        .orientation(upright if by_name else lying)
        .stacking(together if stacked else apart)
        .show_value(common_model.VisibilityMode.AUTO)
        .legend(_legend())
        .tooltip(sdk.common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI))
    )


def table(frame: Frame, rows: Mapping[str, Attribute], *columns: Column, sorted_by: str) -> Panel:
    """A row for each combination of the attributes, which the queries group by, named by the keys
    of rows; columns: its figures. sorted_by: the column whose greatest is first."""
    panel = sdk.table.Panel()
    for column in columns:
        panel.with_target(_target(Query(column.expr)).instant().format(sdk.PromQueryFormat.TABLE))
    names = {queries.label(attribute): name for name, attribute in rows.items()}
    # Grafana's name for the value of query A, when several are merged, and of an only one.
    values = {
        f"Value #{chr(ord('A') + n)}" if len(columns) > 1 else "Value": column.name
        for n, column in enumerate(columns)
    }
    order = {name: place for place, name in enumerate((*names, *values))}
    for name, how in (
        ("merge", {}),
        (
            "organize",
            {
                "excludeByName": {"Time": True},
                "indexByName": order,
                "renameByName": {**names, **values},
            },
        ),
    ):
        panel.with_transformation(model.DataTransformerConfig(id_val=name, options=how))
    _frame(panel, frame)
    for column in columns:
        panel.override_by_name(column.name, list(_dressed(column)))
    order_by = sdk.common.TableSortByFieldState().display_name(sorted_by).desc(True)
    return panel.sort_by([order_by]).filterable(True)


def _dressed(column: Column) -> Iterator[model.DynamicConfigValue]:
    yield model.DynamicConfigValue("unit", column.unit)
    if column.decimals is not None:
        yield model.DynamicConfigValue("decimals", column.decimals)
    if column.red_from is not None or column.red_below is not None:
        first, then = ("text", "red") if column.red_from is not None else ("red", "text")
        at = column.red_from if column.red_from is not None else column.red_below
        steps = [{"value": None, "color": first}, {"value": at, "color": then}]
        yield model.DynamicConfigValue("thresholds", {"mode": "absolute", "steps": steps})
        yield model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"})


def board(
    uid: str,
    title: str,
    description: str,
    panels: Sequence[Panel],
    metrics: Sequence[Metric],
    since: str = "now-24h",
    choices: Sequence[Choice] = (),
) -> model.Dashboard:
    """The page around the panels. metrics: the services that send them fill the variables. since:
    the beginning of its time range. choices: variables of its own."""
    page = (
        sdk.dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time(since, "now")
        .refresh(EXPORT_INTERVAL)
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(_sibling_dashboards())
    )
    for variable in _variables(metrics, choices):
        page.with_variable(variable)
    for panel in panels:
        page.with_panel(panel)
    return page.build()


def _target(query: Query) -> sdk.prometheus.Dataquery:
    target = sdk.prometheus.Dataquery().expr(query.expr).datasource(DATASOURCE)
    if query.has_traces:
        target.exemplar(True)
    legend = query.legend
    if isinstance(legend, Attribute):
        legend = queries.legend(legend)
    return target.legend_format(legend) if legend else target


def _frame(panel: Panel, frame: Frame) -> None:
    panel.title(frame.title).description(frame.description).unit(frame.unit)
    panel.span(frame.width).height(frame.height).no_value(frame.no_value)
    panel.datasource(DATASOURCE)
    if frame.decimals is not None:
        panel.decimals(frame.decimals)


def _paint(panel: Panel, colours: Mapping[str, str]) -> None:
    for name, colour in colours.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_name(name, [model.DynamicConfigValue("color", fixed)])


def _matrix(
    row: Attribute, column: Attribute, *, by_name: bool
) -> list[model.DataTransformerConfig]:
    """Rows (row, column, Value) to a table with a field for each column, sorted by the sum."""
    row_name, column_name = queries.label(row), queries.label(column)
    corner = f"{row_name}\\{column_name}"  # Grafana's name for the field with the rows' names
    order = {name: place for place, name in enumerate((corner, *column.values))}
    total = "Total"
    # A row without a value for a column gets null, not an empty text among numbers.
    matrix = {"rowField": row_name, "columnField": column_name, "valueField": "Value"}
    steps: tuple[tuple[str, dict[str, object]], ...] = (
        ("groupingToMatrix", {**matrix, "emptyValue": "null"}),
        ("calculateField", {"mode": "reduceRow", "reduce": {"reducer": "sum"}, "alias": total}),
        ("sortBy", {"sort": [{"field": corner if by_name else total, "desc": not by_name}]}),
        ("organize", {"excludeByName": {total: True}, "indexByName": order}),
    )
    return [model.DataTransformerConfig(id_val=name, options=how) for name, how in steps]


def _variables(
    metrics: Sequence[Metric], choices: Sequence[Choice]
) -> list[sdk.dashboard.QueryVariable]:
    names = "|".join(sorted(metric.prometheus_name for metric in metrics))
    sent = f'__name__=~"{names}"'
    return [
        sdk.dashboard.DatasourceVariable("datasource")
        .type("prometheus")
        .label("Data source")
        .description("The Prometheus that holds pbmon's metrics."),
        _label_variable("service", queries.SERVICE_LABEL, f"{{{sent}}}")
        .label("Service")
        .description("Services that send what this dashboard shows."),
        _label_variable("environment", queries.ENVIRONMENT_LABEL, f"{{{sent}, {queries.SCOPE[0]}}}")
        .label("Environment")
        .description("deployment.environment.name; All includes services that set none."),
        *(
            _label_variable(
                choice.name,
                queries.label(choice.attribute),
                f"{{{sent}, {', '.join(queries.SCOPE)}}}",
            )
            .label(choice.label)
            .description(choice.description)
            for choice in choices
        ),
    ]


def _label_variable(name: str, label: str, series: str) -> sdk.dashboard.QueryVariable:
    query = f"label_values({series}, {label})"
    editor = "PrometheusVariableQueryEditor-VariableQuery"
    return (
        sdk.dashboard.QueryVariable(name)
        .datasource(DATASOURCE)
        .query({"qryType": 1, "query": query, "refId": editor})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _sibling_dashboards() -> sdk.dashboard.DashboardLink:
    return (
        sdk.dashboard.DashboardLink("pbmon dashboards")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def _legend() -> sdk.common.VizLegendOptions:
    return (
        sdk.common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common_model.LegendDisplayMode.LIST)
        .placement(common_model.LegendPlacement.BOTTOM)
    )


def _colours(red_from: float | None) -> sdk.dashboard.ThresholdsConfig:
    """Without thresholds of its own a panel gets Grafana's, which turn red from 80."""
    steps = [model.Threshold(value=None, color="text")]
    if red_from is not None:
        steps.append(model.Threshold(value=red_from, color="red"))
    return sdk.dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
