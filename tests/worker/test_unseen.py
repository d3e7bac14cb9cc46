"""What pbmon itself asks databases and destinations is seen by no hook, in no thread."""

from __future__ import annotations

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from pbmon import cli, runtime, settings
from pbmon.spool import journal
from pbmon.spool.journal import Journal
from pbmon.store.access import make_outbox, open_engine, open_outbox, upgrade
from pbmon.store.outbox import outbox
from pbmon.testing import capture
from pbmon.worker.leader import Leader
from pbmon.worker.roles import Roles, build
from tests.delivery.vendors import WebhookVendor
from tests.stack.process import wait_until
from tests.store.conftest import *  # noqa: F403
from tests.worker.test_shipper import event

WAITING = 60.0


@pytest.fixture
def place(tmp_path, empty_url, monkeypatch):
    """Settings with a store that nobody has made."""
    monkeypatch.setenv("PBMON_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PBMON_SERVICE_NAME", "shop")
    monkeypatch.setenv("PBMON_STORE_URL", empty_url)
    monkeypatch.setenv("PBMON_CONSENT", "opt-out")
    monkeypatch.setenv("ANALYTICS_ENABLED", "true")
    return journal.open_home(str(tmp_path / "state"), "shop")


def made(url):
    engine = open_engine(url)
    upgrade(engine)
    if engine.dialect.name == "sqlite":
        make_outbox(engine)
    return engine


def work(home):
    """Ship, lead and deliver in their threads, from the first transaction to the last."""
    resolved, _ = settings.resolve()
    shipper, leader = build(resolved, home, may_change_schema=True)
    heard = []
    leader.publish = heard.append
    shipper.start()
    leader.start()
    wait_until(lambda: "delivery:webhook" in leader.succeeded_at, "the delivery", WAITING)
    roles = Roles(shipper, leader)
    assert roles.finish(WAITING)
    roles.stop()
    for role in (shipper, leader):
        role._thread.join(WAITING)
    assert shipper.delivered == 3
    assert leader.succeeded_at.keys() >= {"retention", "delivery:webhook"}
    assert {figure.metric.name for figure in heard[-1].figures} >= {
        "pbmon.delivery.waiting", "pbmon.revenue", "pbmon.users.active",
    }  # fmt: skip


def test_nothing_of_ours_is_seen(place, empty_url, monkeypatch):
    with WebhookVendor() as vendor, capture() as seen:
        monkeypatch.setenv("ANALYTICS_ENDPOINT", vendor.url)
        engine = made(empty_url)
        kept = Journal(place)
        for n in range(3):
            assert kept.append(event(n)) == ""
        work(place)
        for arguments in (
            ("store", "upgrade"), ("store", "status"), ("store", "events"),
            ("delivery", "status"), ("delivery", "retry", "webhook"), ("run", "retention"),
        ):  # fmt: skip
            assert cli.main(arguments) == 0
        engine.dispose()
        kept.close()
    assert len(vendor.accepted) == 3
    assert seen.spans == []
    assert [name for name in seen.metrics if name.startswith(("db.", "pbmon.db."))] == []


def test_an_application_s_transaction_is_seen_without_our_rows(place, empty_url):
    with capture() as seen:
        engine = made(empty_url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE sales (n integer)")
            with outbox(connection):
                runtime.outbox.get().append(event())  # as track() does
            connection.exec_driver_sql("INSERT INTO sales VALUES (1)")
        engine.dispose()
    names = [span.name for span in seen.spans]
    assert "CREATE TABLE sales" in names
    assert "INSERT sales" in names
    assert [name for name in names if "outbox" in name] == []
    drained = []
    assert open_outbox(empty_url).take(10, drained.extend) == 1
    assert [payload for _, payload in drained] == [event()]


def test_the_leader_s_thread_is_seen_in_nothing_that_it_does(place, empty_url):
    made(empty_url).dispose()
    leader = Leader(empty_url, settings.Settings(), [])
    seen = []
    leader.deliver = lambda: seen.append(is_instrumentation_enabled())
    leader.start()
    wait_until(lambda: bool(seen), "a round", WAITING)
    leader.stop()
    leader._thread.join(WAITING)
    assert set(seen) == {False}
