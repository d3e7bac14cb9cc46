"""Deletion: the tombstone, every table, what is outstanding, who comes late; on both engines."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import LargeBinary, func, select, text

from pbmon import privacy
from pbmon.erasure import DISK, JOURNALS, OUTBOX
from pbmon.spool import entries
from pbmon.store import people, sweeping, tables
from pbmon.store.access import (
    StoreError,
    open_deletions,
    open_deliveries,
    open_engine,
    open_rotation,
    open_writer,
)
from pbmon.store.erasure import Deletions
from pbmon.store.holdings import HELD, LEADING, OF_NOBODY, Fate
from pbmon.store.schema import HOUR
from tests.patience import patiently
from tests.stack.process import wait_until
from tests.store.conftest import emptied
from tests.store.test_writer import NOON, event, portion

CANARY = "canary-4711"
OUTSIDE = b"o" * 32


def everything(user, session, n=0):
    """Entries of each kind that can carry a person."""
    return [
        entries.encode(entries.Consent(NOON, user, "analytics", True)),
        entries.encode(entries.Consent(NOON, user, "sharing", True)),
        event("visited", at=NOON + n, session=session),
        entries.encode(entries.Link(NOON, session, user)),
        event("bought", at=NOON + HOUR + n, user=user, session=session, event_id=f"{user}-{n}"),
        entries.encode(
            entries.Feedback(NOON, "nps", 9, f"said {user}", user, session, None, None, None, None)
        ),
        entries.encode(
            entries.Feedback(NOON, "nps", 1, "before", None, session, None, None, None, None)
        ),
        entries.encode(entries.Exposure(NOON, "checkout", "b", user, None, "pbmon")),
        entries.encode(entries.Exposure(NOON, "landing", "a", None, session, "pbmon")),
        entries.encode(
            entries.Transaction(
                NOON, "charge", f"{user}-{n}", None, "completed", 1250, "USD", 2, NOON, None, user
            )
        ),
    ]


class Books:
    """A writer that is handed entries, as of one journal after the other."""

    def __init__(self, url, **options):
        options = {"sharing": "opt-out", "destinations": ("segment",)} | options
        self.writer = open_writer(url, "opt-out", **options)
        self.journals = 0

    def put(self, *payloads):
        self.journals += 1
        return self.writer.write([portion(*payloads, source=f"{self.journals}-j")])


@pytest.fixture
def books(url):
    made = Books(url)
    yield made
    made.writer.close()


@pytest.fixture
def deletions(url):
    made = open_deletions(url)
    yield made
    made.close()


def rows(engine, table):
    with engine.connect() as connection:
        return connection.execute(select(table)).all()


def counts(engine):
    with engine.connect() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables.metadata.sorted_tables
        }


def money(engine):
    """Everything that the books say."""
    with engine.connect() as connection:
        return [
            sorted(map(tuple, connection.execute(select(table)).all()), key=repr)
            for table in (tables.revenue_totals, tables.counted_totals, tables.ledger_totals)
        ] + [
            connection.execute(
                select(func.count(), func.sum(tables.transactions.c.amount_minor))
            ).one()
        ]


def delete(deletions, user, *destinations, has_outbox=False):
    receipt_id, _ = deletions.begin(user, destinations, has_outbox=has_outbox)
    deletions.sweep(receipt_id)
    return receipt_id


def found(engine, needles):
    """Table and column of each value that has one of these bytes in it; the tombstones' aside."""
    hits = set()
    with engine.connect() as connection:
        for table in tables.metadata.sorted_tables:
            for row in connection.execute(select(table)).mappings():
                for name, value in row.items():
                    raw = bytes(value) if isinstance(value, (bytes, memoryview)) else (
                        str(value).encode()
                    )  # fmt: skip
                    hits |= {(table.name, name) for needle in needles if needle in raw}
    return hits


def pseudonyms(engine, user, pepper):
    """All bytes by which the store, or a destination, knows somebody."""
    lookup = privacy.lookup(pepper, user)
    with engine.connect() as connection:
        mine = tables.subjects.c.lookup == lookup
        key = bytes(connection.execute(select(tables.subjects.c.key).where(mine)).scalar_one())
    names = ("store", "segment", "webhook")
    return [key, *(privacy.pseudonym(key, name) for name in names)]


def pepper_of(engine):
    with engine.connect() as connection:
        of = tables.meta.c
        query = select(of.value).where(of.key == "pepper")
        return bytes.fromhex(connection.execute(query).scalar_one())


# --- every table has a place ---


def test_every_table_is_known_to_deletion_and_export():
    """A new one must be given its place in store.holdings: what of a person it holds."""
    held = {each.table for each in HELD}
    assert held | OF_NOBODY.keys() == set(tables.metadata.sorted_tables)
    assert not held & OF_NOBODY.keys()


@pytest.mark.parametrize("table", tables.metadata.sorted_tables, ids=lambda table: table.name)
def test_every_column_that_leads_to_a_person_is_known(table):
    leading = {column.name for column in table.columns if column.name in LEADING}
    (held,) = [each for each in HELD if each.table is table] or [None]
    known = {
        column.name
        for column in (held.subject, held.session, held.lookup)
        if column is not None
    } if held is not None else set()  # fmt: skip
    also = {
        "deliveries": {"subject"}, "dead_letters": {"subject"}, "sessions": {"session"},
        "deletions": {"target"},
    }  # fmt: skip
    assert leading == known | also.get(table.name, set())


def test_no_other_column_may_be_a_pseudonym():
    """Each binary column is a pseudonym that is known, a key, or an id of something else."""
    others = {
        "event_id", "trace_id", "id", "fingerprint", "alert_id", "body_hash", "key", "receipt_id",
    }  # fmt: skip
    for table in tables.metadata.sorted_tables:
        for column in table.columns:
            if isinstance(column.type, LargeBinary):
                assert column.name in others | set(LEADING), f"{table.name}.{column.name}"


# --- a deletion ---


def test_everything_of_a_person_goes_and_nothing_of_others(books, engine, deletions):
    books.put(*everything("8", "s8"))
    before = counts(engine)
    books.put(*everything(CANARY, "s-canary"))
    whole = money(engine)
    needles = pseudonyms(engine, CANARY, pepper_of(engine))
    session = books.writer.session("s-canary")
    assert found(engine, [CANARY.encode()]) == {("feedback", "comment"), ("transactions", "key")}
    receipt_id = delete(deletions, CANARY, "segment")

    assert found(engine, [*needles[:2], session]) == set()
    left = counts(engine)
    stays = {table.name for table in OF_NOBODY if table not in (tables.event_keys, tables.meta)} | {
        "transactions",
        "deletions",
        "subjects",
    }
    assert {name: n for name, n in left.items() if name not in stays} == {
        name: n for name, n in before.items() if name not in stays
    }
    assert money(engine) == whole
    (tombstone,) = [row for row in rows(engine, tables.subjects) if row.deleted_at is not None]
    assert bytes(tombstone.lookup) == books.writer.lookup(CANARY)
    assert (tombstone.key, tombstone.analytics, tombstone.sharing) == (None, None, None)
    subjects = {row.key: row.subject for row in rows(engine, tables.transactions)}
    assert subjects[f"{CANARY}-0"] is None
    assert subjects["8-0"] is not None

    receipt = deletions.receipt(receipt_id)
    assert receipt.counts == {
        "consents": 2, "deliveries": 2, "event_keys": 1, "events": 2, "exposures": 2,
        "feedback": 2, "sessions": 1, "subject_activity": 1, "subject_days": 1, "transactions": 1,
    }  # fmt: skip
    assert set(receipt.outstanding) == {"segment", JOURNALS, DISK}
    assert abs(receipt.deleted_at - dt.datetime.now(dt.timezone.utc)) < dt.timedelta(minutes=5)
    # What waits for a destination is its own pseudonym and nothing else.
    assert found(engine, needles) == {("deletions", "target")}
    deletions.settle("segment", [receipt_id], [], due_at=0, fault="")
    assert found(engine, needles) == set()


def test_again_it_is_the_same_receipt_and_nothing_changes(books, engine, deletions):
    books.put(*everything(CANARY, "s"))
    first = delete(deletions, CANARY, "segment")
    before = counts(engine)
    second, is_new = deletions.begin(CANARY, ("segment", "webhook"), has_outbox=True)
    assert (second, is_new) == (first, False)
    assert deletions.sweep(second) is None
    assert counts(engine) == before


def test_who_comes_late_is_refused_whatever_the_time(books, engine, deletions):
    books.put(*everything(CANARY, "s"))
    delete(deletions, CANARY)
    before, whole = counts(engine), money(engine)
    # By one who remembers the person, and is told by nothing in the batch.
    assert books.put(event(user=CANARY)).dropped == {"deleted": 1}
    late = [
        entries.encode(entries.Consent(NOON + HOUR, CANARY, "analytics", True)),
        entries.encode(entries.Link(NOON, "s2", CANARY)),
        event(at=NOON - 99 * HOUR, user=CANARY, consent=True),
        event(user=CANARY),
        entries.encode(
            entries.Feedback(NOON, "nps", 9, "again", CANARY, None, None, True, None, None)
        ),
        entries.encode(entries.Exposure(NOON, "checkout", "b", CANARY, None, "pbmon")),
    ]
    assert books.put(*late).dropped == {"deleted": 6}
    changed = {name for name, n in counts(engine).items() if n != before[name]}
    assert changed == {"checkpoints"}
    assert money(engine) == whole
    # Money is booked all the same, and is nobody's.
    assert books.put(everything(CANARY, "s", n=7)[-1]).stored == 1
    assert {row.subject for row in rows(engine, tables.transactions)} == {None}


@pytest.mark.server
def test_a_writer_under_way_is_waited_for(postgresql, monkeypatch):
    """It has found the person and has not stored the row yet."""
    url = postgresql.url.render_as_string(hide_password=False)
    books, deletions = Books(url), open_deletions(url)
    books.put(event(user=CANARY))
    found_them, go_on = threading.Event(), threading.Event()
    find = people.People.find

    def find_and_wait(self, *arguments):
        find(self, *arguments)
        found_them.set()
        assert go_on.wait(60)

    monkeypatch.setattr(people.People, "find", find_and_wait)
    writing = threading.Thread(target=books.put, args=(event(user=CANARY),))
    deleting = threading.Thread(target=delete, args=(deletions, CANARY))
    writing.start()
    assert found_them.wait(60)
    deleting.start()
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'")

    def is_waiting():
        with postgresql.connect() as connection:
            return connection.execute(waits).scalar_one() > 0

    wait_until(lambda: is_waiting() or not deleting.is_alive(), "the deletion")
    go_on.set()
    for thread in (writing, deleting):
        thread.join()
    assert rows(postgresql, tables.events) == []
    for each in (books.writer, deletions):
        each.close()


@pytest.mark.server
@pytest.mark.parametrize("retries", [False, True], ids=["buries", "retries"])
def test_what_moves_between_tables_meanwhile_does_not_come_back(postgresql, retries):
    """The tables of what waits and of dead letters are emptied one after the other."""
    url = postgresql.url.render_as_string(hide_password=False)
    books, deletions, deliveries = Books(url), open_deletions(url), open_deliveries(url, "opt-out")
    books.put(event("before", session="s"), event(user=CANARY, session="s"))
    dead = {each.event_id: "rejected:400" for each in deliveries.take("segment", 10)}
    if retries:
        deliveries.settle("segment", [], dead)
    receipt_id, _ = deletions.begin(CANARY, (), has_outbox=False)
    has_read, go_on, insert = threading.Event(), threading.Event(), deliveries._insert

    def wait_and_insert(table):
        has_read.set()
        assert go_on.wait(60)
        return insert(table)

    deliveries._insert = wait_and_insert
    move = (deliveries.retry, "segment") if retries else (deliveries.settle, "segment", [], dead)
    moving = threading.Thread(target=move[0], args=move[1:])
    sweeping_ = threading.Thread(target=deletions.sweep, args=(receipt_id,))
    moving.start()
    assert has_read.wait(60)
    sweeping_.start()
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    def is_waiting():
        with postgresql.connect() as connection:
            return connection.execute(waits).scalar_one() > 0

    wait_until(lambda: is_waiting() or not sweeping_.is_alive(), "the deletion")
    go_on.set()
    for thread in (moving, sweeping_):
        thread.join()
    assert rows(postgresql, tables.deliveries) == rows(postgresql, tables.dead_letters) == []
    for each in (books.writer, deletions, deliveries):
        each.close()


# --- with other names ---


def test_a_destination_is_asked_for_every_name_that_it_had(books, engine, deletions, url):
    books.put(event(user=CANARY))
    rotation = open_rotation(url, None)
    for _ in range(2):
        rotation.destination("segment")
    rotation.close()
    books.put(event("again", user=CANARY))
    key = pseudonyms(engine, CANARY, pepper_of(engine))[0]
    receipt_id = delete(deletions, CANARY, "segment")
    names = [privacy.pseudonym(key, name) for name in ("segment", "segment#1", "segment#2")]
    assert deletions.asked_of("segment", 10) == [(receipt_id, tuple(n.hex() for n in names))]
    assert [bytes(row.target) for row in rows(engine, tables.deletions) if row.target] == [
        b"".join(names)
    ]
    deletions.settle("segment", [receipt_id], [], due_at=0, fault="")
    assert found(engine, [key, *names]) == set()
    assert rows(engine, tables.events) == []


def test_a_person_of_another_key_is_deleted_whole(books, engine, deletions, url):
    books.put(*everything(CANARY, "s"))
    old = pseudonyms(engine, CANARY, pepper_of(engine))
    rotation = open_rotation(url, None)
    rotation.person(CANARY)
    books.put(*everything(CANARY, "s", n=1))
    new = pseudonyms(engine, CANARY, pepper_of(engine))
    receipt_id = delete(deletions, CANARY, "segment")
    assert deletions.asked_of("segment", 10) == [(receipt_id, (new[2].hex(),))]
    deletions.settle("segment", [receipt_id], [], due_at=0, fault="")
    assert found(engine, [*old, *new]) == set()
    assert deletions.receipt(receipt_id).counts["events"] == 4
    assert rotation.person(CANARY) is None
    assert rotation.everybody() == (0, 0)
    rotation.close()
    assert books.put(event(user=CANARY)).dropped == {"deleted": 1}


def test_under_a_pepper_from_outside_a_deletion_holds_and_is_gone_on_with(
    books, engine, deletions, url
):
    books.put(*everything("8", "s8"))
    before = delete(deletions, "8")
    books.put(*everything(CANARY, "s"))
    half, _ = deletions.begin("9", ("segment",), has_outbox=False)
    rotation = open_rotation(url, OUTSIDE)
    rotation.adopt()
    rotation.close()
    with pytest.raises(StoreError, match="knows people by a pepper from outside"):
        deletions.begin(CANARY, (), has_outbox=False)
    there = open_deletions(url, OUTSIDE)
    assert there.begin("8", (), has_outbox=False) == (before, False)
    receipt_id = delete(there, CANARY, "segment")
    assert deletions.unswept() == [half]  # without the pepper too: who goes on needs no names
    deletions.sweep(half)
    assert there.receipt(receipt_id).counts["events"] == 2
    assert rows(engine, tables.events) == []
    tombs = {bytes(row.lookup) for row in rows(engine, tables.subjects) if row.deleted_at}
    own = pepper_of(engine)
    assert tombs == {
        privacy.veiled(OUTSIDE, privacy.lookup(own, user)) for user in ("8", "9", CANARY)
    }
    after = Books(url, pepper=OUTSIDE)
    after.journals = 100
    late = (event(user="8"), event(user="9"), event(user=CANARY))
    assert after.put(*late).dropped == {"deleted": 3}
    for each in (there, after.writer):
        each.close()


def test_a_tombstone_says_nothing_but_that_and_when(books, engine, deletions):
    books.put(
        *everything(CANARY, "s"),
        entries.encode(entries.Consent(NOON + HOUR, CANARY, "sharing", False, "2026-01")),
        entries.encode(entries.Consent(NOON + HOUR, CANARY, "analytics", True, "2026-01")),
    )
    delete(deletions, CANARY)
    (tombstone,) = rows(engine, tables.subjects)
    kept = {"lookup", "created_at", "deleted_at"}
    assert {k for k, v in tombstone._mapping.items() if v is not None} == kept
    assert set(tables.subjects.c.keys()) == kept | people.FORGOTTEN.keys()


def test_where_no_journal_is_known_a_shipper_must_have_looked(engine, deletions):
    receipt_id = delete(deletions, CANARY)
    deletions.settle_journals()
    assert JOURNALS in deletions.receipt(receipt_id).outstanding
    deletions.note_cleared([], deletions.newest_waiting())
    assert JOURNALS not in deletions.receipt(receipt_id).outstanding


def test_one_who_was_never_seen_may_be_deleted(books, engine, deletions):
    receipt = deletions.receipt(delete(deletions, CANARY, "segment"))
    assert receipt.counts == {}
    assert set(receipt.outstanding) == {JOURNALS, DISK}  # no destination knows them
    assert books.put(event(user=CANARY)).dropped == {"deleted": 1}


def test_destinations_that_got_events_before_are_asked_too(books, engine, deletions, url):
    books.put(event(user="8"), event(user=CANARY))
    deliveries = open_deliveries(url, "opt-out")
    taken = [each.event_id for each in deliveries.take("segment", 10)]
    deliveries.settle("segment", taken, {})
    subject = privacy.pseudonym(pseudonyms(engine, CANARY, pepper_of(engine))[0], "segment")
    receipt_id = delete(deletions, CANARY)
    assert deletions.asked_of("segment", 10) == [(receipt_id, (subject.hex(),))]


def test_a_session_that_is_anothers_stays(books, engine, deletions):
    books.put(
        event("first", session="shared"),
        entries.encode(entries.Link(NOON, "shared", "8")),
        event("mine", user=CANARY, session="shared"),
        event("own", user=CANARY, session="own"),
        event("own before", session="own"),
    )
    delete(deletions, CANARY)
    assert [row.name for row in rows(engine, tables.events)] == ["first"]


def test_dead_letters_and_what_waits_of_sessions_go_too(books, engine, deletions, url):
    books.put(event("before", session="s"), event("mine", user=CANARY, session="s"), event("other"))
    deliveries = open_deliveries(url, "opt-out")
    taken = {each.name: each.event_id for each in deliveries.take("segment", 10)}
    deliveries.settle("segment", [], {taken["before"]: "rejected:400", taken["mine"]: "too_large"})
    delete(deletions, CANARY)
    assert rows(engine, tables.dead_letters) == []
    assert len(rows(engine, tables.deliveries)) == 1


def test_many_events_go_in_several_transactions(books, engine, deletions, monkeypatch):
    monkeypatch.setattr(sweeping, "_EVENTS", 7)
    books.put(*(event(at=NOON + n // 3, user=CANARY, event_id=f"e{n}") for n in range(40)))
    books.put(*(event("before", at=NOON + n, session="s") for n in range(20)))
    books.put(entries.encode(entries.Link(NOON, "s", CANARY)), event(user="8"))
    receipt = deletions.receipt(delete(deletions, CANARY))
    assert (receipt.counts["events"], receipt.counts["event_keys"]) == (60, 40)
    assert len(rows(engine, tables.events)) == 1


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_ended_between_two_transactions_it_is_gone_on_with(
    books, engine, deletions, monkeypatch, stop_after
):
    monkeypatch.setattr(sweeping, "_EVENTS", 5)
    books.put(*(event(at=NOON + n, user=CANARY) for n in range(12)))
    receipt_id, _ = deletions.begin(CANARY, ("segment",), has_outbox=False)
    for _ in range(stop_after - 1):
        deletions._sweep(receipt_id, by_session=True)
    if stop_after == 3:  # within one: all of it is undone
        some = sweeping.Sweep._remove

        def fail(self, *arguments):
            some(self, *arguments)
            raise OSError("ended")

        monkeypatch.setattr(sweeping.Sweep, "_remove", fail)
        with pytest.raises(Exception, match="can't be used"):
            deletions.sweep(receipt_id)
        monkeypatch.setattr(sweeping.Sweep, "_remove", some)
    assert deletions.unswept() == [receipt_id]
    again, is_new = deletions.begin(CANARY, (), has_outbox=False)
    assert (again, is_new) == (receipt_id, False)
    assert deletions.sweep(receipt_id)["events"] == 12
    assert rows(engine, tables.events) == []
    assert deletions.unswept() == []


def test_two_who_delete_the_same_person_do_it_once(books, engine, url, monkeypatch):
    monkeypatch.setattr(sweeping, "_EVENTS", 3)
    books.put(*(event(at=NOON + n, user=CANARY) for n in range(30)))
    parts = [open_deletions(url) for _ in range(2)]
    done = []

    def work(part):
        receipt_id, _ = part.begin(CANARY, (), has_outbox=False)
        done.append((receipt_id, part.sweep(receipt_id)))

    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({receipt_id for receipt_id, _ in done}) == 1
    assert [found["events"] for _, found in done if found is not None] == [30]
    for part in parts:
        part.close()


def test_writers_under_load_leave_nothing(url, engine, deletions):
    """Each remembers who the person is; none of them stores a row behind the tombstone."""
    over = threading.Event()
    stored, failures = [0] * 4, []

    def write(number):
        books = Books(url)
        books.journals = number * 10_000
        try:
            while not over.is_set() or not stored[number]:
                some = [event(at=NOON + n, user=user) for n in range(5) for user in (CANARY, "8")]
                stored[number] += books.put(*some).stored
        except Exception as error:
            failures.append(error)
        finally:
            books.writer.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while not all(stored) and not failures:
        over.wait(0.005)
    receipt_id = delete(deletions, CANARY)
    at_once = counts(engine)
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    events = rows(engine, tables.events)
    subjects = {bytes(row.subject) for row in events}
    assert len(subjects) == 1  # 8's alone
    assert len(events) >= at_once["events"] > 0
    assert deletions.receipt(receipt_id).counts["events"] > 0


# --- what waits on hosts ---


def clear(deletions, *sources, at):
    deletions.note_cleared(sources, at)


def test_journals_are_done_when_all_of_before_are_cleared(books, engine, deletions):
    books.put(event())
    books.put(event())
    receipt_id = delete(deletions, CANARY, has_outbox=True)
    at = deletions.newest_waiting()
    deletions.settle_journals()
    assert JOURNALS in deletions.receipt(receipt_id).outstanding  # nobody has looked yet
    deletions.note_cleared(["1-j"], at)
    assert JOURNALS in deletions.receipt(receipt_id).outstanding
    deletions.note_cleared(["2-j"], at)
    assert set(deletions.receipt(receipt_id).outstanding) == {OUTBOX, DISK}
    assert deletions.newest_waiting() == at
    deletions.note_outbox(at - 1)
    assert deletions.newest_waiting() == at
    deletions.note_outbox(at)
    assert deletions.newest_waiting() is None


def test_a_journal_that_was_begun_later_is_not_waited_for(books, engine, deletions):
    receipt_id = delete(deletions, CANARY)
    at = deletions.newest_waiting()
    made = portion(event(), source="later")._replace(begun_at=at + 1)
    books.writer.write([made])
    deletions.note_cleared([], at)
    assert set(deletions.receipt(receipt_id).outstanding) == {DISK}


def test_a_host_that_fell_silent_is_not_waited_for(books, engine, deletions):
    books.put(event())
    receipt_id = delete(deletions, CANARY)
    deletions.note_cleared([], deletions.newest_waiting())
    assert JOURNALS in deletions.receipt(receipt_id).outstanding
    with engine.begin() as connection:
        connection.execute(
            tables.checkpoints.update().values(
                changed_at=tables.checkpoints.c.changed_at - 3 * HOUR
            )
        )
    deletions.settle_journals()
    assert JOURNALS not in deletions.receipt(receipt_id).outstanding


# --- the whole, at random ---

USERS = [f"user-{n}" for n in range(4)]
SESSIONS = [f"session-{n}" for n in range(4)]


class Machine(RuleBasedStateMachine):
    """Histories of people, some of whom are deleted: of these there is nothing, of money all."""

    url = ""

    def __init__(self):
        super().__init__()
        emptied(self.url)
        self.engine = open_engine(self.url)
        self.deletions = Deletions(self.engine)
        # Two, of which each remembers people on its own.
        self.books = [Books(self.url), Books(self.url)]
        self.books[1].journals = 1000
        self.deleted, self.dead = set(), set()
        self.pepper = pepper_of(self.engine)
        self.money, self.sold = 0, 0
        self.kept = 0

    @rule(
        user=st.sampled_from(USERS),
        session=st.sampled_from(SESSIONS),
        n=st.integers(0, 99),
        writer=st.integers(0, 1),
        size=st.integers(1, 10),
    )
    def live(self, user, session, n, writer, size):
        some = everything(user, f"{session}-{user}", n)[-size:]
        written = self.books[writer].put(*some)
        if user in self.deleted:
            assert written.dropped["deleted"] >= len(some) - 4  # sessions' and money are nobody's

    @rule(amount=st.integers(1, 10_000), user=st.sampled_from(USERS), writer=st.integers(0, 1))
    def pay(self, amount, user, writer):
        self.sold += 1
        self.money += amount
        self.books[writer].put(entries.encode(entries.Transaction(
            NOON, "charge", f"sale-{self.sold}", None, "completed", amount, "USD", 2, NOON, None,
            user,
        )))  # fmt: skip

    @rule(user=st.sampled_from(USERS), is_whole=st.booleans())
    def delete(self, user, is_whole):
        lookup = privacy.lookup(self.pepper, user)
        with self.engine.connect() as connection:
            mine = tables.subjects.c.lookup == lookup
            key = connection.execute(select(tables.subjects.c.key).where(mine)).scalar()
        whole = money(self.engine)
        receipt_id, _ = self.deletions.begin(user, ("segment",), has_outbox=False)
        if key is not None:
            self.dead.add(privacy.pseudonym(bytes(key), "store"))
        self.deleted.add(user)
        if is_whole:
            self.deletions.sweep(receipt_id)
        assert money(self.engine) == whole

    @rule()
    def go_on(self):
        for receipt_id in self.deletions.unswept():
            self.deletions.sweep(receipt_id)

    @invariant()
    def nothing_is_left_of_who_was_deleted(self):
        if self.deletions.unswept():
            return
        with self.engine.connect() as connection:
            for held in HELD:
                column = held.subject if held.subject is not None else held.lookup
                if held.fate is Fate.TOMBSTONE:
                    continue
                there = {bytes(v) for v in connection.execute(select(column)).scalars() if v}
                wanted = self.dead if held.subject is not None else {
                    privacy.lookup(self.pepper, user) for user in self.deleted
                }  # fmt: skip
                assert not there & wanted, held.table.name

    @invariant()
    def no_money_is_lost(self):
        of = tables.transactions.c
        with self.engine.connect() as connection:
            query = select(func.count(), func.coalesce(func.sum(of.amount_minor), 0))
            sales = connection.execute(query.where(of.key.like("sale-%"))).one()
        assert tuple(sales) == (self.sold, self.money)

    def teardown(self):
        for each in (*(books.writer for books in self.books), self.deletions):
            each.close()
        self.engine.dispose()


def test_of_any_history_nothing_is_left(quick_url):
    machine = type("Machine", (Machine,), {"url": quick_url})
    examples = 12 if quick_url.startswith("sqlite") else 6
    run_state_machine_as_test(
        machine, settings=patiently(max_examples=examples, stateful_step_count=12)
    )
