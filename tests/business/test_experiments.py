"""experiment(), expose() and experiment_report(): whose variant, recorded once, refused aloud."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

import pbmon
from pbmon import catalog, identity, runtime
from pbmon.business import experiments as module
from pbmon.business import refusals
from pbmon.experiments import Arm, Exposed, assign
from pbmon.runtime import Accepted, Refused
from pbmon.settings import resolve
from pbmon.spool.entries import Exposure
from pbmon.testing import capture

HALVES = {"control": 50, "treatment": 50}
DECLARED = {
    "checkout": {"variants": HALVES, "goal": "paid"},
    "half": {"variants": HALVES, "goal": "paid", "share": 0.5},
    "over": {"variants": HALVES, "goal": "paid", "enabled": False},
}


@pytest.fixture
def seen():
    with capture(strict=False, experiments=DECLARED) as seen:
        yield seen


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(refusals, "_told", set())


def counted(seen):
    """(experiment, variant) → count."""
    return {
        (dict(key)["feature_flag.key"], dict(key)["feature_flag.result.variant"]): n
        for key, n in seen.metrics[catalog.EXPOSURES.name].items()
    }


NEW = {"variants": {"a": 1, "b": 1}, "goal": "g"}
ZERO = {(key, variant): 0 for key in DECLARED for variant in HALVES}


def test_a_user_gets_their_variant_and_is_recorded_once(seen):
    declared = runtime.active.settings.experiments["checkout"]
    variant = pbmon.experiment("checkout", user_id=7)
    assert variant == assign(declared, "7")
    assert pbmon.experiment("checkout", user_id="7") == variant
    (entry,) = seen.entries
    assert type(entry) is Exposure
    assert entry[1:] == ("checkout", variant, "7", None, "pbmon", None)
    assert counted(seen) == ZERO | {("checkout", variant): 1}


def test_of_the_current_subject_the_user_comes_before_the_session(seen):
    with pbmon.context(session_id="s-1"):
        by_session = pbmon.experiment("checkout")
        pbmon.identify("u-1")
        by_user = pbmon.experiment("checkout")
        pbmon.experiment("checkout", user_id="u-2")
    declared = runtime.active.settings.experiments["checkout"]
    assert (by_session, by_user) == (assign(declared, "s-1"), assign(declared, "u-1"))
    who = [(e.user_id, e.session_id) for e in seen.entries if type(e) is Exposure]
    assert who == [(None, "s-1"), ("u-1", None), ("u-2", None)]


def test_whoever_is_in_no_experiment_gets_none_and_is_not_recorded(seen):
    assert pbmon.experiment("checkout") is None
    assert pbmon.experiment("over", user_id=1) is None
    declared = runtime.active.settings.experiments["half"]
    outside = next(n for n in range(100) if assign(declared, str(n)) is None)
    assert pbmon.experiment("half", user_id=outside) is None
    assert seen.entries == []
    assert counted(seen) == ZERO


def test_before_configure_there_is_nothing():
    with capture():
        runtime.active.experiments = None
        assert pbmon.experiment("checkout", user_id=1) is None
        assert pbmon.expose("checkout", "control", user_id=1) == Refused("not_configured")


def test_an_exposure_decided_elsewhere(seen):
    assert pbmon.expose("checkout", "treatment", user_id=1) == Accepted()
    assert pbmon.expose("checkout", "treatment", user_id=1) == Accepted()
    with pbmon.context(session_id="s"):
        assert pbmon.expose("checkout", "control")
    assert [e[1:] for e in seen.entries] == [
        ("checkout", "treatment", "1", None, "application", None),
        ("checkout", "control", None, "s", "application", None),
    ]
    assert counted(seen) == ZERO | {("checkout", v): 1 for v in HALVES}


def test_a_second_variant_is_recorded_for_the_store_to_see(seen):
    pbmon.expose("checkout", "treatment", user_id=1)
    pbmon.expose("checkout", "control", user_id=1)
    assert [e.variant for e in seen.entries] == ["treatment", "control"]


REFUSED = [
    (lambda: pbmon.experiment("chekout", user_id=1), "experiment", "unknown_experiment",
     "in [experiments.…] of pbmon.toml (declared: checkout, half, over)"),
    (lambda: pbmon.expose("chekout", "control", user_id=1), "expose", "unknown_experiment",
     "experiment 'chekout' is not declared"),
    (lambda: pbmon.expose("checkout", "new", user_id=1), "expose", "unknown_variant",
     "variant 'new' is not one of control, treatment; declare it in [experiments.checkout]"),
    (lambda: pbmon.experiment("checkout", user_id=""), "experiment", "bad_user_id",
     "user_id must have 1 to 255 characters"),
    (lambda: pbmon.expose("checkout", "control", user_id="x" * 256), "expose", "bad_user_id",
     "user_id must have 1 to 255 characters"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "name", "reason", "remedy"), REFUSED)
def test_a_wrong_value_is_refused_counted_and_told_with_its_place(seen, call, name, reason, remedy):
    assert call() == (None if name == "experiment" else Refused(reason))
    assert seen.metrics["pbmon.refused_calls"] == {
        (("pbmon.call", name), ("pbmon.reason", reason)): 1
    }
    (log,) = seen.logs
    assert f"pbmon.{name} refused at {__file__}:" in log.message
    assert remedy in log.message
    assert seen.entries == []


@pytest.mark.parametrize(("call", "name", "reason", "remedy"), REFUSED)
def test_and_raised_under_strict(call, name, reason, remedy):
    with capture(experiments=DECLARED), pytest.raises(ValueError) as raised:
        call()
    assert remedy in str(raised.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pbmon.experiment(5), "key must be str, not int"),
        (lambda: pbmon.experiment("checkout", user_id=1.5), "user_id must be str or int"),
        (lambda: pbmon.expose(None, "control"), "key must be str, not NoneType"),
        (lambda: pbmon.expose("checkout", 5), "variant must be str, not int"),
        (lambda: pbmon.experiment_report(5), "key must be str, not int"),
    ],
)
def test_a_wrong_type_raises(seen, call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_what_is_no_fault_is_refused_quietly(seen):
    assert pbmon.expose("over", "control", user_id=1) == Refused("disabled")
    assert pbmon.expose("checkout", "control") == Refused("no_subject")
    assert seen.logs == []
    assert "pbmon.refused_calls" not in seen.metrics or not seen.metrics["pbmon.refused_calls"]


def test_what_is_not_taken_is_recorded_next_time(seen, monkeypatch):
    sink = runtime.active.experiments
    monkeypatch.setattr(seen, "put", lambda payload: "full")
    assert pbmon.expose("checkout", "control", user_id=1) == Refused("full")
    assert pbmon.experiment("checkout", user_id=2) in HALVES
    monkeypatch.undo()
    assert counted(seen) == ZERO
    assert pbmon.expose("checkout", "control", user_id=1)
    assert len(seen.entries) == 1
    assert sink is runtime.active.experiments


def test_in_a_transaction_it_is_said_each_time_as_that_may_be_undone(seen):
    token = runtime.outbox.set([])
    try:
        pbmon.expose("checkout", "control", user_id=1)
        pbmon.expose("checkout", "control", user_id=1)
    finally:
        runtime.outbox.reset(token)
    pbmon.expose("checkout", "control", user_id=1)
    assert len(seen.entries) == 3


def test_declarations_may_change_while_it_runs(seen):
    changed, _ = resolve({"strict": False, "experiments": {"new": NEW}}, {})
    runtime.active.experiments.apply(changed)
    runtime.active.settings = changed
    assert pbmon.experiment("checkout", user_id=1) is None
    assert pbmon.experiment("new", user_id=1) in ("a", "b")
    assert counted(seen)[("new", "a")] + counted(seen)[("new", "b")] == 1


def test_threads_record_it_once(seen):
    barrier = threading.Barrier(8)

    def work():
        barrier.wait(60)
        for user in range(200):
            pbmon.experiment("checkout", user_id=user)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert Counter(e.user_id for e in seen.entries) == Counter(map(str, range(200)))
    assert sum(counted(seen).values()) == 200


# --- what came lately ---


def key(n):
    return ("checkout", "control", str(n), None)


def test_few_and_fresh_ones_are_known(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    recent = module.Recent(size=100, seconds=60)
    assert [recent.take(key(n)) for n in range(100)] == [True] * 100
    assert [recent.take(key(n)) for n in range(100)] == [False] * 100
    for n in range(100, 1000):
        recent.take(key(n))
    assert not recent.take(key(999))
    assert recent.take(key(5))  # long ago
    assert len(recent._newer) + len(recent._older) <= 200
    now[0] = 59
    assert not recent.take(key(999))
    recent.take(key(7))
    now[0] = 61
    assert not recent.take(key(7))
    now[0] = 122
    assert recent.take(key(7))
    recent.forget(key(7))
    assert recent.take(key(7))


# --- the report ---


class Reader:
    def __init__(self, exposed):
        self.exposed = lambda *asked: self.asked.append(asked) or exposed
        self.asked = []


def test_a_report_asks_the_store(seen):
    reader = Reader(Exposed({"control": Arm(1000, 100), "treatment": Arm(1000, 180)}, 0))
    runtime.active.reader = lambda: reader
    report = pbmon.experiment_report("checkout")
    assert reader.asked == [("checkout", "paid", None)]
    assert report.decision == "treatment is better than control"


def test_a_report_of_what_is_not_declared_or_can_t_be_asked(seen):
    with pytest.raises(pbmon.StoreError, match=r"call pbmon.configure\(\) first"):
        pbmon.experiment_report("checkout")
    runtime.active.reader = lambda: Reader(Exposed({}, 0))
    with pytest.raises(ValueError, match="experiment_report: experiment 'x' is not declared"):
        pbmon.experiment_report("x")


def test_identity_is_left_as_it_was(seen):
    with pbmon.context(session_id="s"):
        pbmon.experiment("checkout", user_id="other")
        assert identity.current().user_id is None
