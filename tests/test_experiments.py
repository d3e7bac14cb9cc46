"""Experiments: declared, assigned and judged. Errors of the statistics are counted, with a seed."""

from __future__ import annotations

import random
from collections import Counter
from math import erfc, exp, lgamma, log, pi, sqrt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pbmon import experiments
from pbmon.experiments import (
    ALPHA,
    CONCENTRATION,
    SAMPLE_RATIO_ALPHA,
    TAU,
    Arm,
    Experiment,
    Exposed,
    assign,
    compare,
    judge,
    parse_experiment,
    sample_ratio_p,
)
from pbmon.privacy import K
from tests.patience import patiently

HALVES = {"control": 50, "treatment": 50}


def made(key="checkout", variants=HALVES, **options):
    return Experiment(key, variants, "paid", **options)


def told(count):
    return count if count >= K else None


# --- declared ---


def test_a_table_of_options():
    found = parse_experiment(
        "checkout",
        {"variants": HALVES, "goal": "paid", "window_days": 7, "share": 0.5, "salt": "2",
         "enabled": False},
    )  # fmt: skip
    assert found == Experiment("checkout", HALVES, "paid", 604_800.0, 0.5, "2", False)
    assert list(found.variants) == ["control", "treatment"]
    assert str(found) == "control=50 treatment=50 goal=paid (off)"
    assert (
        parse_experiment("a", {"variants": HALVES, "goal": "b", "window_s": "90m"}).window_s == 5400
    )
    assert parse_experiment("a", {"variants": HALVES, "goal": "b"}).window_s is None


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (5, "experiment a must be a table of options, such as variants and goal"),
        ({"weights": {}}, "a has no option 'weights'; it has variants, goal, window_s, share"),
        ({"goal": "g"}, "experiment a has no variants; add it"),
        ({"variants": HALVES}, "experiment a has no goal; add it"),
    ],
)
def test_a_table_that_is_not_whole(options, remedy):
    with pytest.raises(ValueError) as raised:
        parse_experiment("a", options)
    assert remedy in str(raised.value)


@pytest.mark.parametrize("key", ["", "x" * 101, "x\n", 5])
def test_a_key_is_a_name(key):
    with pytest.raises(ValueError, match="its key must be 1 to 100 printable characters"):
        parse_experiment(key, {"variants": HALVES, "goal": "g"})


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        *(
            ("variants", variants, "variants must be 2 to 10 names with their weights, such as")
            for variants in (["a", "b"], {"a": 1}, {str(n): 1 for n in range(11)})
        ),
        ("variants", {"a": 1, "b" * 101: 1}, "must be 1 to 100 printable characters"),
        ("variants", {"a": 1, 2: 1}, "variant '2' must be 1 to 100 printable characters"),
        *(
            ("variants", {"a": 1, "b": weight}, "b must be a whole number from 1 to 1,000,000")
            for weight in (0, -1, 0.5, True, "1", 1_000_001)
        ),
        *(("goal", goal, "goal must be the name of an event, such as") for goal in ("", 5)),
        ("window_s", 0, "window_s must be above 0 and at most 3650 days"),
        ("window_days", 3651, "window_s must be above 0 and at most 3650 days"),
        ("window_s", "soon", "window: 'soon' is no duration; write seconds"),
        ("window_days", 1, "has both window_s and window_days; leave one out"),
        *(
            ("share", share, "share must be a number from 0 to 1")
            for share in (-0.1, 1.1, True, "half", float("nan"))
        ),
        ("salt", "a\n", "salt must be at most 100 printable characters"),
        ("salt", 5, "salt must be at most 100 printable characters"),
        ("enabled", "yes", "enabled must be true or false"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(option, value, remedy):
    options = {"variants": HALVES, "goal": "g", option: value}
    if "both" in remedy:
        options["window_s"] = 1
    with pytest.raises(ValueError) as raised:
        parse_experiment("a", options)
    assert str(raised.value).startswith("experiment a")
    assert remedy in str(raised.value)


# --- assigned ---


def test_assignments_are_these_for_ever():
    """A change here gives people who are in an experiment another variant in the middle of it."""
    uneven = made("new-price", {"a": 1, "b": 2, "c": 7}, share=0.8, salt="2026")
    assert "".join(assign(made(), str(user))[0] for user in range(20)) == GOLDEN
    assert "".join(assign(uneven, str(user)) or "-" for user in range(30)) == GOLDEN_UNEVEN
    assert assign(made(), "Zoë") == "control"
    assert assign(made(), "\ud800") in HALVES


GOLDEN = "ttcccctcccttccccctcc"
GOLDEN_UNEVEN = "ccccccccccbbc-b-bb-cbcc-c-b-cc"


def chi_square_p(counts, weights):
    """Of counts in two or three classes."""
    total, of_weights = sum(counts), sum(weights)
    x = sum(
        (n - total * w / of_weights) ** 2 / (total * w / of_weights)
        for n, w in zip(counts, weights, strict=True)
    )
    return erfc(sqrt(x / 2)) if len(counts) == 2 else exp(-x / 2)


@pytest.mark.parametrize("weights", [(50, 50), (90, 10), (1, 1, 1), (50, 30, 20)])
def test_weights_are_kept(weights):
    experiment = made(variants={str(n): weight for n, weight in enumerate(weights)})
    counts = Counter(assign(experiment, f"user-{n}") for n in range(30_000))
    assert chi_square_p([counts[str(n)] for n in range(len(weights))], weights) > 0.01


def test_experiments_know_nothing_of_each_other():
    one, other = made("one"), made("other")
    both = Counter((assign(one, str(n)), assign(other, str(n))) for n in range(20_000))
    in_treatment = [both["control", "treatment"], both["treatment", "treatment"]]
    assert chi_square_p(in_treatment, (1, 1)) > 0.01
    assert sum(v for (a, b), v in both.items() if a != b) == pytest.approx(10_000, abs=250)


def test_a_salt_assigns_anew():
    moved = sum(assign(made(), str(n)) != assign(made(salt="2"), str(n)) for n in range(10_000))
    assert moved == pytest.approx(5000, abs=200)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 1.0])
def test_a_share_takes_part(share):
    taking = [assign(made(share=share), str(n)) for n in range(20_000)]
    members = [variant for variant in taking if variant is not None]
    assert len(members) == pytest.approx(20_000 * share, abs=4 * sqrt(20_000 * share) * (share < 1))
    if members:
        counts = Counter(members)
        assert chi_square_p([counts["control"], counts["treatment"]], (1, 1)) > 0.01


@patiently()
@given(st.text(max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_the_members_with_their_variants(subject, one, other):
    small, large = sorted((one, other))
    variant = assign(made(share=small), subject)
    assert variant is None or assign(made(share=large), subject) == variant
    assert assign(made(share=1.0), subject) is not None
    assert assign(made(share=0.0), subject) is None


# --- compared ---


def integral(function, low, high, steps=20_000):
    width = (high - low) / steps
    return sum(function(low + (i + 0.5) * width) for i in range(steps)) * width


@pytest.mark.parametrize(
    ("a", "b"), [((40, 100), (60, 100)), ((300, 1000), (95, 250)), ((20, 2000), (45, 2100))]
)
def test_the_likelihood_ratio_is_the_integral_that_it_stands_for(a, b):
    variance = 0.0
    for converted, people in (a, b):
        rate = (converted + 1) / (people + 2)
        variance += rate * (1 - rate) / people
    difference = b[0] / b[1] - a[0] / a[1]

    def likelihood(delta):
        return exp((difference * delta - delta**2 / 2) / variance)  # to the one at 0

    mixed = integral(
        lambda d: likelihood(d) * exp(-(d**2) / (2 * TAU**2)) / (TAU * sqrt(2 * pi)), -0.6, 0.6
    )
    found = compare(Arm(a[1], a[0]), Arm(b[1], b[0]))
    assert found.p_value == pytest.approx(min(1.0, 1 / mixed), rel=1e-6)
    assert found.difference == pytest.approx(difference)


arms = st.integers(K, 5000).flatmap(
    lambda people: st.builds(Arm, st.just(people), st.integers(K, people))
)


@patiently()
@given(arms, arms, st.integers(1, 9))
def test_the_interval_is_of_the_differences_that_the_test_does_not_refuse(control, other, several):
    found = compare(control, other, several)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert 0 <= found.p_value <= 1
    assume(not 0.049 < found.p_value < 0.051)
    assert found.is_decided == (not found.low <= 0 <= found.high)
    assert found.is_better == (found.difference > 0)
    back = compare(other, control, several)
    assert (back.p_value, back.difference) == pytest.approx((found.p_value, -found.difference))
    assert found.p_value <= compare(control, other, 9).p_value


def draws(rng, people, halvings):
    """How many of them convert, each with the probability 2 ** -halvings."""
    bits = rng.getrandbits(people)
    for _ in range(halvings - 1):
        bits &= rng.getrandbits(people)
    return bits.bit_count()


def looked_at_100_times(rng, people, halvings):
    """Whether the mSPRT, and whether a z-test, ever finds a difference where there is none."""
    n = a = b = 0
    found = naive = False
    for _ in range(100):
        n += people
        a += draws(rng, people, halvings)
        b += draws(rng, people, halvings)
        judged = compare(Arm(n, told(a)), Arm(n, told(b)))
        found |= judged is not None and judged.is_decided
        rate = (a + b) / (2 * n)
        naive |= abs(a - b) / n > 1.96 * sqrt(2 * rate * (1 - rate) / n)
    return found, naive


@pytest.mark.parametrize(
    ("halvings", "people", "found", "naive"),
    [(1, 100, 27, 386), (3, 10, 12, 357), (5, 1000, 7, 354)],
)
def test_of_1000_a_a_experiments_that_are_peeked_at_100_times_few_find_anything(
    halvings, people, found, naive
):
    """At most 5 % may. The z-test of a single look, of which a third does, shows that the
    experiments are such that one could be fooled."""
    rng = random.Random(1)
    counts = [looked_at_100_times(rng, people, halvings) for _ in range(1000)]
    assert (sum(c[0] for c in counts), sum(c[1] for c in counts)) == (found, naive)
    assert found <= 1000 * ALPHA


def test_a_conversion_of_60_against_40_is_found_early_and_the_interval_holds_it():
    rng = random.Random(2)
    needed, covered = [], 0
    for _ in range(200):
        n = a = b = 0
        decided_at, held = 0, True
        while n < 1000:
            n += 20
            a += sum(rng.random() < 0.4 for _ in range(20))
            b += sum(rng.random() < 0.6 for _ in range(20))
            judged = compare(Arm(n, told(a)), Arm(n, told(b)))
            if judged is None or judged.difference is None:
                continue
            held &= judged.low <= 0.2 <= judged.high
            if not decided_at and judged.is_decided:
                assert judged.is_better
                decided_at = n
        needed.append(decided_at)
        covered += held
    assert min(needed) > 0
    assert sorted(needed)[100] == 180
    assert covered >= 190


@pytest.mark.parametrize("people", [500, 5000])
def test_so_large_a_difference_would_stand_out_four_times_in_five(people):
    detectable = compare(Arm(people, people // 5), Arm(people, people // 5)).detectable
    rng = random.Random(3)

    def normal(rate):
        return round(rng.gauss(people * rate, sqrt(people * rate * (1 - rate))))

    found = sum(
        compare(Arm(people, normal(0.2)), Arm(people, normal(0.2 + detectable))).is_decided
        for _ in range(2000)
    )
    assert found / 2000 == pytest.approx(0.8, abs=0.04)


def test_a_number_below_k_is_taken_to_be_the_one_that_differs_least():
    broken = compare(Arm(1000, 200), Arm(1000, None))
    assert (broken.difference, broken.low, broken.high) == (None, None, None)
    assert broken.is_decided
    assert not broken.is_better
    assert broken.p_value == compare(Arm(1000, 200), Arm(1000, 9)).p_value
    # 9 of 50 would be far above 10 of 10,000; none would not.
    assert compare(Arm(10_000, 10), Arm(50, None)).p_value == 1.0
    assert compare(Arm(1000, None), Arm(1000, None)) is None
    assert compare(Arm(None, None), Arm(1000, 100)) is None
    assert compare(Arm(1000, 100), Arm(None, None)) is None


# --- the sample ratio ---


@pytest.mark.parametrize("counts", [(520, 480), (55, 45), (1100, 900), (10, 90)])
def test_the_sample_ratios_factor_is_the_integral_that_it_stands_for(counts):
    half = CONCENTRATION / 2
    norm = 2 * lgamma(half) - lgamma(CONCENTRATION)

    def mixed(x):
        return exp(
            (half - 1 + counts[0]) * log(x) + (half - 1 + counts[1]) * log(1 - x) - norm
            + sum(counts) * log(2)
        )  # fmt: skip

    found = sample_ratio_p(HALVES, dict(zip(HALVES, counts, strict=True)))
    assert found == pytest.approx(min(1.0, 1 / integral(mixed, 1e-9, 1 - 1e-9)), rel=1e-6)


def split(rng, looks, people, weights):
    """Counts of people in two variants, after each look."""
    counts = [0, 0]
    for _ in range(looks):
        first = sum(rng.random() * sum(weights) < weights[0] for _ in range(people))
        counts[0] += first
        counts[1] += people - first
        yield tuple(counts)


def p_of(counts):
    return sample_ratio_p(HALVES, dict(zip(HALVES, counts, strict=True)))


def test_55_to_45_is_caught():
    rng = random.Random(4)
    when = []
    for _ in range(100):
        looks = (c for c in split(rng, 60, 100, (55, 45)) if p_of(c) < SAMPLE_RATIO_ALPHA)
        when.append(sum(next(looks, (0, 0))))
    assert min(when) > 0
    assert sorted(when)[50] == 2200


def test_a_sound_split_is_hardly_ever_called_unsound_however_often_one_looks():
    rng = random.Random(5)
    alarms = 0
    for _ in range(1000):
        a = b = 0
        alarm = False
        for _ in range(100):
            first = draws(rng, 100, 1)
            a, b = a + first, b + 100 - first
            alarm |= p_of((a, b)) < SAMPLE_RATIO_ALPHA
        alarms += alarm
    assert alarms == 0


def test_a_variant_that_nobody_meets_is_caught():
    assert sample_ratio_p(HALVES, {"control": 200, "treatment": None}) < 1e-6
    assert sample_ratio_p({"control": 99, "treatment": 1}, {"control": 500, "treatment": None}) == 1
    assert sample_ratio_p(HALVES, {"control": None, "treatment": None}) == 1
    thirds = {"a": 1, "b": 1, "c": 1}
    assert sample_ratio_p(thirds, {"a": 5000, "b": 5040, "c": 4950}) == 1
    assert sample_ratio_p(thirds, {"a": 5000, "b": 5000, "c": 5500}) < 1e-4


def test_very_many_people_are_no_trouble():
    assert p_of((10**9, 10**9 + 10_000)) == 1
    assert p_of((10**9, 10**9 + 1_000_000)) < 1e-6


# --- judged ---


def report(*arms, variants=HALVES, crossed=0, **options):
    experiment = made(variants=variants, **options)
    return judge(experiment, Exposed(dict(zip(variants, arms, strict=False)), crossed))


def test_a_report_of_two_variants():
    found = report(Arm(1000, 100), Arm(1010, 180), window_s=60.0, crossed=None)
    control, treatment = found.variants
    assert (found.key, found.goal, found.window_s, found.crossed) == (
        "checkout",
        "paid",
        60.0,
        None,
    )
    assert (control.variant, control.weight, control.people, control.converted) == (
        "control", 50, 1000, 100,
    )  # fmt: skip
    assert control.comparison is None
    assert (control.rate, treatment.rate) == pytest.approx((0.1, 180 / 1010))
    assert treatment.comparison == compare(Arm(1000, 100), Arm(1010, 180))
    assert found.is_sound
    assert found.decision == "treatment is better than control"
    assert report(Arm(1010, 180), Arm(1000, 100)).decision == "treatment is worse than control"


def test_no_decision_where_nothing_or_little_is_known():
    assert report(Arm(1000, 100), Arm(1000, 105)).decision == "no decision yet"
    empty = report()
    assert empty.decision == "no decision yet"
    assert empty.is_sound
    assert [(row.people, row.rate, row.comparison) for row in empty.variants] == [(None,) * 3] * 2


def test_no_decision_where_the_ratio_is_wrong_whatever_the_rates_say():
    found = report(Arm(5000, 500), Arm(4000, 800))
    assert found.variants[1].comparison.is_decided
    assert not found.is_sound
    assert found.sample_ratio_p < SAMPLE_RATIO_ALPHA
    assert found.decision == "no decision: it is not sound"


def test_of_several_variants_each_is_held_against_the_first_more_strictly():
    variants = {"control": 1, "b": 1, "c": 1}
    arms = (Arm(2000, 200), Arm(2000, 265), Arm(2000, 300))
    found = report(*arms, variants=variants)
    assert found.decision == "c is better than control"
    alone = compare(arms[0], arms[1])
    assert alone.is_decided
    assert found.variants[1].comparison.p_value == pytest.approx(2 * alone.p_value)
    assert found.variants[1].comparison.low < alone.low


def test_a_variant_that_is_not_declared_is_no_part_of_it():
    exposed = Exposed({"control": Arm(500, 50), "treatment": Arm(500, 50), "old": Arm(500, 400)}, 0)
    found = judge(made(), exposed)
    assert [row.variant for row in found.variants] == ["control", "treatment"]
    assert found.is_sound


def test_nothing_but_the_standard_library_and_our_own_is_needed():
    assert not any(name.startswith(("scipy", "numpy")) for name in vars(experiments))
