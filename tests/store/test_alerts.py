"""Alerts in the store: opened once, told once, over once, whoever looks and however often."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from pbmon import catalog
from pbmon.alerting.notices import FIRING, RESOLVED
from pbmon.alerting.rules import SECOND, Step
from pbmon.store import alerts as module
from pbmon.store import tables
from pbmon.store.access import open_engine, open_judge
from pbmon.store.schema import DAY
from tests.alerting.streams import simulate
from tests.store.burst import KEY, TRACE, Clock, Desk, chosen, fail
from tests.store.test_writer import NOON

ELEVEN = [20 * n for n in range(11)]
_source = itertools.count()


@pytest.fixture
def desk(quick_url):
    made = []

    def open_desk(**table):
        made.append(Desk(quick_url, chosen(**table)))
        return made[-1]

    yield open_desk
    for each in made:
        each.close()


def more(url, *ats, **options):
    fail(url, *ats, source=f"{next(_source)}-x", **options)


def test_a_burst_is_one_alert_told_once_and_over_once(desk, quick_url):
    made = desk()
    fail(quick_url, *ELEVEN[:10])
    assert made.look(190) == []
    more(quick_url, 200, users=["user-1"])
    assert made.look(205) == ["open"]
    assert [made.look(205 + 5 * n) for n in range(40)] == [[]] * 40
    assert made.send_all() == [FIRING]
    assert [made.look(at) for at in (505, 600, 604)] == [[], [], []]
    assert made.look(605) == ["resolve"]
    assert made.send_all() == [RESOLVED]
    assert made.look(825) == made.send_all() == []
    status = made.book.status()
    assert (len(status.open), len(status.recent)) == (0, 1)
    assert status.waiting == status.dead == []
    assert status.recent[0][1:4] == (
        "shop.PaymentError", "shop/pay.py:<lambda>", "more than 10 errors in 5 min",
    )  # fmt: skip
    assert status.recent[0][6:] == (11, 1)


def test_what_a_sink_is_told_is_of_the_beginning(desk, quick_url):
    made = desk()
    fail(quick_url, *ELEVEN, users=[f"user-{n % 3}" for n in range(11)])
    made.look(205)
    more(quick_url, *[206] * 9, release="1.3")
    made.look(210)
    notice = made.book.claim("team").notice
    assert (notice.errors, notice.people, notice.route) == (11, 3, "/pay/{id}")
    assert (notice.release, notice.is_new, notice.trace_id) == ("1.2", True, TRACE)
    assert (notice.fingerprint, notice.first_at, notice.opened_at) == (
        KEY, NOON, NOON + 205 * SECOND,
    )  # fmt: skip
    made.book.note_sent("team", notice)
    assert made.look(520, late=True) == []  # beyond until 490, when nobody looked
    assert made.look(789) == []
    assert made.look(900) == ["resolve"]
    over = made.book.claim("team").notice
    assert (over.errors, over.kind, over.resolved_at) == (20, RESOLVED, NOON + 900 * SECOND)


def test_eleven_in_fifty_minutes_are_none(desk, quick_url):
    made = desk()
    for n in range(11):
        more(quick_url, 300 * n)
        assert made.look(300 * n + 1, late=True) == []


def test_thresholds_by_type_and_by_people(desk, quick_url):
    made = desk(
        errors=False,
        people=2,
        types={"shop.*": {"errors": 5}, "shop.Fatal": {"errors": 0}, "Muted": {"people": False}},
    )
    fail(quick_url, 0, kind="shop.Fatal")
    more(quick_url, *[1] * 5, key="01" * 16, kind="shop.Other")
    more(quick_url, *[1] * 99, key="02" * 16, kind="Muted", users=[str(n) for n in range(99)])
    more(quick_url, *[1] * 3, key="03" * 16, kind="ValueError", users=["a", "b", "a"])
    assert made.look(5) == ["open"]
    more(quick_url, 6, key="01" * 16, kind="shop.Other")
    more(quick_url, 6, key="03" * 16, kind="ValueError", users=["c"])
    assert made.look(10) == ["open", "open"]
    rules = {alert.rule for alert in made.book.status().open}
    assert rules == {
        "more than 0 errors or 2 people in 5 min", "more than 5 errors or 2 people in 5 min",
        "more than 2 people in 5 min",
    }  # fmt: skip


def test_what_comes_late_is_told_and_over_at_once(desk, quick_url):
    made = desk()
    assert made.look(900, late=True) == []
    fail(quick_url, *ELEVEN)
    assert made.look(905) == []
    assert made.look(910, late=True) == ["open"]
    assert made.look(915) == ["resolve"]
    assert made.send_all() == [FIRING, RESOLVED]
    assert made.look(920, late=True) == []


def test_the_statements_say_what_the_rules_say(desk, quick_url):
    """A day with bursts, pauses and late arrivals, looked at alike."""
    made = desk(cooldown=900, window="1m", errors=3)
    stream = sorted(
        (begin + n * gap, begin + n * gap + delay)
        for begin, count, gap, delay in (
            (0, 4, 10, 1), (400, 4, 25, 1), (900, 9, 7, 1), (1000, 6, 5, 300), (2500, 300, 9, 1),
        )
        for n in range(count)
    )  # fmt: skip
    looks = range(30, 6000, 30)
    expected = [(each.step.value, each.at) for each in simulate(made.judge._choices.rule, [
        (at + NOON / SECOND, came + NOON / SECOND) for at, came in stream
    ], [look + NOON / SECOND for look in looks])]  # fmt: skip
    told, left = [], sorted(stream, key=lambda pair: pair[1])
    for look in looks:
        due = [pair for pair in left if pair[1] <= look]
        if due:
            more(quick_url, *(at for at, _ in due))
            left = left[len(due) :]
        told += [(step, look + NOON / SECOND) for step in made.look(look, late=True)]
    assert told == expected
    assert len(told) >= 4


def test_two_leaders_open_one_alert_and_resolve_it_once(quick_url):
    fail(quick_url, *ELEVEN)
    desks = [Desk(quick_url) for _ in range(4)]
    told = []

    def look(desk, at):
        told.extend(desk.look(at))

    for at in (205, 900):
        threads = [threading.Thread(target=look, args=(desk, at)) for desk in desks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert told == ["open", "resolve"]
    claims = [desk.book.claim("team") for desk in desks]
    assert [claim is not None for claim in claims].count(True) == 1
    for desk in desks:
        desk.close()


def test_each_sink_has_its_own_and_in_order(desk, quick_url):
    made = desk(sinks={name: {"url": "slack://x"} for name in ("a", "b")})
    fail(quick_url, *ELEVEN)
    made.look(205)
    claim = made.book.claim("a")
    made.book.note_failed("a", claim, "connection refused", 3000)
    assert made.book.claim("a") is None
    assert made.send_all("b") == [FIRING]
    made.look(900)
    assert made.send_all("b") == [RESOLVED]
    assert made.book.claim("a") is None  # what is over waits for its beginning
    made.clock.at = 4000
    assert made.send_all("a") == [FIRING, RESOLVED]


def test_a_claim_is_its_senders_until_the_lease_is_over(desk, quick_url):
    made = desk()
    fail(quick_url, *ELEVEN)
    made.look(205)
    first = made.book.claim("team")
    assert made.book.claim("team") is None
    made.clock.at += 61
    second = made.book.claim("team")
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.notice == second.notice
    made.book.note_failed("team", first, "late", 1)  # of an attempt that is not the last
    assert made.book.status().waiting[0].fault is None
    made.book.note_sent("team", first.notice)
    assert made.book.status().waiting == []


def test_so_many_are_opened_at_once_the_largest_first(desk, quick_url, monkeypatch):
    monkeypatch.setattr(module, "_OPENED_AT_ONCE", 1)
    made = desk()
    fail(quick_url, *ELEVEN)
    more(quick_url, *[200] * 30, key="01" * 16)
    assert [made.look(205 + n) for n in range(3)] == [["open"], ["open"], []]
    small, large = made.book.status().open[::-1][1], made.book.status().open[::-1][0]
    assert (large.errors, small.errors) == (30, 11)


def test_who_comes_in_between_has_it_alone(desk, quick_url, monkeypatch):
    made, other = desk(), desk()
    fail(quick_url, *ELEVEN)
    made.look(205)
    other.clock.at = 205
    begin, theirs = made.book._engine.begin, []

    def claimed_meanwhile():
        theirs.append(other.book.claim("team"))
        return begin()

    monkeypatch.setattr(made.book._engine, "begin", claimed_meanwhile)
    assert made.book.claim("team") is None
    assert theirs[0].attempt == 1


def test_the_store_itself_lets_an_alert_open_once(desk, quick_url):
    made = desk()
    fail(quick_url, *ELEVEN)
    made.look(205)
    engine = open_engine(quick_url)
    with engine.connect() as connection:
        row = dict(connection.execute(tables.alerts.select()).mappings().one())
        with pytest.raises(IntegrityError):
            connection.execute(tables.alerts.insert(), {**row, "alert_id": bytes(16)})
    engine.dispose()


def test_what_could_not_be_sent_for_a_day_is_given_up(desk, quick_url):
    made = desk()
    fail(quick_url, *ELEVEN)
    made.look(205)
    made.book.note_failed("team", made.book.claim("team"), "503", 1)
    made.look(900)
    made.clock.at = 86_400 + 204
    assert made.book.bury() == 0
    made.clock.at += 2
    assert made.book.bury() == 2
    dead = made.book.status().dead
    assert {(each.kind, each.fault) for each in dead} == {
        (FIRING, "503"), (RESOLVED, "its alert could not be told"),
    }  # fmt: skip
    assert made.book.claim("team") is None
    assert made.book.last_fault().startswith("team: ")


def test_a_reminder_is_told_where_it_is_wanted(desk, quick_url):
    made = desk(repeat=600)
    fail(quick_url, *range(0, 4000, 20))
    assert made.look(300) == ["open"]
    assert made.send_all() == [FIRING]
    made.look(905)
    assert made.send_all() == ["repeat-1"]
    made.look(910)
    assert made.send_all() == []
    for at in (1505, 2105):  # a sink that was away gets the newest alone
        made.look(at)
    assert made.send_all() == ["repeat-3"]
    made.look(2705)
    made.look(4700)
    made.look(5000)
    assert made.send_all() == [RESOLVED]


def test_a_sink_that_is_new_is_not_told_that_something_is_over(quick_url):
    fail(quick_url, *ELEVEN)
    before = Desk(quick_url)
    before.look(205)
    before.close()
    after = Desk(quick_url, chosen(sinks={n: {"url": "slack://x"} for n in ("team", "new")}))
    assert after.look(900) == ["resolve"]
    assert after.send_all("new") == []
    assert after.send_all("team") == [FIRING, RESOLVED]
    after.close()


def test_figures_say_what_is_open_and_what_was_not_taken(desk, quick_url, monkeypatch):
    made = desk()
    monkeypatch.setattr(module.schema, "clock", made.clock)
    fail(quick_url, *ELEVEN)
    made.look(205)
    engine = open_engine(quick_url)

    def figures():
        with engine.connect() as connection:
            return {
                (each.metric.name, *each.attributes.values()): each.value
                for each in module.figures(connection)
            }

    waiting = (catalog.ALERTS_NOTIFICATIONS.name, "team", "waiting")
    dead = (catalog.ALERTS_NOTIFICATIONS.name, "team", "dead")
    assert figures() == {(catalog.ALERTS_OPEN.name,): 1, waiting: 1, dead: 0}
    made.look(900)
    made.clock.at = 2 * 86_400
    made.book.bury()
    assert figures() == {(catalog.ALERTS_OPEN.name,): 0, waiting: 0, dead: 2}
    made.clock.at += 86_401
    assert figures()[dead] == 0
    with engine.begin() as connection:
        module.forget(connection, NOON + DAY)
        assert connection.execute(select(func.count()).select_from(tables.alerts)).scalar() == 0
    assert figures() == {(catalog.ALERTS_OPEN.name,): 0}
    engine.dispose()


@pytest.mark.server
def test_the_window_is_read_by_an_index(postgresql):
    """Of ten thousand fingerprints a day, those of the window alone."""
    with postgresql.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO pbmon.error_slots (slot, fingerprint, errors) "
                "SELECT s * 10000000::bigint, decode(md5((s * 7 + f)::text), 'hex'), 1 "
                "FROM generate_series(0, 8639) AS s, generate_series(1, 20) AS f"
            )
        )
        connection.execute(text("ANALYZE pbmon.error_slots"))
        plan = connection.execute(
            text(
                "EXPLAIN SELECT fingerprint, sum(errors) FROM pbmon.error_slots WHERE slot "
                "BETWEEN 86100000000 AND 86400000000 GROUP BY fingerprint HAVING sum(errors) > 10"
            )
        )
        words = "\n".join(plan.scalars())
    assert "error_slots_pkey" in words, words


def test_a_change_says_what_it_is_about(quick_url):
    fail(quick_url, *ELEVEN)
    judge = open_judge(quick_url, chosen(), clock=Clock(205))
    (change,) = judge.judge(late=False)
    judge.close()
    assert change[0] is Step.OPEN
    assert change[2:] == ("shop.PaymentError", "shop/pay.py:<lambda>")
    assert replace(chosen(), source="prometheus").teller == "prometheus"
