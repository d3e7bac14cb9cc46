"""consent.grant, withdraw and status; and what a context says of consent, for every call in it."""

from __future__ import annotations

import datetime as dt
import time

import pytest

import pbmon
from pbmon import identity, runtime
from pbmon.purposes import ConsentStatus
from pbmon.runtime import NOT_CONFIGURED, Refused, StoreError
from pbmon.spool import entries
from pbmon.store import tables
from pbmon.store.access import open_engine, open_reader, open_writer
from pbmon.testing import capture
from tests.store.conftest import url  # noqa: F401
from tests.store.test_writer import portion

EXPERIMENTS = {"checkout": {"variants": {"control": 50, "new": 50}, "goal": "paid"}}
UTC = dt.timezone.utc


def test_a_grant_has_the_version_that_is_named_else_the_one_that_is_asked_for():
    with capture(consent_version={"analytics": "2026-11"}) as seen:
        assert pbmon.consent.grant(7)
        assert pbmon.consent.grant(7, "analytics", version="2026-10")
        assert pbmon.consent.withdraw(7, "analytics")
    assert [entry[1:] for entry in seen.entries] == [
        ("7", "analytics", True, "2026-11"), ("7", "sharing", True, None),
        ("7", "analytics", True, "2026-10"), ("7", "analytics", False, None),
    ]  # fmt: skip


@pytest.mark.parametrize("version", ["", "x" * 51, "a\nb"])
def test_a_version_that_is_none_is_refused(version):
    with capture(strict=False) as seen:
        assert pbmon.consent.grant(7, version=version) == Refused("bad_version")
    assert seen.entries == []
    with capture(), pytest.raises(ValueError, match="version must have 1 to 50 printable"):
        pbmon.consent.grant(7, version=version)
    with capture(), pytest.raises(TypeError, match="version must be str, not int"):
        pbmon.consent.grant(7, version=2)


def test_decisions_follow_each_other_also_where_the_clock_goes_back(monkeypatch):
    clock = iter([5_000_000, 5_000_000, 3_000_000, 4_000_000])
    with capture() as seen:
        monkeypatch.setattr(time, "time_ns", lambda: next(clock))
        for decide in (pbmon.consent.grant, pbmon.consent.withdraw) * 2:
            decide(7, "analytics")
        monkeypatch.undo()
    assert [entry.occurred_at for entry in seen.entries] == [5000, 5001, 5002, 5003]


@pytest.fixture
def asking(url, monkeypatch):  # noqa: F811
    """What status() says; asking(decisions) has them stored first."""
    reader = open_reader(url)

    def ask(*said, **settings):
        now = time.time_ns() // 1000
        payloads = [
            entries.encode(entries.Consent(now - 1000 + n, "7", *each))
            for n, each in enumerate(said)
        ]
        writer = open_writer(url, "opt-in")
        writer.write([portion(*payloads, source=f"{now}-a")])
        writer.close()
        with capture(**settings):
            monkeypatch.setattr(runtime.active, "reader", lambda: reader)
            return pbmon.consent.status(7)

    yield ask
    reader.close()


def test_status_says_how_it_stands_with_each_purpose(asking):
    found = asking(("analytics", True, "2026-11"), ("sharing", True), ("sharing", False))
    assert list(found) == ["analytics", "sharing"]
    analytics, sharing = found.values()
    assert analytics[:5] == ("analytics", "opt-in", True, "2026-11", None)
    assert sharing[:5] == ("sharing", "opt-in", False, None, None)
    assert (analytics.is_kept, sharing.is_kept) == (True, False)
    age = dt.datetime.now(UTC) - analytics.decided_at
    assert dt.timedelta(0) < age < dt.timedelta(minutes=5)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({}, False), ({"consent": "opt-out"}, True), ({"consent": "not-required"}, True)],
)
def test_status_of_somebody_who_was_never_asked(asking, settings, kept):
    found = asking(**settings)["analytics"]
    basis = settings.get("consent", "opt-in")
    assert found == ConsentStatus("analytics", basis, None, None, None, None, kept)


def test_status_of_somebody_who_agreed_to_an_older_text(asking):
    found = asking(("analytics", True, "2026-9"), consent_version="2026-11")["analytics"]
    assert (found.decision, found.version, found.required) == (True, "2026-9", "2026-11")
    assert not found.is_kept


def test_status_of_somebody_who_was_deleted(asking, url):  # noqa: F811
    asking(("analytics", True))
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(tables.subjects.update().values(key=None, deleted_at=1))
    found = asking(consent="opt-out").values()
    assert [(each.decision, each.is_kept) for each in found] == [(None, False)] * 2


def test_status_of_what_is_no_id_and_without_a_store():
    with capture():
        with pytest.raises(ValueError, match="user_id must have 1 to 255 characters"):
            pbmon.consent.status("")
        with pytest.raises(TypeError, match="user_id must be str or int"):
            pbmon.consent.status(None)
        with pytest.raises(StoreError):
            pbmon.consent.status(7)


def test_before_configure_a_decision_is_not_taken(monkeypatch):
    monkeypatch.setattr(runtime.active, "events", None)
    assert pbmon.consent.grant(7) == NOT_CONFIGURED


# --- in a context ---


def call_everything():
    return [
        pbmon.track("bought", {"note": "canary"}),
        pbmon.track_feature("export", "viewed", note="canary"),
        pbmon.experiment("checkout"),
        pbmon.expose("checkout", "new"),
        pbmon.feedback(9, comment="canary"),
        pbmon.identify(7),
    ]


def test_without_consent_a_context_leaves_nothing_but_numbers():
    with (
        capture(experiments=EXPERIMENTS, segments=["plan"], segment_metrics=["plan"]) as seen,
        pbmon.context(user_id=7, session_id="s", consent=False, plan="canary"),
    ):
        verdicts = call_everything()
        assert pbmon.track_revenue("12.50", "USD", transaction_id="t")
        noted = identity.noted()
    assert verdicts[:2] == [Refused("no_consent")] * 2
    assert verdicts[2] in ("control", "new")  # they get their variant all the same
    assert verdicts[3:] == [Refused("no_consent")] * 2 + [None]
    assert [type(entry).__name__ for entry in seen.entries] == ["Transaction"]
    assert (seen.entries[0].user_id, seen.entries[0].segments) == (None, None)
    assert noted is None
    assert "canary" not in str(seen.metrics)
    assert seen.metric("pbmon.events", pbmon__consent="denied") == 2
    assert seen.metric("pbmon.feature.usage", pbmon__feature__name="export") == 1
    assert seen.metric("pbmon.feedback.responses") == 1
    assert seen.metric("pbmon.experiment.exposures") == 2 - (verdicts[2] == "new")


def test_with_consent_a_context_says_so_of_its_own_person():
    with (
        capture(experiments=EXPERIMENTS) as seen,
        pbmon.context(user_id=7, session_id="s", consent=True),
    ):
        call_everything()
        pbmon.track("invited", user_id=8)
        with pbmon.context(user_id=9):
            pbmon.track("a")
        with pbmon.context(session_id="t"):
            pbmon.track("b")
    said = [(e.user_id, e.consent) for e in seen.entries if hasattr(e, "consent")]
    assert said[:-3] == [("7", True)] * (len(said) - 3)
    assert said[-3:] == [("8", None), ("9", None), ("7", True)]


def test_what_a_call_says_stands_above_its_context():
    with capture() as seen, pbmon.context(user_id=7, consent=False):
        assert pbmon.track("a", consent=True)
    assert (seen.entries[0].user_id, seen.entries[0].consent) == ("7", True)
    with capture() as seen, pbmon.context(user_id=7, consent=True):
        assert not pbmon.track("a", consent=False)
    assert seen.entries == []


def test_a_refusal_holds_in_blocks_within():
    with (
        capture() as seen,
        pbmon.context(session_id="s", consent=False),
        pbmon.context(user_id=7),
    ):
        pbmon.track("a")
        with pbmon.context(consent=True):
            pbmon.track("b")
    assert [entry.name for entry in seen.entries] == ["b"]


def test_a_context_takes_a_yes_or_a_no():
    with (
        pytest.raises(TypeError, match="consent must be bool, not str"),
        pbmon.context(consent="y"),
    ):
        pass


def test_who_refuses_and_then_agrees_is_recorded():
    """What is remembered of refusals keeps no exposure out."""
    with capture(experiments=EXPERIMENTS) as seen:
        for consent in (False, False, None, None):
            with pbmon.context(user_id=7, consent=consent):
                pbmon.expose("checkout", "new")
    assert len(seen.entries) == 1
    assert seen.metric("pbmon.experiment.exposures") == 2
