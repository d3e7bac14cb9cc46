"""The setting `alerts`: what is taken, what is said of the rest, and what is never shown."""

from __future__ import annotations

import pytest

from pbmon import settings
from pbmon.alerting.choices import AlertChoices, parse
from pbmon.alerting.rules import Rule

TOML = """
[alerts]
errors = 20
window = "2m"
cooldown = "30m"
resolve = 60
repeat = "4h"
url = "https://grafana.example.com/{trace_id}"
[alerts.types."payments.*"]
errors = 0
[alerts.types."payments.card.*"]
people = 3
[alerts.types."Exact"]
errors = false
[alerts.sinks.team]
url = "slack://hunter2"
[alerts.sinks.own]
url = "env:OWN_URL"
secret = "file:/run/secrets/own"
"""


@pytest.fixture
def found(tmp_path):
    (tmp_path / "pbmon.toml").write_text(TOML)
    resolved, problems = settings.resolve({}, {}, tmp_path)
    assert problems == []
    return resolved.alerts


def test_a_table_of_rules_and_sinks(found):
    assert found.rule == Rule(20, None, 120.0, 1800.0, 60.0, 14_400.0)
    assert {name: sink.has_literal for name, sink in found.sinks.items()} == {
        "team": True, "own": False,
    }  # fmt: skip
    assert found.teller == "worker"
    assert found.floor == 0


@pytest.mark.parametrize(
    ("error_type", "errors", "people"),
    [
        ("KeyError", 20, None),
        ("payments.Declined", 0, None),
        ("payments.card.Stolen", 20, 3),
        ("Exact", None, None),
        ("Exactly", 20, None),
    ],
)
def test_the_most_exact_rule_is_that_of_a_type(found, error_type, errors, people):
    rule = found.rule_of(error_type)
    assert (rule.errors, rule.people, rule.window_s) == (errors, people, 120.0)


def test_no_secret_is_shown(found):
    assert "hunter2" not in str(found) + repr(found) + repr(found.sinks["team"])
    assert str(found) == (
        "by worker: more than 20 errors in 2 min; told: team (slack://…), own (env:OWN_URL)"
    )


def test_by_default_nobody_is_told():
    assert AlertChoices().teller == "prometheus"
    assert str(AlertChoices()) == "by prometheus: more than 10 errors in 5 min; told: nobody"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("hunter2", "must be a table ([alerts] in pbmon.toml)"),
        ({"error": 1}, "alerts has no option 'error'; there are source, errors, people"),
        ({"source": "both"}, "source 'both' is not one of worker, prometheus"),
        ({"errors": -1}, "errors of alerts is -1; write a whole number up to 1,000,000,000, or"),
        ({"errors": True}, "errors of alerts is True"),
        ({"errors": 1.5}, "errors of alerts is 1.5"),
        ({"errors": 10**30}, "errors of alerts is 1000000000"),
        ({"people": 10_000}, "people of alerts is 10000; write a whole number up to 9,999, or"),
        ({"types": {"A*B": {}}}, "type 'A*B' must be the name of an error's type, or its"),
        ({"types": {"": {}}}, "type '' must be"),
        ({"window": "soon"}, "window: 'soon' is no duration"),
        ({"window": 0}, "window must be from 1 to 21600 seconds"),
        ({"repeat": 1}, "repeat must be from 60 to"),
        ({"types": {"A": 3}}, "type A must be a table with errors or people"),
        ({"types": {"A": {"window": 3}}}, "type A has no option 'window'"),
        ({"sinks": {"a b": {}}}, "sink 'a b' is not named by"),
        ({"sinks": {"a": {}}}, "url of sink a is missing"),
        ({"sinks": {"a": {"url": "hunter2"}}}, "url of sink a is no URL such as slack://…"),
        ({"sinks": {"a": {"url": "slack://x", "token": "hunter2"}}}, "sink a has no option"),
        ({"sinks": {"a": {"url": "slack://x", "secret": 7}}}, "secret of sink a is missing or no"),
        ({"url": "hunter2"}, "url must be a link for people"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_without_a_secret(table, said):
    with pytest.raises(ValueError) as raised:
        parse(table)
    assert str(raised.value).startswith(said)
    assert "hunter2" not in str(raised.value)
