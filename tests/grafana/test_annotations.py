"""Deploys and changes over every graph: one line for a mark, where and when it was, whichever
process tells of it and however often. With a real Prometheus in tests/worker/test_releases.py."""

from __future__ import annotations

import pytest

from tests.grafana.panel_queries import DASHBOARDS, interpolate, load
from tests.grafana.promtool import HOUR, Store, check_all, labels

NAMES = sorted(path.stem for path in DASHBOARDS.glob("*.json"))
METRIC = "pbmon_mark_time_seconds"
AT = 1_764_504_000


def annotation(name: str, **values: str) -> str:
    (found,) = (a for a in load("business")["annotations"]["list"] if a["name"] == name)
    return interpolate(found["target"]["expr"], **values)


def told(store: Store, kind: str, name: str, value: float, minutes: range) -> dict[str, str]:
    return store.gauge(METRIC, value, minutes, pbmon_mark_kind=kind, pbmon_mark_name=name)


def of(name: str, instance: str = "a") -> tuple[tuple[str, str], ...]:
    return labels(instance=instance, deployment_environment_name="production", pbmon_mark_name=name)


@pytest.mark.parametrize("name", NAMES)
def test_every_dashboard_has_the_same(name):
    found = load(name)["annotations"]["list"]
    assert found == load("business")["annotations"]["list"]
    assert [each["name"] for each in found] == ["Deploys", "Changes"]


def test_a_mark_has_one_time_at_every_step_whoever_tells_of_it():
    web, worker = Store("a", 0), Store("a", 0)
    worker.resource = {**worker.resource, "service_name": "worker"}
    lines = [
        told(web, "deploy", "1.5", AT, range(30)),
        told(worker, "deploy", "1.5", AT, range(25, HOUR)),  # leads from then on
        told(web, "change", "prices", AT - 100, range(HOUR)),
    ]
    deploys, changes = annotation("Deploys"), annotation("Changes")
    steps = (0, 7, 24, 26, 30, 45, HOUR)
    check_all(
        lines,
        [
            *((deploys, at, {of("1.5"): AT * 1000}) for at in steps),
            *((changes, at, {of("prices"): (AT - 100) * 1000}) for at in steps),
            (annotation("Deploys", service="shop"), 5, {}),
        ],
    )


def test_a_release_that_came_back_has_a_line_for_each_time():
    """The series has two values over time, and so two lines."""
    store = Store("a", 0)
    line = told(store, "deploy", "1.4", AT, range(30))
    line["values"] += " " + told(store, "deploy", "1.4", AT + 900, range(30))["values"]
    wanted = [(0, AT), (29, AT), (30, AT + 900), (59, AT + 900)]
    expr = annotation("Deploys")
    check_all([line], [(expr, at, {of("1.4"): value * 1000}) for at, value in wanted])


def test_stores_are_kept_apart():
    lines = [told(Store(name, 0), "deploy", "1.5", AT + n, range(9)) for n, name in enumerate("ab")]
    wanted = {of("1.5", "a"): AT * 1000, of("1.5", "b"): (AT + 1) * 1000}
    check_all(lines, [(annotation("Deploys"), 5, wanted)])
