"""A store's figures on their way: whose they are, of when, and how often."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.resources import Resource

from pbmon import catalog
from pbmon.catalog import Metric
from pbmon.runtime import Figure, Reading
from pbmon.spool.books import Books
from pbmon.telemetry.pipeline import Pipeline
from pbmon.telemetry.shared import Shared
from tests.fresh import python
from tests.telemetry.receiver import Receiver
from tests.telemetry.test_pipeline import Recording

SOLD = Metric("test.sold", "counter", "{item}", "Sold.", of_store=True)
STOCK = Metric("test.stock", "gauge", "{item}", "In stock.", of_store=True)
MADE_AT = 1_700_000_000_000_000
LATER = MADE_AT + 3600_000_000
PROCESS = Resource(
    {
        "service.name": "shop", "service.namespace": "market", "service.version": "7",
        "deployment.environment.name": "prod", "service.instance.id": "of-the-process",
        "telemetry.distro.name": "pbmon", "telemetry.distro.version": catalog.VERSION,
        "telemetry.sdk.name": "opentelemetry", "host.name": "h", "process.pid": 1,
    }
)  # fmt: skip


def at(when, store="store-1", **sold):
    return Reading(
        store, MADE_AT, when, tuple(Figure(SOLD, n, {"what": what}) for what, n in sold.items())
    )


@pytest.fixture
def shared():
    return Shared(PROCESS)


def sent(shared):
    """(metric, what, when in µs, value) of each point that goes out, and what else there is."""
    encoded = shared.take()
    if encoded is None:
        return []
    request = ExportMetricsServiceRequest.FromString(encoded.payload)
    return [
        (metric.name, *(pair.value.string_value for pair in point.attributes),
         point.time_unix_nano // 1000, point.as_int or point.as_double)
        for part in request.resource_metrics for scope in part.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]  # fmt: skip


def test_it_is_the_service_s_and_the_store_s_and_no_process_s(shared):
    shared.hear(at(LATER, cups=3))
    (part,) = ExportMetricsServiceRequest.FromString(shared.take().payload).resource_metrics
    assert {pair.key: pair.value.string_value for pair in part.resource.attributes} == {
        "service.name": "shop", "service.namespace": "market",
        "deployment.environment.name": "prod", "service.instance.id": "store-1",
        "telemetry.distro.name": "pbmon", "telemetry.distro.version": catalog.VERSION,
    }  # fmt: skip
    (scope,) = part.scope_metrics
    assert (scope.scope.name, scope.schema_url) == ("pbmon", catalog.SCHEMA_URL)
    (metric,) = scope.metrics
    assert (metric.name, metric.unit, metric.description) == ("test.sold", "{item}", "Sold.")
    assert (metric.sum.is_monotonic, metric.sum.aggregation_temporality) == (True, 2)
    (point,) = metric.sum.data_points
    assert (point.start_time_unix_nano, point.time_unix_nano) == (MADE_AT * 1000, LATER * 1000)
    assert point.as_int == 3


def test_a_changed_name_is_the_next_reading_s(shared):
    shared.apply(Resource({"service.name": "other", "process.pid": 1}))
    shared.hear(at(LATER, cups=1))
    (part,) = ExportMetricsServiceRequest.FromString(shared.take().payload).resource_metrics
    assert {p.key: p.value.string_value for p in part.resource.attributes} == {
        "service.name": "other", "service.instance.id": "store-1",
    }  # fmt: skip


def test_a_gauge_is_of_its_moment(shared):
    shared.hear(Reading("s", MADE_AT, LATER, (Figure(STOCK, 2.5, {}),)))
    ((metric,),) = [
        scope.metrics
        for part in ExportMetricsServiceRequest.FromString(shared.take().payload).resource_metrics
        for scope in part.scope_metrics
    ]
    (point,) = metric.gauge.data_points
    assert (point.start_time_unix_nano, point.as_double) == (0, 2.5)


def test_a_reading_goes_out_once_and_only_the_newest(shared):
    assert sent(shared) == []
    shared.hear(at(LATER, cups=3))
    shared.hear(at(LATER + 5, cups=4))
    assert sent(shared) == [("test.sold", "cups", LATER + 5, 4)]
    assert sent(shared) == []
    shared.hear(at(LATER + 9, cups=4))
    assert sent(shared) == [("test.sold", "cups", LATER + 9, 4)]


def test_who_does_not_lead_any_more_says_no_more(shared):
    shared.hear(at(LATER, cups=3))
    shared.hear(None)
    assert sent(shared) == []
    shared.hear(at(LATER + 5, cups=3, mugs=9))  # and of what was meanwhile it knows nothing
    assert sent(shared) == [
        ("test.sold", "cups", LATER + 5, 3), ("test.sold", "mugs", LATER + 5, 9),
    ]  # fmt: skip


def test_a_counter_that_is_new_was_zero_when_it_was_not_there(shared):
    shared.hear(at(LATER, cups=3))
    shared.hear(at(LATER + 5, cups=3, mugs=2))
    shared.hear(at(LATER + 9, cups=3, mugs=7))
    assert sent(shared) == [
        ("test.sold", "mugs", LATER, 0),
        ("test.sold", "cups", LATER + 9, 3), ("test.sold", "mugs", LATER + 9, 7),
    ]  # fmt: skip
    shared.hear(at(LATER + 11, cups=3, mugs=8))
    assert ("test.sold", "mugs", LATER, 0) not in sent(shared)


def test_a_store_just_made_began_with_nothing(shared):
    shared.hear(at(MADE_AT + 2_000_000, cups=5))
    assert sent(shared) == [
        ("test.sold", "cups", MADE_AT, 0), ("test.sold", "cups", MADE_AT + 2_000_000, 5),
    ]  # fmt: skip


def test_another_store_is_another_series(shared):
    shared.hear(at(LATER, cups=3))
    shared.hear(at(LATER + 5, store="store-2", cups=1, mugs=1))
    assert sent(shared) == [
        ("test.sold", "cups", LATER + 5, 1), ("test.sold", "mugs", LATER + 5, 1),
    ]  # fmt: skip


def test_a_forked_child_has_nothing_of_it(shared):
    shared.hear(at(LATER, cups=3))
    shared.forget()
    assert sent(shared) == []


# --- the pipeline ---


def test_it_goes_with_an_export_and_is_not_left_behind():
    """The newest metrics that are kept for an adopter are the process's own: the store's are in the
    store."""
    queue = Recording(Books())
    pipeline = Pipeline(queue, queue._books)
    shared = Shared(PROCESS)
    pipeline.share = shared.take
    shared.hear(at(LATER, cups=3))
    pipeline.keep_metrics()
    assert (queue.appended, queue.latest) == ([], [])
    pipeline.export_metrics()
    ((channel, _, items),) = queue.appended
    assert (channel, items) == ("metrics", 1)
    pipeline.export_metrics()
    assert len(queue.appended) == 1


READ = """
    import pbmon
    from pbmon import catalog, wiring
    from pbmon.runtime import Figure, Reading
    figure = Figure(catalog.DELIVERY_WAITING, 3, {"pbmon.destination": "webhook"})
    pbmon.configure(service_name="shop")
    built = wiring._parts["providers"]
    for at in (1700000000000000, 1700000005000000):
        built.hear(Reading("store-1", 1600000000000000, at, (figure,)))
    assert pbmon.flush(60)
"""


def test_it_arrives_beside_the_process_s_own():
    with Receiver() as receiver:
        python(READ, OTEL_METRICS_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    of_store = [r for r in receiver.resources() if r["service.instance.id"] == "store-1"]
    assert [r["service.name"] for r in of_store] == ["shop"]
    (metric,) = [m for n, m in receiver.metrics().items() if n == "pbmon.delivery.waiting"]
    ((_, value),) = [(p.time_unix_nano, p.as_int) for p in metric.gauge.data_points]
    assert value == 3


OWN_PROVIDER = """
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from pbmon import signals
    signals._SILENCE_S = 0
    metrics.set_meter_provider(MeterProvider())
"""


def test_an_application_with_its_own_meter_provider_is_told_once_what_to_run():
    done = python(OWN_PROVIDER + READ)
    assert done.stderr.count("figures of the store are not exported here") == 1
    assert "run `pbmon worker`" in done.stderr
