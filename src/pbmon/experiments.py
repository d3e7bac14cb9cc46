"""Experiments: who gets which variant, and what the figures say. Pure: no I/O, no clock, no state.

Sources: Johari, Koomen, Pekelis and Walsh, "Peeking at A/B Tests", KDD 2017, and Johari,
Pekelis and Walsh, "Always Valid Inference: Continuous Monitoring of A/B Tests", Operations
Research 70(3), 2022, for the mixture sequential probability ratio test (mSPRT). Lindon and Malek,
"Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022, for the sample ratio. Agresti
and Caffo, The American Statistician 54(4), 2000, for the variance at small numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import exp, lgamma, log, sqrt
from types import MappingProxyType
from typing import Any, NamedTuple

from pbmon.budgets import seconds
from pbmon.privacy import K

MAX_NAME = 100
MAX_VARIANTS = 10
MAX_WEIGHT = 1_000_000
MAX_EXPERIMENTS = 100

ALPHA = 0.05
"""At most this share of experiments without any difference ever shows one, however often and long
they are looked at; over all variants of one experiment."""

TAU = 0.05
"""Standard deviation of the differences that the mSPRT mixes over, as a share: 5 points. It must be
fixed before any data is seen. The interval is narrowest where TAU is three to ten times the
standard error of the difference, and at a hundred times only a fifth wider: few people with large
differences and many with small ones are both served."""

SAMPLE_RATIO_ALPHA = 0.001
"""At most this share of sound experiments is ever called unsound."""

CONCENTRATION = 1000.0
"""Of the Dirichlet distribution of shares that the sample ratio's test mixes over: around the
declared ones, with a standard deviation of 1.6 points at a half."""

_Z_POWER = 0.8416  # a standard normal variable is below it with a probability of 80 %
_DAY_S = 86_400.0
_MAX_WINDOW_S = 3650 * _DAY_S


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment, as [experiments.KEY] declares it.

    variants: variant → weight, a whole number; the first one is the control, which the others are
        compared with. goal: name of the event that is the conversion. window_s: how long after the
        exposure it counts; None: for ever. share: of the people who take part, 0 to 1. salt:
        another one assigns everybody anew. enabled: False assigns and records nothing any more.

    Raises ValueError naming the field and the remedy.
    """

    key: str
    variants: Mapping[str, int]
    goal: str
    window_s: float | None = None
    share: float = 1.0
    salt: str = ""
    enabled: bool = True

    def __post_init__(self) -> None:
        if not is_name(self.key):
            raise ValueError(
                f"experiment {str(self.key)[:32]!r}: its key must be 1 to {MAX_NAME} printable "
                "characters"
            )
        self._check_variants()
        if not is_name(self.goal):
            raise self._wrong("goal", "must be the name of an event, such as 'signed_up'")
        if self.window_s is not None and not 0 < self.window_s <= _MAX_WINDOW_S:
            raise self._wrong("window_s", "must be above 0 and at most 3650 days")
        share = self.share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise self._wrong("share", "must be a number from 0 to 1")
        if self.salt and not is_name(self.salt):
            raise self._wrong("salt", f"must be at most {MAX_NAME} printable characters")
        if not isinstance(self.enabled, bool):
            raise self._wrong("enabled", "must be true or false")

    def _check_variants(self) -> None:
        variants = self.variants
        if not isinstance(variants, Mapping) or not 2 <= len(variants) <= MAX_VARIANTS:
            raise self._wrong(
                "variants",
                f"must be 2 to {MAX_VARIANTS} names with their weights, such as "
                "{ control = 50, treatment = 50 }",
            )
        for name, weight in variants.items():
            if not is_name(name):
                raise self._wrong(
                    f"variant {str(name)[:32]!r}", f"must be 1 to {MAX_NAME} printable characters"
                )
            if type(weight) is not int or not 1 <= weight <= MAX_WEIGHT:
                raise self._wrong(
                    f"the weight of variant {name}",
                    f"must be a whole number from 1 to {MAX_WEIGHT:,}",
                )
        object.__setattr__(self, "variants", MappingProxyType(dict(variants)))

    def _wrong(self, what: str, remedy: str) -> ValueError:
        return ValueError(f"experiment {self.key}: {what} {remedy}")

    def __str__(self) -> str:
        variants = " ".join(f"{name}={weight}" for name, weight in self.variants.items())
        return f"{variants} goal={self.goal}{'' if self.enabled else ' (off)'}"


_OPTIONS = (*(f.name for f in fields(Experiment) if f.name != "key"), "window_days")


def is_name(value: object) -> bool:
    """Of an experiment, a variant, an event."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def parse_experiment(key: str, options: object) -> Experiment:
    """An experiment from a table of its options. Raises ValueError."""
    if not isinstance(options, Mapping):
        raise ValueError(f"experiment {key} must be a table of options, such as variants and goal")
    given: dict[str, Any] = dict(options)
    for name in given:
        if name not in _OPTIONS:
            raise ValueError(
                f"experiment {key} has no option {name!r}; it has {', '.join(_OPTIONS)}"
            )
    for name in ("variants", "goal"):
        if name not in given:
            raise ValueError(f"experiment {key} has no {name}; add it")
    days = given.pop("window_days", None)
    if days is not None and "window_s" in given:
        raise ValueError(f"experiment {key} has both window_s and window_days; leave one out")
    try:
        if days is not None:
            given["window_s"] = seconds(days) * _DAY_S
        elif given.get("window_s") is not None:
            given["window_s"] = seconds(given["window_s"])
    except ValueError as error:
        raise ValueError(f"experiment {key}: window: {error}") from None
    return Experiment(key, **given)


# --- assignment ---


def assign(experiment: Experiment, subject: str) -> str | None:
    """The variant of a subject; None for one that is not in the share.

    It depends on salt, key, weights and subject alone: other experiments change nothing, and a
    larger share keeps those who are in with the variants they have.
    """
    text = f"{experiment.salt}\0{experiment.key}\0{subject}"
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
    if int.from_bytes(digest[:8], "big") >= experiment.share * 2**64:
        return None
    # Each half of the digest is a uniform number of its own.
    point = int.from_bytes(digest[8:], "big") * sum(experiment.variants.values()) >> 64
    for variant, weight in experiment.variants.items():
        if point < weight:
            return variant
        point -= weight
    raise AssertionError


# --- figures ---


class Arm(NamedTuple):
    """Exposed people of one variant, and those of them who converted; None: fewer than K."""

    people: int | None
    converted: int | None


NOBODY = Arm(None, None)


class Exposed(NamedTuple):
    """What the store says of an experiment. arms: by variant. crossed: people who were exposed to
    a second variant, and count for their first; None: fewer than K, but some."""

    arms: Mapping[str, Arm]
    crossed: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant beside the control. Shares and differences of shares are 0 to 1.

    difference: of the rates, with its always-valid interval low to high; None where one number is
    below K. p_value: of there being no difference, always valid and corrected for the number of
    variants. detectable: the difference that so many people would show with a probability of 80 %.
    """

    is_better: bool
    difference: float | None
    low: float | None
    high: float | None
    p_value: float
    detectable: float

    @property
    def is_decided(self) -> bool:
        return self.p_value < ALPHA


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """One variant. people: exposed to it first; converted: of them, who reached the goal; rate:
    the share of these. None: fewer than K. comparison: with the control; None for the control, and
    as long as there is too little to compare."""

    variant: str
    weight: int
    people: int | None
    converted: int | None
    rate: float | None
    comparison: Comparison | None


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """What an experiment says so far.

    variants: the control first. sample_ratio_p: how likely such numbers of people are by the
    declared weights, always valid. is_sound: False where it is below 0.001: something decides who
    is counted, and nothing else here may be believed. crossed: people who met a second variant,
    and count for their first; None: fewer than K. decision: in words.
    """

    key: str
    goal: str
    window_s: float | None
    variants: tuple[VariantFigures, ...]
    crossed: int | None
    sample_ratio_p: float
    is_sound: bool
    decision: str


def judge(experiment: Experiment, exposed: Exposed) -> ExperimentReport:
    """The figures of an experiment as a report."""
    weights = experiment.variants
    arms = {name: exposed.arms.get(name, NOBODY) for name in weights}
    control = next(iter(arms))
    rows = []
    words = []
    for name, arm in arms.items():
        found = compare(arms[control], arm, len(arms) - 1) if name != control else None
        rate = arm.converted / arm.people if arm.people and arm.converted is not None else None
        rows.append(VariantFigures(name, weights[name], arm.people, arm.converted, rate, found))
        if found is not None and found.is_decided:
            words.append(f"{name} is {'better' if found.is_better else 'worse'} than {control}")
    ratio_p = sample_ratio_p(weights, {name: arm.people for name, arm in arms.items()})
    is_sound = ratio_p >= SAMPLE_RATIO_ALPHA
    return ExperimentReport(
        experiment.key,
        experiment.goal,
        experiment.window_s,
        tuple(rows),
        exposed.crossed,
        ratio_p,
        is_sound,
        ("; ".join(words) or "no decision yet") if is_sound else "no decision: it is not sound",
    )


def compare(control: Arm, other: Arm, comparisons: int = 1) -> Comparison | None:
    """Two variants by the mSPRT of two proportions; None where there is too little to compare.

    comparisons: of this experiment (Bonferroni). With the difference δ, its variance V and
    H₁: δ ~ N(0, τ²), the likelihood ratio is √(V/(V+τ²)) · exp(τ²δ² / (2V(V+τ²))) (Johari et al.
    2017, there for two samples of one size). Its inverse is a p-value that is valid whenever one
    looks; the interval is of all differences that it does not refuse.
    """
    if control.people is None or other.people is None:
        return None
    a, b = _assumed(control, other), _assumed(other, control)
    if a is None or b is None:
        return None
    alpha = ALPHA / comparisons
    variance = _variance(a, control.people) + _variance(b, other.people)
    total = variance + TAU**2
    difference = b / other.people - a / control.people
    ratio = log(variance / total) / 2 + (TAU * difference) ** 2 / (2 * variance * total)
    radius = _radius(variance, alpha)
    is_told = control.converted is not None and other.converted is not None
    return Comparison(
        difference > 0,
        difference if is_told else None,
        max(-1.0, difference - radius) if is_told else None,
        min(1.0, difference + radius) if is_told else None,
        min(1.0, comparisons * exp(-max(0.0, ratio))),
        _detectable(a, control.people, other.people, alpha),
    )


def _detectable(converted: float, people: int, others: int, alpha: float) -> float:
    """The difference to the control's rate that goes beyond the interval in four of five cases."""
    rate = converted / people
    difference = 0.0
    for _ in range(20):  # its own variance grows with it, up to that of a half
        other = max(rate, min(0.5, rate + difference))
        variance = _variance(converted, people) + _variance(other * others, others)
        difference = min(1.0, _radius(variance, alpha) + _Z_POWER * sqrt(variance))
    return difference


def _assumed(arm: Arm, other: Arm) -> float | None:
    """Who converted, or where they are too few to be told: as many as differ least."""
    if arm.converted is not None:
        return arm.converted
    if other.converted is None or not arm.people or not other.people:
        return None
    return min(K - 1.0, other.converted / other.people * arm.people)


def _variance(converted: float, people: int) -> float:
    """Of a rate, with one more of each outcome (Agresti and Caffo): never 0."""
    rate = (converted + 1) / (people + 2)
    return rate * (1 - rate) / people


def _radius(variance: float, alpha: float) -> float:
    """Half the width of the interval."""
    total = variance + TAU**2
    return sqrt(2 * variance * total / TAU**2 * (log(1 / alpha) + log(total / variance) / 2))


def sample_ratio_p(weights: Mapping[str, int], people: Mapping[str, int | None]) -> float:
    """How likely these numbers of people are by the weights, always valid; few: None.

    The Bayes factor of multinomial counts n under shares of Dirichlet(k·θ₀) against the declared
    θ₀ (Lindon and Malek): Γ(k)/Γ(k+Σn) · Π Γ(kθᵢ+nᵢ)/Γ(kθᵢ) / Π θᵢⁿⁱ; its inverse.
    """
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    told = {name: count for name, count in people.items() if count is not None}
    if not told:
        return 1.0
    expected = sum(told.values()) / sum(shares[name] for name in told)
    # Fewer than K are taken to be as many as fit best.
    counts = {n: told.get(n, min(K - 1.0, expected * share)) for n, share in shares.items()}
    k = CONCENTRATION
    ratio = lgamma(k) - lgamma(k + sum(counts.values()))
    for name, share in shares.items():
        ratio += lgamma(k * share + counts[name]) - lgamma(k * share) - counts[name] * log(share)
    return min(1.0, exp(-max(0.0, ratio)))
