"""The hook of OpenFeature under the real SDK and its provider in memory, sync and async."""

from __future__ import annotations

import asyncio

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

import pbmon
from pbmon import runtime, signals
from pbmon.testing import capture

DECLARED = {
    "new-checkout": {"variants": {"off": 1, "on": 1}, "goal": "paid"},
    "theme": {"variants": {"light": 1, "dark": 1}, "goal": "paid"},
    "nameless": {"variants": {"a": 1, "b": 1}, "goal": "paid"},
}


def by_user(flag, context):
    variant = "on" if context.targeting_key == "7" else "off"
    return FlagResolutionDetails(
        flag.variants[variant], variant=variant, reason=Reason.TARGETING_MATCH
    )


FLAGS = {
    "new-checkout": InMemoryFlag("off", {"off": False, "on": True}, context_evaluator=by_user),
    "theme": InMemoryFlag("dark", {"light": "#fff", "dark": "#000"}),
    "nameless": InMemoryFlag(
        "a", {"a": 1}, context_evaluator=lambda flag, context: FlagResolutionDetails(1)
    ),
    "undeclared": InMemoryFlag("on", {"on": True, "off": False}),
}


@pytest.fixture
def client():
    api.set_provider(InMemoryProvider(FLAGS))
    api.add_hooks([pbmon.OpenFeatureHook()])
    yield api.get_client()
    api.clear_hooks()
    api.clear_providers()


@pytest.fixture
def seen(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})
    with capture(experiments=DECLARED) as seen:
        yield seen


def exposures(seen):
    return [entry[1:] for entry in seen.entries]


def test_who_met_which_variant(client, seen):
    for user in ("7", "8", "7"):
        assert client.get_boolean_value(
            "new-checkout", False, EvaluationContext(user)
        ) is (user == "7")  # fmt: skip
    assert exposures(seen) == [
        ("new-checkout", "on", "7", None, "openfeature", None),
        ("new-checkout", "off", "8", None, "openfeature", None),
    ]
    assert seen.metric("pbmon.experiment.exposures", feature_flag__key="new-checkout") == 2


def test_asynchronous_evaluations_too(client, seen):
    async def ask():
        context = EvaluationContext("7")
        assert await client.get_boolean_value_async("new-checkout", False, context) is True
        with pbmon.context(user_id="9"):
            assert await client.get_string_value_async("theme", "") == "#000"

    asyncio.run(ask())
    assert exposures(seen) == [
        ("new-checkout", "on", "7", None, "openfeature", None),
        ("theme", "dark", "9", None, "openfeature", None),
    ]


def test_without_a_targeting_key_it_is_the_current_subject(client, seen):
    with pbmon.context(session_id="s"):
        client.get_string_value("theme", "")
    client.get_string_value("theme", "")
    assert exposures(seen) == [("theme", "dark", None, "s", "openfeature", None)]


def test_other_flags_and_failed_evaluations_pass(client, seen):
    context = EvaluationContext("7")
    assert client.get_boolean_value("undeclared", False, context) is True
    assert client.get_boolean_value("missing", True, context) is True
    assert client.get_integer_value("theme", 5, context) == 5  # of another type
    assert exposures(seen) == []


def test_a_variant_that_is_not_declared_is_told_and_changes_no_evaluation(client, seen):
    """Under strict, where pbmon.expose() would raise."""
    assert client.get_integer_value("nameless", 0, EvaluationContext("7")) == 1
    assert exposures(seen) == []
    (log,) = seen.logs
    assert "feature flag nameless was evaluated to the variant '', which" in log.message


def test_a_fault_of_ours_changes_no_evaluation(client, seen, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(signals, "reraise", False)
    monkeypatch.setattr(runtime.active.experiments, "expose", fail)
    assert client.get_boolean_value("new-checkout", False, EvaluationContext("7")) is True
    assert "the hook of OpenFeature failed with RuntimeError" in seen.logs[0].message


def test_without_configure_nothing_happens(client):
    assert client.get_boolean_value("new-checkout", False, EvaluationContext("7")) is True
