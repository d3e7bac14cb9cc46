"""Which days are due, in which zone, and who may do what; the leader and `pbmon run` do them."""

from __future__ import annotations

import datetime as dt
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon import settings
from pbmon.store.access import open_engine, open_runs, open_writer
from pbmon.worker import jobs
from pbmon.worker.jobs import Job
from pbmon.worker.leader import Leader
from tests.fresh import run
from tests.stack.process import unused_port
from tests.store.test_writer import NOON, event, portion

TODAY = dt.date(2026, 11, 25)
YESTERDAY = dt.date(2026, 11, 24)
NEWEST = Job("newest", "", lambda *_: None)
EACH = Job("each", "", lambda *_: None, each_day=True)


@pytest.fixture
def url(tmp_path):
    made = f"sqlite:///{tmp_path}/state/store/shop.sqlite3"
    open_writer(made, "opt-out").write([portion(event(at=NOON), event(at=1))])
    return made


def times(url):
    """Of the events that are left."""
    with open_engine(url).connect() as connection:
        found = connection.exec_driver_sql("SELECT occurred_at FROM events ORDER BY 1")
        return [at for (at,) in found]


def resolved(**values):
    found, problems = settings.resolve(values)
    assert problems == []
    return found


def test_only_the_newest_day_is_made_up_for_where_one_is_enough():
    assert jobs.due(NEWEST, None, TODAY) == [TODAY]
    assert jobs.due(NEWEST, "2026-11-01", TODAY) == [TODAY]
    assert jobs.due(NEWEST, "2026-11-25", TODAY) == []


def test_each_missed_day_is_made_up_for_where_each_counts():
    assert jobs.due(EACH, None, TODAY) == [TODAY]
    assert jobs.due(EACH, "2026-11-22", TODAY) == [dt.date(2026, 11, d) for d in (23, 24, 25)]
    assert jobs.due(EACH, "2026-11-25", TODAY) == []


@pytest.mark.parametrize("job", [NEWEST, EACH])
def test_a_clock_that_was_ahead_keeps_no_day_from_being_done(job):
    """Whether this day was done the store knows: Runs.run() does none twice."""
    assert jobs.due(job, "2036-11-25", TODAY) == [TODAY]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20))
def test_whenever_it_is_looked_at_no_day_is_done_twice_or_left_out(days):
    last, done = None, []
    for day in sorted(days):
        for each in jobs.due(EACH, last, TODAY + dt.timedelta(days=day)):
            done.append(each)
            last = each.isoformat()
    first = TODAY + dt.timedelta(days=min(days))
    assert done == [first + dt.timedelta(days=n) for n in range(max(days) - min(days) + 1)]


def test_a_day_begins_in_the_zone_of_the_settings(url):
    def day(zone):
        now = dt.datetime(2026, 11, 24, 23, 30, tzinfo=dt.timezone.utc)
        return jobs.newest_day(NEWEST, open_runs(url), resolved(timezone=zone), now)

    assert day("UTC") == YESTERDAY
    assert day("Europe/Berlin") == TODAY
    assert day("America/New_York") == YESTERDAY


def test_the_leader_does_what_is_due_once(url):
    kept = resolved(events_retention_days=365)
    leader = Leader(url, kept, [])
    assert leader.lead()
    leader.do_jobs()
    assert set(leader.succeeded_at) == {"errors", "growth", "months", "retention"}
    assert times(url) == [NOON]
    before = dict(leader.succeeded_at)
    leader._jobs_at_s = 0.0
    leader.do_jobs()
    assert leader.succeeded_at == before


def test_without_a_limit_nothing_is_deleted(url):
    leader = Leader(url, resolved(), [])
    leader.do_jobs()
    assert times(url) == [1, NOON]


def test_an_application_changes_no_schema_of_postgresql(url):
    runs = open_runs(url)
    runs.is_postgresql = True
    now = dt.datetime(2026, 11, 25, 12, tzinfo=dt.timezone.utc)
    done = jobs.run_due(runs, resolved(), now, may_change_schema=False)
    assert done == [("errors", TODAY), ("growth", YESTERDAY)]
    done = jobs.run_due(runs, resolved(), now, may_change_schema=True)
    assert done == [("months", TODAY), ("retention", TODAY), ("vacuum", TODAY)]


def test_a_store_that_is_away_is_said_and_tried_again(caplog):
    away = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"
    leader = Leader(away, resolved(), [])
    leader._try_round()
    assert leader._again_at_s > 0
    assert "Jobs and deliveries wait meanwhile" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_job_by_hand(url, tmp_path):
    def pbmon(*arguments, **variables):
        return run(
            sys.executable, "-m", "pbmon.cli", "run", *arguments,
            PBMON_STATE_DIR=str(tmp_path / "state"), PBMON_SERVICE_NAME="shop", **variables,
        )  # fmt: skip

    done = pbmon("retention", "--day", "2026-11-24", PBMON_EVENTS_RETENTION_DAYS="30")
    assert (done.returncode, done.stdout) == (0, "retention for 2026-11-24: done\n")
    done = pbmon("retention", "--day", "2026-11-24")
    assert (done.returncode, done.stdout) == (0, "retention for 2026-11-24: was done before\n")
    assert pbmon("growing").returncode == 2
    away = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"
    done = pbmon("months", PBMON_STORE_URL=away)
    assert (done.returncode, done.stdout) == (1, "")
    assert "hunter2" not in done.stderr
