"""The log records: their fields, one line each whatever is in them, and no floods."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon import catalog
from pbmon.budgets import Budget
from pbmon.telemetry import notices
from pbmon.telemetry.notices import Notices
from pbmon.testing import CountingClock, capture
from tests.patience import patiently
from tests.telemetry.drive import http, request


def drive(seen):
    request(seen, route="/good", first_s=0.5)
    request(seen, route="/slow", first_s=1.5)
    request(seen, route="/failed", status=500)
    request(seen, route="/over", first_s=0.75)
    request(seen, status=404)
    request(seen, route="/cut", status=None)


BUDGET = Budget("/over", max_s=0.5)


def endpoints(seen):
    return [log.fields["endpoint"] for log in seen.logs if log.message.startswith("Request")]


# --- which requests are logged ---


@pytest.mark.parametrize(
    ("mode", "logged"),
    [
        ("notable", ["/slow", "/failed", "/over"]),
        ("all", ["/good", "/slow", "/failed", "/over", None, "/cut"]),
        ("off", []),
    ],
)
def test_request_log(mode, logged):
    with capture(request_log=mode, budgets=[BUDGET]) as seen:
        drive(seen)
        assert endpoints(seen) == logged
        # a breach is told in every mode
        assert sum(log.message.startswith("Performance") for log in seen.logs) == 1


def test_the_fields_of_a_completed_request():
    with capture(request_log="all") as seen:
        request(seen, http(method="POST"), route="/pay", first_s=1.25, status=201)
        (log,) = seen.logs
        (span,) = seen.spans
        assert log.fields == {
            "endpoint": "/pay",
            "method": "POST",
            "duration": 1.25,
            "status": 201,
            "slow": True,
            "trace_id": span.trace_id,
            "span_id": span.span_id,
        }
        assert (log.logger, log.level) == ("pbmon.http", "INFO")
        assert log.message == (
            "Request completed endpoint=/pay method=POST duration=1.25 status=201 slow=true"
        )
        assert tuple(log.fields)[:5] == catalog.REQUEST_COMPLETED.fields


def test_the_fields_of_a_breach():
    with capture(request_log="off", budgets=[BUDGET]) as seen:
        request(seen, route="/over", first_s=0.75)
        (log,) = seen.logs
        assert (log.logger, log.level) == ("pbmon.budget", "WARNING")
        assert log.message == (
            "Performance budget exceeded endpoint=/over method=GET duration=0.75 budget=0.5 "
            "exceeded=0.25"
        )
        assert tuple(log.fields)[:5] == catalog.BUDGET_EXCEEDED_LOG.fields
        assert log.fields["trace_id"] == seen.spans[0].trace_id


def test_a_breach_of_p95_alone_is_not_logged():
    with capture(budgets=[Budget("/over", max_s=1.0, p95_s=0.25)]) as seen:
        request(seen, route="/over", first_s=0.5)
        assert seen.logs == []


def test_an_aborted_request_has_no_status():
    with capture(request_log="all") as seen:
        request(seen, route="/x", status=None)
        assert seen.logs[0].message.endswith("status=- slow=false")


# --- floods ---


def test_ten_a_minute_for_each_key_and_the_rest_counted(caplog):
    caplog.set_level(logging.INFO, "pbmon")
    clock = CountingClock()
    written = Notices(clock)

    def write(key):
        written.write(catalog.SLOW_QUERY, key=key, query="q", duration=0.2, rows=1)

    for _ in range(25):
        write("a")
    write("b")
    assert len(caplog.records) == 11
    clock.advance(59.75)
    write("a")
    assert len(caplog.records) == 11
    clock.advance(0.25)
    write("a")
    write("a")
    first, second = caplog.records[11:]
    assert first.held_back == 16
    assert first.getMessage().endswith("rows=1 held_back=16")
    assert not hasattr(second, "held_back")


def test_records_without_a_key_are_all_written(caplog):
    caplog.set_level(logging.INFO, "pbmon")
    written = Notices(CountingClock())
    for _ in range(50):
        written.write(catalog.WEBSOCKET_CONNECTED, connection_id="x")
    assert len(caplog.records) == 50


def test_breaches_are_limited_for_each_endpoint():
    with capture(request_log="off", budgets=[BUDGET]) as seen:
        for _ in range(30):
            request(seen, route="/over", first_s=0.75)
        assert len(seen.logs) == 10
        request(seen, http(method="PUT"), route="/over", first_s=0.75)
        assert len(seen.logs) == 11
        seen.clock.advance(60)
        request(seen, route="/over", first_s=0.75)
        assert seen.logs[-1].fields["held_back"] == 20


def test_keys_are_bounded():
    written = Notices(CountingClock())
    for n in range(5000):
        written._admit(("m", str(n)))
    assert len(written._windows) <= 1000


def test_a_silenced_logger_costs_no_place_in_the_window(caplog):
    written = Notices(CountingClock())
    caplog.set_level(logging.ERROR, "pbmon.db")
    for _ in range(20):
        written.write(catalog.SLOW_QUERY, key="a", query="q")
    caplog.set_level(logging.INFO, "pbmon.db")
    written.write(catalog.SLOW_QUERY, key="a", query="q")
    assert len(caplog.records) == 1


# --- one line, whatever is in it ---


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/a/{b}", "/a/{b}"),
        ("é", "é"),
        ("", ""),
        (None, "-"),
        (True, "true"),
        (0.1 + 0.2, "0.3"),
        (1234567.0, "1.23457e+06"),
        (7, "7"),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("a\nb", '"a\\nb"'),
        ("a\r\nstatus=200", '"a\\r\\nstatus=200"'),
        ("\x1b[31mred", '"\\x1b[31mred"'),
        ("a\u2028b", '"a\\u2028b"'),
        ("\ud800", '"\\ud800"'),
        ('x" status="200', '"x\\" status=\\"200"'),
        ("back\\slash n", '"back\\\\slash n"'),
    ],
)
def test_values_as_text(value, text):
    assert notices._text(value) == text


@patiently()
@given(st.text(st.characters(), max_size=30))
def test_a_value_forges_neither_a_line_nor_a_field(value):
    line = notices._line("Message", {"endpoint": value, "status": 200})
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert line.endswith(" status=200")
    field = line[len("Message endpoint=") : -len(" status=200")]
    if " " in field or '"' in field:
        assert field[0] == field[-1] == '"'
        inside = field[1:-1].replace("\\\\", "").replace('\\"', "")
        assert '"' not in inside


def test_a_route_with_a_line_break_is_one_line():
    with capture(request_log="all") as seen:
        request(seen, route="/x\nRequest completed endpoint=/forged")
        (log,) = seen.logs
        assert log.message.count("\n") == 0
        assert 'endpoint="/x\\nRequest' in log.message


def test_a_percent_sign_is_no_format():
    with capture(request_log="all") as seen:
        request(seen, route="/100%s/%(x)d")
        assert "endpoint=/100%s/%(x)d " in seen.logs[0].message


def test_outside_any_span_there_are_no_ids(caplog):
    caplog.set_level(logging.INFO, "pbmon")
    Notices(CountingClock()).write(catalog.SLOW_QUERY, query="q")
    assert not hasattr(caplog.records[0], "trace_id")
