"""Which errors are written down by themselves, and that the sums of the others are whole."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pbmon.business import tallies as module
from pbmon.business.tallies import OTHER, PER_FINGERPRINT, PER_SLOT, REMEMBERED, Sum, Tallies
from pbmon.errors import Fingerprint
from tests.patience import patiently

SLOT = 10_000_000
NOON = 1_795_608_000_000_000


def named(number):
    return Fingerprint(f"{number:032x}", "KeyError", f"m:{number}")


class Book:
    """What would be written of a sequence of occurrences."""

    def __init__(self):
        self.tallies = Tallies()
        self.own = Counter()
        self.sums = []

    def meet(self, number, at=NOON, whom=None):
        choice = self.tallies.choose(named(number), at, whom, f"/{number}", None)
        if choice.ended is not None:
            self.sums.append(choice.ended)
        self.own[number] += choice.is_own
        return choice

    def end(self):
        self.sums += self.tallies.take()
        assert self.tallies.take() == []

    def totals(self):
        counted = Counter(self.own)
        for each in self.sums:
            counted[int(each.fingerprint.key, 16)] += each.errors
        return +counted


def test_of_one_fingerprint_some_are_written_and_the_rest_is_a_sum():
    book = Book()
    choices = [book.meet(1, NOON + n) for n in range(1000)]
    assert [choice.is_own for choice in choices] == [True] * 20 + [False] * 980
    assert [choice.is_first for choice in choices] == [True] + [False] * 999
    book.end()
    assert book.sums == [Sum(named(1), 980, NOON + 999, "/1", None)]


def test_a_sum_ends_with_its_slot():
    book = Book()
    for n in range(30):
        book.meet(1, NOON + n)
    book.meet(1, NOON + SLOT)
    assert book.sums == [Sum(named(1), 10, NOON + 29, "/1", None)]
    assert book.own[1] == 21


def test_each_user_is_written_once_beyond_that():
    book = Book()
    for n in range(3000):
        book.meet(1, NOON, whom=str(n % 300))
    assert book.own[1] == 300
    book.meet(1, NOON + SLOT, whom="7")
    assert book.own[1] == 301


def test_a_slot_has_room_for_so_many_and_what_is_new_beyond_is_one():
    book = Book()
    for n in range(1, 5001):
        book.meet(n)
    book.meet(7)
    assert sum(book.own.values()) == PER_SLOT
    book.end()
    assert {each.fingerprint: each.errors for each in book.sums} == {OTHER: 4000, named(7): 1}
    book.meet(6000, NOON + SLOT)
    assert book.own[6000] == 1


def test_no_more_are_remembered_and_who_makes_room_is_written_down():
    book = Book()
    for n in range(1, 2001):
        slot = NOON + n // 100 * SLOT
        for _ in range(PER_FINGERPRINT + 2 if n == 1 else 1):
            book.meet(n, slot)
        assert len(book.tallies._tallies) <= REMEMBERED
    assert [each.errors for each in book.sums] == [2]
    assert book.totals() == {1: 22} | dict.fromkeys(range(2, 2001), 1)
    assert book.meet(1, NOON + 21 * SLOT).is_first


def test_what_could_not_be_written_is_in_the_next_sum():
    book = Book()
    for _ in range(25):
        book.meet(1)
    book.end()
    for each in book.sums:
        book.tallies.put_back(each)
    book.tallies.put_back(Sum(named(2), 3, NOON, None, None))  # of one that is not known any more
    book.sums.clear()
    book.end()
    assert {each.fingerprint: each.errors for each in book.sums} == {named(1): 5, OTHER: 3}


def test_a_forked_child_begins_with_nothing():
    book = Book()
    for _ in range(30):
        book.meet(1)
    book.tallies.forget()
    assert book.tallies.take() == []
    assert book.meet(1).is_first


@patiently(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 12), st.integers(-2, 5).map(lambda n: NOON + n * SLOT // 2),
            st.none() | st.sampled_from("abc"), st.booleans(),
        ),
        max_size=200,
    )
)  # fmt: skip
def test_whatever_comes_the_sums_are_whole(occurrences):
    """With little room, a clock that goes back, and sums that are taken at any time."""
    before = module.PER_FINGERPRINT, module.PER_SLOT, module.REMEMBERED
    module.PER_FINGERPRINT, module.PER_SLOT, module.REMEMBERED = 2, 6, 4
    try:
        book = Book()
        for number, at, whom, takes in occurrences:
            book.meet(number, at, whom)
            if takes:
                book.sums += book.tallies.take()
        book.end()
    finally:
        module.PER_FINGERPRINT, module.PER_SLOT, module.REMEMBERED = before
    exact, found = Counter(number for number, *_ in occurrences), book.totals()
    assert sum(found.values()) == sum(exact.values())
    assert all(found[number] <= count for number, count in exact.items())
    assert found.keys() - {0} <= exact.keys()
