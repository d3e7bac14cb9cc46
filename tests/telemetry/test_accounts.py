"""The telemetry's own figures, as they arrive: each says exactly what happened."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from pbmon import catalog, signals
from tests import state
from tests.faults import sink as sinks
from tests.faults.sink import Sink
from tests.stack.process import wait_until
from tests.telemetry.programs import Program


@pytest.fixture
def sink():
    with Sink() as receiver:
        yield receiver


@contextmanager
def finished(sink, *lines, **variables):
    """What the lines printed, together, of a process that ended well."""
    with Program(sink, **variables) as program:
        printed = [program.do(line) for line in lines]
        program.end()
        yield printed


def series(sink, metric):
    """Attributes → value at the sink, without those that name our parts."""
    keys = [a.name for a in metric.attributes if not a.name.startswith("otel.component")]
    return {
        tuple(value for value in values if value is not None): total
        for values, total in sink.accepted.by_attribute(metric.name, *keys).items()
    }


def nonzero(values):
    return {key: value for key, value in values.items() if value}


def test_what_was_made_is_what_was_processed_and_exported(sink):
    with finished(
        sink,
        "work(0, 300)",
        "assert pbmon.flush(20)",
        "work(300, 45); still_open = tracer.start_span('open')",
        "assert pbmon.flush(20)",
        "work(345, 1)",
    ):
        assert len(sink.accepted.spans) == 346
        assert series(sink, catalog.SDK_SPAN_STARTED) == {
            ("RECORD_AND_SAMPLE",): 347, ("RECORD_ONLY",): 0, ("DROP",): 0,
        }  # fmt: skip
        assert series(sink, catalog.SDK_SPAN_LIVE) == {
            ("RECORD_AND_SAMPLE",): 1, ("RECORD_ONLY",): 0,
        }  # fmt: skip
        assert series(sink, catalog.SDK_LOG_CREATED) == {(): 346}
        for metric in (catalog.SDK_SPAN_PROCESSED, catalog.SDK_LOG_PROCESSED,
                       catalog.SDK_SPAN_EXPORTED, catalog.SDK_LOG_EXPORTED):  # fmt: skip
            assert nonzero(series(sink, metric)) == {(): 346}, metric.name
        for metric in (catalog.SDK_SPAN_QUEUE_SIZE, catalog.SDK_LOG_QUEUE_SIZE,
                       catalog.SDK_SPAN_INFLIGHT, catalog.SDK_LOG_INFLIGHT,
                       catalog.SDK_DATA_POINT_INFLIGHT):  # fmt: skip
            assert series(sink, metric) == {(): 0}, metric.name
        for metric in (catalog.SDK_SPAN_QUEUE_CAPACITY, catalog.SDK_LOG_QUEUE_CAPACITY):
            assert series(sink, metric) == {(): 2048}
        records = series(sink, catalog.SPOOL_RECORDS)
        for signal in ("traces", "logs"):
            assert records[signal, "accepted"] == records[signal, "delivered"] == 346
        assert nonzero(records).keys() == {
            (signal, outcome)
            for signal in ("traces", "logs", "metrics")
            for outcome in ("accepted", "delivered")
        }
        # Said from the start, so that the first loss is a rise.
        for reason in ("expired", "rejected", "corrupt", "lost"):
            assert records["traces", "dropped", reason] == 0
        for reason in ("full", "io_error", "too_large"):
            assert records["logs", "refused", reason] == 0
        assert set(series(sink, catalog.SPOOL_SIZE)) == {("traces",), ("logs",), ("metrics",)}


def test_the_queues_have_the_capacity_that_the_environment_says(sink):
    sizes = {"OTEL_BSP_MAX_QUEUE_SIZE": "16384", "OTEL_BLRP_MAX_QUEUE_SIZE": "10"}
    with finished(sink, "work(0, 20)", **sizes):
        assert series(sink, catalog.SDK_SPAN_QUEUE_CAPACITY) == {(): 16384}
        assert series(sink, catalog.SDK_LOG_QUEUE_CAPACITY) == {(): 10}
        assert nonzero(series(sink, catalog.SDK_LOG_EXPORTED)) == {(): 20}


def test_unsampled_spans_are_started_and_not_processed(sink):
    with finished(sink, "work(0, 20)", OTEL_TRACES_SAMPLER="always_off"):
        assert sink.accepted.spans == set()
        assert nonzero(series(sink, catalog.SDK_SPAN_STARTED)) == {("DROP",): 20}
        assert nonzero(series(sink, catalog.SDK_SPAN_PROCESSED)) == {}
        assert nonzero(series(sink, catalog.SDK_LOG_PROCESSED)) == {(): 20}


def test_what_the_receiver_rejects_is_exported_with_an_error_type(sink):
    with finished(
        sink,
        "bad = tracer.start_span('bad', attributes={'test.poison': True}); bad.end()",
        "work(0, 30)",
    ):
        pass
    assert len(sink.accepted.spans) == 30
    sink.become(sinks.rejecting_poison())
    with finished(
        sink,
        "bad = tracer.start_span('bad', attributes={'test.poison': True}); bad.end()",
        "work(30, 30)",
    ):
        pass
    assert len(sink.accepted.spans) == 60
    assert nonzero(series(sink, catalog.SDK_SPAN_EXPORTED)) == {(): 61, ("rejected",): 1}
    records = nonzero(series(sink, catalog.SPOOL_RECORDS))
    assert records["traces", "accepted"] == 62
    assert records["traces", "delivered"] == 61
    assert records["traces", "dropped", "rejected"] == 1


def test_what_could_not_be_encoded_or_spooled_is_processed_with_an_error_type(sink):
    with finished(
        sink,
        "from pbmon.telemetry.encoding import Encoded",
        "intake = wiring._providers().pipeline.intakes['traces']; encode = intake.encode",
        "intake.encode = lambda spans: Encoded(b'', 0, left_out=len(spans))",
        "work(0, 7); wiring._providers().hand_over()",
        "intake.encode = encode",
        "queue = wiring._providers().pipeline.queue; queue._append = lambda *a: 'full'",
        "work(7, 4); wiring._providers().hand_over()",
        "del queue._append",
        "work(11, 5)",
    ):
        assert len(sink.accepted.spans) == 5
        assert nonzero(series(sink, catalog.SDK_SPAN_PROCESSED)) == {(): 5, ("not_spooled",): 11}
        assert nonzero(series(sink, catalog.SDK_LOG_PROCESSED)) == {(): 12, ("not_spooled",): 4}
        assert series(sink, catalog.SPOOL_RECORDS)["traces", "refused", "full"] == 4


def test_mended_values_are_counted(sink):
    with finished(sink, r"tracer.start_span('x', attributes={'a': 'x\ud800'}).end()"):
        replaced = series(sink, catalog.SPOOL_REPLACED)
        assert sum(v for (signal, _), v in replaced.items() if signal == "traces") == 1


def test_items_in_a_request_are_in_flight(sink):
    """A collection while a request is under way, put into the spool and read there."""
    with Program(sink, OTEL_BSP_SCHEDULE_DELAY="50") as program:
        sink.become(sinks.hanging())
        program.work(0, 40)
        inflight = "wiring._providers().delivery.senders['traces'].inflight"
        wait_until(lambda: program.do(f"print({inflight})") == "40", "a request under way")
        program.do("wiring._providers().pipeline.export_metrics()")
        sink.become(sinks.ok())
        wait_until(lambda: series(sink, catalog.SDK_SPAN_INFLIGHT), "its metrics")
        assert series(sink, catalog.SDK_SPAN_INFLIGHT) == {(): 40}
        program.end()
    assert series(sink, catalog.SDK_SPAN_INFLIGHT) == {(): 0}


@pytest.mark.parametrize("switch", ["true", "false"])
def test_the_sdks_own_figures_come_once(sink, switch):
    """Where its switch is on, it counts some of these itself."""
    with finished(sink, "work(0, 25)", OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED=switch):
        for metric in (catalog.SDK_SPAN_STARTED, catalog.SDK_SPAN_EXPORTED,
                       catalog.SDK_SPAN_PROCESSED, catalog.SDK_LOG_CREATED):  # fmt: skip
            assert sink.accepted.total(metric.name) == 25, metric.name


SUMMARY = "import json; print(json.dumps(pbmon.runtime.active.accounts()))"


def test_the_summary(sink):
    with Program(sink) as program:
        sink.become(sinks.status(500))
        program.work(0, 10)
        waiting = json.loads(program.do(SUMMARY))
        for signal in ("traces", "logs"):
            assert waiting[signal] == {"accepted": 10, "delivered": 0, "waiting": 10}
        sink.become(sinks.partial(3))
        program.do("pbmon.flush(20)")
        sink.become(sinks.ok())
        program.do("assert pbmon.flush(20)")
        after = json.loads(program.do(SUMMARY))
        assert after["traces"] == {
            "accepted": 10, "delivered": 7, "dropped rejected": 3, "waiting": 0,
        }  # fmt: skip
        program.end()


def test_the_summary_has_what_was_adopted(sink):
    place = state.fresh()
    sink.become(sinks.status(503))
    with Program(sink, PBMON_STATE_DIR=place) as dead:
        dead.work(0, 10)
        dead.kill()
    with Program(sink, PBMON_STATE_DIR=place) as heir:
        wait_until(lambda: json.loads(heir.do(SUMMARY))["traces"]["waiting"], "adopted")
        row = {"accepted": 10, "delivered": 0, "waiting": 10}
        assert json.loads(heir.do(SUMMARY))["traces"] == row
        sink.become(sinks.ok())
        heir.do("assert pbmon.flush(20)")
        row = {"accepted": 10, "delivered": 10, "waiting": 0}
        assert json.loads(heir.do(SUMMARY))["traces"] == row
        heir.end()


def test_the_figures_of_a_fork_are_its_own(sink):
    with finished(
        sink,
        "work(0, 30)",
        "child = os.fork(); "
        "child or (work(30, 4), pbmon.shutdown(20), os._exit(0)); os.waitpid(child, 0)",
        "work(34, 1)",
    ):
        assert len(sink.accepted.spans) == 35
        by_instance = {}
        key = (catalog.SDK_SPAN_STARTED.name, catalog.SDK_SPAN_PROCESSED.name)
        for (name, (instance, _)), value in sink.accepted._values():
            if name in key:
                by_instance.setdefault(instance, {}).setdefault(name, 0)
                by_instance[instance][name] += value
        assert sorted(by_instance.values(), key=lambda row: row[key[0]]) == [
            {key[0]: 4, key[1]: 4}, {key[0]: 31, key[1]: 31},
        ]  # fmt: skip


def test_a_fault_in_a_figure_leaves_the_others(sink, monkeypatch):
    monkeypatch.setattr(signals, "reraise", False)
    with Program(sink) as program:
        program.do("wiring._providers().pipeline.replaced = None")
        program.do("work(0, 3)")
        err = program.end()
    assert "reading pbmon.spool.replaced_values failed with AttributeError" in err
    assert nonzero(series(sink, catalog.SDK_SPAN_PROCESSED)) == {(): 3}
