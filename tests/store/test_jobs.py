"""Periods done once, and what the jobs do to the tables, on both engines."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter

import pytest
from sqlalchemy import func, select, text

from pbmon.store import jobs, schema, tables
from pbmon.store.access import open_runs, open_writer
from pbmon.store.schema import DAY, HOUR
from tests.store.test_writer import NOON, event, portion

TODAY = dt.date(2026, 11, 25)


@pytest.fixture
def runs(url):
    return open_runs(url)


def count(engine, table):
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_a_period_is_done_once(runs):
    done = []
    assert runs.run("growth", "2026-11-24", done.append)
    assert not runs.run("growth", "2026-11-24", done.append)
    assert runs.run("growth", "2026-11-25", done.append)
    assert len(done) == 2
    ((job, (period, finished_at)),) = runs.last().items()
    assert (job, period) == ("growth", "2026-11-25")
    assert finished_at == pytest.approx(schema.now(), abs=60_000_000)


def test_one_that_fails_is_not_done(runs, engine):
    def fail(connection):
        connection.execute(tables.meta.insert(), {"key": "half", "value": "done"})
        raise RuntimeError("in the middle")

    before = count(engine, tables.meta)
    with pytest.raises(RuntimeError):
        runs.run("growth", "2026-11-24", fail)
    assert runs.last() == {}
    assert count(engine, tables.meta) == before
    assert runs.run("growth", "2026-11-24", lambda _: None)


def test_of_many_at_once_one_does_it(url):
    done, lock = Counter(), threading.Lock()

    def attempt():
        runs = open_runs(url)
        for day in range(1, 8):
            if runs.run("growth", f"2026-11-0{day}", lambda _: None):
                with lock:
                    done[day] += 1

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == dict.fromkeys(range(1, 8), 1)


def test_what_is_too_old_is_deleted_but_for_its_totals(url, engine):
    writer = open_writer(url, "opt-out", sharing="opt-out", destinations=("webhook",))
    times = [NOON - 40 * DAY, NOON - 2 * DAY, NOON - 1, NOON, NOON + HOUR]
    writer.write([portion(*(event(at=at, user="7", event_id=str(at)) for at in times))])
    with engine.begin() as connection:
        jobs.forget_events(connection, NOON)
    assert count(engine, tables.events) == 2
    assert count(engine, tables.event_keys) == count(engine, tables.deliveries) == 2
    assert count(engine, tables.subject_days) == 3
    with engine.connect() as connection:
        assert connection.execute(select(func.sum(tables.event_totals.c.events))).scalar() == 5


def test_a_month_of_which_all_is_too_old_is_dropped(postgresql):
    writer_url = postgresql.url.render_as_string(hide_password=False)
    with postgresql.begin() as connection:
        schema.add_months(connection, dt.date(2026, 8, 1))
    times = [schema.micros(dt.date(2026, month, 15)) for month in (8, 9, 10)]
    open_writer(writer_url, "opt-out").write([portion(*(event(at=at) for at in times))])
    before = schema.micros(dt.date(2026, 10, 1))
    with postgresql.begin() as connection:
        assert jobs.months_before(connection, before) == ["events_2026_08", "events_2026_09"]
        jobs.forget_events(connection, before)
        assert "events_2026_09" not in schema.partitions(connection)
        assert "events_2026_10" in schema.partitions(connection)
        kept = connection.execute(text("SELECT count(*) FROM pbmon.events")).scalar()
    assert kept == 1


@pytest.fixture
def checkpoints(url, engine):
    """Two journals; the first one's is changed by a call of it, and those of both are given."""
    writer = open_writer(url, "opt-out")
    for source in ("1-a", "2-b"):
        writer.write([portion(event(), source=source)])

    def change(connection, at):
        connection.execute(
            tables.checkpoints.update()
            .where(tables.checkpoints.c.source == "1-a")
            .values(changed_at=at)
        )

    change.writer = writer
    return change


def sources(connection):
    query = select(tables.checkpoints.c.source).order_by(tables.checkpoints.c.source)
    return connection.execute(query).scalars().all()


def test_checkpoints_of_journals_that_are_gone_are_forgotten(engine, checkpoints, monkeypatch):
    now = schema.now()
    with engine.begin() as connection:
        checkpoints(connection, now - 31 * DAY)
        jobs.forget_checkpoints(connection)
        jobs.forget_checkpoints(connection)
        assert sources(connection) == ["1-a", "2-b"]
        monkeypatch.setattr(schema, "now", lambda: now + 2 * DAY)
        jobs.forget_checkpoints(connection)
        assert sources(connection) == ["2-b"]


def test_the_checkpoint_of_a_journal_that_is_there_stays_whatever_the_clock(
    engine, checkpoints, monkeypatch
):
    """A year ahead all look old at once; who reads them says meanwhile that they are there."""
    now = schema.now()
    for ahead in (365 * DAY, 367 * DAY, 400 * DAY):
        monkeypatch.setattr(schema, "now", lambda ahead=ahead: now + ahead)
        with engine.begin() as connection:
            jobs.forget_checkpoints(connection)
            assert sources(connection) == ["1-a", "2-b"]
        checkpoints.writer.touch(["1-a", "2-b"])


def test_names_of_partitions():
    assert schema.month_of("events_2026_12") == dt.date(2026, 12, 1)
    assert schema.month_of("events_rest") is None
    assert schema.following(dt.date(2026, 12, 1)) == dt.date(2027, 1, 1)
    assert schema.following(dt.date(2028, 1, 1)) == dt.date(2028, 2, 1)
    assert schema.day_of(NOON) == TODAY
