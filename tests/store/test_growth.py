"""Growth figures and cohorts of a population equal a naive count, on both engines and in zones that
change the clock; snapshots are told by the source in force."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from sqlalchemy import select

from pbmon import catalog
from pbmon.growth import UserGrowth
from pbmon.store import growth, jobs, schema, tables
from pbmon.store.access import StoreError, open_engine, open_reader, open_runs, open_writer
from tests.store import population
from tests.store.test_writer import event, portion

DAY = dt.date(2026, 11, 24)
FIGURES = UserGrowth(DAY, "activity", "UTC", 1, 12, 24, 48, 10, 40, 100, 2, 5)


@pytest.fixture(params=population.ZONES)
def filled(request, url):
    """URL of a store, and the local days of its people."""
    people = population.times(request.param)
    population.fill(url, request.param, people)
    return url, population.active_days(request.param, people)


def figures_of(growth):
    return {
        name: getattr(growth, name)
        for name in ("new", "active_24h", "active_7d", "active_30d", "churned", "before", "total",
                     "reactivated")
    }  # fmt: skip


def test_every_figure_of_every_day_is_the_naive_one(filled):
    url, days = filled
    runs = open_runs(url)
    seen = dict.fromkeys(figures_of(FIGURES), 0)
    for n in range(0, 110, 3):
        day = population.FIRST + dt.timedelta(days=n)
        taken = figures_of(runs.read(lambda c, day=day: growth.snapshot(c, day)))
        assert taken == population.truth(days, day), day
        seen = {name: seen[name] + count for name, count in taken.items()}
    assert all(seen.values())  # every figure had something to count


@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_every_cohort_is_the_naive_one(filled, period):
    url, days = filled
    reader = open_reader(url)
    start = population.FIRST + dt.timedelta(days=3)
    end = population.LAST if period != "day" else start + dt.timedelta(days=5)
    found = reader.cohorts(start, end, period)
    wanted = population.truth_of_cohorts(days, start, end, period)
    assert [dataclasses.astuple(cohort) for cohort in found] == wanted
    told = [count for cohort in found for count in (cohort.size, *cohort.retained)]
    if period == "month":
        assert sum(count is not None for count in told) >= 5


def test_a_store_counts_days_in_the_zone_it_was_made_with(tmp_path):
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    at = 1_795_647_600_000_000  # 2026-11-25 23:00 UTC
    for zone in ("Europe/Berlin", "America/New_York"):  # the second one changes nothing
        writer = open_writer(url, "opt-out", timezone=zone)
        writer.write([portion(event(at=at, user="7"), source=zone[:4])])
        writer.close()
    with open_engine(url).connect() as connection:
        assert schema.timezone(connection) == "Europe/Berlin"
        assert connection.execute(select(tables.subject_days.c.day)).scalars().all() == [
            dt.date(2026, 11, 26)
        ]


def test_a_zone_that_is_not_known_here_is_said_with_the_remedy(url, engine):
    with engine.begin() as connection:
        zone = tables.meta.c.key == "timezone"
        connection.execute(tables.meta.update().where(zone).values(value="Mars/Olympus"))
    with pytest.raises(StoreError, match="Mars/Olympus, a time zone that is not known here; pip"):
        open_writer(url, "opt-out")


def test_an_earlier_day_may_come_late(url, engine):
    noon = 1_795_608_000_000_000
    for n, days in enumerate((0, 3, -2)):
        at = noon + days * 86_400_000_000
        writer = open_writer(url, "opt-out")
        writer.write([portion(event(at=at, user="7"), event(at=at + 1, user="8"), source=f"{n}")])
        writer.close()
    with engine.connect() as connection:
        found = connection.execute(select(tables.subject_activity)).all()
    assert [row[1:] for row in found] == [(dt.date(2026, 11, 23), dt.date(2026, 11, 28))] * 2


def test_first_days_outlive_days_of_activity(url, engine):
    population.fill(url, "UTC", {"7": [1_795_608_000_000_000], "8": [1_785_608_000_000_000]})
    with engine.begin() as connection:
        jobs.forget_activity(connection, dt.date(2026, 11, 1))
    with engine.connect() as connection:
        assert len(connection.execute(select(tables.subject_days)).all()) == 1
        taken = growth.snapshot(connection, DAY + dt.timedelta(days=1))
    assert (taken.total, taken.new, taken.active_30d) == (2, 1, 1)


# --- snapshots ---


def test_a_snapshot_is_kept_and_replaced(engine):
    with engine.begin() as connection:
        assert growth.find(connection) is None
        assert growth.figures(connection) == []
        growth.keep(connection, FIGURES)
        growth.keep(connection, dataclasses.replace(FIGURES, new=3))
        assert growth.find(connection) == dataclasses.replace(FIGURES, new=3)
        assert growth.find(connection, DAY) == growth.find(connection)
        assert growth.find(connection, DAY - dt.timedelta(days=1)) is None


def told(connection):
    return {
        (figure.metric.name, *figure.attributes.values()): figure.value
        for figure in growth.figures(connection)
    }


def test_the_newest_day_is_told_to_the_metrics(engine):
    with engine.begin() as connection:
        growth.keep(connection, FIGURES)
        growth.keep(connection, dataclasses.replace(FIGURES, day=DAY - dt.timedelta(days=1), new=9))
        assert told(connection) == {
            ("pbmon.users.new",): 1, ("pbmon.users.active", "24h"): 12,
            ("pbmon.users.active", "7d"): 24, ("pbmon.users.active", "30d"): 48,
            ("pbmon.users.churned",): 10, ("pbmon.users.registered",): 100,
            ("pbmon.users.reactivated",): 2, ("pbmon.users.retention",): 0.75,
            ("pbmon.users.stickiness",): 0.25,
        }  # fmt: skip
        assert all(figure.metric.of_store for figure in growth.figures(connection))
        windows = {f.attributes[catalog.WINDOW.name] for f in growth.figures(connection)[:3]}
        assert windows == set(catalog.WINDOW.values)


def test_one_source_tells_and_what_it_does_not_know_is_no_figure(engine):
    users = dataclasses.replace(
        FIGURES, source="users", new=None, active_24h=None, before=None, reactivated=None
    )
    with engine.begin() as connection:
        growth.keep(connection, FIGURES)
        growth.keep(connection, users)
        assert told(connection)["pbmon.users.new",] == 1
        growth.rely_on(connection, "users")
        growth.rely_on(connection, "users")
        assert set(told(connection)) == {
            ("pbmon.users.active", "7d"), ("pbmon.users.active", "30d"), ("pbmon.users.churned",),
            ("pbmon.users.registered",),
        }  # fmt: skip
        before = dataclasses.replace(users, day=DAY - dt.timedelta(days=30), active_30d=20)
        growth.keep(connection, before)
        assert told(connection)["pbmon.users.retention",] == 0.5
        growth.rely_on(connection, "activity")
        assert told(connection)["pbmon.users.new",] == 1


# --- the reader ---


def test_the_reader_gives_the_figures_of_a_day(url, engine):
    with engine.begin() as connection:
        growth.keep(connection, FIGURES)
    reader = open_reader(url)
    assert reader.user_growth(None) == reader.user_growth(DAY) == FIGURES
    assert reader.user_growth(DAY + dt.timedelta(days=1)) is None


def test_the_reader_gives_the_days_of_one_source_that_have_figures(url, engine):
    def of(days_back, **figures):
        return dataclasses.replace(FIGURES, day=DAY - dt.timedelta(days=days_back), **figures)

    users = [of(n, source="users", before=None) for n in (0, 2, 3)]
    earlier = of(32, source="users", active_30d=20)
    with engine.begin() as connection:
        for growth_of_day in (*users, earlier, of(0), of(1)):
            growth.keep(connection, growth_of_day)
    reader = open_reader(url)
    days = (DAY - dt.timedelta(days=2), DAY)
    assert reader.growth_of_days(*days) == [of(1), of(0)]
    with engine.begin() as connection:
        growth.rely_on(connection, "users")
    found = reader.growth_of_days(*days)
    assert found == [dataclasses.replace(users[1], before=20), users[0]]
    assert found == [reader.user_growth(day) for day in days]
    assert reader.growth_of_days(DAY, days[0]) == []


def test_a_store_that_nobody_has_made_is_not_made_by_reading(tmp_path):
    with pytest.raises(StoreError, match="is made by the first event"):
        open_reader(f"sqlite:///{tmp_path}/store.sqlite3")
    assert list(tmp_path.iterdir()) == []


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_statement_of_the_reader_ends_in_time(url, monkeypatch):
    from pbmon.store import reader as module

    monkeypatch.setattr(module, "LIMIT_S", 0.2)
    reader = open_reader(url)
    for _ in range(2):
        with pytest.raises(StoreError, match="a statement took too long"):
            reader._ask(lambda connection: connection.exec_driver_sql(ENDLESS))
    assert reader.user_growth(None) is None  # goes on
