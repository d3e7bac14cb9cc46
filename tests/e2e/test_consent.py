"""Every entry point: without consent nothing that consent governs leaves a row, an id or a byte
that goes to another machine; and what it does not govern carries nobody."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select

import pbmon
from pbmon import privacy, settings
from pbmon.store import tables
from pbmon.store.access import open_engine
from pbmon.worker.leader import Leader
from pbmon.worker.pseudonyms import Known
from pbmon.worker.targets import makers
from tests.delivery.vendors import WebhookVendor
from tests.e2e import consenting
from tests.e2e.consent_model import CALLS, World, settle, worlds
from tests.fresh import run
from tests.patience import patiently
from tests.store.conftest import file  # noqa: F401
from tests.telemetry.receiver import Receiver

OTHERS = {
    "Accepted", "Budget", "Cohort", "ErrorSummary", "FeatureAdoption", "FunnelStep", "Receipt",
    "Refused", "RevenueMetrics", "StoreError", "UserGrowth", "__version__",  # types
    "aflush", "check_budget", "configure", "flush", "shutdown",
    "websocket_connections",  # of the process
    "cohorts", "error_summary", "experiment_report", "feature_adoption", "feedback_summary",
    "funnel", "revenue_metrics", "user_growth",  # read
    "delete_user", "export_user",  # what a person asks for, agreed or not
    "error_middleware",  # counts what track_error() counts
    "consent",  # what the model is asked by
}  # fmt: skip
"""Public names that take nothing of a person."""

BASES = ("opt-in", "opt-out", "not-required")
PEOPLE = (0, 1)
PEOPLE_TABLES = ("events", "exposures", "feedback", "sessions", "transactions")


def test_every_public_name_has_its_place():
    """A new one is to be put into CALLS, or said to take nothing of a person."""
    assert set(CALLS) | OTHERS == set(pbmon.__all__)
    assert set(CALLS).isdisjoint(OTHERS)
    assert set(pbmon.EXTRAS) == {"OpenFeatureHook"}  # which calls what expose() calls


@pytest.fixture(scope="module")
def vendor():
    with WebhookVendor() as made:
        yield made


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("call"), st.sampled_from(sorted(CALLS)), st.sampled_from(PEOPLE),
            st.sampled_from([None, None, True, False]), st.booleans(),
        ),
        st.tuples(
            st.just("decide"), st.sampled_from(PEOPLE),
            st.sampled_from(["analytics", "analytics", "sharing"]), st.booleans(),
        ),
        st.tuples(st.just("ship")),
        st.tuples(st.just("deliver")),
    ),
    max_size=14,
)  # fmt: skip


def request(whose):
    return ("call", "track", whose, None, True)


# Who agrees is found out behind their first request; then spans name them, and a webhook gets it.
FOUND = [
    ("decide", 0, "analytics", True), ("decide", 0, "sharing", True), ("ship",), request(0),
    ("ship",), request(0), ("ship",), ("deliver",),
]  # fmt: skip
DENIED = [("call", name, 1, False, n % 2 == 0) for n, name in enumerate(sorted(CALLS))]


@pytest.mark.parametrize("basis", BASES)
@patiently(max_examples=10)
@example(sharing="opt-in", steps=FOUND)
@example(sharing="opt-out", steps=DENIED)
@given(sharing=st.sampled_from(BASES), steps=STEPS)
def test_what_is_kept_is_what_may_be_kept(file, vendor, basis, sharing, steps):  # noqa: F811
    vendor.requests.clear()
    with (
        tempfile.TemporaryDirectory() as directory,
        worlds(basis, sharing, vendor.url) as seen,
    ):
        world = World(Path(directory), file, vendor.url, basis, sharing, seen)
        try:
            assert world.leader.lead()
            for step, *arguments in steps:
                settle()
                getattr(world, step)(*arguments)
            refused_in_the_journal(world, steps)
        finally:
            world.close()
        sent = b"".join(r.body for r in vendor.requests)
        world_is_as_the_model_says(world, sent)
        if steps == FOUND:  # that there is something to be seen
            ((key,),) = world.rows("SELECT key FROM subjects")
            assert privacy.pseudonym(key, "otlp").hex().encode() in world.otlp()
            assert privacy.pseudonym(key, "webhook").hex().encode() in sent


def refused_in_the_journal(world, steps):
    """What was said to be refused never was in the journal, nor in the outbox."""
    calls = [each for each in steps if each[0] == "call"]
    written = world.files()
    for token, (_, name, _, consent, _) in zip(world.tokens, calls, strict=True):
        if consent is False:
            assert token.encode() not in written, name
    for whose in PEOPLE:
        said = {each[3] for each in calls if each[2] == whose}
        if said == {False} and not any(each[:2] == ("decide", whose) for each in steps):
            for name in (world.user(whose), world.session(whose)):
                assert name.encode() not in written


def world_is_as_the_model_says(world, sent):
    model, otlp = world.model, world.otlp()
    written = world.files()  # journals, store and the application's outbox, whole
    for whose in PEOPLE:
        for name in (world.user(whose), world.session(whose)):
            assert name.encode() not in written + otlp + sent  # no id is anywhere in the end
    for kept, place in ((model.kept, written), (model.delivered, sent)):
        tokens = {item.token for item in kept if item.table in ("events", "feedback")}
        for token in world.tokens:
            if token.encode() in place:
                assert token in tokens
    assert not any(token.encode() in otlp for token in world.tokens)
    rows_are_as_the_model_says(world)
    delivered = Counter(item.whose for item in model.delivered)
    subjects = keys(world, "webhook")
    assert sum(sent.count(subject.encode()) > 0 for subject in subjects) == len(delivered)
    # Spans name nobody of whom nothing was ever allowed.
    named = [subject for subject in keys(world, "otlp") if subject.encode() in otlp]
    ever = {who for who in PEOPLE if model.analytics != "opt-in" or any(
        who == each and purpose == "analytics" and granted
        for each, purpose, granted, _ in model.stored_decisions
    )}  # fmt: skip
    assert len(named) <= len(ever)


def keys(world, destination):
    """The pseudonyms of those who are known."""
    found = world.rows("SELECT key FROM subjects WHERE key IS NOT NULL")
    return [privacy.pseudonym(key, destination).hex() for (key,) in found]


def rows_are_as_the_model_says(world):
    kept = Counter((item.table, item.whose) for item in world.model.kept)
    for table in PEOPLE_TABLES:
        found = world.rows(
            f"SELECT count(*) FROM {table} WHERE subject IS NOT NULL GROUP BY subject"
        )
        wanted = [kept[table, whose] for whose in PEOPLE if kept[table, whose]]
        if table in ("exposures", "sessions"):  # once for each person
            wanted = [1] * len(wanted)
        assert sorted(n for (n,) in found) == sorted(wanted), table
    (total,) = world.rows("SELECT count(*) FROM events")
    assert total[0] == sum(n for (table, _), n in kept.items() if table == "events")
    (booked,) = world.rows("SELECT count(*) FROM transactions")
    assert booked[0] == world.ledger  # money is booked in any case


def test_in_a_process_of_its_own_nobody_else_is_told_of(vendor, tmp_path):
    """What arrives at an OTLP receiver and at a webhook, and what is left on the disk."""
    vendor.requests.clear()
    with Receiver() as receiver:
        done = run(
            sys.executable, "-m", "tests.e2e.consenting",
            PBMON_STATE_DIR=str(tmp_path / "state"), PBMON_SERVICE_NAME="shop",
            PBMON_ENDPOINT=receiver.url, PBMON_USER_SPANS="true", PBMON_LOGS="true",
            PBMON_SESSION_FROM="header:x-session", PBMON_REQUEST_LOG="all",
            ANALYTICS_ENDPOINT=vendor.url, ANALYTICS_ENABLED="true",
            OTEL_TRACES_EXPORTER="otlp", OTEL_METRICS_EXPORTER="otlp",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        otlp = b"".join(body for _, _, body in receiver.arrived)
    store = f"sqlite:///{tmp_path}/state/store/shop.sqlite3"
    resolved, _ = settings.resolve({"analytics_endpoint": vendor.url, "analytics_enabled": True})
    leader = Leader(store, resolved, list(makers(resolved, "shop").values()))
    assert leader.lead()
    while leader.deliver():
        pass
    leader._close()
    sent = b"".join(request.body for request in vendor.requests)
    engine = open_engine(store)
    with engine.connect() as connection:
        key, *others = [
            bytes(row.key) for row in connection.execute(tables.subjects.select()) if row.analytics
        ]
        booked = connection.execute(select(tables.transactions.c.subject)).scalars().all()
    engine.dispose()
    assert others == []
    assert sorted(subject is None for subject in booked) == [False, True, True]
    written = b"".join(p.read_bytes() for p in (tmp_path / "state").rglob("*") if p.is_file())
    everywhere = otlp + sent + written + done.stderr.encode()
    for name in consenting.PEOPLE:
        assert consenting.user(name).encode() not in everywhere
        assert consenting.session(name).encode() not in everywhere
    for canary in (b"refuses-canary", b"unasked-canary", b"denied-canary"):
        assert canary not in everywhere
    assert b"bought" in otlp  # the counter of it
    assert b"agrees-canary" not in otlp
    assert b"agrees-canary" in sent
    assert sent.count(privacy.pseudonym(key, "webhook").hex().encode()) >= 2
    named = Known(key, "otlp")
    assert otlp.count(named.user.encode()) == 1  # of three requests the one of who agrees
    assert otlp.count(named.session(consenting.session("agrees")).encode()) == 1
