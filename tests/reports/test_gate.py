"""The verdicts as text, Markdown, JUnit XML and JSON, also of names that mean to do harm."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.gate.regressions import compare
from pbmon.gate.verdicts import Count, judge
from pbmon.reports import gate
from pbmon.reports.gate import Findings
from tests.patience import patiently

X, HARM = ("GET", "/x"), "/<b>&\"'`|]]>\x1b[31m\x00\ud800\u202e{id}*_\ufffe"
JUDGED = [
    judge(Count("/x", None, "p95", 2000, 40, 0.05, 0.3)),
    judge(Count("/x", "GET", "max", 2000, 1, 0.0, 1.5)),
    judge(Count("/y", None, "p99", 60, 0, 0.01, 0.08)),
    judge(Count("/y", None, "availability", 0, 0, 0.001)),
]
CHANGED = compare(
    {X: [0.1] * 200, ("GET", "/z"): [1.0] * 5}, {X: [0.2] * 200, ("GET", "/z"): [1.0] * 5}
)
FOUND = Findings(JUDGED, CHANGED, ["one note"])

# What CI servers' readers of JUnit take: element → attributes (! must be there), children.
SCHEMA = {
    "testsuites": ({"name"}, {"testsuite"}),
    "testsuite": ({"name!", "tests!", "failures!", "errors!", "skipped", "time!"}, {"testcase"}),
    "testcase": ({"name!", "classname!", "time!"}, {"failure", "skipped"}),
    "failure": ({"message", "type!"}, set()),
    "skipped": ({"message"}, set()),
}


def checked(xml):
    """The XML's root, which fits the schema and whose counts are right."""
    root = ET.fromstring(xml)
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = SCHEMA[element.tag]
        assert set(element.attrib) <= {name.rstrip("!") for name in attributes}
        assert {name[:-1] for name in attributes if name.endswith("!")} <= set(element.attrib)
        assert {child.tag for child in element} <= children
    for suite in root:
        for name, tag in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
            assert int(suite.get(name)) == len(list(suite.iter(tag)))
    return root


def test_as_text():
    assert gate.as_text(FOUND) == (
        "Budgets\n"
        "endpoint  limit         is      requests  over  share  at least  may be\n"
        "GET /x    max           1.5 s      2,000     1  0.05%  –         none    failed\n"
        "/y        p99           80 ms         60     0  0.00%  0.00%     1 %     undecided\n"
        "/y        availability  0.999          0     0  –      –         0.1 %   undecided\n"
        "/x        p95           300 ms     2,000    40  2.00%  1.55%     5 %     passed\n"
        "\n"
        "Against the baseline\n"
        "endpoint  requests  before  now     change   by chance\n"
        "GET /x         200  100 ms  200 ms  +100.0%  9.5e-07    failed\n"
        "GET /z           5  –       –       –        –          undecided\n"
        "\n"
        "GET /x: max 1.5 s: 1 of 2,000 requests took longer\n"
        "GET /x: 100 ms before, 200 ms now: +100.0% (by chance: 9.5e-07)\n"
        "one note\n"
        "2 failed, 3 undecided, 1 passed"
    )


def test_as_markdown():
    assert gate.as_markdown(FOUND) == (
        "## Performance budgets\n"
        "\n"
        "2 failed, 3 undecided, 1 passed\n"
        "\n"
        "- GET /x: max 1.5 s: 1 of 2,000 requests took longer\n"
        "- GET /x: 100 ms before, 200 ms now: +100.0% (by chance: 9.5e-07)\n"
        "\n"
        "**Budgets**\n"
        "\n"
        "| endpoint | limit | is | requests | over | share | at least | may be |  |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| GET /x | max | 1.5 s | 2,000 | 1 | 0.05% | – | none | failed |\n"
        "| /y | p99 | 80 ms | 60 | 0 | 0.00% | 0.00% | 1 % | undecided |\n"
        "| /y | availability | 0.999 | 0 | 0 | – | – | 0.1 % | undecided |\n"
        "| /x | p95 | 300 ms | 2,000 | 40 | 2.00% | 1.55% | 5 % | passed |\n"
        "\n"
        "**Against the baseline**\n"
        "\n"
        "| endpoint | requests | before | now | change | by chance |  |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| GET /x | 200 | 100 ms | 200 ms | +100.0% | 9.5e-07 | failed |\n"
        "| GET /z | 5 | – | – | – | – | undecided |\n"
        "\n"
        "one note\n"
    )


def test_as_junit():
    budgets, baseline = checked(gate.as_junit(FOUND))
    names = ("name", "tests", "failures", "skipped")
    assert [budgets.get(name) for name in names] == ["pbmon.budgets", "4", "1", "2"]
    assert [baseline.get(name) for name in names] == ["pbmon.baseline", "2", "1", "1"]
    assert [(case.get("name"), [child.tag for child in case]) for case in budgets] == [
        ("/x p95", []), ("GET /x max", ["failure"]), ("/y p99", ["skipped"]),
        ("/y availability", ["skipped"]),
    ]  # fmt: skip
    (failure,) = budgets.iter("failure")
    assert (
        failure.text
        == failure.get("message")
        == ("GET /x: max 1.5 s: 1 of 2,000 requests took longer")
    )


def test_strict_makes_failures_of_what_is_undecided():
    undecided = Findings([JUDGED[2]])
    strict = Findings([JUDGED[2]], strict=True)
    assert (undecided.has_failed, strict.has_failed) == (False, True)
    (suite,) = checked(gate.as_junit(strict))
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "0")


def test_as_json():
    told = json.loads(gate.as_json(FOUND))
    assert told["outcome"] == "failed"
    assert told["budgets"][1] == {
        "method": "GET", "route": "/x", "limit": "max", "threshold_s": 1.5, "allowed": 0.0,
        "requests": 2000, "over": 1, "bound": None, "outcome": "failed",
    }  # fmt: skip
    assert told["baseline"][0]["ratio"] == pytest.approx(2)
    assert told["notes"] == ["one note"]


def test_names_that_mean_to_do_harm():
    found = Findings([judge(Count(HARM, None, "max", 2, 1, 0.0, 1.0))], notes=[HARM])
    (suite,) = checked(gate.as_junit(found))
    shown = r"""/<b>&"'`|]]>\x1b[31m\x00\ud800\u202e{id}*_? max"""
    assert suite[0].get("name") == shown
    for text in (gate.as_text(found), gate.as_markdown(found)):
        assert not {"\x1b", "\x00", "\ud800", "\u202e"} & set(text)
    assert r"/\<b\>\&" in gate.as_markdown(found)
    assert r"\|" in gate.as_markdown(found)
    json.loads(gate.as_json(found))


@patiently(max_examples=60)
@given(st.text().map("/".__add__))
def test_any_name_is_good_xml(name):
    checked(gate.as_junit(Findings([judge(Count(name, None, "max", 2, 1, 0.0, 1.0))])))


def test_nothing():
    assert not Findings([]).is_seen
    assert not Findings([JUDGED[3]]).is_seen
    assert gate.as_text(Findings([])) == "0 failed, 0 undecided, 0 passed"
    assert len(checked(gate.as_junit(Findings([])))) == 0
