"""Surveys: scores, figures, and what the settings may say of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon import surveys
from pbmon.surveys import BUILT_IN, Survey, parse
from tests.patience import patiently

NPS, CSAT, TEXT = (BUILT_IN[name] for name in ("nps", "csat", "text"))


@pytest.mark.parametrize(
    ("survey", "answers", "figure", "mean"),
    [
        (NPS, {9: 3, 10: 2, 8: 1, 7: 1, 6: 2, 0: 1}, 20.0, 7.4),
        (NPS, {10: 5}, 100.0, 10.0),
        (NPS, {6: 1, 0: 4}, -100.0, 1.2),
        (NPS, {7: 1, 8: 1}, 0.0, 7.5),
        (CSAT, {5: 1, 4: 2, 3: 1}, 75.0, 4.0),
        (CSAT, {1: 1}, 0.0, 1.0),
        (Survey("csat", (1, 7)), {7: 1, 6: 1, 5: 2}, 50.0, 5.75),
        (NPS, {}, None, None),
        (TEXT, {}, None, None),
    ],
)
def test_figures(survey, answers, figure, mean):
    assert survey.figure(answers) == figure
    assert surveys.mean(answers) == mean


def test_scores():
    assert [*NPS.scores] == [*range(11)]
    assert [*CSAT.scores] == [1, 2, 3, 4, 5]
    assert [*TEXT.scores] == []
    assert [NPS.weight(score) for score in NPS.scores] == [-1] * 7 + [0, 0] + [1, 1]


@patiently()
@given(st.dictionaries(st.integers(0, 10), st.integers(0, 50)))
def test_an_nps_is_within_its_bounds(answers):
    figure = NPS.figure(answers)
    assert figure is None or -100 <= figure <= 100
    people = sum(answers.values())
    promoters = sum(n for score, n in answers.items() if score in (9, 10))
    detractors = sum(n for score, n in answers.items() if score <= 6)
    assert figure == (100 * (promoters - detractors) / people if people else None)


def test_those_of_the_settings_stand_beside_the_built_in_ones():
    made = parse(
        {"checkout": {"type": "csat", "scale": [1, 7]}, "why": {"type": "text"},
         "csat": {"type": "csat", "scale": [0, 10]}, "again": {"type": "nps"}}
    )  # fmt: skip
    assert made["checkout"] == Survey("csat", (1, 7))
    assert made["why"] == TEXT
    assert made["csat"] == Survey("csat", (0, 10))
    assert made["again"] == made["nps"] == NPS
    assert parse(made) == made
    assert parse({}) == BUILT_IN


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nps", "must be a table of surveys"),
        ({"a": "nps"}, "survey a must be a table with a type: nps, csat, text"),
        ({"a": {"type": "ces"}}, "with a type: nps, csat, text"),
        ({"a": {"type": "csat", "scales": [1, 2]}}, "has no option 'scales'; it has type, scale"),
        ({"a": {"type": "nps", "scale": [0, 5]}}, "whose scale is given; leave it out"),
        ({"a": {"type": "csat", "scale": [5, 1]}}, "such as [1, 7]"),
        ({"a": {"type": "csat", "scale": [1, 101]}}, "within 0 to 100"),
        ({"a": {"type": "csat", "scale": [1, True]}}, "lowest and highest score"),
        ({"a": {"type": "csat", "scale": "1-5"}}, "lowest and highest score"),
        ({"a" * 51: {"type": "nps"}}, "is not 1 to 50 printable characters"),
        ({"a\n": {"type": "nps"}}, "is not 1 to 50 printable characters"),
    ],
)
def test_what_is_wrong_is_said(value, said):
    with pytest.raises(ValueError) as caught:
        parse(value)
    assert said in str(caught.value)
