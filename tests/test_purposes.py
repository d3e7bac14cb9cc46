"""What follows from people's decisions: by hand, and against one that keeps all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.purposes import BASES, Decision, Terms, reaches
from tests.patience import patiently


def word(*decisions, basis="opt-in", version=None):
    """The last word after (granted, at) or (granted, at, version)."""
    last = None
    for granted, at, *of in decisions:
        last = Terms(basis, version).follow(last, granted, at, *(of or [None]))
    return last


@pytest.mark.parametrize(
    ("basis", "decisions", "at", "consent", "kept"),
    [
        ("opt-in", [], 5, None, False),
        ("opt-in", [], 5, True, True),
        ("opt-out", [], 5, None, True),
        ("opt-out", [], 5, False, False),
        ("not-required", [], 5, None, True),
        # A grant counts for what comes after it.
        ("opt-in", [(True, 5)], 4, None, False),
        ("opt-in", [(True, 5)], 5, None, True),
        ("opt-in", [(True, 5)], 4, True, True),
        ("opt-out", [(True, 5)], 4, None, True),
        ("opt-in", [(True, 5), (True, 9)], 7, None, True),
        # A withdrawal for all that is not stored yet; what somebody says later counts again.
        *[(basis, [(False, 5)], at, None, False) for basis in BASES for at in (4, 6)],
        ("opt-in", [(False, 5)], 5, True, False),
        ("opt-in", [(False, 5)], 6, True, True),
        # Who agrees again revives nothing.
        *[(basis, [(False, 5), (True, 9)], at, None, False) for basis in BASES for at in (4, 7)],
        *[(basis, [(False, 5), (True, 9)], 9, None, True) for basis in BASES],
        ("opt-in", [(True, 1), (False, 5), (True, 9)], 4, True, False),
        ("opt-in", [(True, 1), (False, 5), (True, 9)], 7, True, True),
        # What is heard of late changes nothing that came after it.
        ("opt-in", [(False, 5), (True, 3)], 6, None, False),
        ("opt-in", [(True, 5), (False, 3)], 5, None, True),
        ("opt-in", [(True, 1), (True, 9), (False, 5)], 7, None, False),
        ("opt-in", [(True, 5), (False, 5)], 6, None, False),
        ("opt-in", [(False, 5), (True, 5)], 6, None, False),
    ],
)  # fmt: skip
def test_what_may_be_kept(basis, decisions, at, consent, kept):
    assert Terms(basis).may(word(*decisions, basis=basis), at, consent) is kept


@pytest.mark.parametrize(("basis", "kept"), [("opt-in", False), ("opt-out", True)])
@pytest.mark.parametrize("version", [None, "2026-9"])
def test_an_older_grant_counts_as_not_asked(basis, kept, version):
    terms = Terms(basis, "2026-11")
    assert terms.may(Decision(True, 1, version), 5) is kept
    assert not terms.is_agreed(Decision(True, 1, version))
    assert terms.may(Decision(True, 1, "2026-11"), 5)


def test_who_agrees_to_a_newer_text_agrees_from_then_on_only():
    last = word((True, 1, "1"), (True, 9, "2"), version="2")
    assert last == Decision(True, 9, "2", 9)
    assert word((True, 1, "2"), (True, 9, "3"), version="2").since == 1
    assert word((True, 1, "1"), (True, 9, "2")).since == 1  # where none is asked for


@pytest.mark.parametrize(
    ("version", "wanted", "there"),
    [
        ("2026-11", "2026-11", True), ("2026-11", "2026-9", True), ("2026-9", "2026-11", False),
        ("v10", "v9", True), ("v9", "v10", False), ("1.2", "1.2.1", False), ("2", "1.9", True),
        (None, "1", False), ("", "1", False), ("1", "a", True), ("10" * 20, "9", True),
    ],
)  # fmt: skip
def test_the_order_of_versions(version, wanted, there):
    assert reaches(version, wanted) is there


DECISIONS = st.lists(st.tuples(st.booleans(), st.integers(1, 8)), max_size=6)


def naive(basis, decisions, at):
    """May what occurred at `at` and is stored after all of these be kept? By all decisions: the
    last one at or before it says so, and no refusal came after it."""
    in_order = sorted(decisions, key=lambda d: (d[1], not d[0]))
    if any(not granted and when >= at for granted, when in in_order):
        return False
    before = [granted for granted, when in in_order if when <= at]
    return before[-1] if before else basis != "opt-in"


@patiently(max_examples=400)
@given(st.sampled_from(BASES), DECISIONS, st.integers(0, 9))
def test_in_their_order_it_is_what_all_decisions_say(basis, decisions, at):
    in_order = sorted(decisions, key=lambda d: (d[1], not d[0]))
    last = word(*in_order, basis=basis)
    assert Terms(basis).may(last, at) is naive(basis, decisions, at)


@patiently(max_examples=400)
@given(st.sampled_from(BASES), DECISIONS.flatmap(st.permutations), st.integers(0, 9))
def test_in_any_order_nothing_is_kept_that_must_not_be(basis, decisions, at):
    """In a wrong order something may be lost, and the last word is the last one."""
    last = word(*decisions, basis=basis)
    if Terms(basis).may(last, at):
        assert naive(basis, decisions, at)
    if decisions:
        newest = max(decisions, key=lambda d: (d[1], not d[0]))
        assert last.granted is newest[0]
