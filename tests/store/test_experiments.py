"""Figures of experiments against those made by hand, the same on both engines."""

from __future__ import annotations

import pytest

from pbmon.experiments import Arm, Exposed
from pbmon.spool import entries
from pbmon.spool.entries import Link
from pbmon.store.access import open_engine, open_writer
from pbmon.store.engine import reading
from pbmon.store.experiments import by_variant
from pbmon.store.reader import Reader
from tests.store.test_exposures import exposure
from tests.store.test_writer import NOON, event, portion

SECOND = 1_000_000


@pytest.fixture
def store(url, engine):
    """Writes payloads, then tells the figures."""
    writer = open_writer(url, "opt-out")
    reader = Reader(engine)

    def tell(*payloads, window_s=None, key="checkout"):
        if payloads:
            writer.write([portion(*payloads)])
        return reader.exposed(key, "paid", window_s)

    yield tell
    writer.close()


def people(variant, users, **more):
    return [exposure(variant, user=f"{variant}-{n}", **more) for n in range(users)]


def paid(variant, users, at=NOON):
    return [event("paid", user=f"{variant}-{n}", at=at) for n in range(users)]


def test_nobody(store):
    assert store() == Exposed({}, 0)


def test_people_and_conversions_by_variant(store):
    found = store(
        *people("control", 30), *paid("control", 12), *paid("control", 12, NOON + SECOND),
        *people("treatment", 20), *paid("treatment", 15),
        *people("control", 11, experiment="other"),
        *[event("looked", user=f"treatment-{n}") for n in range(20)],
        *[event("paid", user=f"never-exposed-{n}") for n in range(50)],
    )  # fmt: skip
    assert found == Exposed({"control": Arm(30, 12), "treatment": Arm(20, 15)}, 0)
    assert store(key="other") == Exposed({"control": Arm(11, 11)}, 0)


def test_fewer_than_10_are_not_told(store):
    found = store(*people("control", 9), *people("treatment", 10), *paid("treatment", 9))
    assert found.arms == {"control": Arm(None, None), "treatment": Arm(10, None)}


def test_a_conversion_counts_from_the_exposure_to_the_end_of_the_window(store):
    groups = {
        "before": NOON - 1,
        "at": NOON,
        "last": NOON + 60 * SECOND - 1,
        "late": NOON + 60 * SECOND,
    }
    payloads = [
        each
        for variant, at in groups.items()
        for each in (*people(variant, 10), *paid(variant, 10, at))
    ]
    within = {"before": None, "at": 10, "last": 10, "late": None}
    assert store(*payloads, window_s=60.0).arms == {
        variant: Arm(10, done) for variant, done in within.items()
    }
    for_ever = within | {"late": 10}
    assert store().arms == {variant: Arm(10, done) for variant, done in for_ever.items()}


def test_who_was_exposed_before_signing_up_is_one_person(store):
    """By the session, then as the user that the session turned out to be."""
    sessions = [exposure("control", session=f"s-{n}") for n in range(20)]
    links = [entries.encode(Link(NOON + 1, f"s-{n}", f"u-{n}")) for n in range(12)]
    users = [exposure("control", at=NOON + 2, user=f"u-{n}") for n in range(12)]
    done = [event("paid", user=f"u-{n}", at=NOON + 3) for n in range(11)]
    unknown = [event("paid", session=f"s-{n}", at=NOON + 3) for n in (18, 19)]
    found = store(*sessions, *links, *users, *done, *unknown)
    assert found == Exposed({"control": Arm(20, 13)}, 0)


def test_the_first_variant_of_all_of_a_persons_sessions_counts(store):
    payloads = []
    for n in range(15):
        user = f"u-{n}"
        payloads += [
            exposure("treatment", at=NOON + 5, user=user),
            exposure("control", at=NOON + 1, session=f"a-{n}"),
            exposure("treatment", at=NOON + 2, session=f"b-{n}"),
            *(entries.encode(Link(NOON, f"{name}-{n}", user)) for name in "ab"),
            event("paid", user=user, at=NOON + 3),  # before treatment, after control
        ]
    assert store(*payloads) == Exposed({"control": Arm(15, 15)}, 15)


def test_crossings_are_counted_by_people_and_not_told_if_few(store):
    twice = [exposure("treatment", at=NOON + 1, user=f"control-{n}") for n in range(9)]
    assert store(*people("control", 30), *twice) == Exposed({"control": Arm(30, None)}, None)


def test_crossings_of_many(store):
    twice = [exposure("treatment", at=NOON + 1, user=f"control-{n}") for n in range(11)]
    assert store(*people("control", 30), *twice).crossed == 11


def test_twice_the_people_are_twice_the_work(tmp_path):
    """In steps of SQLite's machine: a plan that compares everybody with everybody has four times
    as many."""
    steps = []
    for count in (500, 1000):
        url = f"sqlite:///{tmp_path}/{count}.sqlite3"
        writer = open_writer(url, "opt-out")
        writer.write([portion(*people("control", count), *paid("control", count))])
        writer.close()
        engine = open_engine(url)
        with reading(engine).connect() as connection:
            ticks = []
            driver = connection.connection.driver_connection
            driver.set_progress_handler(lambda ticks=ticks: ticks.append(1), 100)
            ((variant, exposed, *_),) = connection.execute(by_variant("checkout", "paid", None))
            driver.set_progress_handler(None, 0)
            assert (variant, exposed) == ("control", count)
        engine.dispose()
        steps.append(len(ticks))
    assert 1.5 < steps[1] / steps[0] < 2.5
