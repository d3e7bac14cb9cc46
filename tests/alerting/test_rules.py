"""The rule, against what it promises of any stream of errors."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from pbmon.alerting.rules import (
    LATE,
    SECOND,
    Counted,
    Known,
    Rule,
    Step,
    decide,
    duration,
    newest_beyond,
)
from tests.alerting.streams import most_within, simulate
from tests.patience import patiently

EVERY_S = 5
RARELY_S = 15
HOURS_S = 3 * 3600
RULE = Rule(errors=10)
LATE_S = LATE / SECOND


def steps(told):
    return [each.step for each in told]


def looks(until_s=HOURS_S, begin_s=10_000):
    return range(begin_s, begin_s + until_s, EVERY_S)


def spread(count, over_s, begin_s=10_007.0):
    """Errors at even distances, the last one over_s after the first."""
    gap_s = over_s / (count - 1)
    return [(begin_s + n * gap_s, begin_s + n * gap_s + 1) for n in range(count)]


def test_eleven_in_five_minutes_are_one_alert_that_is_over_once():
    told = simulate(RULE, spread(11, 299), looks())
    assert steps(told) == [Step.OPEN, Step.RESOLVE]
    last = spread(11, 299)[-1][0]
    assert last <= told[0].at <= last + 1 + EVERY_S
    assert told[1].at == pytest.approx(told[0].at + 300, abs=30)


def test_ten_in_five_minutes_are_none():
    assert simulate(RULE, spread(10, 200), looks()) == []


def test_eleven_in_fifty_minutes_are_none():
    assert simulate(RULE, spread(11, 3000), looks()) == []


def test_a_window_is_at_most_ten_seconds_longer_than_set():
    assert simulate(RULE, spread(11, 312), looks()) == []


def test_a_burst_that_goes_on_is_one_alert():
    stream = spread(360, 7200)
    assert steps(simulate(RULE, stream, looks())) == [Step.OPEN, Step.RESOLVE]


def test_a_second_burst_within_the_cooldown_is_not_told():
    stream = [*spread(11, 60), *spread(11, 60, 10_007 + 1800)]
    assert steps(simulate(RULE, stream, looks())) == [Step.OPEN, Step.RESOLVE]


def test_a_second_burst_after_the_cooldown_is_told():
    stream = [*spread(11, 60), *spread(11, 60, 10_007 + 4600)]
    assert steps(simulate(RULE, stream, looks())) == [Step.OPEN, Step.RESOLVE] * 2


def test_what_is_still_true_when_the_cooldown_ends_is_told_then():
    """The second burst begins within the cooldown and goes on beyond its end."""
    rule = Rule(errors=10, cooldown_s=1200)
    stream = [*spread(11, 60), *spread(200, 3000, 10_007 + 900)]
    told = simulate(rule, stream, looks())
    assert steps(told) == [Step.OPEN, Step.RESOLVE, Step.OPEN, Step.RESOLVE]
    assert told[2].at == pytest.approx(told[1].at + 1200, abs=2 * EVERY_S)


def test_a_burst_while_nobody_looks_is_told_afterwards():
    stream = spread(11, 60)
    told = simulate(RULE, stream, looks(begin_s=10_007 + 800))
    assert steps(told) == [Step.OPEN, Step.RESOLVE]


def test_a_burst_of_long_ago_is_not():
    assert simulate(RULE, spread(11, 60), looks(begin_s=12_000)) == []


@st.composite
def streams(draw):
    """Bursts and single errors, some of which come late."""
    stream = []
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.floats(10_000, 10_000 + 7200))
        count, length = draw(st.integers(1, 30)), draw(st.sampled_from([1.0, 60.0, 290.0, 900.0]))
        delay = draw(st.sampled_from([0.5, 0.5, 30.0, 400.0]))
        for n in range(count):
            at = begin + n * length / count
            stream.append((at, at + delay))
    return sorted(stream)


RULES = st.builds(
    Rule,
    errors=st.integers(0, 12),
    window_s=st.sampled_from([10.0, 60.0, 300.0, 333.0]),
    cooldown_s=st.sampled_from([0.0, 600.0, 3600.0]),
    resolve_s=st.sampled_from([None, 30.0]),
)


@patiently(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(RULES, streams())
def test_what_is_promised_of_any_stream(rule, stream):
    told = simulate(rule, stream, range(10_000, 10_000 + 4 * 3600, RARELY_S))
    # They take turns, and the last one is over.
    assert steps(told) == [Step.OPEN, Step.RESOLVE] * (len(told) // 2)
    pairs = list(zip(told[::2], told[1::2], strict=True))
    times = [at for at, _ in stream]
    for opened, _ in pairs:
        # Only what is beyond the rule, at most ten seconds longer and fifteen minutes late.
        ends = [at for at in times if opened.at - LATE_S - rule.window_s - 20 < at <= opened.at]
        assert max(most_within(times, at - rule.window_s - 20, at) for at in ends) > rule.errors
    for (_, resolved), (again, _) in itertools.pairwise(pairs):
        assert again.at - resolved.at >= rule.cooldown_s
    # Every burst is told, unless an alert was open or just over.
    for at, came in stream:
        there = [time for time, when in stream if when <= came]
        if most_within(there, at - rule.window_s, at) > rule.errors:
            assert any(
                opened.at <= came + RARELY_S
                and resolved.at + rule.cooldown_s >= at - rule.window_s - 20
                for opened, resolved in pairs
            ), at


@patiently(max_examples=200)
@given(
    st.integers(0, 5),
    st.integers(0, 5),
    st.one_of(st.none(), st.integers(0, 5)),
    st.one_of(st.none(), st.integers(0, 5)),
)
def test_strictly_more_of_either(errors, people, most_errors, most_people):
    rule = Rule(errors=most_errors, people=most_people)
    expected = (most_errors is not None and errors > most_errors) or (
        most_people is not None and people > most_people
    )
    assert (decide(rule, 0, Counted(errors, people), None) is Step.OPEN) == expected
    if rule.floor is not None and people <= errors <= rule.floor:
        assert not expected


def test_an_open_alert_waits_for_its_quiet_time():
    known = Known(last_at=0, resolved_at=None)
    quiet = Counted(0, 0)
    assert decide(RULE, 299 * SECOND, quiet, known) is Step.WAIT
    assert decide(RULE, 300 * SECOND, quiet, known) is Step.RESOLVE
    assert decide(RULE, 300 * SECOND, Counted(11, 0), known) is Step.KEEP


@patiently(max_examples=100)
@given(st.lists(st.integers(0, 200), max_size=60), st.integers(0, 6), st.integers(0, 150))
def test_the_newest_window_beyond_is_that_of_a_count_by_hand(slots, errors, begin_slot):
    rule = Rule(errors=errors, window_s=50)
    counted = {slot * 10 * SECOND: slots.count(slot) for slot in set(slots)}
    now = 200 * 10 * SECOND
    found = newest_beyond(rule, counted, begin_slot * 10 * SECOND, now)
    counts = {
        end: sum(1 for slot in slots if end - 6 < slot <= end) for end in range(begin_slot, 201)
    }
    beyond = {end: count for end, count in counts.items() if count > errors}
    if not beyond:
        assert found is None
    else:
        assert found == (min((max(beyond) + 1) * 10 * SECOND, now), max(beyond.values()))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(), "more than 10 errors in 5 min"),
        (Rule(errors=1000, people=3, window_s=7200), "more than 1,000 errors or 3 people in 2 h"),
        (Rule(errors=None, people=3, window_s=45), "more than 3 people in 45 s"),
        (Rule(errors=None), "off"),
    ],
)
def test_a_rule_in_words(rule, words):
    assert str(rule) == words
    assert duration(90) == "90 s"
