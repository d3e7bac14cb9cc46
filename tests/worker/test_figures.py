"""Figures of the store: read in one snapshot by whoever leads, and by nobody else."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from pbmon import catalog, settings
from pbmon.catalog import Metric
from pbmon.runtime import Figure
from pbmon.settings import Settings
from pbmon.store import figures as of_store
from pbmon.store import schema, tables
from pbmon.store.access import StoreError, open_deliveries, open_engine, open_figures
from pbmon.worker import figures
from pbmon.worker import leader as module
from pbmon.worker.leader import Leader
from tests.fresh import environment
from tests.stack.process import unused_port, wait_until
from tests.stack.samples import PIPELINE
from tests.store.conftest import *  # noqa: F403
from tests.telemetry.receiver import Receiver, closed_port
from tests.worker.test_leader import put

WAITING = 60.0
TOTAL = Metric("test.total", "counter", "{event}", "Total.", of_store=True)


def known(url):
    """What a store has once and for all."""
    engine = open_engine(url)
    with engine.connect() as connection:
        found = {row.key: row.value for row in connection.execute(tables.meta.select())}
    engine.dispose()
    return found


def read(url, *sources):
    reader = open_figures(url)
    try:
        return reader.read(sources or figures.sources(Settings()))
    finally:
        reader.close()


def values(reading):
    return {(f.metric.name, *f.attributes.values()): f.value for f in reading.figures}


# --- what they say ---


def test_every_source_gives_what_the_catalogue_has(url):
    put(url, 3)
    for figure in read(url).figures:
        assert figure.metric in catalog.METRICS
        assert figure.metric.of_store
        assert figure.attributes.keys() == {a.name for a in figure.metric.attributes}


def test_every_counter_of_the_store_is_there_from_its_making(url):
    """A rise from nothing is none, to a receiver."""
    counters = {m.name for m in catalog.METRICS if m.of_store and m.kind == "counter"}
    assert counters <= {figure.metric.name for figure in read(url).figures if not figure.value}


def test_what_destinations_are_to_get_and_refuse(url):
    put(url, 5, destinations=("webhook", "segment"))
    deliveries = open_deliveries(url, "opt-out")
    first, second, *_ = deliveries.take("segment", 5)
    deliveries.settle("segment", [first.event_id], {second.event_id: "rejected:422"})
    deliveries.close()
    assert values(read(url, *figures.SOURCES[:1])) == {
        ("pbmon.delivery.waiting", "segment"): 3, ("pbmon.delivery.dead_letters", "segment"): 1,
        ("pbmon.delivery.waiting", "webhook"): 5, ("pbmon.delivery.dead_letters", "webhook"): 0,
    }  # fmt: skip


def test_they_are_of_the_store_since_it_was_made(url):
    before = schema.now()
    first, second = read(url), read(url)
    stored = known(url)
    assert {first.store_id, second.store_id} == {stored["store_id"]}
    assert {first.made_at, second.made_at} == {int(stored["made_at"])}
    assert first.made_at <= first.at < second.at
    assert first.at == pytest.approx(before, abs=60_000_000)


def test_a_store_made_before_is_given_the_time_of_its_upgrade(url):
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(tables.meta.delete().where(tables.meta.c.key == "made_at"))
    before = schema.now()
    schema.upgrade(engine)
    engine.dispose()
    assert int(known(url)["made_at"]) == pytest.approx(before, abs=60_000_000)


def test_all_sources_see_one_snapshot(url):
    put(url, 3)

    def count(connection):
        count = connection.execute(text(f"SELECT count(*) FROM {name(url)}")).scalar_one()
        return [Figure(TOTAL, count, {})]

    def more(_connection):
        put(url, 4, source="2-b")  # commits meanwhile
        return []

    first, second = (f.value for f in read(url, count, more, count).figures)
    assert first == second
    assert read(url, count).figures[0].value == first + 4


def name(url):
    return "pbmon.events" if url.startswith("postgres") else "events"


def test_nothing_can_be_changed_in_postgresql(postgresql):
    def write(connection):
        connection.execute(tables.meta.delete())
        return []

    with pytest.raises(StoreError, match="it is read-only"):
        read(postgresql.url.render_as_string(hide_password=False), write)


def test_a_source_that_takes_too_long_is_ended(url, monkeypatch):
    monkeypatch.setattr(of_store, "PATIENCE_S", 0.2)
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    reader = open_figures(url)
    with pytest.raises(StoreError, match="a statement took too long"):
        reader.read([lambda c: c.execute(text(endless)).all()])
    assert reader.read([lambda _: []]).figures == ()  # the next has its time
    reader.close()


# --- the leader ---


@contextlib.contextmanager
def leading(url, **options):
    """A leader whose readings are kept."""
    made = Leader(url, settings.Settings(), [], **options)
    made.heard = []
    made.publish = made.heard.append
    yield made
    made.stop()
    if made._thread is not None:
        made._thread.join(WAITING)
    else:
        made._close()


def test_the_leader_reads_them_every_five_seconds(url, monkeypatch):
    put(url, 3)
    now = SimpleNamespace(monotonic=lambda: now.s, time_ns=time.time_ns, time=time.time, s=1000.0)
    monkeypatch.setattr(module, "time", now)
    with leading(url) as made:
        for seconds in (0.0, 1.0, 3.9, 0.1):
            now.s += seconds
            made._try_round()
    first, second = made.heard
    assert first.at < second.at
    assert values(first)["pbmon.delivery.waiting", "webhook"] == 3


def test_only_who_leads_reads_them(url):
    put(url, 3)
    with leading(url) as first, leading(url) as second:
        first._try_round()
        second._try_round()
        assert (len(first.heard), second.heard) == (1, [])
        assert (first.is_leading, second.is_leading) == (True, False)
        assert second.finish(time.monotonic() + WAITING)
        assert second.heard == []


def test_who_loses_the_role_says_so_at_once(postgresql):
    url = postgresql.url.render_as_string(hide_password=False)
    put(url, 3)
    with leading(url) as made:
        made._try_round()
        with postgresql.begin() as connection:  # its session, and with it the lock
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database d ON "
                    "d.oid = database WHERE locktype = 'advisory' AND datname = current_database()"
                )
            )
        made._try_round()
        assert not made.is_leading
        first, last = made.heard
        assert (first.figures[0].value, last) == (3, None)
        made._again_at_s = 0
        made._try_round()  # the role was free
        assert made.is_leading
        assert len(made.heard) == 2
        made.finish(0)
        assert values(first).items() <= values(made.heard[2]).items()


def test_where_the_store_does_not_say_them_nothing_is_published(url, monkeypatch, caplog):
    monkeypatch.setattr(figures, "SOURCES", (lambda c: c.execute(text("SELECT nothing")),))
    done = []
    with leading(url) as made:
        made.do_jobs = lambda: done.append(1)
        made._try_round()
        made._figures_at_s = 0
        made._try_round()
    assert made.heard == []
    assert done == [1, 1]  # the rest of the work goes on
    assert caplog.text.count("Its figures are not exported meanwhile") == 1


def test_they_are_read_once_more_on_request_and_nothing_else_is_done(url, monkeypatch):
    monkeypatch.setattr(module, "_EVERY_S", 3600.0)
    put(url, 3)
    with leading(url) as made:
        made.do_jobs = pytest.fail
        made.start()
        assert made.finish(time.monotonic() + WAITING)
        put(url, 4, source="2-b")
        assert made.finish(time.monotonic() + WAITING)
    assert [values(r)["pbmon.delivery.waiting", "webhook"] for r in made.heard] == [3, 7]


def test_nobody_waits_for_a_store_that_does_not_answer(url, monkeypatch):
    import threading

    answer = threading.Event()
    monkeypatch.setattr(figures, "SOURCES", (lambda _: [] if answer.wait(WAITING) else [],))
    with leading(url) as made:
        made.start()
        began_s = time.monotonic()
        assert made.finish(began_s + 0.2) is False
        assert time.monotonic() - began_s < WAITING / 2
        answer.set()


def test_a_store_that_is_away_keeps_nobody(caplog):
    away = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"
    with leading(away) as made:
        made.start()
        assert made.finish(time.monotonic() + WAITING)
    assert made.heard == []
    assert "hunter2" not in caplog.text


# --- processes ---


class Process:
    """One that tracks and leads (tests.worker.leading)."""

    def __init__(self, directory, receiver, url):
        variables = {
            "PBMON_STATE_DIR": str(directory), "PBMON_SERVICE_NAME": "shop",
            "PBMON_CONSENT": "opt-out", "PBMON_STORE_URL": url,
            "OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "100",
            "OTEL_LOGS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver,
        }  # fmt: skip
        directory.mkdir(mode=0o700, exist_ok=True)
        self.log = directory / f"log-{time.monotonic_ns()}"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.worker.leading"],
                env=environment(**variables), cwd=Path(sys.prefix),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    def track(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{count}\n", self.log.read_text()

    def exported(self, total):
        """Whether it has told of that many for as long as it takes to put it on its way."""
        return self.log.read_text().count(f"leads {total}\n") > 3

    def leads(self):
        return "leads" in self.log.read_text()

    def kill(self):
        self.process.kill()
        self._end(-signal.SIGKILL)

    def end(self):
        self.process.stdin.close()
        self._end(0)

    def _end(self, code):
        assert self.process.wait(WAITING) == code, self.log.read_text()
        self.process.stdin.close()
        self.process.stdout.close()


@contextlib.contextmanager
def processes(*arguments):
    made = []

    def start(directory):
        made.append(Process(directory, *arguments))
        return made[-1]

    try:
        yield start
    finally:
        for each in made:
            if each.process.poll() is None:
                each.kill()


def points(receiver, metric="test.stored"):
    """(instance, start, time, value) of each point, in the order of their arrival."""
    found = []
    for part in receiver._metrics_by_resource():
        described = {p.key: p.value.string_value for p in part.resource.attributes}
        for scope in part.scope_metrics:
            for each in scope.metrics:
                if each.name == metric:
                    assert described.keys() == {
                        "service.name", "service.instance.id", "telemetry.distro.name",
                        "telemetry.distro.version",
                    }  # fmt: skip
                    found += [
                        (described["service.instance.id"], p.start_time_unix_nano,
                         p.time_unix_nano, p.as_int)
                        for p in each.sum.data_points
                    ]  # fmt: skip
    return found


def newest(receiver):
    return (
        max((when, value) for _, _, when, value in points(receiver))[1] if points(receiver) else -1
    )


def test_a_short_program_exports_the_totals_of_its_end(url, tmp_path):
    with Receiver() as receiver, processes(receiver.url, url) as start:
        only = start(tmp_path / "state")
        only.track(250)
        only.end()
        assert newest(receiver) == 250


def test_a_leader_that_is_killed_is_followed_under_one_name_and_no_total_is_lost(url, tmp_path):
    """On one host in SQLite, on two in PostgreSQL."""
    here, there = tmp_path / "here", tmp_path / "there"
    if url.startswith("sqlite"):
        there = here
    with Receiver() as receiver, processes(receiver.url, url) as start:
        first = start(here)
        first.track(100)
        wait_until(lambda: newest(receiver) == 100, "the first leader's figures", WAITING)
        second = start(there)
        second.track(50)
        wait_until(lambda: newest(receiver) == 150, "what both have tracked", WAITING)
        assert not second.leads()
        first.kill()
        second.track(25)
        wait_until(lambda: newest(receiver) == 175, "the second leader's figures", WAITING)
        assert second.leads()
        second.track(5)
        second.end()
        assert newest(receiver) == 180
        seen = points(receiver)
    stored = known(url)
    assert {(instance, start) for instance, start, _, _ in seen} == {
        (stored["store_id"], int(stored["made_at"]) * 1000)
    }
    by_time = defaultdict(set)
    for _, _, when, value in seen:
        by_time[when].add(value)
    assert all(len(values) == 1 for values in by_time.values())
    in_order = [value for _, (value,) in sorted(by_time.items())]
    assert in_order == sorted(in_order)


def test_what_a_dead_leader_left_is_no_fall_to_prometheus(
    tmp_path, stack_prometheus, stack_collector
):
    """Its points wait for the collector while another leads; they arrive behind newer ones, and
    each has its place."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    collector = stack_collector(
        PIPELINE, {"METRICS_TO": stack_prometheus.otlp_endpoint, "TRACES_TO": closed_port()}
    )
    collector.stop()
    with processes(collector.otlp_endpoint, url) as start:
        first = start(tmp_path / "state")
        first.track(100)
        wait_until(lambda: first.exported(100), "what the first leader has to tell", WAITING)
        first.kill()
        second = start(tmp_path / "state")
        second.track(50)
        wait_until(lambda: second.exported(150), "what the second leader has to tell", WAITING)
        collector.start()
        second.track(5)
        second.end()
    series = f'test_stored_total{{instance="{known(url)["store_id"]}"}}'

    def asked(expression):
        return [value for _, value in stack_prometheus.query(expression.replace("SERIES", series))]

    wait_until(lambda: asked("last_over_time(SERIES[1h])") == [155], "the newest", WAITING)
    first_told = f"count_over_time(({series} == 100)[1h:100ms])"
    wait_until(lambda: bool(asked(first_told)), "what the dead one left", WAITING)
    assert asked("resets(SERIES[1h])") == [0]
    assert asked("max_over_time(SERIES[1h]) - min_over_time(SERIES[1h])") == [155]
