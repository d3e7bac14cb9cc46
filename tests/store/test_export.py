"""What is held of a person, as JSON that its schema describes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pbmon.store.access import StoreError, open_deliveries, open_reader, open_rotation
from pbmon.store.export import exported, schema_of_export
from pbmon.store.holdings import HELD, Fate
from tests.store.test_erasure import (  # noqa: F401
    CANARY,
    OUTSIDE,
    Books,
    delete,
    deletions,
    everything,
)
from tests.store.test_writer import event

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "export.schema.json").read_text())
KINDS = {
    "string": str, "integer": int, "boolean": bool, "object": dict, "array": list,
    "null": type(None),
}  # fmt: skip
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def check(value, schema, where="export"):
    """As JSON Schema says, in as much of it as ours uses."""
    assert schema.keys() <= {
        "$schema", "title", "const", "type", "format", "properties", "required",
        "additionalProperties", "items",
    }, where  # fmt: skip
    if "const" in schema:
        assert value == schema["const"], where
        return
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert any(type(value) is KINDS[kind] for kind in kinds), f"{where}: {value!r}"
    if schema.get("format") == "date-time" and value is not None:
        assert MOMENT.fullmatch(value), where
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema["required"]) <= value.keys() <= schema["properties"].keys(), where
        assert schema["additionalProperties"] is False
        for name, each in value.items():
            check(each, schema["properties"][name], f"{where}.{name}")
    for each in value if isinstance(value, list) else ():
        check(each, schema["items"], f"{where}[]")


@pytest.fixture
def books(url):
    made = Books(url)
    yield made
    made.writer.close()


@pytest.fixture
def export(url):
    reader = open_reader(url)
    yield lambda user, sharing="opt-in": json.loads(json.dumps(reader.export(user, sharing)))
    reader.close()


def test_the_page_has_the_schema_of_the_tables():
    assert schema_of_export() == SCHEMA


def test_every_row_of_the_person_is_in_it_and_of_nobody_else(books, export, url):
    books.put(*everything(CANARY, "s-canary"))
    books.put(*everything("other-8", "s-other"))
    deliveries = open_deliveries(url, "opt-out")
    taken = {each.name: each.event_id for each in deliveries.take("segment", 10)}
    deliveries.settle("segment", [taken["visited"]], {taken["bought"]: "too_large"})
    found = export(CANARY)
    check(found, SCHEMA)
    assert {name: len(rows) for name, rows in found["tables"].items()} == {
        "events": 2, "feedback": 2, "exposures": 2, "error_people": 0, "subject_days": 1,
        "subject_activity": 1, "transactions": 1, "deliveries": 0, "dead_letters": 1,
        "consents": 2, "sessions": 1,
    }  # fmt: skip
    assert found["known"] is True
    assert (found["user_id"], found["consent"]) == (CANARY, {"analytics": True, "sharing": True})
    assert "other-8" not in json.dumps(found)
    (sale,) = found["tables"]["transactions"]
    assert (sale["key"], sale["amount_minor"], sale["currency"]) == (f"{CANARY}-0", 1250, "USD")
    assert {row["comment"] for row in found["tables"]["feedback"]} == {f"said {CANARY}", "before"}
    (there,) = found["destinations"]
    assert there["name"] == "segment"
    assert len(there["pseudonym"]) == 32


def test_every_table_of_people_is_in_it_with_all_but_keys():
    for held in HELD:
        if held.fate is Fate.TOMBSTONE:
            continue
        names = {column.name for column in held.table.columns}
        assert names - {column.name for column in exported(held)} <= {
            "subject", "lookup", "body_hash",
        }  # fmt: skip


def test_destinations_are_named_to_whom_they_may_concern(books, export, url):
    books.put(event(user=CANARY), event(user="8"))
    deliveries = open_deliveries(url, "opt-out")
    deliveries.settle("segment", [each.event_id for each in deliveries.take("segment", 9)], {})
    assert export(CANARY, "opt-in")["destinations"] == []  # never agreed
    assert [each["name"] for each in export(CANARY, "opt-out")["destinations"]] == ["segment"]
    assert export("nobody", "opt-out")["destinations"] == []


def test_under_other_names_it_is_the_same(books, export, url):
    books.put(*everything(CANARY, "s"))
    deliveries = open_deliveries(url, "opt-out")
    deliveries.settle("segment", [each.event_id for each in deliveries.take("segment", 9)], {})
    rows = export(CANARY)["tables"]
    assert len(rows["events"]) == 2
    rotation = open_rotation(url, OUTSIDE)
    rotation.adopt()
    rotation.destination("segment")
    reader = open_reader(url, pepper=OUTSIDE)
    found = json.loads(json.dumps(reader.export(CANARY, "opt-in")))
    check(found, SCHEMA)
    assert found["tables"] == rows
    assert [each["name"] for each in found["destinations"]] == ["segment"] * 2
    names = {each["pseudonym"] for each in found["destinations"]}
    assert len(names) == 2
    rotation.person(CANARY)
    found = json.loads(json.dumps(reader.export(CANARY, "opt-in")))
    assert found["tables"] == rows
    assert not names & {each["pseudonym"] for each in found["destinations"]}
    for each in (reader, rotation):
        each.close()
    with pytest.raises(StoreError, match="knows people by a pepper from outside"):
        export(CANARY)


def test_of_one_who_is_unknown_or_deleted_it_says_so(books, export, deletions):  # noqa: F811
    found = export(CANARY)
    check(found, SCHEMA)
    assert (found["known"], found["known_since"], found["deleted_at"]) == (False, None, None)
    books.put(*everything(CANARY, "s"))
    delete(deletions, CANARY)
    found = export(CANARY)
    check(found, SCHEMA)
    assert found["known"] is True
    assert found["deleted_at"] is not None
    assert set(map(len, found["tables"].values())) == {0}
