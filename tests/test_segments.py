"""Segments: which are kept, with which values, and what the settings may say of them."""

from __future__ import annotations

import pytest

from pbmon.segments import keep, parse


def test_of_what_was_given_only_the_declared_is_kept():
    declared = parse({"plan": {"values": ["free", "pro"]}, "region": {}})
    given = {"plan": "pro", "region": "anything", "email": "a@b.c"}
    assert keep(declared, given) == {"plan": "pro", "region": "anything"}
    assert keep(declared, {"plan": "Pro"}) == {"plan": "_other"}
    assert keep(parse([]), given) == {}


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (["plan", "region"], {"plan": (), "region": ()}),
        (("plan",), {"plan": ()}),
        ("plan, region,", {"plan": (), "region": ()}),
        ("plan = free | pro,region", {"plan": ("free", "pro"), "region": ()}),
        ({"plan": {"values": ["a", "b", "a"]}}, {"plan": ("a", "b")}),
        ({"plan": ["a"], "region": {}}, {"plan": ("a",), "region": ()}),
        ({}, {}),
    ],
)
def test_what_the_settings_may_say(value, parsed):
    assert parse(value) == parsed
    assert parse(parse(value)) == parsed


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5, "is not a list of names, nor a table"),
        (["a b"], "segment 'a b' is no name such as plan"),
        ([5], "segment 5 is no name"),
        ([[]], "segment [] is no name"),
        (["x" * 51], "is no name"),
        ([[]], "is no name"),
        ({"plan": {"value": ["a"]}}, "segment plan has no option 'value'; it has values"),
        ({"plan": {"values": "a"}}, 'must be texts, such as ["free", "pro"]'),
        ({"plan": {"values": [1]}}, "must be texts"),
        ({"plan": {"values": [""]}}, "must be texts"),
    ],
)
def test_what_is_wrong_is_said(value, said):
    with pytest.raises(ValueError) as caught:
        parse(value)
    assert said in str(caught.value)
