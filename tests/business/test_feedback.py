"""feedback(): what is accepted, scrubbed, refused and counted; and its figures from the store."""

from __future__ import annotations

import datetime as dt

import pytest

import pbmon
from pbmon import runtime
from pbmon.business import feedback as module
from pbmon.business import refusals
from pbmon.runtime import Refused
from pbmon.spool.entries import Feedback
from pbmon.testing import capture

RESPONSES = "pbmon.feedback.responses"
TRACE = "0af7651916cd43dd8448eb211c80319c"
NOW = dt.datetime(2026, 11, 29, tzinfo=dt.timezone.utc)
DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(refusals, "_told", set())


def test_an_answer_is_accepted_with_whose_it_is_and_its_trace():
    with capture(segments={"plan": ["pro"]}) as seen:
        tracer = runtime.active.requests.tracer
        with (
            pbmon.context(user_id=7, session_id="s", plan="pro", email="a@b.c"),
            tracer.start_as_current_span("s"),
        ):
            assert pbmon.feedback(9, comment=" Nice. ", feedback_id="f") == pbmon.Accepted()
        assert pbmon.feedback(3, survey="csat", user_id=8, trace_id=TRACE.upper())
    first, second = seen.entries
    now = dt.datetime.now(dt.timezone.utc).timestamp() * 1e6
    assert now - 60e6 < first.occurred_at <= now
    assert first[1:] == (
        "nps", 9, "Nice.", "7", "s", seen.spans[0].trace_id, None, "f", {"plan": "pro"}
    )  # fmt: skip
    assert second[1:] == ("csat", 3, None, "8", None, TRACE, None, None, None)
    assert all(isinstance(entry, Feedback) for entry in seen.entries)


def test_a_comment_is_scrubbed_and_cut_before_it_is_handed_over():
    text = "I am jo@example.com, card 4111 1111 1111 1111. " + "x" * 3000
    with capture() as seen:
        pbmon.feedback(survey="text", comment=text)
        pbmon.feedback(survey="text", comment="y" * 19_990 + " jo@example.com" * 100)
        pbmon.feedback(9, comment="  ")
    kept = [entry.comment for entry in seen.entries]
    assert kept[0].startswith("I am [email], card [card]. xxx")
    assert [len(comment) for comment in kept[:2]] == [module.MAX_COMMENT] * 2
    assert kept[2] is None


@pytest.mark.parametrize("basis", ["opt-in", "opt-out", "not-required"])
def test_whether_it_may_be_kept_is_decided_where_it_is_stored(basis):
    with capture(consent=basis) as seen:
        pbmon.feedback(9, user_id=7)
    assert seen.entries[0].consent is None
    assert seen.metric(RESPONSES) == 1


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda: pbmon.feedback("9"), "score must be int, not str"),
        (lambda: pbmon.feedback(9.0), "score must be int, not float"),
        (lambda: pbmon.feedback(True), "score must be int, not bool"),
        (lambda: pbmon.feedback(9, survey=None), "survey must be str, not NoneType"),
        (lambda: pbmon.feedback(9, comment=b"x"), "comment must be str, not bytes"),
        (lambda: pbmon.feedback(9, feedback_id=7), "feedback_id must be str, not int"),
        (lambda: pbmon.feedback(9, trace_id=7), "trace_id must be str, not int"),
        (lambda: pbmon.feedback(9, user_id=1.5), "user_id must be str or int, not float"),
    ],
)
def test_a_wrong_type_raises(call, wrong):
    with capture() as seen, pytest.raises(TypeError, match=wrong):
        call()
    assert seen.entries == []


REFUSED = [
    (lambda: pbmon.feedback(9, survey="mood"), "bad_survey"),
    (lambda: pbmon.feedback(9, survey=""), "bad_survey"),
    (lambda: pbmon.feedback(None), "bad_score"),
    (lambda: pbmon.feedback(11), "bad_score"),
    (lambda: pbmon.feedback(-1), "bad_score"),
    (lambda: pbmon.feedback(0, survey="csat"), "bad_score"),
    (lambda: pbmon.feedback(6, survey="csat"), "bad_score"),
    (lambda: pbmon.feedback(1, survey="text", comment="x"), "bad_score"),
    (lambda: pbmon.feedback(survey="text"), "no_comment"),
    (lambda: pbmon.feedback(survey="text", comment=" \n"), "no_comment"),
    (lambda: pbmon.feedback(9, user_id=""), "bad_user_id"),
    (lambda: pbmon.feedback(9, feedback_id=""), "bad_feedback_id"),
    (lambda: pbmon.feedback(9, feedback_id="x" * 256), "bad_feedback_id"),
    (lambda: pbmon.feedback(9, trace_id="x" * 32), "bad_trace_id"),
    (lambda: pbmon.feedback(9, trace_id="0" * 32), "bad_trace_id"),
    (lambda: pbmon.feedback(9, trace_id=TRACE[:31]), "bad_trace_id"),
]


@pytest.mark.parametrize(("call", "reason"), REFUSED)
def test_a_wrong_value_is_refused_counted_and_told_with_its_line(call, reason, caplog):
    with capture(strict=False) as seen:
        assert call() == Refused(reason)
    assert seen.entries == []
    assert seen.metric(RESPONSES) == 0
    assert seen.metric("pbmon.refused_calls", pbmon__call="feedback", pbmon__reason=reason) == 1
    assert f"pbmon.feedback refused at {__file__}:" in caplog.text
    with capture(strict=True), pytest.raises(ValueError, match=r"pbmon\.feedback: "):
        call()


def test_before_configure_it_is_a_no_op(monkeypatch):
    monkeypatch.setattr(runtime.active, "feedback", None)
    assert pbmon.feedback(9) == Refused("not_configured")


@pytest.mark.parametrize("reason", ["full", "no_state_directory"])
def test_what_is_not_taken_is_not_counted(reason, monkeypatch):
    with capture() as seen:
        monkeypatch.setattr(seen, "put", lambda payload: reason)
        assert pbmon.feedback(9) == Refused(reason)
    assert seen.metric(RESPONSES) == 0


def test_every_score_starts_at_zero_and_each_answer_counts():
    surveys = {"checkout": {"type": "csat", "scale": [1, 3]}}
    with capture(surveys=surveys) as seen:
        before = dict(seen.metrics[RESPONSES])
        pbmon.feedback(9)
        pbmon.feedback(3, survey="checkout")
        pbmon.feedback(survey="text", comment="x")
    assert set(before.values()) == {0}
    assert len(before) == 11 + 5 + 3 + 1
    name, score = "pbmon.feedback.survey", "pbmon.feedback.score"
    assert {key: n for key, n in seen.metrics[RESPONSES].items() if n} == {
        ((score, 9), (name, "nps")): 1,
        ((score, 3), (name, "checkout")): 1,
        ((name, "text"),): 1,
    }


# --- figures ---


@pytest.mark.parametrize(
    ("arguments", "keywords", "wrong"),
    [
        ((NOW, NOW), {}, "end must be after start"),
        ((NOW.replace(tzinfo=None), NOW), {}, "start needs a time zone"),
        ((NOW, NOW.replace(tzinfo=None)), {}, "end needs a time zone"),
        ((NOW, NOW + DAY), {"survey": "mood"}, "survey is not one of csat, nps, text"),
        ((NOW, NOW + DAY), {"segment": "plan"}, "segment is not one of those there are: none"),
    ],
)
def test_a_summary_of_nothing_raises(arguments, keywords, wrong):
    with capture(), pytest.raises(ValueError, match=wrong):
        pbmon.feedback_summary(*arguments, **keywords)


def test_a_summary_wants_datetimes():
    with capture(), pytest.raises(TypeError, match="start must be datetime, not str"):
        pbmon.feedback_summary("2026-01-01", NOW)


def test_a_summary_asks_the_store_in_force(monkeypatch):
    asked = []

    class Reader:
        def feedback(self, *arguments):
            asked.append(arguments)
            return "told"

    east = dt.timezone(dt.timedelta(hours=2))
    with capture(segments=["plan"]):
        monkeypatch.setattr(runtime.active, "reader", Reader)
        assert pbmon.feedback_summary(NOW.astimezone(east), NOW + DAY, segment="plan") == "told"
    micros = int(NOW.timestamp()) * 1_000_000
    survey = runtime.active.settings.surveys["nps"]
    assert asked == [(micros, micros + 86_400_000_000, "nps", survey, "plan")]


def test_without_a_store_there_is_a_remedy(monkeypatch):
    monkeypatch.setattr(runtime.active, "reader", runtime.Runtime().reader)
    with pytest.raises(pbmon.StoreError, match=r"call pbmon.configure\(\) first"):
        pbmon.feedback_summary(NOW, NOW + DAY)
