"""pbmon.toml changes under a running uvicorn of two workers and traffic: both of them follow, no
count falls, no request is lost.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from pbmon import catalog
from tests.e2e.launch import launched
from tests.stack.process import wait_until
from tests.telemetry.receiver import Receiver

pytestmark = pytest.mark.server

ROUTE = "/tasks/{number}"
TOML = '[[budgets]]\nendpoint = "/tasks/{number}"\nmax = "%s"\n'
PAUSE_S = 0.1
PATIENCE_S = 60.0
WORKERS = 2
# Else one that is slow to start, on a busy machine, is killed for it.
OPTIONS = ["--workers", str(WORKERS), "--timeout-worker-healthcheck", "60"]
NEWEST = 20
"""Exports, in which every process is found."""
STARTED = "Application startup complete"


def write(file: Path, text: str) -> None:
    """As an editor does: another file, renamed."""
    beside = file.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, file)


def attributes(thing: Any) -> dict[str, Any]:
    return {p.key: getattr(p.value, p.value.WhichOneof("value")) for p in thing.attributes}


def history(receiver: Receiver, wanted: catalog.Metric, newest: int = 0) -> dict[str, list[float]]:
    """Process → what it said of the route's max, export by export; None: not a word. newest: of
    so many exports alone."""
    found: dict[str, list[float]] = defaultdict(list)
    for body in receiver.bodies("/v1/metrics")[-newest:]:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            process = attributes(resource.resource)["service.instance.id"]
            metrics = {m.name: m for scope in resource.scope_metrics for m in scope.metrics}
            if catalog.BUDGET_REQUESTS.name not in metrics:
                continue
            values = []
            if metric := metrics.get(wanted.name):
                points = getattr(metric, metric.WhichOneof("data")).data_points
                values = [
                    p.as_double if p.HasField("as_double") else p.as_int
                    for p in points
                    if attributes(p).get(catalog.ROUTE.name) == ROUTE
                    and attributes(p).get(catalog.BUDGET_LIMIT.name) == "max"
                ]
            found[process].append(values[0] if values else None)
    return found


def serving(receiver: Receiver, metric: catalog.Metric, newest: int = 0) -> list[list[float]]:
    """The history of those that answered requests, not of the process that watches over them."""
    served = history(receiver, catalog.BUDGET_REQUESTS, newest)
    found = history(receiver, metric, newest)
    return [values for process, values in found.items() if (served[process] or [0])[-1]]


def latest(receiver: Receiver) -> list[float]:
    return [values[-1] for values in serving(receiver, catalog.BUDGET_THRESHOLD, NEWEST)]


class Traffic:
    """Requests without a pause, until it is over."""

    def __init__(self, url: str) -> None:
        self.answered = 0
        self.pids: set[int] = set()
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]
        self._lock = threading.Lock()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            pid = ask(self._url)
            with self._lock:
                self.answered += 1
                self.pids.add(pid)


def ask(url: str) -> int:
    """Each by a connection of its own, so that both workers get some."""
    answer = httpx.get(f"{url}/tasks/1", params={"pause_s": PAUSE_S}, timeout=PATIENCE_S)
    assert answer.status_code == 200
    return answer.json()["pid"]


@contextmanager
def running(tmp_path: Path, receiver: Receiver):
    environment = {
        "PBMON_CONFIG": str(tmp_path / "pbmon.toml"),
        "PBMON_REQUEST_LOG": "off",
        "OTEL_SERVICE_NAME": "reload",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_METRIC_EXPORT_INTERVAL": "250",
    }
    with launched(
        "tests.e2e.budget_app:app", tmp_path / "app.log", environment, options=OPTIONS
    ) as app:
        wait_until(lambda: app.log.count(STARTED) == WORKERS, "both workers", PATIENCE_S)
        yield app


def test_two_workers_follow_a_change_of_the_file(tmp_path):
    file = tmp_path / "pbmon.toml"
    write(file, TOML % "31s")
    with Receiver() as receiver, running(tmp_path, receiver) as app:
        with Traffic(app.url) as traffic:
            wait_until(lambda: latest(receiver) == [31] * WORKERS, "their thresholds", PATIENCE_S)
            wait_until(lambda: len(traffic.pids) == WORKERS, "traffic for both", PATIENCE_S)

            file.write_text(TOML % "broken")  # half of a change: nothing follows it
            wait_until(lambda: "is no duration" in app.log, "a word of it", PATIENCE_S)

            write(file, TOML % "61ms")
            wait_until(lambda: latest(receiver) == [0.061] * WORKERS, "the change", PATIENCE_S)
        before = len(receiver.spans())
        for _ in range(10):
            ask(app.url)
        wait_until(lambda: len(receiver.spans()) >= before + 10, "the last spans", PATIENCE_S)

        write(file, 'release = "2"\n')
        wait_until(lambda: latest(receiver) == [None] * WORKERS, "no threshold", PATIENCE_S)
        assert "pbmon: release changed in the settings file" in app.log
        asked = traffic.answered + 10
        assert ask(app.url) in traffic.pids  # of no budget any more
        app.stop()

    spans = [attributes(span).get(catalog.BUDGET_EXCEEDED.name) for span in receiver.spans()]
    assert len(spans) == asked + 1
    assert spans.count(None) == 1
    assert 10 <= spans.count(True) < asked
    requests = serving(receiver, catalog.BUDGET_REQUESTS)
    breaches = serving(receiver, catalog.BUDGET_BREACHES)
    assert len(requests) == WORKERS
    for values in (*requests, *breaches):
        assert values == sorted(values)  # no count falls, no series comes to an end
    assert sum(values[-1] for values in requests) == asked
    assert sum(values[-1] for values in breaches) == spans.count(True)
    for thresholds in serving(receiver, catalog.BUDGET_THRESHOLD):
        assert [v for v in dict.fromkeys(thresholds) if v is not None] == [31, 0.061]
