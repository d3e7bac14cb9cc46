"""What every rule must keep: the lint of the dashboards' queries, and what rules have besides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import promql_parser as promql
import yaml

from pbmon import catalog
from tests.grafana import promql_rules
from tests.grafana.promql_rules import Series, parse, selectors, walk

SERVICE = {"service_name", "deployment_environment_name"}
# Scraped, not pbmon's: Prometheus' own and the collector's, with their labels.
_SCRAPED = {"job", "instance"}
_KINDS = ("metric_points", "spans", "log_records")
FOREIGN = {
    "up": _SCRAPED,
    "otelcol_exporter_queue_size": {*_SCRAPED, "exporter", "data_type"},
    "otelcol_exporter_queue_capacity": {*_SCRAPED, "exporter", "data_type"},
    **{
        f"otelcol_{part}_{kind}_total": {*_SCRAPED, label}
        for part, label in (
            ("receiver_refused", "receiver"),
            ("exporter_send_failed", "exporter"),
            ("exporter_enqueue_failed", "exporter"),
        )
        for kind in _KINDS
    },
}
OVER_TIME = {f"{how}_over_time" for how in ("last", "max", "min", "sum", "count")}
# The two rules of a tile (docs/rules.md), written out here again so that a slip shows.
SEEN = "max by (instance, {by}) (max_over_time({source}[{reach}]))"
GAIN = (
    "sum by ({by}) (clamp_min({seen} - (last_over_time({seen}[1d] offset 1m)"
    " or (min by (instance, {by}) (min_over_time({source}[{every}]))"
    " unless on () last_over_time({name}[1d] offset {twice})) or {seen} * 0), 0))"
)
TILE = re.compile(r"pbmon:\w+:(?P<kind>seen|gain)(?P<every>(?P<number>\d+)(?P<unit>\w))")
TILE_SOURCE = re.compile(r"max_over_time\((?P<source>[^\[]+)\[(?P<reach>\w+)\]\)")


@dataclass(frozen=True)
class Known(Series):
    """A series that is in no catalogue."""

    own: set[str] = field(default_factory=set)

    @property
    def labels(self) -> set[str]:
        return self.own


def load(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(path.read_text(encoding="utf-8"))["groups"])


def lint(groups: list[dict[str, Any]]) -> list[str]:
    """What is wrong, one line for each finding, each starting with its rule."""
    recorded = {
        rule["record"]: _known(rule["record"], _labels(rule["expr"]))
        for group in groups
        for rule in group["rules"]
        if "record" in rule
    }
    foreign = {name: _known(name, labels) for name, labels in FOREIGN.items()}
    with mock.patch.dict(promql_rules.SERIES, {**recorded, **foreign}):
        return [f"{rule.__name__}: {found}" for rule in RULES for found in rule(groups)]


def _known(name: str, labels: set[str]) -> Known:
    is_counter = name.endswith("_total") or ":seen" in name
    return Known(catalog.Metric(name, "counter", "1", ""), is_counter, own=labels)


def _labels(expr: str) -> set[str]:
    """What the first aggregation keeps, or what the first recorded series had: here they agree."""
    found = re.search(r"\bby \(([^)]*)\)", expr)
    return set(re.findall(r"\w+", found[1])) if found else {*SERVICE, *_BUDGET}


_BUDGET = catalog.BUDGET_REQUESTS.prometheus_labels()


def expressions(groups: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for group in groups:
        for rule in group["rules"]:
            yield group, rule


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("record") or rule["alert"])


def _page(rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Rules as the panels of a dashboard, for its lint."""
    panels = [
        {"title": name_of(rule), "type": "stat", "targets": [{"expr": rule["expr"]}]}
        for rule in rules
    ]
    return {"panels": panels, "templating": {"list": []}, "annotations": {"list": []}}


def parses(groups: list[dict[str, Any]]) -> Iterator[str]:
    yield from promql_rules.parses(_page([rule for _, rule in expressions(groups)]))


def catalogued(groups: list[dict[str, Any]]) -> Iterator[str]:
    yield from promql_rules.catalogued(_page([rule for _, rule in expressions(groups)]))


def never_merged(groups: list[dict[str, Any]]) -> Iterator[str]:
    yield from promql_rules.never_merged(_page([rule for _, rule in expressions(groups)]))


def counters_exact(groups: list[dict[str, Any]]) -> Iterator[str]:
    """Counters of pbmon in the exact form or as tiles of it; the collector's may be increased."""
    for _, rule in expressions(groups):
        if _is_tile(rule, groups):
            continue
        page = _page([rule])
        for title, tree in promql_rules.trees(page):
            for selector in promql_rules.bare(tree, {"increase", "present_over_time"}):
                if (
                    selector.name in promql_rules.SERIES
                    and promql_rules.SERIES[selector.name].is_counter
                ):
                    yield f"{title}: {selector.name} is a counter, not in the exact form"
            for node in walk(tree):
                if isinstance(node, promql.Call) and node.func.name in ("rate", "increase"):
                    for selector in selectors(node):
                        if selector.name not in FOREIGN:
                            yield f"{title}: {node.func.name} of {selector.name}"


def _is_tile(rule: dict[str, Any], groups: list[dict[str, Any]]) -> bool:
    name = rule.get("record", "")
    found = TILE.fullmatch(name)
    if found is None:
        return False
    seen = name.replace(":gain", ":seen")
    exprs = {r.get("record"): r["expr"] for _, r in expressions(groups)}
    source = TILE_SOURCE.search(exprs.get(seen, ""))
    by = re.search(r"by \(instance, ([^)]*)\)", exprs.get(seen, ""))
    if source is None or by is None:
        return False
    twice = f"{2 * int(found['number'])}{found['unit']}"
    text = (SEEN if found["kind"] == "seen" else GAIN).format(
        by=by[1], seen=seen, name=name, every=found["every"], twice=twice, **source.groupdict()
    )
    return promql.parse(text).prettify() == promql.parse(rule["expr"]).prettify()


def gauges_bounded(groups: list[dict[str, Any]]) -> Iterator[str]:
    """A gauge of pbmon with a look-back; a recorded series too, outside of its own group."""
    for group, rule in expressions(groups):
        own = {each.get("record") for each in group["rules"]}
        for title, tree in promql_rules.trees(_page([rule])):
            for selector in promql_rules.bare(tree, OVER_TIME):
                series = promql_rules.SERIES.get(selector.name)
                is_near = selector.name in own or selector.name in FOREIGN
                if series and not series.is_counter and not is_near:
                    yield f"{title}: {selector.name} without a look-back"


def kept_apart(groups: list[dict[str, Any]]) -> Iterator[str]:
    """No sum over services or environments, none over stores."""
    for _, rule in expressions(groups):
        for node in walk(parse(rule["expr"])):
            if not isinstance(node, promql.AggregateExpr):
                continue
            kept = promql_rules.grouping(node)
            for selector in selectors(node):
                missing = _identity(selector.name) - kept
                if missing:
                    yield f"{name_of(rule)}: {selector.name} aggregated over {sorted(missing)}"


def _identity(name: str) -> set[str]:
    series = promql_rules.SERIES.get(name)
    if series is None or isinstance(series, Known):
        return SERVICE & series.labels if series else set()
    return {"instance"} if series.metric.of_store else SERVICE


def alerts_told(groups: list[dict[str, Any]]) -> Iterator[str]:
    """A severity, and words with a page."""
    for _, rule in expressions(groups):
        if "alert" not in rule:
            continue
        name, notes = rule["alert"], rule.get("annotations", {})
        if rule.get("labels", {}).get("severity") not in ("page", "ticket", "none"):
            yield f"{name}: severity {rule.get('labels', {}).get('severity')}"
        for word in ("summary", "description"):
            if not notes.get(word):
                yield f"{name}: no {word}"
        if not notes.get("runbook_url", "").endswith(f"docs/runbooks/{name}.md"):
            yield f"{name}: runbook_url {notes.get('runbook_url')}"


def intervals_fit(groups: list[dict[str, Any]]) -> Iterator[str]:
    """A tile's group is evaluated as often as its name says."""
    for group, rule in expressions(groups):
        found = TILE.fullmatch(rule.get("record", ""))
        if found and group.get("interval") != found["every"]:
            yield f"{rule['record']}: evaluated every {group.get('interval')}"


RULES = (
    parses,
    catalogued,
    never_merged,
    counters_exact,
    gauges_bounded,
    kept_apart,
    alerts_told,
    intervals_fit,
)
