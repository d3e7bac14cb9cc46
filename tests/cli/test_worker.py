"""`pbmon worker`, as a user runs it: what it says of itself, and of the store."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pbmon.cli import main
from pbmon.spool import entries
from pbmon.spool.journal import Journal, open_home
from pbmon.store.access import open_engine, upgrade
from pbmon.worker.shipper import Shipper
from tests.delivery.vendors import WebhookVendor
from tests.fresh import environment, run
from tests.stack.process import wait_until
from tests.telemetry.receiver import Receiver, closed_port
from tests.worker.test_shipper import event

WAITING = 60.0
ROLES = ("shipper", "leader")
PATIENT = """
import sys
from pbmon.cli import main, worker
worker._END_S = 60.0
sys.exit(main(["worker", *sys.argv[1:]]))
"""
WORKER = (sys.executable, "-c", PATIENT)
"""Its end takes as long as a busy machine needs."""


@pytest.fixture
def variables(tmp_path):
    return {
        "PBMON_STATE_DIR": str(tmp_path / "state"), "PBMON_SERVICE_NAME": "shop",
        "PBMON_CONSENT": "opt-out", "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }  # fmt: skip


@pytest.fixture
def journal(tmp_path):
    """Of an application that runs."""
    made = Journal(open_home(str(tmp_path / "state"), "shop"))
    yield made
    made.close()


def figures(receiver):
    """(metric, sorted values of its attributes) → (newest value, who says so)."""
    found = {}
    for part in receiver._metrics_by_resource():
        described = {p.key: p.value.string_value for p in part.resource.attributes}
        assert described["service.name"] == "shop"
        for scope in part.scope_metrics:
            for metric in scope.metrics:
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    values = sorted(pair.value.string_value for pair in point.attributes)
                    value = point.as_int or point.as_double
                    series = (metric.name, *values)
                    found[series] = value, described["service.instance.id"]
    return found


def value(receiver, *series):
    return figures(receiver).get(series, (None, None))[0]


def test_it_exports_what_it_does_and_what_is_in_the_store(variables, journal):
    for n in range(100):
        journal.append(event(n))
    with Receiver() as receiver, WebhookVendor() as vendor:
        away = {"ANALYTICS_ENABLED": "true", "ANALYTICS_ENDPOINT": vendor.url}
        process = subprocess.Popen(
            WORKER, cwd=Path(sys.prefix), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(**variables, **away, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url),
        )  # fmt: skip
        try:
            wait_until(
                lambda: value(receiver, "pbmon.job.last_success", "delivery:webhook") is not None,
                "the delivery", WAITING,
            )  # fmt: skip
            roles = [value(receiver, "pbmon.worker.active", role) for role in ROLES]
            journal.append(event(100))
        finally:
            process.send_signal(signal.SIGTERM)
            said, errors = process.communicate(timeout=WAITING)
        assert process.returncode == 0, errors
        assert said.splitlines()[1:] == ["101 events stored"]
        seen = figures(receiver)
        delivered = len(vendor.accepted)
    assert roles == [1, 1]
    own = {
        ("pbmon.worker.active", "shipper"): 0,  # at its end
        ("pbmon.worker.active", "leader"): 0,
        ("pbmon.spool.records", "delivered", "events"): 101,
        ("pbmon.store.lag",): 0.0,
    }
    of_store = {
        ("pbmon.delivery.waiting", "webhook"): 101 - delivered,
        ("pbmon.delivery.dead_letters", "webhook"): 0,
    }
    assert {series: seen[series][0] for series in own | of_store} == own | of_store
    (worker,) = {seen[series][1] for series in own}
    (store,) = {seen[series][1] for series in of_store}
    assert worker != store
    assert ("pbmon.spool.size", "metrics") in seen


def test_once_it_tells_the_totals_that_it_leaves(variables, journal):
    for n in range(30):
        journal.append(event(n))
    with Receiver() as receiver:
        done = run(*WORKER, "--once", **variables, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                   ANALYTICS_ENABLED="true", ANALYTICS_ENDPOINT=closed_port())  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "30 events stored\n")
        assert value(receiver, "pbmon.spool.records", "delivered", "events") == 30
        assert value(receiver, "pbmon.delivery.waiting", "webhook") == 30


def test_without_a_receiver_it_does_its_work_all_the_same(variables, journal):
    journal.append(event())
    done = run(*WORKER, "--once", **variables, OTEL_EXPORTER_OTLP_ENDPOINT=closed_port())
    assert (done.returncode, done.stdout) == (0, "1 events stored\n")
    assert done.stderr.count("can't be delivered") <= 1


def test_where_telemetry_is_switched_off_it_exports_nothing(variables, journal):
    journal.append(event())
    with Receiver() as receiver:
        done = run(*WORKER, "--once", **variables, OTEL_SDK_DISABLED="true",
                   OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "1 events stored\n")
        assert receiver.arrived == []


def test_the_status_says_for_how_long_events_have_waited(
    variables, journal, tmp_path, monkeypatch, capsys
):
    for name, setting in variables.items():
        monkeypatch.setenv(name, setting)
    url = f"sqlite:///{tmp_path}/state/store/shop.sqlite3"
    upgrade(open_engine(url), "UTC")

    def status():
        assert main(["store", "status"]) == 0
        return capsys.readouterr().out

    assert status().endswith(" is up to date: 0 events stored\n")
    journal.append(event(at=time.time_ns() // 1000 - 3600_000_000))
    journal.append(entries.encode(entries.Link(time.time_ns() // 1000, "s", "u")))
    before, _, waits = status().partition(", others wait for ")
    assert before.endswith("0 events stored")
    assert float(waits.removesuffix(" s\n").replace(",", "")) == pytest.approx(3600, abs=120)
    shipper = Shipper(journal.home, url, {"analytics": "opt-out", "sharing": "opt-in"})
    assert shipper.finish(time.monotonic() + WAITING)
    assert status().endswith(" is up to date: 1 events stored\n")
