"""Rules about a dashboard's page: variables, panels, ids, layout. PromQL is in promql_rules."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

COLUMNS = 24
SCHEMA_VERSION = 42
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Panel types of Grafana's core. "graph" was removed; "bar" never was one.
INSTANT_TYPES = {"stat", "gauge", "bargauge", "barchart", "piechart", "table"}
RANGE_TYPES = {"timeseries", "heatmap", "state-timeline", "status-history"}
EMPTY_TYPES = {"row", "text"}
COLOURED_BY_THRESHOLD = {"stat", "gauge", "bargauge"}


def data_panels(dashboard: dict) -> Iterator[dict]:
    for panel in dashboard["panels"]:
        if panel["type"] not in EMPTY_TYPES:
            yield panel


def identified(dashboard: dict) -> Iterator[str]:
    """A title, a description, a stable uid, the schema and the tag that links dashboards."""
    for field in ("uid", "title", "description"):
        if not dashboard.get(field):
            yield f"no {field}"
    if dashboard.get("schemaVersion") != SCHEMA_VERSION:
        yield f"schemaVersion {dashboard.get('schemaVersion')}, not {SCHEMA_VERSION}"
    if "pbmon" not in dashboard.get("tags", ()):
        yield "no tag pbmon"
    if not any("pbmon" in link.get("tags", ()) for link in dashboard.get("links", ())):
        yield "no link to the other dashboards"


def datasource_chosen(dashboard: dict) -> Iterator[str]:
    """Every query goes to the data source variable; none names a data source of ours."""
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    chosen = variables.get("datasource", {})
    if (chosen.get("type"), chosen.get("query")) != ("datasource", "prometheus"):
        yield "no variable `datasource` of type prometheus"
    for variable in variables.values():
        if variable["type"] == "query" and variable.get("datasource") != DATASOURCE:
            yield f"variable {variable['name']} has its own data source"
    for panel in data_panels(dashboard):
        for part in (panel, *panel.get("targets", ())):
            if part.get("datasource") != DATASOURCE:
                yield f"panel {panel['title']!r} has its own data source"


def marked(dashboard: dict) -> Iterator[str]:
    """Deploys and changes over every graph, each where its value says: one for a mark, not one for
    each sample."""
    found = {each["name"]: each for each in dashboard["annotations"]["list"]}
    for name in ("Deploys", "Changes"):
        if name not in found:
            yield f"no annotation {name}"
    for name, each in found.items():
        if not (each.get("enable") and each.get("useValueForTime")):
            yield f"annotation {name} is off, or has a line for each sample"
        if not (each.get("datasource") == each["target"].get("datasource") == DATASOURCE):
            yield f"annotation {name} has its own data source"
        if not each["target"].get("expr", "").endswith(" * 1000"):
            yield f"annotation {name}: Grafana takes the value as ms"


def variables_fresh(dashboard: dict) -> Iterator[str]:
    """Service and environment: many, All by default, refreshed with the time range.

    All must be `.*`: Grafana's own All lists the known values and so leaves out series without
    the label, which is every service that sets no environment.
    """
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    for name in ("service", "environment"):
        if name not in variables:
            yield f"no variable {name}"
    for name, variable in variables.items():
        if variable["type"] != "query":
            continue
        wanted = {"refresh": 2, "multi": True, "includeAll": True, "allValue": ".*"}
        for field, value in wanted.items():
            if variable.get(field) != value:
                yield f"variable {name}: {field} is {variable.get(field)!r}, not {value!r}"
        if variable.get("current", {}).get("value") != ["$__all"]:
            yield f"variable {name} doesn't start with All"


def variables_unspoilt(dashboard: dict) -> Iterator[str]:
    """The SDK writes the fields of an interval variable on every variable."""
    for variable in dashboard["templating"]["list"]:
        stray = [field for field in variable if field.startswith("auto")]
        if stray and variable["type"] != "interval":
            yield f"variable {variable['name']}: {', '.join(stray)}"


def panels_complete(dashboard: dict) -> Iterator[str]:
    """A title, a description, a unit, and at least one query, of a type that exists."""
    for number, panel in enumerate(dashboard["panels"], start=1):
        name = panel.get("title") or f"number {number}"
        if not panel.get("title"):
            yield f"panel {name} has no title"
        if panel["type"] in EMPTY_TYPES:
            continue
        if panel["type"] not in INSTANT_TYPES | RANGE_TYPES:
            yield f"panel {name}: {panel['type']!r} is no type of panel"
        if not panel.get("description"):
            yield f"panel {name} has no description"
        if not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
            yield f"panel {name} has no unit"
        if not any(target.get("expr") for target in panel.get("targets", ())):
            yield f"panel {name} has no query"


def queries_suit_panels(dashboard: dict) -> Iterator[str]:
    """One moment for figures and bars, a range for lines; each query under its own letter."""
    for panel in data_panels(dashboard):
        targets = panel.get("targets", ())
        letters = [target.get("refId") for target in targets]
        if None in letters or len(set(letters)) != len(letters):
            yield f"panel {panel['title']!r}: refIds {letters}"
        for target in targets:
            wanted = panel["type"] in INSTANT_TYPES
            if target.get("instant") is not wanted or target.get("range") is wanted:
                yield f"panel {panel['title']!r}: needs {'instant' if wanted else 'range'} queries"


def values_shown(dashboard: dict) -> Iterator[str]:
    """A reduction names how it reduces, and no figure turns red at Grafana's default of 80."""
    for panel in data_panels(dashboard):
        reduction = panel.get("options", {}).get("reduceOptions")
        if reduction is not None and not reduction.get("calcs"):
            yield f"panel {panel['title']!r}: empty calcs"
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if panel["type"] in COLOURED_BY_THRESHOLD and not defaults.get("thresholds"):
            yield f"panel {panel['title']!r}: no thresholds of its own"


def ids_unique(dashboard: dict) -> Iterator[str]:
    ids = [panel.get("id") for panel in dashboard["panels"]]
    if None in ids or len(set(ids)) != len(ids):
        yield f"panel ids {ids}"


def layout_fits(dashboard: dict) -> Iterator[str]:
    """Within 24 columns, and no panel over another."""
    places = [(panel.get("title"), panel["gridPos"]) for panel in dashboard["panels"]]
    for title, place in places:
        if place["x"] < 0 or place["x"] + place["w"] > COLUMNS:
            yield f"panel {title!r} ends at column {place['x'] + place['w']}"
    for (title, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        if not apart:
            yield f"panels {title!r} and {other!r} overlap"


RULES = (
    identified,
    datasource_chosen,
    marked,
    variables_fresh,
    variables_unspoilt,
    panels_complete,
    queries_suit_panels,
    values_shown,
    ids_unique,
    layout_fits,
)
