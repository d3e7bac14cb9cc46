"""The mark of a release: noted by who leads, once, told once, and one line in Grafana."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

from pbmon import settings
from pbmon.store import marks, schema
from pbmon.store.access import open_reader, open_runs
from pbmon.worker import leader as module
from pbmon.worker.leader import LOADED_S, Leader
from tests.fresh import environment
from tests.grafana.panel_queries import interpolate, load
from tests.stack.process import wait_until
from tests.store.conftest import *  # noqa: F403
from tests.worker.test_figures import known, values

WAITING = 60.0


@pytest.fixture
def url(quick_url):
    return quick_url


@contextlib.contextmanager
def leading(url, release):
    made = Leader(url, settings.Settings(), [], release=release)
    made.heard = []
    made.publish = made.heard.append
    made.do_jobs = lambda: None
    yield made
    made._close()


def noted(url):
    reader = open_runs(url)
    found = reader.read(lambda connection: marks.newest(connection, 9))
    reader.close()
    return [(mark.kind, mark.name, mark.note) for mark in found], found


def test_who_leads_notes_the_release_that_runs_there_and_tells_it_once(url, caplog):
    caplog.set_level(logging.INFO, "pbmon.marks")
    before = schema.now()
    with leading(url, "1.4") as first, leading(url, "1.4") as second:
        for each in (first, second, first):
            each._release_at_s = 0
            each._try_round()
    names, (mark,) = noted(url)
    assert names == [("deploy", "1.4", None)]
    # As of when the code of this process was loaded, by the store's clock.
    age = (time.monotonic() - LOADED_S) * 1e6
    assert mark.at == pytest.approx(before - age, abs=60e6)
    (record,) = caplog.records
    assert record.getMessage() == "Release deployed release=1.4 previous=-"
    assert (record.release, record.previous) == ("1.4", None)
    # In the figures of the same round.
    (told,) = (f for f in first.heard[0].figures if f.metric.name == "pbmon.mark.time")
    assert told.value == pytest.approx(mark.at / 1e6, abs=1e-3)
    assert values(first.heard[0])["pbmon.mark.time", "deploy", "1.4"] == told.value


def test_the_next_release_names_the_one_before(url, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "pbmon.marks")
    with leading(url, "1.4") as old:
        old._try_round()
    monkeypatch.setattr(module, "LOADED_S", time.monotonic())
    with leading(url, "1.5") as new:
        new._try_round()
    assert caplog.records[1].getMessage() == "Release deployed release=1.5 previous=1.4"
    with leading(url, "1.4") as left_over:
        monkeypatch.setattr(module, "LOADED_S", LOADED_S)
        left_over._try_round()
    assert [name for _, name, _ in noted(url)[0]] == ["1.5", "1.4"]


def test_it_is_looked_at_once_a_minute(url, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: clock.s, time=time.time, time_ns=time.time_ns, s=1e6)
    monkeypatch.setattr(module, "time", clock)
    asked = []
    monkeypatch.setattr(module.releases, "note", lambda *arguments: asked.append(arguments[1:]))
    monkeypatch.setattr(module, "LOADED_S", 1e6 - 7)
    with leading(url, "1.4") as made:
        for seconds in (0, 1, 58, 1):
            clock.s += seconds
            made._try_round()
    assert asked == [("1.4", 7), ("1.4", 67)]


def test_without_a_release_nothing_is_noted(url):
    with leading(url, None) as made:
        made._try_round()
    assert noted(url)[0] == []


# --- whole processes, and what Grafana draws of them ---


def lines_drawn(series):
    """Grafana's rule for an annotation whose value is its time: what is at the same moment, or no
    further from it than a step, is one."""
    drawn = []
    for points in series:
        for value in sorted({int(float(value)) for _, value in points}):
            if not drawn or value - drawn[-1] > 1000:
                drawn.append(value)
    return drawn


def process(release, state, url, endpoint):
    """One that tracks an event, tells what the store knows, and ends."""
    variables = {
        "PBMON_STATE_DIR": str(state), "PBMON_SERVICE_NAME": "marked", "PBMON_RELEASE": release,
        "PBMON_CONSENT": "opt-out", "PBMON_STORE_URL": url, "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT":
        f"{endpoint}/v1/metrics",
    }  # fmt: skip
    code = """
        import pbmon, time
        pbmon.configure()
        pbmon.track("made")
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:  # several exports of the same mark
            pbmon.flush(1.0)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment(**variables),
        capture_output=True, text=True, timeout=WAITING, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.server
def test_one_line_for_each_deploy_in_a_real_prometheus(tmp_path, stack_prometheus):
    url, began = f"sqlite:///{tmp_path}/store.sqlite3", time.time()
    for release in ("1.4", "1.5"):
        process(release, tmp_path / "state", url, stack_prometheus.otlp_endpoint)
    reader = open_reader(url)
    deployed = reader.deployment()
    reader.close()
    assert (deployed.mark.name, deployed.before.name, deployed.after) == ("1.5", "1.4", None)
    instance = known(url)["store_id"]
    (expr,) = (
        each["target"]["expr"]
        for each in load("errors")["annotations"]["list"]
        if each["name"] == "Deploys"
    )

    def drawn():
        found = stack_prometheus.query_range(
            interpolate(expr, service="marked"), began - 60, time.time() + 5, 1.0
        )
        assert {labels["instance"] for labels, _ in found} <= {instance}
        return {labels["pbmon_mark_name"]: points for labels, points in found}

    wait_until(lambda: len(drawn()) == 2, "both marks", WAITING)
    series = drawn()
    assert all(len(points) > 3 for points in series.values())
    times = {"1.4": deployed.before.at // 1000, "1.5": deployed.mark.at // 1000}
    for release, points in series.items():
        (at,) = lines_drawn([points])
        assert at == pytest.approx(times[release], abs=1)
