"""track(), identify() and consent: what is accepted, kept, refused and counted."""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from collections import Counter
from decimal import Decimal

import pytest
from opentelemetry import trace

import pbmon
from pbmon import catalog, runtime
from pbmon.business import events as module
from pbmon.runtime import Refused
from pbmon.spool.entries import Consent, Event, Link
from pbmon.testing import capture


def counted(seen):
    """(event, consent) → count, without what is 0."""
    series = seen.metrics.get(catalog.EVENTS.name, {})
    names = {(dict(key)["pbmon.event.name"], dict(key)["pbmon.consent"]): n
             for key, n in series.items()}  # fmt: skip
    return {key: n for key, n in names.items() if n}


def test_an_event_is_accepted_as_it_is():
    with capture() as seen:
        verdict = pbmon.track("bought", {"amount": 1999, "who": "Zoë"})
    assert verdict == pbmon.Accepted()
    assert bool(verdict)
    (event,) = seen.entries
    assert (event.name, json.loads(event.properties)) == ("bought", {"amount": 1999, "who": "Zoë"})
    now = dt.datetime.now(dt.timezone.utc).timestamp() * 1e6
    assert now - 60e6 < event.occurred_at <= now
    assert event[2:8] == (None,) * 6
    assert counted(seen) == {("bought", "anonymous"): 1}


def test_values_that_json_has_no_type_for_are_text():
    day, key = dt.date(2026, 11, 25), uuid.UUID(int=5)
    with capture() as seen:
        pbmon.track("bought", {"day": day, "key": key, "price": Decimal("1.50"), "none": None})
    assert json.loads(seen.entries[0].properties) == {
        "day": "2026-11-25", "key": str(key), "price": "1.50", "none": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda: pbmon.track(5), "event must be str, not int"),
        (lambda: pbmon.track("a", [1]), "properties must be a mapping, not list"),
        (lambda: pbmon.track("a", {"b": {1}}), "a property of 'a' is of type set; give texts"),
        (lambda: pbmon.track("a", {"b": object()}), "is of type object"),
        (lambda: pbmon.track("a", user_id=1.5), "user_id must be str or int, not float"),
        (lambda: pbmon.track("a", user_id=True), "user_id must be str or int, not bool"),
        (lambda: pbmon.track("a", event_id=7), "event_id must be str, not int"),
        (lambda: pbmon.track("a", consent="yes"), "consent must be bool, not str"),
        (lambda: pbmon.identify(None), "user_id must be"),
        (lambda: pbmon.consent.grant(1.5), "user_id must be"),
    ],
)
def test_a_wrong_type_raises(call, wrong):
    with capture() as seen, pytest.raises(TypeError, match=wrong):
        call()
    assert seen.entries == []


REFUSED = [
    (lambda: pbmon.track(""), "track", "bad_event"),
    (lambda: pbmon.track("x" * 101), "track", "bad_event"),
    (lambda: pbmon.track("a\nb"), "track", "bad_event"),
    (lambda: pbmon.track("a", user_id=""), "track", "bad_user_id"),
    (lambda: pbmon.track("a", user_id="x" * 256), "track", "bad_user_id"),
    (lambda: pbmon.track("a", event_id=""), "track", "bad_event_id"),
    (lambda: pbmon.track("a", event_id="x" * 256), "track", "bad_event_id"),
    (lambda: pbmon.track("a", {"n": float("nan")}), "track", "bad_property"),
    (lambda: pbmon.track("a", {"n": 10**5000}), "track", "bad_property"),
    (lambda: pbmon.track("a", {str(n): n for n in range(101)}), "track", "bad_property"),
    (lambda: pbmon.track("a", {"n": LOOP}), "track", "bad_property"),
    (lambda: pbmon.identify(""), "identify", "bad_user_id"),
    (lambda: pbmon.consent.grant("7", "fun"), "consent.grant", "bad_purpose"),
    (lambda: pbmon.consent.withdraw("x" * 256), "consent.withdraw", "bad_user_id"),
]
LOOP: list = []
LOOP.append(LOOP)


@pytest.mark.parametrize(("call", "name", "reason"), REFUSED)
def test_a_wrong_value_is_refused_counted_and_told_with_its_line(call, name, reason, caplog):
    with capture(strict=False) as seen:
        verdict = call()
    assert verdict in (Refused(reason), None)
    assert seen.entries == []
    assert seen.metric("pbmon.refused_calls", pbmon__call=name, pbmon__reason=reason) == 1
    with capture(strict=True), pytest.raises(ValueError, match=rf"pbmon\.{name}: "):
        call()


def test_a_refusal_names_the_applications_line(caplog):
    with capture(strict=False):
        pbmon.track("a", {"n": float("inf")})
        pbmon.track("", None)
    said = [record for record in caplog.records if record.name == "pbmon.api"]
    assert [record.getMessage().split(":")[0] for record in said] == [
        f"pbmon.track refused at {__file__}"
    ] * 2


def test_long_texts_of_undeclared_properties_are_cut():
    with capture() as seen:
        pbmon.track("a", {"long": "x" * 300, "short": "y", "n": 1})
    kept = json.loads(seen.entries[0].properties)
    assert kept == {"long": "x" * 256, "short": "y", "n": 1}


# --- declarations ---------------------------------------------------------------------------------

DECLARED = {"bought": {"amount": "int", "price": "float", "gift": "bool", "note": "str"}}


def test_of_a_declared_event_only_the_declared_is_kept(monkeypatch, caplog):
    monkeypatch.setattr("pbmon.signals._last_told", {})
    with capture(events=DECLARED) as seen:
        for _ in range(2):
            pbmon.track("bought", {"amount": 1, "note": "x" * 300, "email": "a@b.c"})
    assert json.loads(seen.entries[0].properties) == {"amount": 1, "note": "x" * 300}
    assert caplog.text.count("pbmon: event bought came with properties") == 1
    assert "[events.bought] of pbmon.toml" in caplog.text
    assert "a@b.c" not in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("amount", 1, True), ("amount", None, True), ("amount", True, False),
        ("amount", 1.0, False), ("amount", "1", False), ("price", 1, True), ("price", 1.5, True),
        ("price", False, False), ("gift", True, True), ("gift", 1, False), ("note", "", True),
        ("note", b"", False),
    ],
)  # fmt: skip
def test_a_declared_property_has_its_type(name, value, taken):
    with capture(events=DECLARED, strict=False) as seen:
        verdict = pbmon.track("bought", {name: value})
    assert verdict == (pbmon.Accepted() if taken else Refused("bad_property"))
    assert len(seen.entries) == taken


def test_undeclared_events_count_as_other_or_are_refused():
    with capture(events=DECLARED) as seen:
        for _ in range(3):
            assert pbmon.track("sold")
        pbmon.track("bought")
    assert counted(seen) == {("_other", "anonymous"): 3, ("bought", "anonymous"): 1}
    with capture(events=DECLARED, unregistered_events="refuse", strict=False) as seen:
        assert pbmon.track("sold") == Refused("unregistered")
        assert pbmon.track("bought")
    assert len(seen.entries) == 1


def test_declared_events_start_at_zero():
    with capture(events=DECLARED) as seen:
        series = seen.metrics[catalog.EVENTS.name]
    assert {(dict(k)["pbmon.event.name"], n) for k, n in series.items()} == {("bought", 0)}
    assert len(series) == 4


def test_the_names_of_a_process_are_bounded():
    with capture() as seen:
        for n in range(150):
            for _ in range(2):
                pbmon.track(f"event {n}")
    counts = counted(seen)
    assert len(counts) == 101
    assert counts["_other", "anonymous"] == 100
    assert sum(counts.values()) == 300


# --- people and consent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("basis", "user", "consent", "label", "kept"),
    [
        ("opt-in", None, None, "anonymous", None),
        ("opt-in", 7, None, "undecided", None),
        ("opt-out", 7, None, "undecided", None),
        ("not-required", 7, None, "granted", None),
        ("opt-in", 7, True, "granted", True),
        ("not-required", 7, False, "denied", "nothing"),
        ("opt-in", None, False, "denied", "nothing"),
    ],
)
def test_the_gate_of_consent(basis, user, consent, label, kept):
    with capture(consent=basis) as seen:
        verdict = pbmon.track("a", user_id=user, consent=consent)
    assert counted(seen) == {("a", label): 1}
    if kept == "nothing":
        assert verdict == Refused("no_consent")
        assert seen.entries == []
    else:
        assert verdict
        assert [(e.user_id, e.consent) for e in seen.entries] == [(user and str(user), kept)]


def test_decisions_are_handed_over_for_each_purpose():
    with capture() as seen:
        assert pbmon.consent.grant(7)
        assert pbmon.consent.withdraw("7", "sharing")
    assert [entry[1:] for entry in seen.entries] == [
        ("7", "analytics", True, None), ("7", "sharing", True, None), ("7", "sharing", False, None),
    ]  # fmt: skip
    assert all(isinstance(entry, Consent) for entry in seen.entries)


def test_the_context_says_whose_event_it_is():
    with capture(segments=["plan"]) as seen:
        with pbmon.context(user_id=7, session_id="s", plan="pro", email="a@b.c"):
            pbmon.track("a")
            pbmon.track("b", user_id=8)
            pbmon.track_feature("export", "viewed")
        pbmon.track("c")
    found = [(e.name, e.user_id, e.session_id, e.segments) for e in seen.entries]
    assert found == [
        ("a", "7", "s", {"plan": "pro"}),
        ("b", "8", "s", {"plan": "pro"}),
        ("feature_viewed", "7", "s", {"plan": "pro"}),
        ("c", None, None, None),
    ]


def test_who_logs_in_is_linked_to_the_session():
    with capture() as seen, pbmon.context(session_id="s"):
        pbmon.track("a")
        pbmon.identify(7)
        pbmon.track("b")
    before, link, after = seen.entries
    assert (before.user_id, after.user_id) == (None, "7")
    assert isinstance(link, Link)
    assert link[1:] == ("s", "7")


def test_without_a_session_there_is_nothing_to_link():
    with capture() as seen, pbmon.context():
        pbmon.identify("7")
        pbmon.track("a")
    assert [type(entry) for entry in seen.entries] == [Event]
    assert seen.entries[0].user_id == "7"


def test_an_event_knows_its_trace():
    with capture() as seen:
        tracer = runtime.active.requests.tracer
        with tracer.start_as_current_span("s"):
            pbmon.track("a")
            wanted = trace.get_current_span().get_span_context().trace_id
    assert seen.entries[0].trace_id == f"{wanted:032x}"


def test_a_feature_is_an_event_that_metadata_cannot_overwrite():
    with capture() as seen:
        assert pbmon.track_feature("export", "completed", feature="other", format="pdf")
    (event,) = seen.entries
    assert event.name == "feature_completed"
    assert json.loads(event.properties) == {"feature": "export", "format": "pdf"}
    assert counted(seen) == {("feature_completed", "anonymous"): 1}
    assert seen.metric("pbmon.feature.usage", pbmon__feature__name="export") == 1


# --- what the journal says ------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["full", "io_error", "busy", "no_state_directory"])
def test_what_is_not_taken_is_refused_and_not_counted_as_an_event(reason, monkeypatch):
    with capture() as seen:
        monkeypatch.setattr(type(seen), "put", lambda *_: reason)
        assert pbmon.track("a") == Refused(reason)
        assert counted(seen) == {}


def test_an_event_that_is_too_large_is_a_wrong_value(monkeypatch):
    with capture() as seen:
        monkeypatch.setattr(type(seen), "put", lambda *_: "too_large")
        with pytest.raises(ValueError, match="event 'a' has more than 48 KiB"):
            pbmon.track("a")


def test_threads_count_each_event():
    with capture() as seen:
        threads = [
            threading.Thread(target=lambda: [pbmon.track("a") for _ in range(500)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counted(seen) == {("a", "anonymous"): 4000}
    assert Counter(e.name for e in seen.entries) == {"a": 4000}


def test_the_limits_are_those_of_the_docs():
    assert (module.MAX_NAME, module.MAX_TEXT) == (100, 256)
