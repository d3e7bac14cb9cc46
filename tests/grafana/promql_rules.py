"""Rules about a dashboard's queries, on promql-parser's tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import promql_parser as promql

from pbmon import catalog
from tests.grafana.page_rules import data_panels

# Every series has these: the resource's promoted attributes and Prometheus' own.
RESOURCE_LABELS = {
    "instance",
    "job",
    "service_name",
    "service_namespace",
    "service_version",
    "deployment_environment_name",
}
SCOPE = {
    "service_name": "$service",
    "deployment_environment_name": "$environment",
}
# Figures that differ in one of these are of different things: to add them is to be wrong.
NEVER_MERGED = {
    "pbmon_currency", "pbmon_window", "pbmon_budget_limit", "pbmon_revenue_part",
    "pbmon_feedback_survey", "feature_flag_key", "pbmon_mark_kind", "pbmon_mark_name",
}  # fmt: skip

# Grafana's variables become durations that nobody would write by hand.
DURATIONS = {"$__rate_interval": "12347s", "$__range": "86413s", "$__interval": "61s"}
RATE_INTERVAL = timedelta(seconds=12347)

# The two exact forms (docs/dashboards.md says why the first is), written out here again so that a
# slip in the module that makes them shows.
PROCESS_FORM = (
    "clamp_min(max_over_time({m}[{w}]{o})"
    " - (last_over_time({m}[1d] offset {b}) or max_over_time({m}[{w}]{o}) * 0), 0)"
)
STORE_FORM = (
    "max by ({l}) (max_over_time({m}[{w}]{o}))"
    " - (max by ({l}) (last_over_time({m}[7d] offset {b}))"
    " or min by ({l}) (min_over_time({m}[{w}]{o})))"
)


def exact_form(metric: catalog.Metric, selector: str, window: str, start: str, end: str) -> str:
    """What a counter gained in a window; start, end: how long ago it began and ended, `end` with
    its keyword or empty."""
    return (STORE_FORM if metric.of_store else PROCESS_FORM).format(
        m=selector,
        w=window,
        o=end,
        b=start,
        l=", ".join(("instance", *metric.prometheus_labels())),
    )


OPERATORS = (
    (promql.MatchOp.Equal, "="),
    (promql.MatchOp.NotEqual, "!="),
    (promql.MatchOp.Re, "=~"),
    (promql.MatchOp.NotRe, "!~"),
)


@dataclass(frozen=True)
class Series:
    """A series name of the catalogue: its entry, and whether it only ever grows."""

    metric: catalog.Metric
    is_counter: bool
    extra_labels: tuple[str, ...] = ()

    @property
    def labels(self) -> set[str]:
        return {*self.metric.prometheus_labels(), *self.extra_labels, *RESOURCE_LABELS}


def known_series() -> dict[str, Series]:
    found = {}
    for metric in catalog.METRICS:
        name = metric.prometheus_name
        if metric.kind == "histogram":
            found[f"{name}_bucket"] = Series(metric, is_counter=True, extra_labels=("le",))
            found[f"{name}_sum"] = Series(metric, is_counter=True)
            found[f"{name}_count"] = Series(metric, is_counter=True)
        else:
            found[name] = Series(metric, is_counter=metric.kind == "counter")
    return found


SERIES = known_series()


def parse(expr: str):
    for variable, duration in DURATIONS.items():
        expr = re.sub(re.escape(variable) + r"\b", duration, expr)
    return promql.parse(expr)


def children(node) -> list:
    if isinstance(node, promql.Call):
        return [arg for arg in node.args if isinstance(arg, promql.Expr)]
    if isinstance(node, promql.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql.MatrixSelector):
        return [node.vector_selector]
    if isinstance(node, promql.AggregateExpr):
        return [node.expr]
    if isinstance(node, (promql.ParenExpr, promql.UnaryExpr, promql.SubqueryExpr)):
        return [node.expr]
    return []


def walk(node) -> Iterator:
    yield node
    for child in children(node):
        yield from walk(child)


def selectors(node) -> list:
    return [found for found in walk(node) if isinstance(found, promql.VectorSelector)]


def matchers(selector) -> dict[str, str]:
    """Label -> operator and value, as in `=~$service`."""
    return {
        m.name: next(sign for op, sign in OPERATORS if op == m.op) + m.value
        for m in selector.matchers.matchers
    }


def trees(dashboard: dict) -> Iterator[tuple[str, object]]:
    """(panel's title, tree) of every query that parses; an annotation's name is its title."""
    for title, expr in expressions(dashboard):
        try:
            yield title, parse(expr)
        except ValueError:
            continue  # `parses` reports it


def expressions(dashboard: dict) -> Iterator[tuple[str, str]]:
    for panel in data_panels(dashboard):
        for target in panel.get("targets", ()):
            yield panel["title"], target.get("expr", "")
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["target"]["expr"]


def parses(dashboard: dict) -> Iterator[str]:
    for title, expr in expressions(dashboard):
        try:
            parse(expr)
        except ValueError as error:
            yield f"panel {title!r}: {error}"


def is_exact(node) -> bool:
    """Whether the node is the exact form for the source of its metric."""
    ranges = [found for found in walk(node) if isinstance(found, promql.MatrixSelector)]
    if not ranges:
        return False
    selector, window = ranges[0].vector_selector, ranges[0].range
    if selector.name not in SERIES:
        return False
    series, _, end = str(selector).partition(" offset ")
    text = exact_form(
        SERIES[selector.name].metric,
        series,
        promql.display_duration(window),
        promql.display_duration(window + (selector.offset or timedelta())),
        end and f" offset {end}",
    )
    return promql.parse(text).prettify() == node.prettify()


def bare(node, allowed: set[str]) -> Iterator:
    """Selectors under neither the exact form nor one of the allowed functions."""
    if isinstance(node, (promql.Call, promql.BinaryExpr)) and is_exact(node):
        return
    if isinstance(node, promql.Call) and node.func.name in allowed:
        return
    if isinstance(node, promql.VectorSelector):
        yield node
    for child in children(node):
        yield from bare(child, allowed)


def counters_increase(dashboard: dict) -> Iterator[str]:
    """A counter alone says how long its process lived."""
    for title, tree in trees(dashboard):
        for selector in bare(tree, {"rate", "increase"}):
            if selector.name in SERIES and SERIES[selector.name].is_counter:
                yield f"panel {title!r}: {selector.name} is a counter, under no rate or exact form"


def gauges_bounded(dashboard: dict) -> Iterator[str]:
    """A bare gauge goes on for five minutes after its process: a restart shows it twice."""
    over_time = {f"{how}_over_time" for how in ("last", "max", "min", "avg", "quantile")}
    for title, tree in trees(dashboard):
        for selector in bare(tree, over_time):
            if selector.name in SERIES and not SERIES[selector.name].is_counter:
                yield f"panel {title!r}: {selector.name} is a gauge without a look-back"


def rates_span_samples(dashboard: dict) -> Iterator[str]:
    """A fixed window in `rate` is empty or coarse at some zoom."""
    for title, tree in trees(dashboard):
        for node in walk(tree):
            if isinstance(node, promql.Call) and node.func.name == "rate":
                spans = [n.range for n in walk(node) if isinstance(n, promql.MatrixSelector)]
                if spans != [RATE_INTERVAL]:
                    yield f"panel {title!r}: rate without $__rate_interval"


def scoped(dashboard: dict) -> Iterator[str]:
    """Every selector keeps to the chosen services and environments."""
    for title, tree in trees(dashboard):
        for selector in selectors(tree):
            has = matchers(selector)
            for label, variable in SCOPE.items():
                if has.get(label) != f"=~{variable}":
                    yield f'panel {title!r}: {selector.name} without {label}=~"{variable}"'


def catalogued(dashboard: dict) -> Iterator[str]:
    """Every metric and label exists, and belongs together."""
    for title, tree in trees(dashboard):
        for selector in selectors(tree):
            if selector.name not in SERIES:
                yield f"panel {title!r}: unknown metric {selector.name}"
                continue
            for label in matchers(selector).keys() - SERIES[selector.name].labels:
                yield f"panel {title!r}: {selector.name} has no label {label}"
        for node in walk(tree):
            known = set().union(*(SERIES[s.name].labels for s in selectors(node)
                                  if s.name in SERIES))  # fmt: skip
            for label in sorted(grouping(node) - known):
                yield f"panel {title!r}: grouped by {label}, which none of its metrics has"
    yield from variables_catalogued(dashboard)
    yield from legends_catalogued(dashboard)


def grouping(node) -> set[str]:
    """The labels an aggregation or a match of two sides names."""
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql.AggregateExpr) and modifier is not None:
        return set(modifier.labels)
    if isinstance(node, promql.BinaryExpr) and modifier is not None:
        matching = modifier.matching.labels if modifier.matching else []
        return {*matching, *(modifier.group_labels or ())}
    return set()


def variables_catalogued(dashboard: dict) -> Iterator[str]:
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((\{.*\}), (\w+)\)", variable["query"]["query"])
        if found is None:
            yield f"variable {variable['name']}: query is not label_values({{…}}, label)"
            continue
        names = matchers(promql.parse(found[1])).get("__name__", "").removeprefix("=~")
        for name in names.split("|"):
            if name not in SERIES:
                yield f"variable {variable['name']}: unknown metric {name!r}"
        of_metrics = [SERIES[name].labels for name in names.split("|") if name in SERIES]
        if found[2] not in RESOURCE_LABELS.union(*of_metrics):
            yield f"variable {variable['name']}: unknown label {found[2]}"


def legends_catalogued(dashboard: dict) -> Iterator[str]:
    for panel in data_panels(dashboard):
        for target in panel.get("targets", ()):
            for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", target.get("legendFormat", "")):
                if not re.search(rf"\b{label}\b", target.get("expr", "")):
                    yield f"panel {panel['title']!r}: legend {label} is not in its query"
    for annotation in dashboard["annotations"]["list"]:
        for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", annotation.get("textFormat", "")):
            if not re.search(rf"\b{label}\b", annotation["target"]["expr"]):
                yield f"annotation {annotation['name']}: {label} is not in its query"


def never_merged(dashboard: dict) -> Iterator[str]:
    """Euros and dollars make no sum, nor users of a day and of a month."""
    for title, tree in trees(dashboard):
        for node in walk(tree):
            if not isinstance(node, promql.AggregateExpr):
                continue
            kept = kept_labels(node)
            for selector in selectors(node.expr):
                has = SERIES[selector.name].labels if selector.name in SERIES else set()
                fixed = {
                    name
                    for name, value in matchers(selector).items()
                    if value.startswith("=") and not value.startswith("=~")
                }
                for label in sorted((has & NEVER_MERGED) - kept - fixed):
                    yield f"panel {title!r}: {selector.name} aggregated over {label}"


def kept_labels(aggregation) -> set[str]:
    """Of NEVER_MERGED, what the aggregation keeps apart."""
    modifier = aggregation.modifier
    if modifier is None:
        return set()
    if modifier.type == promql.AggModifierType.By:
        return set(modifier.labels)
    return NEVER_MERGED - set(modifier.labels)


RULES = (
    parses,
    counters_increase,
    gauges_bounded,
    rates_span_samples,
    scoped,
    catalogued,
    never_merged,
)
