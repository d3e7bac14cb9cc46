"""Where the SDK keeps its series: the private names that storages.py reaches for, in the release
that is installed. tests/packaging has the list of every private name there is in our sources; this
says what these must be, and names the one that an upgrade moved.
"""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    InMemoryMetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import Aggregation, View

from tests.packaging.test_imports import PRIVATE

LOCK, RLOCK = type(threading.Lock()), type(threading.RLock())


@pytest.fixture(scope="module")
def kept():
    """The objects by the names they have in storages.py, of a provider that counted."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("test")
    instrument = meter.create_counter("n")
    instrument.add(1, {"a": "b"})
    consumer = provider._measurement_consumer
    storage = consumer._reader_storages[reader]
    (match,) = storage._instrument_view_instrument_matches[instrument]
    (aggregation,) = match._attributes_aggregation.values()
    return {
        "provider": provider,
        "consumer": consumer,
        "storage": storage,
        "match": match,
        "view": match._view,
        "kind": match._instrument_class_aggregation[type(instrument)],
        "aggregation": aggregation,
        "meter": meter,
        "reader": reader,
    }


SHAPES = {
    "provider._measurement_consumer": object,
    "provider._meters": dict,
    "consumer._lock": LOCK,
    "consumer._reader_storages": dict,
    "storage._lock": RLOCK,
    "storage._instrument_view_instrument_matches": dict,
    "match._lock": LOCK,
    "match._attributes_aggregation": dict,
    "match._view": View,
    "match._instrument_class_aggregation": dict,
    "view._aggregation": Aggregation,
    "view._exemplar_reservoir_factory": object,
    "kind._create_aggregation": object,
    "aggregation._attributes": dict,
    "meter._instrument_registration_lock": LOCK,
    "meter._instrument_ids_lock": LOCK,
    "reader._lock": RLOCK,
}


@pytest.mark.parametrize(("name", "shape"), SHAPES.items(), ids=SHAPES)
def test_it_is_there_and_of_its_shape(kept, name, shape):
    owner, _, attribute = name.partition(".")
    assert isinstance(getattr(kept[owner], attribute), shape)


def test_the_periodic_reader_holds_a_lock_while_it_exports():
    reader = PeriodicExportingMetricReader(ConsoleMetricExporter(), float("inf"))
    assert type(reader._export_lock) is LOCK


def test_a_limit_of_its_own_is_a_number(kept):
    """From 1.45.2 on."""
    assert isinstance(getattr(kept["match"], "_cardinality_limit", 0), int)


def test_these_are_all_that_are_used():
    used = {name for file, name in PRIVATE if file == "telemetry/storages.py"}
    assert used == SHAPES.keys() | {"reader._export_lock", "match._cardinality_limit"}
