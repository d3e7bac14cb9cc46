"""The application's log records as OpenTelemetry's: complete, harmless, and nobody's trouble."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import threading
import warnings
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import context, trace
from opentelemetry._logs import NoOpLoggerProvider, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)

from pbmon import catalog, privacy, signals
from pbmon.telemetry import logs
from pbmon.telemetry.notices import Notices
from pbmon.testing import CountingClock
from tests.fresh import python
from tests.patience import patiently

SECRET = "hunter2"
CODE = {"code.file.path", "code.line.number", "code.function.name"}
TRACE_ID, SPAN_ID = 0xA1B2, 0xC3D4
shop = logging.getLogger("shop")


class Seen:
    """A provider that keeps what it is given."""

    def __init__(self):
        self.exporter = InMemoryLogRecordExporter()
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))

    @property
    def records(self):
        return [data.log_record for data in self.exporter.get_finished_logs()]

    @property
    def record(self):
        (record,) = self.records
        return record

    @property
    def bodies(self):
        return [record.body for record in self.records]

    @property
    def names(self):
        return [data.instrumentation_scope.name for data in self.exporter.get_finished_logs()]

    @property
    def fields(self):
        """The one record's attributes, without those of the calling code."""
        return {k: v for k, v in self.record.attributes.items() if k not in CODE}


@pytest.fixture
def seen():
    return Seen()


def alone(handler):
    """A logger of the application's whose records go to one handler and nowhere else."""
    logger = logging.Logger("shop.orders")  # noqa: LOG001 - known to nobody, pytest neither
    logger.addHandler(handler)
    return logger


@pytest.fixture
def log(seen):
    return alone(logs.LogHandler(seen.provider))


@pytest.fixture
def attached(seen):
    """The handler, listening to the whole process."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    handler = logs.attach(seen.provider)
    yield handler
    logs.detach(handler)
    root.setLevel(level)


@pytest.fixture
def told(monkeypatch):
    """The keys of signals.tell()."""
    keys = []
    monkeypatch.setattr(signals, "tell", lambda key, *_, **__: keys.append(key))
    return keys


@pytest.fixture
def span():
    """A current span."""
    given = trace.SpanContext(TRACE_ID, SPAN_ID, False, trace.TraceFlags(1))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(given)))
    yield given
    context.detach(token)


# --- the record ---


def test_a_record(log, seen):
    line = sys._getframe().f_lineno + 1
    log.warning("order %s of %d", "a1", 3, extra={"order": "a1", "gift": True})
    record = seen.record
    assert record.body == "order a1 of 3"
    assert (record.severity_number, record.severity_text) == (SeverityNumber.WARN, "WARNING")
    assert dict(record.attributes) == {
        "order": "a1",
        "gift": True,
        "code.file.path": __file__,
        "code.line.number": line,
        "code.function.name": "test_a_record",
    }
    assert seen.names == ["shop.orders"]
    assert (record.trace_id, record.span_id) == (0, 0)
    assert 0 <= record.observed_timestamp - record.timestamp < 10 * 10**9


def test_times_are_nanoseconds(log, seen):
    record = logging.makeLogRecord({"name": "a", "created": 1_700_000_000.25, "levelno": 20})
    log.handle(record)
    # What the float can tell: a quarter of a microsecond.
    assert abs(seen.record.timestamp - 1_700_000_000_250_000_000) < 256
    assert seen.record.observed_timestamp > 1_700_000_000_250_000_000


def test_the_current_span_is_the_records_own(log, seen, span):
    log.info("x")
    record = seen.record
    assert (record.trace_id, record.span_id, record.trace_flags) == (TRACE_ID, SPAN_ID, 1)


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (-1, SeverityNumber.UNSPECIFIED),
        (0, SeverityNumber.UNSPECIFIED),
        (1, SeverityNumber.TRACE),
        (5, SeverityNumber.TRACE),
        (9, SeverityNumber.TRACE),
        (10, SeverityNumber.DEBUG),
        (20, SeverityNumber.INFO),
        (21, SeverityNumber.INFO2),
        (25, SeverityNumber.INFO4),
        (29, SeverityNumber.INFO4),
        (30, SeverityNumber.WARN),
        (35, SeverityNumber.WARN4),
        (40, SeverityNumber.ERROR),
        (49, SeverityNumber.ERROR4),
        (50, SeverityNumber.FATAL),
        (53, SeverityNumber.FATAL4),
        (54, SeverityNumber.FATAL4),
        (10**9, SeverityNumber.FATAL4),
        (None, SeverityNumber.UNSPECIFIED),
    ],
)
def test_severity(level, number):
    assert logs.severity(level) is number


def test_a_level_of_the_applications_keeps_its_name(log, seen):
    record = logging.makeLogRecord({"name": "a", "msg": "m", "levelno": 25, "levelname": "NOTICE"})
    log.handle(record)
    assert (seen.record.severity_number.name, seen.record.severity_text) == ("INFO4", "NOTICE")


def test_an_exception_leaves_type_and_frames_not_its_message(log, seen):
    try:
        raise privacy_error()
    except ValueError:
        line = sys._getframe().f_lineno - 2
        log.exception("failed")
    assert seen.fields == {
        "exception.type": f"{__name__}.PrivacyError",
        "exception.stacktrace": f"{__file__}:{line} in "
        "test_an_exception_leaves_type_and_frames_not_its_message",
    }
    assert SECRET not in str(vars(seen.record))


class PrivacyError(ValueError):
    pass


def privacy_error():
    return PrivacyError(SECRET)


def test_frames_of_several_functions_are_one_a_line(log, seen):
    names = {}
    exec(compile("def f():\n 1/0\n", "a\nb\x1b.py", "exec"), names)
    try:
        names["f"]()
    except ZeroDivisionError:
        log.exception("x")
    outer, inner = seen.record.attributes["exception.stacktrace"].split("\n")
    assert outer.startswith(__file__)
    assert inner == r"a\nb\x1b.py:2 in f"


def test_an_exception_that_was_not_raised_has_no_frames(log, seen):
    log.error("x", exc_info=KeyError("k"))
    assert seen.fields == {"exception.type": "KeyError"}


@pytest.mark.parametrize("info", [True, (None, None, None), (), "x"])
def test_no_exception_no_attributes(log, seen, info):
    log.error("x", exc_info=info)
    log.handle(logging.makeLogRecord({"name": "a", "levelno": 20, "exc_info": info}))
    for record in seen.records:
        assert set(record.attributes) <= CODE


# --- extra fields ---


class Rude:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


class Deceiver:
    @property
    def __class__(self):
        return str


class Text(str):
    __slots__ = ()

    def __str__(self):
        raise RuntimeError("no")


class Share(float):
    def __float__(self):
        raise RuntimeError("no")


class Number(int):
    def __int__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("text", "text"),
        (True, True),
        (7, 7),
        (0.5, 0.5),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (Share(0.25), 0.25),
        (Decimal("1.20"), "1.20"),
        (Path("/a/b\n"), r"/a/b\n"),
        (["x" * 100], f"['{'x' * 100}']"),
        (["a", 1], "['a', 1]"),
        ({"a": [None]}, "{'a': [None]}"),
        (b"ab", "b'ab'"),
        (KeyError(SECRET), "KeyError"),
        ([{"e": ValueError(SECRET)}], "[{'e': ValueError}]"),
        (Rude(), "<unprintable Rude>"),
        ([Rude()], "<unprintable list>"),
        (Text("abc"), "abc"),
        (Number(5), 5),
        ("a\nb\x1b[31m\u202e", r"a\nb\x1b[31m\u202e"),
        ("\ud800", r"\ud800"),
    ],
)
def test_an_extra_field(log, seen, value, kept):
    log.info("x", extra={"field": value})
    assert seen.fields == {"field": kept}
    assert type(seen.fields["field"]) is type(kept)


def test_a_field_that_claims_another_class(log, seen):
    log.info("x", extra={"field": Deceiver()})
    assert "Deceiver" in seen.fields["field"]


def test_a_field_that_is_none_is_left_out(log, seen):
    log.info("x", extra={"endpoint": None, "status": 200})
    assert seen.fields == {"status": 200}


@pytest.mark.parametrize("value", ["x" * 10**6, [["x" * 10**6] * 1000] * 1000, b"x" * 10**6])
def test_a_field_is_bounded(log, seen, value):
    log.info("x", extra={"field": value})
    assert len(seen.fields["field"].encode()) <= logs.MAX_BYTES


def test_names_of_fields(log, seen):
    record = logging.makeLogRecord({"name": "a", "levelno": 20, "a\nb": 1, "": 2, 3: 3})
    log.handle(record)
    assert seen.fields == {r"a\nb": 1}


def test_what_formatters_leave_on_a_record_is_no_field(log, seen):
    other = logging.StreamHandler(open("/dev/null", "w"))  # noqa: SIM115
    with other.stream:
        other.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.handlers.insert(0, other)
        try:
            raise ValueError(SECRET)
        except ValueError:
            log.exception("x", stack_info=True)
    assert set(seen.fields) == {"exception.type", "exception.stacktrace"}


def test_more_fields_than_the_limit_leave_what_is_ours(log, seen):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK's own, of fields dropped
        log.info("x", extra={f"f{n}": n for n in range(300)})
    assert len(seen.record.attributes) == 128
    assert set(seen.record.attributes) >= CODE


# --- nothing of the application's can break it ---


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("%d", ("x",)),
        ("%s %s", ("x",)),
        ("%s", (Rude(),)),
        ("%(a)s", ({"b": 1},)),
        ("plain", (1,)),
        ("%", (1,)),
    ],
)
def test_arguments_that_do_not_fit(log, seen, told, message, arguments):
    log.info(message, *arguments)
    assert seen.record.body == message
    assert seen.fields == {"pbmon.log.format_error": True}
    assert catalog.LOG_FORMAT_ERROR.name == "pbmon.log.format_error"
    assert told == ["log-format"]


def test_what_is_told_of_them_says_where_and_no_argument(log, seen, caplog, monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})
    for _ in range(5):
        log.info("%d", SECRET)
    (record,) = caplog.records
    assert record.name == "pbmon.internal"
    assert f"logger shop.orders, {__file__}:" in record.getMessage()
    assert SECRET not in record.getMessage()
    assert len(seen.records) == 5


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (None, "None"),
        (12, "12"),
        (["a"], "['a']"),
        (Rude(), "<unprintable Rude>"),
        ("", ""),
        ("\ud83d", r"\ud83d"),
        ("100%", "100%"),
        ("a\r\nINFO forged", r"a\r\nINFO forged"),
        ("\u2066x\u2069\u2028\x85\x7f\t", r"\u2066x\u2069\u2028\x85\x7f\t"),
        ("Zoë \u00a0\u3000 C:\\new", "Zoë \u00a0\u3000 C:\\new"),
    ],
)
def test_any_message(log, seen, told, message, body):
    log.info(message)
    assert seen.record.body == body


def endless():
    class Endless:
        def __str__(self):
            return f"{self}"

    return Endless()


def test_endless_text(log, seen, told):
    log.info("%s", endless())
    assert seen.record.body == "%s"


def test_at_the_end_of_the_stack(seen, told, monkeypatch):
    """Nothing is said there, and it doesn't stay deaf afterwards."""
    monkeypatch.setattr(signals, "reraise", False)
    handler = logs.LogHandler(seen.provider)
    record = logging.makeLogRecord({"name": "a", "msg": "m", "levelno": 20})

    def dive():
        handler.emit(record)
        dive()

    with pytest.raises(RecursionError):
        dive()
    taken = len(seen.records)
    assert taken > 10
    assert told == []
    handler.emit(record)
    assert len(seen.records) == taken + 1


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("x" * 65536, 65536),
        ("x" * 65537, 65536),
        ("é" * 40000, 65536),
        ("é" * 32768, 65536),
        ("\n" * 20000, 40000),
        ("\n" * 40000, 65536),
        ("\u2028" * 10922, 65532),
        ("x" * 10**7, 65536),
    ],
)
def test_a_long_body_is_cut(log, seen, text, length):
    log.info(text)
    body = seen.record.body
    assert length - 1 <= len(body.encode()) <= length
    assert body.endswith(logs.CUT) == (privacy.escape(text) != body)


@patiently()
@given(
    st.one_of(st.text(st.characters()), st.integers(), st.none(), st.floats()),
    st.lists(st.one_of(st.text(), st.integers(), st.none()), max_size=3),
    st.dictionaries(st.text(st.characters()), st.text(st.characters()), max_size=3),
)
@example("%s", [], {"name": "taken by logging"})
def test_whatever_is_logged_can_be_sent(message, arguments, extra):
    seen = Seen()
    signals._last_told["log-format"] = float("inf")
    record = logging.LogRecord("a", 20, "f.py", 1, message, tuple(arguments), None, "f")
    for name, value in extra.items():
        if name not in vars(record):
            setattr(record, name, value)
    logs.LogHandler(seen.provider).handle(record)
    sent = encode_logs(seen.exporter.get_finished_logs()).SerializeToString()
    assert len(sent) > 0
    texts = [seen.record.body, *seen.record.attributes, *seen.record.attributes.values()]
    for text in texts:
        if isinstance(text, str):
            assert len(text.splitlines()) <= 1
            assert privacy.escape(text) == text


def test_a_failing_provider_is_told_of_and_not_the_applications_trouble(told, monkeypatch):
    class Broken(LoggerProvider):
        def get_logger(self, *_, **__):
            raise RuntimeError("no")

    monkeypatch.setattr(signals, "reraise", False)
    alone(logs.LogHandler(Broken(shutdown_on_exit=False))).error("x")
    assert told == ["taking a log record:RuntimeError"]


def test_no_provider_nothing_done(told):
    alone(logs.LogHandler(NoOpLoggerProvider())).error("%d", "x")
    assert told == []


def test_a_filter_of_the_handlers_is_asked(log, seen):
    log.handlers[0].addFilter(lambda record: record.msg != "no")
    log.info("no")
    log.info("yes")
    assert seen.bodies == ["yes"]


# --- pbmon's own records ---


def test_the_ids_of_our_records_are_their_context(attached, seen):
    given = trace.SpanContext(TRACE_ID, SPAN_ID, False)
    Notices(CountingClock()).write(
        catalog.REQUEST_COMPLETED,
        span=trace.NonRecordingSpan(given),
        endpoint=None,
        method="GET",
        duration=1.5,
        status=200,
        slow=True,
    )
    record = seen.record
    assert (record.trace_id, record.span_id) == (TRACE_ID, SPAN_ID)
    assert seen.fields == {"method": "GET", "duration": 1.5, "status": 200, "slow": True}
    assert record.body.startswith("Request completed endpoint=- method=GET")


def test_the_current_span_comes_before_the_ids(attached, seen, span):
    extra = {"trace_id": f"{1:032x}", "span_id": f"{2:016x}"}
    logging.getLogger("pbmon.http").warning("x", extra=extra)
    assert (seen.record.trace_id, seen.record.span_id) == (TRACE_ID, SPAN_ID)
    assert seen.fields == {}


@pytest.mark.parametrize("extra", [{"trace_id": "no", "span_id": "1"}, {"trace_id": 5}])
def test_ids_that_are_none(attached, seen, extra):
    logging.getLogger("pbmon.http").warning("x", extra=extra)
    assert seen.record.trace_id == 0


def test_an_applications_field_of_that_name_is_its_own(log, seen):
    log.info("x", extra={"trace_id": "t", "span_id": "s"})
    assert seen.fields == {"trace_id": "t", "span_id": "s"}
    assert seen.record.trace_id == 0


# --- no feedback ---


@pytest.mark.parametrize("name", ["pbmon.internal", "pbmon.internal.x"])
def test_our_internal_records_are_never_taken(attached, seen, name):
    logging.getLogger(name).warning("x")
    assert seen.records == []


@pytest.mark.parametrize("name", ["opentelemetry.sdk.x", "urllib3.connectionpool", "requests"])
def test_transport_is_not_taken_from_our_threads(attached, seen, name):
    def work():
        logging.getLogger(name).warning(threading.current_thread().name)
        logging.getLogger("shop").warning("shop")

    for thread in ("pbmon-sender", "worker"):
        started = threading.Thread(target=work, name=thread)
        started.start()
        started.join()
    assert seen.bodies == ["shop", "worker", "shop"]


def test_suppressed_is_not_taken(attached, seen):
    log = logging.getLogger("shop")
    with suppress_instrumentation():
        log.warning("no")
    token = context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))
    log.warning("no")  # as the SDK's own workers do it
    context.detach(token)
    log.warning("yes")
    assert seen.bodies == ["yes"]


def test_what_is_logged_while_a_record_is_taken_is_not_taken(attached, seen):
    log = logging.getLogger("shop")

    class Talker:
        spoken = False

        def __str__(self):
            if not self.spoken:  # asked again by pytest's own handlers
                self.spoken = True
                log.warning("from __str__")
            return "talker"

    class Chatty(InMemoryLogRecordExporter):
        def export(self, batch):
            log.warning("from the exporter")
            return super().export(batch)

    seen.exporter = Chatty()
    seen.provider.add_log_record_processor(SimpleLogRecordProcessor(seen.exporter))
    log.warning("%s", Talker())
    log.warning("after")
    assert seen.bodies == ["talker", "after"]


def test_a_thread_that_waits_inside_holds_up_no_other(attached, seen):
    entered, leave = threading.Event(), threading.Event()

    class Slow(InMemoryLogRecordExporter):
        def export(self, batch):
            if batch[0].log_record.body == "slow":
                entered.set()
                assert leave.wait(10)
            return super().export(batch)

    other = Seen()
    other.exporter = Slow()
    # Not SimpleLogRecordProcessor's lock: one exporter each.
    seen.provider.add_log_record_processor(_Direct(other.exporter))
    log = logging.getLogger("shop")
    slow = threading.Thread(target=log.warning, args=("slow",))
    slow.start()
    assert entered.wait(10)
    log.warning("fast")
    leave.set()
    slow.join()
    assert other.bodies == ["fast", "slow"]


class _Direct(SimpleLogRecordProcessor):
    def on_emit(self, log_record):
        self._exporter.export((log_record,))


# --- where they are heard ---


def test_every_record_that_the_loggers_let_through(attached, seen):
    logging.getLogger("shop.a").info("info")
    logging.getLogger("shop.b").debug("debug")
    logging.getLogger().warning("root")
    assert seen.bodies == ["info", "root"]
    assert seen.names == ["shop.a", "root"]


def test_a_level_of_the_handlers_own(attached, seen):
    again = logs.attach(seen.provider, logging.ERROR)
    logging.getLogger("shop").warning("warning")
    logging.getLogger("shop").error("error")
    assert again is attached
    assert seen.bodies == ["error"]


def test_attached_twice_it_takes_each_record_once(attached, seen):
    assert logs.attach(seen.provider) is attached
    logs.ensure(attached)
    shop.warning("x")
    assert seen.bodies == ["x"]


def test_another_provider_takes_over(attached, seen):
    other = Seen()
    handler = logs.attach(other.provider)
    logs.detach(attached)  # its time is over
    shop.warning("x")
    logs.detach(handler)
    assert (seen.bodies, other.bodies) == ([], ["x"])


def test_detached_it_leaves_logging_as_it_was(seen):
    before = logging.Logger.callHandlers
    handler = logs.attach(seen.provider)
    assert logging.Logger.callHandlers is not before
    logs.detach(handler)
    logs.detach(handler)
    logs.ensure(handler)
    assert logging.Logger.callHandlers is before
    shop.warning("x")
    assert seen.records == []


def test_somebody_who_stands_before_us(seen, monkeypatch):
    """As Sentry does: still heard, once, and let be when we leave and come back."""
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    handler = logs.attach(seen.provider)
    ours = logging.Logger.callHandlers
    others = []

    def theirs(self, record):
        others.append(record)
        ours(self, record)

    logging.Logger.callHandlers = theirs
    for _ in range(3):
        logs.ensure(handler)
    assert logging.Logger.callHandlers is theirs
    assert [r.levelno for r in others] == [0]  # one look, when they came
    shop.warning("x")
    logs.detach(handler)
    assert logging.Logger.callHandlers is theirs
    shop.warning("y")
    handler = logs.attach(seen.provider)
    shop.warning("z")
    logs.detach(handler)
    assert seen.bodies == ["x", "z"]


def test_somebody_who_puts_back_what_was_there(seen, monkeypatch):
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    before = logging.Logger.callHandlers
    handler = logs.attach(seen.provider)
    logging.Logger.callHandlers = before
    shop.warning("lost")
    logs.ensure(handler)
    shop.warning("heard")
    logs.detach(handler)
    assert seen.bodies == ["heard"]
    assert logging.Logger.callHandlers is before


@pytest.fixture
def propagation():
    """Sets a logger's `propagate`; put back at the end."""
    changed = []

    def change(name, propagate):
        logger = logging.getLogger(name)
        changed.append((logger, logger.propagate))
        logger.propagate = propagate

    yield change
    for logger, propagate in changed:
        logger.propagate = propagate


@pytest.mark.parametrize("name", ["uvicorn.error", "gunicorn.error", "hypercorn.error"])
def test_a_servers_log_is_taken_though_it_does_not_propagate(attached, seen, propagation, name):
    propagation("uvicorn", False)
    propagation(name, name == "uvicorn.error")
    logging.getLogger(name).error("x")
    assert seen.names == [name]


@pytest.mark.parametrize("propagates", [True, False])
@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "hypercorn", "granian"])
def test_access_logs_are_not_taken(attached, seen, propagation, server, propagates):
    propagation(server, True)
    propagation(f"{server}.access", propagates)
    logging.getLogger(f"{server}.access").error("127.0.0.1 - GET /reset?token=x")
    assert seen.records == []


def test_a_logger_that_does_not_propagate_is_let_be(attached, seen, propagation):
    propagation("shop.audit", False)
    logging.getLogger("shop.audit").error("x")
    logging.getLogger("shop.audit.deep").error("x")
    assert seen.records == []


@pytest.fixture
def upstream(seen):
    sdk = pytest.importorskip("opentelemetry.sdk._logs")
    if not hasattr(sdk, "LoggingHandler"):
        pytest.skip("the SDK has no handler any more")
    with pytest.warns(DeprecationWarning):
        return sdk.LoggingHandler(logger_provider=seen.provider)


def test_beside_upstreams_handler_there_is_no_second(seen, upstream, told):
    root = logging.getLogger()
    root.addHandler(upstream)
    try:
        assert logs.attach(seen.provider) is None
        assert told == ["log-upstream"]
        shop.warning("x")
    finally:
        root.removeHandler(upstream)
    assert seen.bodies == ["x"]


def test_for_upstreams_handler_that_comes_later_ours_steps_aside(
    attached, seen, upstream, told
):  # fmt: skip
    root = logging.getLogger()
    root.addHandler(upstream)
    try:
        logs.ensure(attached)
        logs.ensure(attached)
        assert told == ["log-upstream"]
        shop.warning("theirs")
    finally:
        root.removeHandler(upstream)
    logs.ensure(attached)
    shop.warning("ours")
    assert seen.bodies == ["theirs", "ours"]


PROGRAM = """
import json, logging, logging.config
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from pbmon.telemetry import logs

exporter = InMemoryLogRecordExporter()
provider = LoggerProvider(shutdown_on_exit=False)
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
handler = logs.attach(provider)
log = logging.getLogger("shop")
{body}
print(json.dumps([r.log_record.body for r in exporter.get_finished_logs()]))
"""


def run(body):
    done = python(PROGRAM.format(body=body))
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize(
    "configure",
    [
        "logging.basicConfig(level=20)",
        "logging.basicConfig(level=20, force=True)",
        """logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False,
           'handlers': {'h': {'class': 'logging.StreamHandler'}},
           'root': {'level': 20, 'handlers': ['h']}})""",
        """from uvicorn.config import LOGGING_CONFIG
logging.config.dictConfig(LOGGING_CONFIG); logging.basicConfig(level=20)""",
        "log.setLevel(20); logging.root.handlers[:] = [logging.StreamHandler()]",
    ],
)
def test_whatever_is_configured_later_both_have_the_record(configure):
    """The application's own handler is set up as if we were not there, and nothing is lost."""
    taken, printed = run(f"{configure}\nlog.info('hello')")
    assert taken == ["hello"]
    assert printed.count("hello") == 1


def test_without_any_configuration_python_still_prints_warnings():
    taken, printed = run("log.warning('hello')")
    assert taken == ["hello"]
    assert printed == "hello\n"


def test_in_a_forked_child_the_records_are_taken():
    taken, printed = run("""
import os, sys, threading
threading.Thread(target=lambda: [log.warning("x") for _ in range(300)]).start()
child = os.fork()
if child == 0:
    exporter.clear()
    log.warning("child")
    print([r.log_record.body for r in exporter.get_finished_logs()], file=sys.stderr)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
exporter.clear()
""")
    assert "['child']" in printed


UVICORN = """
import asyncio, urllib.error, urllib.request, uvicorn

async def app(scope, receive, send):
    raise ValueError("hunter2")

async def main():
    # dictConfig of uvicorn's own, after attach()
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    def ask():
        try:
            opener.open(f"http://127.0.0.1:{port}/secret?q=1", timeout=10)
        except urllib.error.HTTPError as error:
            assert error.code == 500
    await asyncio.get_running_loop().run_in_executor(None, ask)
    server.should_exit = True
    await serving

asyncio.run(main())
for r in exporter.get_finished_logs():
    if "exception.type" in r.log_record.attributes:
        print(json.dumps(dict(r.log_record.attributes)))
assert all("hunter2" not in str(vars(r.log_record)) for r in exporter.get_finished_logs())
"""


def test_uvicorns_tracebacks_arrive_and_its_access_log_does_not():
    pytest.importorskip("uvicorn")
    done = python(PROGRAM.format(body=UVICORN))
    error, bodies = map(json.loads, done.stdout.strip().splitlines()[-2:])
    assert error["exception.type"] == "ValueError"
    assert error["exception.stacktrace"].endswith(" in app")
    assert r"Exception in ASGI application\n" in bodies
    assert any(body.startswith("Started server process") for body in bodies)
    assert "/secret" in done.stdout + done.stderr  # uvicorn printed it
    assert not any("/secret" in body for body in bodies)


# --- against upstream's handler ---


def failed():
    try:
        raise ValueError("broken")
    except ValueError:
        return sys.exc_info()


ORDINARY = [
    ("plain", (), {}),
    ("order %s of %d", ("a1", 3), {"order": "a1", "total": 3, "share": 0.5, "gift": True}),
    ("%(a)s", ({"a": 1},), {}),
    ("Zoë 😀", (), {"who": "Zoë"}),
    ("failed", (), {"exc_info": failed()}),
]


@pytest.mark.parametrize("level", [10, 15, 20, 30, 40, 50, 60])
@pytest.mark.parametrize(("message", "arguments", "fields"), ORDINARY)
def test_all_that_upstream_records_is_there(
    seen, upstream, span, message, arguments, fields, level
):
    fields = dict(fields)
    record = logging.LogRecord(
        "shop", level, __file__, 7, message, arguments, fields.pop("exc_info", None), "f"
    )
    vars(record).update(fields)
    upstream.handle(record)
    theirs = seen.record
    seen.exporter.clear()
    logs.LogHandler(seen.provider).handle(record)
    ours = seen.record

    for name in ("body", "timestamp", "severity_number", "trace_id", "span_id", "trace_flags"):
        assert getattr(ours, name) == getattr(theirs, name), name
    # Python's name, where upstream gives the specification's.
    assert ours.severity_text == record.levelname
    expected = dict(theirs.attributes)
    expected.pop("exception.message", None)
    stack = expected.pop("exception.stacktrace", None)
    attributes = dict(ours.attributes)
    own_stack = attributes.pop("exception.stacktrace", None)
    assert attributes == expected
    assert (stack is None) == (own_stack is None)
    if stack is not None:
        assert own_stack.endswith(" in failed")
