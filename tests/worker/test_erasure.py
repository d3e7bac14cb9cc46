"""Deletion as it is asked for: journals of living processes, the outbox, the disk, destinations."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from pbmon import settings
from pbmon.erasure import DISK, JOURNALS, OUTBOX
from pbmon.spool import entries, turning
from pbmon.spool.journal import Journal
from pbmon.store import jobs, outbox, tables, vacuum
from pbmon.store.access import open_deletions, open_engine, open_runs
from pbmon.worker import erasure
from pbmon.worker.jobs import JOBS, run_due
from pbmon.worker.leader import Leader
from pbmon.worker.shipper import Shipper
from pbmon.worker.targets import makers
from tests.delivery.samples import KEY
from tests.delivery.test_forgetting import TOKEN, AmplitudeErasing, SegmentErasing
from tests.delivery.vendors import Answer
from tests.fresh import environment, run
from tests.stack.process import wait_until
from tests.store.conftest import file, template  # noqa: F401
from tests.store.conftest import postgresql as postgresql
from tests.store.test_erasure import (
    CANARY,
    Books,
    everything,
    found,
    money,
    pepper_of,
    pseudonyms,
)
from tests.store.test_writer import NOON, event
from tests.worker.conftest import OPT_OUT

NEEDLE = CANARY.encode()


def files_with(place, *needles):
    """Names of the files below a directory that have any of these bytes."""
    hits = set()
    for path in Path(place).rglob("*"):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue
        hits |= {path.name for needle in needles if needle in data}
    return hits


def ask(deletions, user, ship, *destinations, has_outbox=False, timeout_s=60.0):
    return erasure.delete(
        deletions, user, destinations, has_outbox=has_outbox,
        deadline_s=time.monotonic() + timeout_s, ship=ship,
    )  # fmt: skip


@pytest.fixture
def deletions(url, shipper):
    shipper.take_duty()
    shipper._open()
    made = open_deletions(url)
    yield made
    made.close()


# --- journals ---


def test_a_journal_begins_another_segment_once_for_each_request(home):
    made = Journal(home)
    made.turn("1")
    assert turning.last_used(made.directory) == 0  # nothing was in it
    made.append(event())
    made.turn("1")
    assert len(list(made.directory.glob("*.seg"))) == 1
    for request in ("2", "2"):
        made.turn(request)
    assert len(list(made.directory.glob("*.seg"))) == 2
    assert turning.last_used(made.directory) == 1
    made.turn("3")
    assert len(list(made.directory.glob("*.seg"))) == 2  # the second is empty
    made.append(event())
    assert turning.last_used(made.directory) == 2
    made.close()
    made.turn("4")
    assert turning.last_used(made.directory) == 2


def test_without_room_for_a_segment_it_is_tried_again(home, monkeypatch):
    made = Journal(home)
    made.append(event())
    monkeypatch.setattr(type(home), "used", lambda self, channel="": 10**15)
    made.turn("1")
    assert len(list(made.directory.glob("*.seg"))) == 1
    monkeypatch.undo()
    made._full = ("", 0.0)
    made.turn("1")
    assert len(list(made.directory.glob("*.seg"))) == 2
    made.close()


def test_a_deletion_waits_for_journals_of_before_and_for_no_other(home, url, shipper, deletions):
    first, second = Journal(home), Journal(home)
    first.append(event(user=CANARY))
    turned = []

    def ship(deadline_s):
        assert shipper.finish(deadline_s)
        first.turn(turning.asked(home))
        turned.append(second.turn(turning.asked(home)))

    receipt = ask(deletions, CANARY, ship)
    assert set(receipt.outstanding) == {DISK}
    assert receipt.counts["events"] == 1
    assert files_with(home.path, NEEDLE) == set()
    # As long as one of them holds it, it is outstanding, and a short wait ends.
    first.append(event(user="9"))
    second.append(event(user="9"))
    receipt = ask(
        deletions, "9",
        lambda until: (shipper.finish(until), first.turn(turning.asked(home))),
        timeout_s=0.3,
    )  # fmt: skip
    assert receipt.outstanding[JOURNALS].startswith("processes still hold")
    first.close()
    second.close()  # its process is gone: what is in it is stored, and removed
    assert set(ask(deletions, "9", ship).outstanding) == {DISK}


def test_what_a_dead_shipper_stored_and_did_not_remove_is_removed(home, url, shipper, deletions):
    kept = Journal(home)
    kept.append(event(user=CANARY))
    shipper.ship()
    kept.turn("1")
    shipper._journals.settle = lambda portion: None  # killed between the two
    shipper._look_at_s = 0.0
    shipper.ship()
    assert files_with(home.path, NEEDLE) != set()
    shipper.end()
    other = Shipper(home, url, OPT_OUT)
    assert other.finish(time.monotonic() + 30)
    assert files_with(home.path, NEEDLE) == set()
    other.end()
    kept.close()


def test_who_comes_back_is_not_held_by_a_segment_for_long(home, url, shipper, deletions):
    kept = Journal(home)

    def ship(until):
        shipper.finish(until)
        kept.turn(turning.asked(home))

    ask(deletions, CANARY, ship)
    kept.append(event(user=CANARY))
    assert files_with(home.path, NEEDLE) != set()
    for _ in range(3):
        ship(time.monotonic() + 30)
    assert shipper.dropped == {"deleted": 1}
    assert files_with(home.path, NEEDLE) == set()
    kept.close()


# --- the outbox ---


def test_rows_of_before_leave_the_outbox(home, url, shipper, deletions, tmp_path):
    shipper.end()
    app = f"sqlite:///{tmp_path}/app.sqlite3"
    database = open_engine(app)
    with database.begin() as connection:
        outbox.create(connection)
        insert = text("INSERT INTO pbmon_outbox (key, payload) VALUES (:k, :p)")
        connection.execute(insert, {"k": os.urandom(16), "p": event(user=CANARY)})
    made = Shipper(home, url, OPT_OUT, outbox_url=app)
    receipt = ask(deletions, CANARY, lambda until: None, has_outbox=True, timeout_s=0.0)
    assert OUTBOX in receipt.outstanding
    receipt = ask(deletions, CANARY, made.finish, has_outbox=True)
    assert set(receipt.outstanding) == {DISK}
    assert made.dropped == {"deleted": 1}
    vacuum.truncate_log(database, 10)
    database.dispose()
    assert files_with(tmp_path, NEEDLE) == set()
    made.end()


# --- the whole, over processes ---

APPLICATION = """
    import sys, time
    import pbmon
    pbmon.configure()
    for line in sys.stdin:
        user = line.strip()
        pbmon.consent.grant(user)
        with pbmon.context(user_id=user, session_id="session-" + user):
            pbmon.track("bought", {"by": user})
            pbmon.feedback(9, survey="nps", comment="said " + user)
            pbmon.track_revenue("12.50", "EUR", transaction_id=str(time.time_ns()))
        print(bool(pbmon.flush(60)), flush=True)
"""


class Application:
    def __init__(self, **variables):
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(APPLICATION)], env=environment(**variables),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def live(self, user):
        self.process.stdin.write(f"{user}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "True\n"

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def test_no_byte_of_a_person_is_left_on_the_disk(tmp_path):
    """Two processes live; the command deletes; then every file is searched."""
    variables = {
        "PBMON_STATE_DIR": str(tmp_path / "state"), "PBMON_SERVICE_NAME": "shop",
        "OTEL_LOGS_EXPORTER": "none", "PBMON_BASE_CURRENCY": "EUR",
    }  # fmt: skip
    url = f"sqlite:///{tmp_path}/state/store/shop.sqlite3"
    applications = [Application(**variables) for _ in range(2)]
    try:
        for each in applications:
            for n in range(3):
                each.live(CANARY)
                each.live(f"other-{n}")
        engine = open_engine(url)
        needles = [NEEDLE, *pseudonyms(engine, CANARY, pepper_of(engine))]
        wait_until(lambda: money(engine)[-1] == (12, 12 * 1250), "all that was sold")
        before = money(engine)
        assert len(files_with(tmp_path, *needles)) >= 2
        command = [sys.executable, "-m", "pbmon.cli", "privacy"]
        done = run(*command, "delete", CANARY, "--timeout", "60", **variables)
        assert done.returncode == 0, done.stderr
        assert [line.split(":")[1] for line in done.stdout.splitlines() if "outst" in line] == [
            " disk"
        ]
        assert CANARY not in done.stdout + done.stderr
        assert money(engine) == before
        done = run(*command, "vacuum", **variables)
        assert done.returncode == 0, done.stderr
        assert files_with(tmp_path, *needles) == set()
        applications[0].live(CANARY)  # and comes back
        wait_until(lambda: files_with(tmp_path, *needles) == set(), "the segments to turn")
        assert found(engine, needles) == set()
        engine.dispose()
    finally:
        for each in applications:
            each.end()


@pytest.mark.server
def test_nothing_is_left_in_the_files_of_postgresql_either(stack_postgres, postgresql):  # noqa: F811
    if stack_postgres._given_url:
        pytest.skip("the files of a server that was given are its own")
    url = postgresql.url.render_as_string(hide_password=False)
    books = Books(url)
    books.put(*everything("8", "s8"), *everything(CANARY, "s"))
    books.put(*(event(at=NOON + n, user=CANARY, properties={"by": CANARY}) for n in range(500)))
    needles = [NEEDLE, *pseudonyms(postgresql, CANARY, pepper_of(postgresql))]
    with postgresql.connect() as connection:
        oid = connection.execute(
            text("SELECT oid FROM pg_database WHERE datname = current_database()")
        ).scalar_one()
    place = stack_postgres.home / "data" / "base" / str(oid)

    def checkpoint():
        with postgresql.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("CHECKPOINT")

    # The transaction's key is the application's own, and stays.
    with postgresql.begin() as connection:
        connection.execute(
            tables.transactions.update().values(key=func.md5(tables.transactions.c.key))
        )
    checkpoint()
    assert files_with(place, *needles) != set()
    deletions = open_deletions(url)
    ask(deletions, CANARY, lambda until: None, timeout_s=0.0)
    runs = open_runs(url)
    assert runs.vacuum(rewrites=True)
    checkpoint()
    assert files_with(place, *needles) == set()
    assert found(postgresql, needles) == set()
    for each in (books.writer, deletions, runs):
        each.close()


# --- the disk ---


def test_the_job_vacuums_after_a_deletion_and_only_in_a_process_of_its_own(url, deletions):
    import datetime as dt

    resolved, _ = settings.resolve({"consent": "opt-out"}, environ={})
    runs = open_runs(url)
    now = dt.datetime(2026, 11, 25, 12, tzinfo=dt.timezone.utc)
    receipt = ask(deletions, CANARY, lambda until: None, timeout_s=0.0)
    assert DISK in receipt.outstanding
    done = run_due(runs, resolved, now, may_change_schema=False)
    assert "vacuum" not in dict(done)
    done = run_due(runs, resolved, now, may_change_schema=True)
    assert "vacuum" in dict(done)
    assert deletions.waits_for_disk() is None
    assert runs.vacuum() is False  # nobody was deleted since
    assert runs.vacuum(anyway=True) is True
    ask(deletions, "9", lambda until: None, timeout_s=0.0)
    assert "vacuum" not in dict(run_due(runs, resolved, now, may_change_schema=True))
    assert JOBS["vacuum"].meaning
    runs.close()


def test_a_vacuum_leaves_no_page_that_is_unused(url, deletions):
    books, runs, made = Books(url), open_runs(url), open_engine(url)
    books.put(*(event(at=NOON + n, user=CANARY, properties={"x": "y" * 200}) for n in range(500)))

    def unused():
        with made.connect() as connection:
            return connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()

    ask(deletions, CANARY, lambda until: None, timeout_s=0.0)
    assert unused() > 0
    assert runs.vacuum()
    assert unused() == 0
    for each in (books.writer, runs):
        each.close()
    made.dispose()


def test_a_log_that_another_reads_is_cut_later(url, deletions):
    made, other = open_engine(url), open_engine(url)
    with other.begin() as connection:
        connection.execute(select(tables.meta)).all()
        assert not vacuum.truncate_log(made)
    assert vacuum.truncate_log(made)
    assert Path(f"{made.url.database}-wal").stat().st_size == 0
    made.dispose()
    other.dispose()


# --- destinations ---


def leading(url, **destinations):
    resolved, problems = settings.resolve({"destinations": destinations, "consent": "opt-out"})
    assert problems == []
    made = Leader(url, resolved, list(makers(resolved, "shop").values()))
    assert made.lead()
    return made


def forgotten(url, *users, names=("segment",)):
    books = Books(url, destinations=names)
    deletions = open_deletions(url)
    for user in users:
        books.put(event(user=user))
        ask(deletions, user, lambda until: None, *names, timeout_s=0.0)
    books.writer.close()
    return deletions


def test_the_leader_asks_until_it_is_taken(url):
    deletions = forgotten(url, "7", "8")
    (waiting,) = [each for each in deletions.outstanding() if each.place == "segment"]
    assert (waiting.deletions, waiting.fault) == (2, None)
    with SegmentErasing(Answer(503)) as vendor:
        made = leading(url, segment={
            "write_key": KEY, "deletion_token": TOKEN, "deletion_url": vendor.url,
        })  # fmt: skip
        made.erase(at_once=True)
        (waiting,) = [each for each in deletions.outstanding() if each.place == "segment"]
        assert (waiting.deletions, waiting.fault) == (2, "503 service unavailable")
        made.erase(at_once=True)
        assert len(vendor.requests) == 1  # left in peace for a while
        engine = open_engine(url)
        with engine.begin() as connection:
            connection.execute(tables.deletions.update().values(due_at=0))
            targets = set(connection.execute(select(tables.deletions.c.target)).scalars())
        made.erase(at_once=True)
        assert set(vendor.people) == {bytes(each).hex() for each in targets if each is not None}
        assert [each for each in deletions.outstanding() if each.place == "segment"] == []
        with engine.connect() as connection:
            targets = set(connection.execute(select(tables.deletions.c.target)).scalars())
        assert targets == {None}  # nobody knows any more whose it was
        engine.dispose()
        made.end()
    deletions.close()


def test_without_credentials_or_destination_it_stays_outstanding_with_the_reason(url):
    deletions = forgotten(url, "7", names=("amplitude", "segment"))
    with AmplitudeErasing() as vendor:
        made = leading(url, amplitude={"api_key": KEY, "deletion_url": vendor.url})
        made.erase(at_once=True)
        assert vendor.requests == []
        faults = {each.place: each.fault for each in deletions.outstanding()}
        assert faults["amplitude"] == "set secret_key of [destinations.amplitude]"
        assert faults["segment"] == "[destinations.segment] is not set"
        made.end()
    deletions.close()


def test_the_leader_finishes_what_was_begun_and_says_so_once(url, caplog):
    caplog.set_level("INFO", "pbmon.privacy")
    books, deletions = Books(url), open_deletions(Books(url).writer._engine.url.render_as_string())
    books.put(*everything(CANARY, "s"))
    receipt_id, _ = deletions.begin(CANARY, (), has_outbox=False)
    made = leading(url)
    made.erase(at_once=True)
    made.erase(at_once=True)
    assert deletions.unswept() == []
    (record,) = [r for r in caplog.records if "User analytics deleted" in r.getMessage()]
    assert record.receipt == deletions.receipt(receipt_id).receipt_id
    assert record.rows == sum(deletions.receipt(receipt_id).counts.values())
    assert CANARY not in record.getMessage() + json.dumps(record.__dict__, default=str)
    made.end()
    deletions.close()
    books.writer.close()


# --- retention ---


def test_retention_is_by_table(url):
    import datetime as dt

    books = Books(url)
    old, day = NOON - 40 * 24 * 3_600_000_000, dt.date(2026, 11, 25)
    for at in (old, NOON):
        books.put(
            entries.encode(entries.Feedback(at, "nps", 9, "x", "7", None, None, None, None, None)),
            entries.encode(entries.Exposure(at, f"e{at}", "b", "7", None, "pbmon")),
            event(user="7"),
            entries.encode(entries.Link(at, f"s{at}", "7")),
        )
    names = ("feedback", "exposures", "sessions")
    engine = open_engine(url)

    def count():
        with engine.connect() as connection:
            return {
                name: connection.execute(
                    select(func.count()).select_from(tables.metadata.tables[f"pbmon.{name}"])
                ).scalar_one()
                for name in names
            }

    retention = JOBS["retention"].do
    resolved, _ = settings.resolve({}, environ={})
    with engine.begin() as connection:
        retention(connection, resolved, day)
    assert count() == dict.fromkeys(names, 2)
    for name in names:
        before = count()
        resolved, problems = settings.resolve({f"{name}_retention_days": 30}, environ={})
        assert problems == []
        with engine.begin() as connection:
            retention(connection, resolved, day)
        assert count() == before | {name: 1}
    assert set(jobs.BY_AGE) == {*names, "dead_letters"}
    engine.dispose()
    books.writer.close()


def test_the_page_names_the_retention_of_each_table():
    page = (Path(__file__).parents[2] / "docs" / "deletion.md").read_text(encoding="utf-8")
    reached, retention = page.split("## Retention")
    for table in tables.metadata.sorted_tables:
        assert f"`{table.name}`" in retention, table.name


# --- kills ---

KILLS = 5
DELETING = """
    import sys, time
    import pbmon
    from pbmon.store import sweeping
    sweeping._EVENTS = 10
    some = sweeping.Sweep.some

    def slowly(self, **options):
        time.sleep(0.03)
        return some(self, **options)

    sweeping.Sweep.some = slowly
    user = sys.argv[1]
    pbmon.configure()
    for n in range(150):
        pbmon.track("bought", {"by": user}, user_id=user)
    with pbmon.context(user_id=user):
        pbmon.track_revenue("12.50", "EUR", transaction_id=user)
    assert pbmon.flush(60)
    print("go", flush=True)
    sys.stdin.readline()
    pbmon.delete_user(user)
    print("done", flush=True)
"""


@pytest.mark.faults
@pytest.mark.parametrize("place", ["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def test_killed_in_the_middle_it_is_finished_by_whoever_comes(request, place, tmp_path):
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    if place == "postgresql":
        made = request.getfixturevalue("postgresql")
        url = made.url.render_as_string(hide_password=False)
    variables = {
        "PBMON_STATE_DIR": str(tmp_path / "state"), "PBMON_SERVICE_NAME": "shop",
        "PBMON_STORE_URL": url, "PBMON_CONSENT": "opt-out", "PBMON_BASE_CURRENCY": "EUR",
        "OTEL_LOGS_EXPORTER": "none",
    }  # fmt: skip
    chance, subjects, halfway = random.Random(1), [], 0
    for n in range(KILLS):
        user = f"{CANARY}-{n}"
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(DELETING), user], env=environment(**variables),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout.readline() == "go\n"
        engine = open_engine(url)
        subjects += pseudonyms(engine, user, pepper_of(engine))[:2]
        engine.dispose()
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(chance.uniform(0.05, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        deletions = open_deletions(url)
        halfway += len(deletions.unswept())
        if chance.random() < 0.5:
            leader = leading(url)
            leader.erase(at_once=True)
            leader.end()
        deletions.close()
        done = run(
            sys.executable, "-m", "pbmon.cli", "privacy", "delete", user, "--timeout", "60",
            **variables,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "outstanding: store" not in done.stdout
        assert "outstanding: journals" not in done.stdout
    engine = open_engine(url)
    assert found(engine, subjects) == set()
    with engine.connect() as connection:
        for table in (tables.events, tables.subject_days, tables.subject_activity):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0
        of = tables.ledger_totals.c
        query = select(func.sum(of.transactions), func.sum(of.amount_minor))
        assert tuple(connection.execute(query).one()) == (KILLS, KILLS * 1250)
    assert files_with(tmp_path / "state", NEEDLE) == set()
    assert halfway > 0  # else the kills came too early, or too late, to prove anything
    engine.dispose()
