"""Growth, cohorts, funnels and adoption as the application asks for them."""

from __future__ import annotations

import datetime as dt

import pytest

import pbmon
from pbmon import runtime
from tests.fresh import python

DAY = dt.date(2026, 11, 24)
START = dt.datetime(2026, 11, 1, tzinfo=dt.timezone.utc)
END = dt.datetime(2026, 12, 1, tzinfo=dt.timezone.utc)


class Reader:
    """Notes what it was asked."""

    def __getattr__(self, name):
        return lambda *arguments: (name, *arguments)


@pytest.fixture
def reader(monkeypatch):
    monkeypatch.setattr(runtime.active, "reader", Reader)


CALLS = {
    "user_growth": lambda: pbmon.user_growth(DAY),
    "cohorts": lambda: pbmon.cohorts(DAY, DAY),
    "funnel": lambda: pbmon.funnel(["a"], start=START, end=END, window_s=60),
    "feature_adoption": lambda: pbmon.feature_adoption(START, END),
}


@pytest.mark.parametrize("call", CALLS)
def test_before_configure_it_says_what_to_do(call, monkeypatch):
    monkeypatch.setattr(runtime.active, "reader", runtime.Runtime().reader)
    with pytest.raises(pbmon.StoreError, match=r"call pbmon.configure\(\) first"):
        CALLS[call]()


def test_the_reader_is_asked_in_its_units(reader):
    assert pbmon.user_growth() == ("user_growth", None)
    assert pbmon.user_growth(DAY) == ("user_growth", DAY)
    assert pbmon.cohorts(DAY, DAY, period="month") == ("cohorts", DAY, DAY, "month")
    berlin = dt.timezone(dt.timedelta(hours=1))
    begin = dt.datetime(1970, 1, 2, 1, 0, 0, 5, tzinfo=berlin)
    asked = pbmon.funnel(["a", "b"], start=begin, end=END, window_s=0.5)
    assert asked == ("funnel", ("a", "b"), 86_400_000_005, 1_796_083_200_000_000, 500_000)
    asked = pbmon.feature_adoption(begin, END, segment="plan")
    assert asked == ("feature_adoption", 86_400_000_005, 1_796_083_200_000_000, "plan")


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: pbmon.user_growth("2026-11-24"), TypeError, "day must be a date, not str"),
        (lambda: pbmon.user_growth(START), TypeError, "day must be a date, not datetime"),
        (lambda: pbmon.cohorts(DAY, None), TypeError, "end must be a date, not NoneType"),
        (lambda: pbmon.cohorts(DAY, DAY, period="year"), ValueError, "day, week, month"),
        (lambda: pbmon.cohorts(DAY, dt.date(2026, 1, 1)), ValueError, "start is after end"),
        (lambda: pbmon.cohorts(dt.date(1, 1, 1), DAY), ValueError, "more than 100 periods"),
        (lambda: pbmon.funnel("ab", start=START, end=END, window_s=1), TypeError, "names of"),
        (lambda: pbmon.funnel([], start=START, end=END, window_s=1), ValueError, "1 to 10"),
        (lambda: pbmon.funnel(["a"], start=END, end=START, window_s=1), ValueError, "after end"),
        (lambda: pbmon.funnel(["a"], start=START, end=END, window_s=0), ValueError, "above 0"),
        (lambda: pbmon.funnel(["a"], start=START, end=END, window_s="1"), TypeError, "a number"),
        (lambda: pbmon.feature_adoption(DAY, END), TypeError, "start must be a datetime"),
        (lambda: pbmon.feature_adoption(START, END.replace(tzinfo=None)), ValueError, "aware"),
        (lambda: pbmon.feature_adoption(START, END, segment=1), TypeError, "segment must be str"),
    ],
)
def test_what_can_t_be_asked_is_said(reader, call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_a_hundred_periods_are_taken(reader):
    pbmon.cohorts(DAY, DAY + dt.timedelta(days=99), period="day")
    with pytest.raises(ValueError, match="more than 100"):
        pbmon.cohorts(DAY, DAY + dt.timedelta(days=100), period="day")


def test_from_tracking_to_the_figures(tmp_path):
    """In a process of its own, and in the child that it forks."""
    python(
        """
        import datetime as dt, os, sys
        import pbmon
        pbmon.configure()
        assert "sqlalchemy" not in sys.modules
        assert pbmon.user_growth() is None
        for user in range(12):
            with pbmon.context(user_id=user, plan="pro" if user else "free"):
                pbmon.track("opened")
                pbmon.track_feature("export", "viewed")
                if user < 11:
                    pbmon.track_feature("export", "completed")
        assert pbmon.flush(60)
        now = dt.datetime.now(dt.timezone.utc)
        start = now - dt.timedelta(hours=1)
        def check():
            steps = ["opened", "feature_viewed", "feature_completed", "never"]
            found = pbmon.funnel(steps, start=start, end=now, window_s=3600)
            assert [step.people for step in found] == [12, 12, 11, None], found
            (found,) = pbmon.feature_adoption(start, now)
            assert (found.uses, found.people, found.adoption) == (23, 12, 1.0), found
            assert (found.viewed, found.clicked) == (12, None), found
            found = pbmon.feature_adoption(start, now, segment="plan")
            assert [(f.segment, f.people) for f in found] == [("pro", None), ("free", None)], found
            day = now.date()
            (cohort,) = pbmon.cohorts(day, day, period="day")
            assert (cohort.begin, cohort.size, cohort.retained) == (day, 12, ()), cohort
            assert pbmon.user_growth(day) is None  # is not over
        check()
        child = os.fork()
        if not child:
            check()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        check()
        """,
        PBMON_STATE_DIR=str(tmp_path), PBMON_SERVICE_NAME="shop", PBMON_CONSENT="opt-out",
        PBMON_SEGMENTS="plan", OTEL_LOGS_EXPORTER="none",
    )  # fmt: skip
