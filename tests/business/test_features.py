"""track_feature(): names, actions, and that metadata changes nothing."""

from __future__ import annotations

import threading

import pytest

import pbmon
from pbmon import runtime
from pbmon.business import refusals
from pbmon.settings import resolve
from pbmon.testing import capture

USAGE = "pbmon.feature.usage"


@pytest.fixture
def seen():
    with capture(strict=False) as seen:
        yield seen


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(refusals, "_told", set())


def uses(seen):
    """(feature, action) → count."""
    return {
        (dict(k)["pbmon.feature.name"], dict(k)["pbmon.feature.action"]): v
        for k, v in seen.metrics.get(USAGE, {}).items()
    }


@pytest.mark.parametrize("action", ["viewed", "clicked", "completed"])
def test_a_use_is_counted(seen, action):
    assert pbmon.track_feature("export", action) == pbmon.Accepted()
    assert pbmon.track_feature("export", action, format="csv", rows=3)
    assert uses(seen) == {("export", action): 2}


def test_metadata_changes_nothing(seen):
    pbmon.track_feature("export", "viewed", feature="import", action="clicked", name="x")
    assert uses(seen) == {("export", "viewed"): 1}
    assert set(dict(next(iter(seen.metrics[USAGE])))) == {
        "pbmon.feature.name",
        "pbmon.feature.action",
    }


def test_registered_features_start_at_zero_and_others_are_other():
    with capture(features=["export", "import"]) as seen:
        wanted = {
            (feature, action): 0
            for feature in ("export", "import")
            for action in ("viewed", "clicked", "completed")
        }
        assert uses(seen) == wanted
        pbmon.track_feature("export", "viewed")
        pbmon.track_feature("typo", "viewed")
        pbmon.track_feature("another", "viewed")
        assert uses(seen) == wanted | {("export", "viewed"): 1, ("_other", "viewed"): 2}


def test_undeclared_names_beyond_a_hundred_are_other(seen):
    for n in range(250):
        pbmon.track_feature(f"f{n}", "clicked")
    pbmon.track_feature("f0", "clicked")
    counted = uses(seen)
    assert len(counted) == 101
    assert counted["_other", "clicked"] == 150
    assert counted["f0", "clicked"] == 2
    assert sum(counted.values()) == 251


def test_registered_names_may_change_while_it_runs(seen):
    pbmon.track_feature("export", "viewed")
    changed, _ = resolve({"features": ["import"]}, {})
    runtime.active.features.apply(changed)
    pbmon.track_feature("export", "viewed")
    pbmon.track_feature("import", "viewed")
    counted = uses(seen)
    assert counted["export", "viewed"] == 1
    assert counted["_other", "viewed"] == 1
    assert counted["import", "viewed"] == 1


def test_threads_lose_nothing(seen):
    def work():
        for _ in range(2000):
            pbmon.track_feature("export", "viewed")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert uses(seen) == {("export", "viewed"): 16_000}


REFUSED = [
    (("export", "opened"), "bad_action", "is not one of viewed, clicked, completed"),
    (("export", ""), "bad_action", "is not one of viewed"),
    (("", "viewed"), "bad_feature", "1 to 100 printable characters"),
    (("x" * 101, "viewed"), "bad_feature", "1 to 100 printable characters"),
    (("a\nb", "viewed"), "bad_feature", "1 to 100 printable characters"),
    (("\ud800", "viewed"), "bad_feature", "1 to 100 printable characters"),
]


@pytest.mark.parametrize(("given", "reason", "remedy"), REFUSED)
def test_refused_counted_and_told_with_its_place(seen, given, reason, remedy):
    assert pbmon.track_feature(*given) == pbmon.Refused(reason)
    assert uses(seen) == {}
    assert seen.metrics["pbmon.refused_calls"] == {
        (("pbmon.call", "track_feature"), ("pbmon.reason", reason)): 1
    }
    (log,) = seen.logs
    assert remedy in log.message
    assert f"pbmon.track_feature refused at {__file__}:" in log.message
    assert "\n" not in log.message


@pytest.mark.parametrize(("given", "reason", "remedy"), REFUSED)
def test_raised_under_strict(given, reason, remedy):
    with capture(strict=True), pytest.raises(ValueError, match=remedy):
        pbmon.track_feature(*given)


@pytest.mark.parametrize("given", [(7, "viewed"), ("export", None), (None, "viewed")])
def test_a_wrong_type_raises(seen, given):
    with pytest.raises(TypeError, match="must be str, not"):
        pbmon.track_feature(*given)


@pytest.mark.parametrize("name", ["x", "x" * 100, "Größe", "two words", "100%"])
def test_names(seen, name):
    assert pbmon.track_feature(name, "viewed")
    assert uses(seen) == {(name, "viewed"): 1}
