"""What is late, what is lost and what is on another day, of days as they follow each other."""

from __future__ import annotations

import datetime as dt
import random
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.reports.reconciliation import (
    Day,
    Figure,
    Finding,
    Row,
    compare,
    compare_payments,
)
from tests.patience import patiently

FIRST = dt.date(2026, 10, 24)
LENGTH, EXPORT, TAIL = 1000, 10, 13
"""Of a day, of the time from one export to the next, and of what may be on its way: an export and
three more from being counted to being read."""


def days(count, **outside):
    return [Day(FIRST + dt.timedelta(days=n), outside.get(f"d{n}")) for n in range(count)]


def figure(ours, theirs, tails=None, **more):
    count = len(ours)
    return Figure("revenue", "USD", 2, ours, theirs, tails or [0] * (count + 1), **more)


def numbers(count, theirs=None):
    ours = [1] * count
    return Figure("transactions", "", 0, ours, theirs or ours, [0] * (count + 1))


def findings(ours, theirs, tails=None, **outside):
    rows = compare(days(len(ours), **outside), [figure(ours, theirs, tails)])
    return [row.finding for row in rows]


E, L, M, X = Finding.EQUAL, Finding.LATE, Finding.MISSING, Finding.MORE
S, B, N = Finding.SHIFTED, Finding.EARLIER, Finding.NO_SAMPLES


@pytest.mark.parametrize(
    ("ours", "theirs", "tails", "expected"),
    [
        ([5, 7, 0], [5, 7, 0], [0, 0, 0, 0], [E, E, E]),
        ([5, 7, 3], [4, 8, 3], [0, 1, 0, 0], [L, L, E]),
        ([5, 7, 3], [3, 9, 3], [0, 1, 0, 0], [S, B, E]),
        ([5, 7, 3], [3, 7, 5], [0, 1, 1, 0], [S, E, B]),
        ([5, 7, 3], [3, 7, 3], [0, 1, 1, 1], [M, E, E]),
        ([5, 7, 3], [5, 9, 3], [0, 1, 1, 1], [E, X, E]),
        ([5, 7, 3], [7, 7, 3], [2, 0, 0, 0], [L, E, E]),  # of the day before the first
        ([5, 7, 3], [5, 7, 2], [0, 0, 0, 1], [E, E, L]),  # shows after the last
        ([5, 7, 3], [4, 7, 3], [0, 1, 0, 0], [M, E, E]),  # looked late, and never came
        ([5, 7, 3], [5, None, 10], [0, 0, 0, 0], [E, N, B]),
        ([5, 7, 3], [5, None, 3], [0, 0, 0, 0], [E, N, E]),
        ([5, 0, 3], [5, None, 3], [0, 0, 0, 0], [E, N, E]),
        ([9, 9, 9], [1, 1, 25], [0, 0, 0, 0], [S, S, B]),
        ([9, 9, 9], [1, 1, 9], [0, 0, 0, 0], [M, M, E]),
    ],
)
def test_days_as_they_follow_each_other(ours, theirs, tails, expected):
    assert findings(ours, theirs, tails) == expected


def test_a_day_that_is_not_compared_is_no_difference():
    outside = {"d0": Finding.BEFORE_STORE, "d1": Finding.NOT_KEPT, "d3": Finding.NOT_OVER}
    rows = compare(days(4, **outside), [figure([0, 7, 3, 4], [None, None, 3, 1])])
    assert [row.finding for row in rows] == [
        Finding.BEFORE_STORE, Finding.NOT_KEPT, E, Finding.NOT_OVER,
    ]  # fmt: skip
    assert [row.is_compared for row in rows] == [False, False, True, False]
    assert not any(row.is_different for row in rows)


def test_a_day_without_samples_is_a_difference_only_if_something_counted():
    rows = compare(days(2), [figure([0, 7], [None, None])])
    assert [(row.finding, row.is_different) for row in rows] == [(N, False), (N, True)]


def test_only_a_difference_that_a_conversion_can_be_is_one():
    converted = figure([9, 5, 0], [4, 5, 5], others=[5, 0, 0], others_ever=5)
    rows = compare(days(3), [converted, numbers(3)])
    of_amounts = [row for row in rows if row.currency]
    assert [row.finding for row in of_amounts] == [Finding.CONVERTED, E, Finding.CONVERTED]
    assert not any(row.is_different for row in rows)

    lost = figure([9, 5, 0], [3, 5, 6], others=[5, 0, 0], others_ever=5)
    of_amounts = [row for row in compare(days(3), [lost, numbers(3)]) if row.currency]
    assert [row.finding for row in of_amounts] == [S, E, B]

    # Transactions are missing too: that is no conversion.
    rows = compare(days(3), [converted, numbers(3, [0, 1, 2])])
    assert [row.finding for row in rows if row.currency] == [S, E, B]


# --- with exports as they come ---


@st.composite
def traffic(draw):
    """(time counted, amount), times of exports, number of days."""
    count = draw(st.integers(1, 5))
    end = count * LENGTH
    counted = draw(
        st.lists(st.tuples(st.integers(-40, end - 1), st.integers(1, 10**6)), max_size=60)
    )
    # Many just before midnight, where it matters.
    for midnight in range(0, end + 1, LENGTH):
        near = draw(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 10**6)), max_size=4))
        counted += [(midnight - before, amount) for before, amount in near]
    chance = random.Random(draw(st.integers(0, 10**6)))
    exports, at = [], -200
    while at < end + EXPORT:
        at += chance.randint(1, EXPORT)
        exports.append(at)
    return sorted(counted), exports, count


def sums(counted, *edges):
    return [
        sum(amount for at, amount in counted if start <= at < end)
        for start, end in zip(edges, edges[1:], strict=False)
    ]


def compared(counted, exports, count, delay=3):
    """What an export shows was counted `delay` before it."""
    edges = [n * LENGTH for n in range(count + 1)]
    times = [-LENGTH, *(at for at in exports)]

    def shown(edge):
        newest = times[bisect_left(times, edge) - 1]
        return sum(amount for at, amount in counted if at < newest - delay)

    theirs = [shown(end) - shown(start) for start, end in zip(edges, edges[1:], strict=False)]
    tails = [sums(counted, edge - TAIL, edge)[0] for edge in edges]
    ours = sums(counted, *edges)
    return compare(days(count), [figure(ours, theirs, tails)]), tails


@given(traffic(), st.integers(0, 3))
@patiently(max_examples=150)
def test_what_one_export_shifts_is_never_a_difference(sample, delay):
    rows, _ = compared(*sample, delay=delay)
    assert {row.finding for row in rows} <= {E, L}


@given(traffic(), st.integers(50, 900), st.data())
@patiently(max_examples=150)
def test_a_hole_over_midnight_is_found_to_the_unit(sample, length, data):
    counted, exports, count = sample
    midnight = LENGTH * data.draw(st.integers(1, count))
    exports = [at for at in exports if not midnight - length <= at < midnight]
    # More than could be on its way at any midnight, in the hole and before the tail.
    large = sum(amount for _, amount in counted) + 1
    counted = sorted([*counted, (midnight - 40, large)])
    rows, tails = compared(counted, exports, count)
    hit = midnight // LENGTH - 1
    assert rows[hit].finding is (S if hit + 1 < count else M)
    assert abs(rows[hit].difference + large) < large
    if hit + 1 < count:
        assert rows[hit + 1].finding is B
    assert all(not row.is_different for n, row in enumerate(rows) if n not in (hit, hit + 1))
    assert max(tails) < large


@given(traffic(), st.data())
@patiently(max_examples=150)
def test_what_is_lost_for_good_is_missing_on_its_day(sample, data):
    counted, exports, count = sample
    day = data.draw(st.integers(0, count - 1))
    large = sum(amount for _, amount in counted) + 1
    rows, tails = compared(counted, exports, count)
    theirs = [row.theirs - large * (n == day) for n, row in enumerate(rows)]
    found = compare(days(count), [figure([row.ours for row in rows], theirs, tails)])
    assert found[day].finding is M
    assert [row.is_different for row in found] == [n == day for n in range(count)]


# --- with the application ---


def paid(ours, theirs, count=3, made_on=dt.date(2026, 1, 1), **outside):
    """ours, theirs: number of the day → (amount, number), in EUR."""
    sides = (
        {(FIRST + dt.timedelta(days=n), "EUR"): of_it for n, of_it in side.items()}
        for side in (ours, theirs)
    )
    rows = compare_payments(days(count, **outside), made_on, {"EUR": 2}, *sides)
    return [((row.day - FIRST).days, row.finding, row.is_different) for row in rows[::2]]


@pytest.mark.parametrize(
    ("ours", "theirs", "finding", "is_different"),
    [
        ((500, 2), (500, 2), E, False),
        ((500, 2), (700, 3), Finding.NOT_STORED, True),
        ((500, 2), (400, 1), Finding.ONLY_STORED, True),
        ((500, 2), (499, 2), Finding.OTHER_AMOUNT, True),
    ],
)
def test_a_day_of_payments(ours, theirs, finding, is_different):
    assert paid({0: ours}, {0: theirs}) == [(0, finding, is_different)]


def test_payments_that_one_side_does_not_have_at_all():
    assert paid({0: (5, 1)}, {2: (7, 1)}) == [
        (0, Finding.ONLY_STORED, True), (2, Finding.NOT_STORED, True),
    ]  # fmt: skip


def test_a_payment_at_midnight_may_be_on_the_day_beside_it():
    assert paid({0: (500, 2), 1: (300, 2)}, {0: (600, 3), 1: (200, 1)}) == [
        (0, Finding.NEIGHBOUR, False), (1, Finding.NEIGHBOUR, False),
    ]  # fmt: skip
    assert all(each[2] for each in paid({0: (500, 2), 1: (301, 2)}, {0: (600, 3), 1: (200, 1)}))


def test_payments_before_the_store_was_made_are_not_missing():
    found = paid({1: (5, 1)}, {0: (5, 1), 1: (9, 2), 2: (9, 2)}, made_on=FIRST + dt.timedelta(1))
    assert [finding for _, finding, _ in found] == [
        Finding.BEFORE_STORE, Finding.BEFORE_STORE, Finding.NOT_STORED,
    ]  # fmt: skip


def test_a_day_that_is_not_over_is_not_compared():
    assert paid({0: (5, 1)}, {0: (9, 2)}, d0=Finding.NOT_OVER) == [(0, Finding.NOT_OVER, False)]


def test_both_figures_of_a_day_and_currency_are_rows():
    rows = compare_payments(
        days(1), dt.date(2026, 1, 1), {"EUR": 2, "JPY": 0}, {(FIRST, "JPY"): (5, 1)},
        {(FIRST, "EUR"): (250, 2), (FIRST, "JPY"): (5, 1)},
    )  # fmt: skip
    assert rows == [
        Row(FIRST, "charges in EUR", "EUR", 2, 0, 250, Finding.NOT_STORED),
        Row(FIRST, "number in EUR", "", 0, 0, 2, Finding.NOT_STORED),
        Row(FIRST, "charges in JPY", "JPY", 0, 5, 5, E),
        Row(FIRST, "number in JPY", "", 0, 1, 1, E),
    ]
    assert [row.difference for row in rows] == [250, 2, 0, 0]
