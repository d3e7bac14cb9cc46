"""The classes that DB-API hooks build, without a driver."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from pbmon import signals
from pbmon.hooks import dbapi
from tests.hooks.contract import FailingRecord, Recorded


class Driver:
    """Stands for a driver's class."""

    def execute(self):
        return ["driver"]


class Methods(dbapi.Base):
    def execute(self):
        return ["ours", *super().execute()]


OURS = dbapi.built(Methods, Driver)


def test_our_methods_stand_just_before_the_drivers():
    class Mixin:
        def execute(self):
            return ["mixin", *super().execute()]

    class Own(Mixin, Driver):
        def execute(self):
            return ["own", *super().execute()]

    measured = dbapi.measured(Own, OURS)
    assert measured().execute() == ["own", "mixin", "ours", "driver"]
    assert issubclass(measured, Own)
    assert (measured.__name__, measured.__module__) == (Own.__name__, Own.__module__)
    assert dbapi.measured(Own, OURS) is measured
    assert dbapi.measured(measured, OURS) is measured
    assert Own().execute() == ["own", "mixin", "driver"]


def test_the_drivers_own_class_is_measured():
    measured = dbapi.measured(Driver, OURS)
    assert measured().execute() == ["ours", "driver"]
    assert dbapi.measured(Driver, OURS) is measured


def test_a_subclass_does_not_take_the_class_made_for_its_base():
    class Base(Driver):
        pass

    class Derived(Base):
        pass

    assert issubclass(dbapi.measured(Base, OURS), Base)
    assert issubclass(dbapi.measured(Derived, OURS), Derived)


def test_a_measured_class_is_freed_with_the_class_it_was_made_for():
    def make():
        class Own(Driver):
            pass

        return weakref.ref(Own), weakref.ref(dbapi.measured(Own, OURS))

    references = make()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize("other", [None, int, lambda: None, "Driver"])
def test_what_is_no_such_class_is_given_back(other):
    assert dbapi.measured(other, OURS) is other


def test_a_class_that_allows_no_subclass_is_given_back(caplog):
    class Final(Driver):
        def __init_subclass__(cls):
            raise TypeError("final")

    assert dbapi.measured(Final, OURS) is Final
    assert "Final can't be measured: TypeError" in caplog.text


@pytest.mark.parametrize(
    ("items", "size"), [([1, 2], 2), ([1], None), ((), None), (iter([1, 2]), None), (None, None)]
)
def test_the_size_of_a_batch_is_known_where_it_has_a_length(items, size):
    assert dbapi.size(items) == size


def test_swapping_an_argument_keeps_how_it_was_given():
    assert dbapi.swap(1, "b", (1, 2, 3), {}, 9) == ((1, 9, 3), {})
    assert dbapi.swap(1, "b", (1,), {"b": 2, "c": 3}, 9) == ((1,), {"b": 9, "c": 3})
    assert dbapi.swap(1, "b", (1,), {}, 9) == ((1,), {"b": 9})


class Calls(list):
    def __call__(self, result):
        self.append(result)
        return result


def test_a_failure_after_the_call_keeps_the_result_and_ends_the_record(monkeypatch):
    monkeypatch.setattr(signals, "reraise", False)
    record, call = Recorded(None, "SELECT 1", None), Calls()

    def after(record, result):
        raise RuntimeError("a fault of ours")

    assert dbapi.observe(record, call, ("rows",), {}, lambda error: None, after) == "rows"
    assert call == ["rows"]
    assert record.outcome is not None


def test_an_error_and_a_fault_of_ours_leave_the_error(monkeypatch):
    monkeypatch.setattr(signals, "reraise", False)
    error = KeyboardInterrupt()

    def call():
        raise error

    record = FailingRecord(None, "SELECT 1", None)
    with pytest.raises(KeyboardInterrupt) as caught:
        dbapi.observe(record, call, (), {}, lambda error: None, lambda *_: None)
    assert caught.value is error
    assert caught.value.__context__ is None


def test_interruptions_are_recorded():
    record = Recorded(None, "SELECT 1", None)

    def call():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dbapi.observe(record, call, (), {}, lambda error: "57014", lambda *_: None)
    assert record.outcome["status_code"] == "57014"
    assert isinstance(record.outcome["error"], KeyboardInterrupt)


@pytest.mark.parametrize("known", [lambda: 1 / 0, lambda: None])
def test_a_fault_in_what_is_known_of_a_statement_is_no_record(monkeypatch, known):
    monkeypatch.setattr(signals, "reraise", False)
    assert dbapi.begin(known) is None


def test_a_fault_at_the_end_of_rows_stays_here(monkeypatch):
    monkeypatch.setattr(signals, "reraise", False)
    record = Recorded(None, "DELETE", None)

    class Cursor:
        _pbmon_rows = None

        def __setattr__(self, name, value):
            raise AttributeError(name)

        @property
        def rowcount(self):
            raise RuntimeError

    cursor = Cursor()
    dbapi.keep(cursor, "_pbmon_rows", dbapi.WrittenRows(record, lambda error: None))
    dbapi.end_rows(cursor, exhausted=True)
    assert cursor._pbmon_rows is None
    assert record.outcome is not None


def test_abandoned_records_can_be_ended_from_any_thread():
    records = [Recorded(None, f"SELECT {n}", None) for n in range(1000)]
    dbapi._abandoned.extend((record, 1) for record in records)
    threads = [threading.Thread(target=dbapi.end_abandoned) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(record.outcome["returned"] == 1 for record in records)
    assert not dbapi._abandoned
