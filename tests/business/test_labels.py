"""Segments as attributes of metrics: only those that are named, and never too many values."""

from __future__ import annotations

import pbmon
from pbmon.business.labels import MAX_VALUES
from pbmon.testing import capture

PLAN, REGION = "pbmon.segment.plan", "pbmon.segment.region"
EVENTS, USAGE = "pbmon.events", "pbmon.feature.usage"


def by(seen, metric, *names):
    """Values of these attributes → count, without what is 0."""
    counts = {}
    for key, n in seen.metrics.get(metric, {}).items():
        values = tuple(dict(key).get(name) for name in names)
        counts[values] = counts.get(values, 0) + n
    return {values: n for values, n in counts.items() if n}


def test_events_and_features_are_divided_by_the_named_segments_alone():
    segments = {"plan": ["free", "pro"], "region": []}
    with capture(segments=segments, segment_metrics=["plan"]) as seen:
        for plan in ("free", "pro", "pro", "gold"):
            with pbmon.context(user_id=7, plan=plan, region="eu", other="x"):
                pbmon.track("bought")
                pbmon.track_feature("export", "viewed")
        pbmon.track("bought")
        pbmon.track_feature("export", "viewed")
    expected = {("free",): 1, ("pro",): 2, ("_other",): 1, (None,): 1}
    assert by(seen, USAGE, PLAN) == expected
    assert seen.metric(EVENTS, pbmon__event__name="bought", pbmon__segment__plan="pro") == 2
    assert by(seen, EVENTS, "pbmon.event.name", PLAN)["bought", "_other"] == 1
    assert by(seen, EVENTS, REGION) == {(None,): 10}
    assert [entry.segments for entry in seen.entries[6:9]] == [
        {"plan": "_other", "region": "eu"}, {"plan": "_other", "region": "eu"}, None,
    ]  # fmt: skip


def test_without_the_setting_no_metric_has_a_segment():
    with capture(segments=["plan"]) as seen, pbmon.context(plan="pro"):
        pbmon.track("bought")
        pbmon.track_feature("export", "viewed")
    assert by(seen, EVENTS, PLAN) == {(None,): 2}
    assert by(seen, USAGE, PLAN) == {(None,): 1}


def test_of_undeclared_values_the_first_count_by_themselves():
    with capture(segments=["plan"], segment_metrics=["plan"]) as seen:
        for n in range(MAX_VALUES + 5):
            with pbmon.context(plan=f"p{n}"):
                pbmon.track("bought")
                pbmon.track_feature("export", "viewed")
        with pbmon.context(plan="p0"):
            pbmon.track("bought")
    counted = by(seen, USAGE, PLAN)
    assert counted == {**{(f"p{n}",): 1 for n in range(MAX_VALUES)}, ("_other",): 5}
    assert seen.metric(EVENTS, pbmon__event__name="bought", pbmon__segment__plan="p0") == 2
    assert seen.entries[-2].segments == {"plan": f"p{MAX_VALUES + 4}"}  # the store keeps it


def test_declared_series_start_at_zero():
    with capture(
        events={"bought": {}}, features=["export"], segment_metrics=["plan", "region"],
        segments={"plan": ["free", "pro"], "region": ["eu"]},
    ) as seen:  # fmt: skip
        assert set(seen.metrics[EVENTS].values()) == set(seen.metrics[USAGE].values()) == {0}
        assert len(seen.metrics[EVENTS]) == 4 * (1 + 3 * 2)
        assert len(seen.metrics[USAGE]) == 3 * (1 + 3 * 2)
    many = {f"e{n}": {} for n in range(100)}
    with capture(events=many, segments={"plan": ["a"] + [str(n) for n in range(9)]},
                 segment_metrics=["plan"]) as seen:  # fmt: skip
        assert len(seen.metrics[EVENTS]) == 4 * 100


def test_a_name_that_is_no_segment_is_told(caplog, monkeypatch):
    monkeypatch.setattr("pbmon.signals._last_told", {})
    with capture(segments=["plan"], segment_metrics=["region", "plan"]) as seen:
        with pbmon.context(plan="pro", region="eu"):
            pbmon.track("bought")
        assert by(seen, EVENTS, PLAN, REGION) == {("pro", None): 1}
    assert "setting segment_metrics names region, which is no segment" in caplog.text
