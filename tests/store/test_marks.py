"""Marks: a release is noted once for each time that it was deployed, whoever leads meanwhile."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.store import marks, schema
from pbmon.store.access import open_engine, open_runs
from pbmon.store.marks import DEPLOY, Deployment, Mark
from tests.patience import patiently

MINUTE = 60_000_000
HOUR = 60 * MINUTE
NOON = 1_764_504_000_000_000


class Clock:
    """The store's, and what its leaders see by it."""

    def __init__(self, monkeypatch):
        self.now = NOON
        monkeypatch.setattr(schema, "clock", lambda _connection: self.now)

    def at(self, minutes):
        self.now = NOON + minutes * MINUTE
        return self


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def connection(quick_url):
    engine = open_engine(quick_url)
    with engine.begin() as made:
        yield made
    engine.dispose()


def leads(connection, clock, release, loaded, minutes):
    """A process whose code was loaded at one minute leads at another; whether that is a mark."""
    clock.at(minutes)
    return marks.note_release(connection, release, (minutes - loaded) * MINUTE) is not None


def noted(connection):
    """(release, minute) of all, the oldest first."""
    return [(m.name, (m.at - NOON) // MINUTE) for m in reversed(marks.newest(connection, 100))]


def test_a_release_is_noted_once_as_of_when_its_code_was_loaded(connection, clock):
    assert leads(connection, clock, "1", 0, 3)
    assert not leads(connection, clock, "1", 0, 4)
    assert not leads(connection, clock, "1", 2, 90)  # another of its processes, an hour later
    assert not leads(connection, clock, "1", 5000, 5001)  # restarted
    assert noted(connection) == [("1", 0)]


def test_who_leads_while_two_releases_run_side_by_side_makes_no_mark(connection, clock):
    assert leads(connection, clock, "1", -5000, -4999)
    assert leads(connection, clock, "2", 0, 1)
    for minute in range(2, 300):  # by turns, and however long the old ones stay
        release, loaded = (("1", -5000), ("2", 0), ("1", -10), ("2", 1))[minute % 4]
        assert not leads(connection, clock, release, loaded, minute)
    assert noted(connection) == [("1", -5000), ("2", 0)]


def test_a_release_that_comes_back_is_deployed_again_at_once(connection, clock):
    leads(connection, clock, "1", -5000, -4999)
    leads(connection, clock, "2", 0, 1)
    assert leads(connection, clock, "1", 4, 5)
    assert not leads(connection, clock, "2", 0, 6)  # what is left of it
    assert noted(connection) == [("1", -5000), ("2", 0), ("1", 4)]


def test_within_half_an_hour_of_its_mark_a_release_has_no_second_one(connection, clock):
    """Workers of both that are started anew all the time, and lead by turns."""
    leads(connection, clock, "1", -5000, -4999)
    for minute in range(100):
        leads(connection, clock, "12"[minute % 2], minute - 0.5, minute)
    found = noted(connection)
    for release in "12":
        times = [minute for name, minute in found if name == release]
        assert all(later - earlier >= 30 for earlier, later in zip(times, times[1:]))
    assert len(found) <= 1 + 2 * 4


def test_a_release_that_was_marked_too_soon_is_put_right_later(connection, clock):
    leads(connection, clock, "1", -5000, -4999)
    leads(connection, clock, "2", 0, 1)
    leads(connection, clock, "1", 5, 6)  # an old worker was replaced while the new ones came
    assert not leads(connection, clock, "2", 10, 11)
    assert leads(connection, clock, "2", 10, 40)
    assert noted(connection)[-2:] == [("1", 5), ("2", 10)]


def test_what_is_late_goes_to_its_place(connection, clock):
    """A release that never led while it was the newest."""
    leads(connection, clock, "1", -5000, -4999)
    leads(connection, clock, "3", 60, 61)
    assert leads(connection, clock, "2", 30, 62)
    assert not leads(connection, clock, "2", 30, 63)
    assert noted(connection)[-2:] == [("2", 30), ("3", 60)]


@given(
    st.lists(
        st.tuples(st.sampled_from("123"), st.integers(0, 400), st.integers(0, 50)), max_size=30
    )
)
@patiently(max_examples=60)
def test_neighbours_are_never_of_one_release(tmp_path_factory, turns):
    """Whatever leads when, and however old its code is."""
    url = f"sqlite:///{tmp_path_factory.mktemp('marks')}/store.sqlite3"
    engine = open_engine(url)
    schema.upgrade(engine)
    now = NOON
    with pytest.MonkeyPatch.context() as patch, engine.begin() as connection:
        patch.setattr(schema, "clock", lambda _connection: now)
        for release, age, later in turns:
            now += later * MINUTE
            marks.note_release(connection, release, age * MINUTE)
            assert not marks.note_release(connection, release, age * MINUTE)
        names = [mark.name for mark in marks.newest(connection, 100)]
    engine.dispose()
    assert all(a != b for a, b in zip(names, names[1:]))
    assert set(names) == {release for release, _, _ in turns}


def test_many_at_once_note_it_once(url):
    barrier, done = threading.Barrier(6), []
    at = schema.now()

    def note():
        runs = open_runs(url)
        barrier.wait(60)
        done.append(runs.write(lambda c: marks.deploy(c, "1.4", at, None)))
        runs.close()

    threads = [threading.Thread(target=note) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == [False] * 5 + [True]


# --- by hand ---


def test_a_deploy_that_is_said_is_not_noted_again_by_its_processes(connection, clock):
    assert marks.deploy(connection, "2", NOON, "by the pipeline")
    assert not leads(connection, clock, "2", 1, 2)
    assert not marks.deploy(connection, "2", NOON + 5 * MINUTE, None)
    assert marks.deploy(connection, "1", NOON + 6 * MINUTE, None)  # no patience with people
    assert marks.deploy(connection, "2", NOON + 7 * MINUTE, None)


def test_what_is_said_later_gives_the_mark_its_note(connection, clock):
    leads(connection, clock, "2", 0, 1)
    assert not marks.deploy(connection, "2", NOON + 5 * MINUTE, "new checkout")
    assert marks.newest(connection, 5) == [Mark(DEPLOY, "2", NOON, "new checkout")]


def test_changes_are_in_no_deploys_way(connection, clock):
    assert marks.change(connection, "prices", NOON - MINUTE, "by 10 %")
    assert not marks.change(connection, "prices", NOON - MINUTE, None)
    assert leads(connection, clock, "prices", 0, 1)
    assert marks.deployment(connection).mark == Mark(DEPLOY, "prices", NOON, None)
    assert marks.newest(connection, 1) == [Mark(DEPLOY, "prices", NOON, None)]
    assert marks.newest(connection, 2)[1] == Mark("change", "prices", NOON - MINUTE, "by 10 %")


# --- what is read of them ---


def test_a_deployment_has_those_beside_it(connection):
    assert marks.deployment(connection) is None
    for n, release in enumerate(("1", "2", "1", "3")):
        marks.deploy(connection, release, NOON + n * HOUR, None)
    first, second, third, fourth = reversed(marks.newest(connection, 9))
    assert marks.deployment(connection) == Deployment(fourth, third, None)
    assert marks.deployment(connection, "2") == Deployment(second, first, third)
    assert marks.deployment(connection, "1") == Deployment(third, second, fourth)
    assert marks.deployment(connection, "4") is None


def test_figures_are_of_the_newest_twenty_and_of_one_name_the_newest(connection):
    for n in range(30):
        marks.deploy(connection, f"1.{n}", NOON + n * HOUR, None)
    marks.deploy(connection, "1.0", NOON + 30 * HOUR, None)
    marks.change(connection, "prices", NOON + 29 * HOUR + 1, None)
    found = {tuple(f.attributes.values()): f.value for f in marks.figures(connection)}
    hours = {("deploy", f"1.{n}"): n for n in range(12, 30)} | {("deploy", "1.0"): 30}
    assert found == {
        **{key: (NOON + hour * HOUR) / 1e6 for key, hour in hours.items()},
        ("change", "prices"): (NOON + 29 * HOUR + 1) / 1e6,
    }
    assert {f.metric.name for f in marks.figures(connection)} == {"pbmon.mark.time"}
