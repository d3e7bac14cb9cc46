"""The data map: nothing that is held or sent is without its place in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pbmon import catalog
from pbmon.reports import data_map
from pbmon.settings import Settings, resolve
from pbmon.store.tables import metadata

SILENT = {
    "METHOD", "ROUTE", "STATUS", "SCHEME", "PROTOCOL_VERSION", "SERVER_ADDRESS", "SERVER_PORT",
    "ERROR_TYPE", "DB_SYSTEM", "DB_NAMESPACE", "DB_OPERATION", "DB_COLLECTION", "DB_SUMMARY",
    "DB_STATUS", "DB_BATCH_SIZE", "DB_RETURNED_ROWS", "DB_AFFECTED_ROWS", "DB_SLOW", "CODE_FILE",
    "CODE_LINE", "CODE_FUNCTION", "SLOW", "BUDGET_EXCEEDED", "BUDGET_LIMITS", "OPERATION",
    "BUDGET_EXCESS", "BUDGET_LIMIT", "WEBSOCKET_CLOSE_CODE", "WEBSOCKET_ID", "FEATURE_NAME",
    "FEATURE_ACTION", "EVENT_NAME", "SURVEY", "SCORE", "CONSENT", "FLAG_KEY", "FLAG_VARIANT",
    "ALERT_SOURCE", "MARK_KIND", "MARK_NAME", "ALERT_SINK", "NOTIFICATION_STATE", "JOB", "ROLE",
    "DESTINATION", "PLACE", "CURRENCY", "TRANSACTION_KIND", "TRANSACTION_STATUS", "WINDOW",
    "REVENUE_PART", "CALL", "REASON", "REPLACED_VALUES", "SIGNAL", "OUTCOME", "COMPONENT_TYPE",
    "COMPONENT_NAME", "SAMPLING_RESULT", "LOG_FORMAT_ERROR",
}  # fmt: skip
"""Attributes that say nothing of people: of the application, the machine, or a finite set."""


def held(**values):
    settings, problems = resolve(values, {}, Path("/nonexistent"))
    assert problems == []
    return {each.place: each for each in data_map.holdings_of(settings)}


def test_every_attribute_has_its_place():
    """Of a new one somebody has to say whether it may speak of people."""
    silent = {getattr(catalog, name).name for name in SILENT}
    speaking = {each.name for each in data_map.SPEAKING}
    assert silent.isdisjoint(speaking)
    assert silent | speaking == {each.name for each in catalog.ATTRIBUTES}


def test_every_table_has_its_place():
    found = held()
    named = found["the other tables"].content.partition(": ")[2].split(", ")
    own = [place.removeprefix("table ") for place in found if place.startswith("table ")]
    assert sorted(own + named) == sorted(table.name for table in metadata.sorted_tables)


def test_what_leads_to_somebody_comes_first():
    order = [each.leads_to for each in data_map.holdings_of(Settings())]
    first = {leads: order.index(leads) for leads in order}
    assert sorted(first, key=first.__getitem__) == [
        "a person", "perhaps somebody", "a pseudonym", "nobody",
    ]  # fmt: skip
    assert order == sorted(order, key=first.__getitem__)


def test_it_is_that_of_the_settings():
    before = held()
    assert before["spans"].leads_to == "perhaps somebody"
    assert before["table events"].basis == "consent, art. 6(1)(a)"
    assert before["table events"].kept == "for good (events_retention_days is unset)"
    assert "log records" not in before and "destination webhook" not in before
    after = held(
        client_address=True, request_headers="x-tenant", user_spans=True, logs=True, scrub=False,
        consent="analytics=not-required,sharing=opt-out", events_retention_days=400,
        destinations={"webhook": {"url": "https://h/e"}}, requests_file="/tmp/r",
        alerts={"sinks": {"team": {"url": "https://h/a"}}},
    )  # fmt: skip
    assert after["spans"].leads_to == "a person"
    assert after["spans"].content == (
        "requests and statements without values; texts as they are written; "
        "addresses of clients; headers x-tenant; pseudonyms of users who agree"
    )
    assert after["log records"].content == "of the application; texts as they are written"
    assert after["table events"].kept == "400 days (events_retention_days)"
    assert after["table events"].basis == "legitimate interest, art. 6(1)(f), and not asked"
    assert after["destination webhook"].basis == (
        "legitimate interest, art. 6(1)(f), until they object"
    )
    assert after.keys() - before.keys() == {
        "log records", "destination webhook", "requests_file", "alert sink team",
    }  # fmt: skip


@pytest.mark.parametrize("secret", ["hunter2"])
def test_no_secret_is_in_it(secret):
    found = held(
        endpoint=f"https://user:{secret}@collector:4318",
        destinations={"webhook": {"url": f"https://h/{secret}", "secret": secret}},
        alerts={"sinks": {"team": {"url": f"https://h/{secret}"}}},
    )
    assert secret not in str(list(found.values()))
    assert "https://REDACTED@collector:4318" in found["spans"].goes_to


@pytest.mark.parametrize(
    ("values", "is_told"),
    [
        ({}, False),
        ({"store_url": "sqlite:////srv/store.sqlite3"}, False),
        ({"store_url": "postgresql://u@db/shop"}, True),
        ({"store_url": "env:DATABASE_URL"}, True),
        ({"outbox_url": "sqlite:////srv/app.sqlite3"}, True),
    ],
)
def test_the_outbox_has_ids_of_the_application_and_is_told(values, is_told):
    told = held(**values)
    assert ("outbox" in told) is is_told
    if is_told:
        assert told["outbox"].leads_to == "a person"
        assert told["outbox"].undone_by == "deletion"
