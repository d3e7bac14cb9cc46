"""The application's records of stdlib `logging` as OpenTelemetry log records.

attach() listens at `Logger.callHandlers`, where every record that the loggers let through comes
by, and leaves the loggers' own handlers alone. A handler on the root logger would be lost to
`dictConfig` and `basicConfig(force=True)`, would make a plain `basicConfig` do nothing, and
would silence what Python prints to stderr where no logging was set up.

Taken is what reaches the root logger by propagation, as a handler there would have it, and
the servers' own loggers, which don't propagate: uvicorn's tracebacks arrive. Access logs are
not taken, as there is a span for each request and their lines hold clients' addresses and
queries; neither is a logger of the application that doesn't propagate.
"""

from __future__ import annotations

import logging
import reprlib
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import Logger, LoggerProvider, LogRecord, NoOpLogger, SeverityNumber
from opentelemetry.context import Context, get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.semconv.attributes import exception_attributes

from pbmon import catalog, privacy, signals

MAX_BYTES = 64 * 1024
"""Of a body or a text attribute, in UTF-8; what is longer is cut."""
CUT = " …[cut]"

_SHORT = 1024
# Escaped text takes at most six bytes for a character.
_SURELY_SHORT = MAX_BYTES // 6
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

# A record's own fields; the last two are left there by other handlers' formatters.
_FRESH = frozenset(vars(logging.makeLogRecord({})))
_OWN = _FRESH | {"taskName", "message", "asctime"}
_FILE, _LINE, _FUNCTION, _FORMAT_ERROR = (
    attribute.name
    for attribute in (
        catalog.CODE_FILE,
        catalog.CODE_LINE,
        catalog.CODE_FUNCTION,
        catalog.LOG_FORMAT_ERROR,
    )
)

SERVERS = frozenset(
    ("uvicorn", "uvicorn.error", "gunicorn.error", "hypercorn.error", "_granian")
)  # fmt: skip
"""Loggers that are taken although they don't propagate."""
ACCESS = frozenset(("uvicorn.access", "gunicorn.access", "hypercorn.access", "granian.access"))
_TRANSPORT = frozenset(("opentelemetry", "urllib3", "requests"))
_OWN_THREADS = "pbmon-"


def severity(levelno: int) -> SeverityNumber:
    """OpenTelemetry's number for a level of `logging`.

    A level between two of Python's is the lower one's second to fourth; below DEBUG is TRACE.
    """
    number = _SEVERITIES.get(levelno)
    if number is not None:
        return number
    above = isinstance(levelno, int) and levelno > 0
    return SeverityNumber.FATAL4 if above else SeverityNumber.UNSPECIFIED


_SEVERITIES = dict.fromkeys(range(1, 10), SeverityNumber.TRACE) | {
    levelno: SeverityNumber(4 * band + 1 + min(levelno - 10 * band, 3))
    for levelno in range(10, 60)
    for band in [min(levelno // 10, 5)]
}


class _Here(threading.local):
    taking = False
    heard = False


_here = _Here()


class LogHandler(logging.Handler):
    """Emits each record through the provider's logger of the same name. Never raises.

    Its lock is never taken: a thread that waits for the spool here must not hold up one that
    has the spool and logs.
    """

    def __init__(self, provider: LoggerProvider, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.provider = provider
        self._loggers: dict[str, tuple[Logger | None, bool]] = {}

    def handle(self, record: logging.LogRecord) -> bool:
        kept: Any = self.filter(record) if self.filters else record
        if kept:  # since 3.12 a filter may give another record
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        if _here.taking:  # logged by what is done for another record
            return
        _here.taking = True
        try:
            self._take(record)
        except RecursionError:
            pass  # the application is at the end of its stack, and nothing can be said there
        except Exception as error:
            signals.failed("taking a log record", error)
        finally:
            _here.taking = False

    def _take(self, record: logging.LogRecord) -> None:
        name = record.name or ""
        known = self._loggers.get(name)
        if known is None:
            known = self._loggers[name] = self._logger(name)
        logger, transport = known
        if logger is None or (transport and _is_own_thread()):
            return
        context = get_current()
        if context and not is_instrumentation_enabled():
            return
        attributes = _fields(record)
        if name.startswith("pbmon."):
            context = _trace(attributes, context)
        attributes[_FILE] = privacy.escape(record.pathname)
        attributes[_LINE] = record.lineno
        if record.funcName:
            attributes[_FUNCTION] = record.funcName
        if record.exc_info:
            _add_exception(attributes, record.exc_info)
        try:
            body = record.getMessage()
        except Exception:
            body = _text(record.msg)
            attributes[_FORMAT_ERROR] = True
            _tell_of_format(record)
        logger.emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                observed_timestamp=time.time_ns(),
                context=context,
                severity_number=severity(record.levelno),
                severity_text=privacy.escape(str(record.levelname)),
                body=_clean(body),
                attributes=attributes,
            )
        )

    def _logger(self, name: str) -> tuple[Logger | None, bool]:
        """None where the records are never taken; whether the name is of what carries them."""
        internal = signals.INTERNAL_LOGGER
        if name == internal or name.startswith(f"{internal}.") or name in ACCESS:
            return None, False
        logger = self.provider.get_logger(name)
        if isinstance(logger, NoOpLogger):
            return None, False
        return logger, name.partition(".")[0] in _TRANSPORT


def _is_own_thread() -> bool:
    return threading.current_thread().name.startswith(_OWN_THREADS)


def _tell_of_format(record: logging.LogRecord) -> None:
    signals.tell(
        "log-format",
        "pbmon: the arguments of a log call don't fit its message (logger %s, %s:%s); "
        "the record is taken without them",
        record.name,
        record.pathname,
        record.lineno,
    )


# --- attributes ---


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The `extra=` fields; one that is None says nothing and is left out."""
    fields = vars(record)
    if len(fields) <= len(_FRESH):
        return {}
    return {
        privacy.escape(name): _value(value)
        for name, value in fields.items()
        if name not in _OWN and value is not None and isinstance(name, str) and name
    }


def _value(value: Any) -> str | bool | int | float:
    """What OTLP can carry: itself, or a short text that no `__str__` can spoil."""
    kind = type(value)  # not isinstance(), which an object can deceive, as mocks do
    if kind is str:
        return _clean(value)
    if kind is bool or kind is float:
        return value  # type: ignore[no-any-return]
    if issubclass(kind, int) and _INT64_MIN <= (number := int.__pos__(value)) <= _INT64_MAX:
        return number
    if issubclass(kind, float):
        return float.__pos__(value)
    return _clean(_text(value))


class _Short(reprlib.Repr):
    """Bounded in depth and length, and no message of an exception at any depth."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 256

    def repr_instance(self, x: Any, level: int) -> str:
        if isinstance(x, BaseException):
            return privacy.error_type(x)
        if isinstance(x, (bytes, bytearray)):
            return repr(x[: self.maxother])
        return str(x)[:_SHORT]


_repr = _Short().repr


def _text(value: Any) -> str:
    try:
        return str.__str__(value) if issubclass(type(value), str) else _repr(value)[:_SHORT]
    except Exception:
        return f"<unprintable {type(value).__name__}>"


def _clean(text: str) -> str:
    """Escaped, and at most MAX_BYTES with the mark of the cut."""
    if len(text) <= _SURELY_SHORT:
        return privacy.escape(text)
    data = privacy.escape(text[: MAX_BYTES + 1]).encode()
    if len(data) > MAX_BYTES:
        data = data[: MAX_BYTES - len(CUT.encode())] + CUT.encode()
    return data.decode(errors="ignore")


def _trace(attributes: dict[str, Any], context: Context) -> Context:
    """The ids that a record of pbmon's own carries, as its context where there is no other."""
    trace_id, span_id = (attributes.pop(name, "") for name in ("trace_id", "span_id"))
    if not trace_id or trace.get_current_span(context).get_span_context().is_valid:
        return context
    try:
        given = trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False)
    except (TypeError, ValueError):
        return context
    return trace.set_span_in_context(trace.NonRecordingSpan(given), context)


def _add_exception(attributes: dict[str, Any], info: Any) -> None:
    """Type and frames; the message stays here, as with the spans."""
    if not isinstance(info, tuple) or len(info) != 3:  # not of Logger's making
        return
    _, error, trace_back = info
    if error is not None:
        attributes[exception_attributes.EXCEPTION_TYPE] = privacy.escape(privacy.error_type(error))
    if stack := privacy.frames(trace_back):
        attributes[exception_attributes.EXCEPTION_STACKTRACE] = stack


# --- where the records are heard ---

_Call = Callable[[logging.Logger, logging.LogRecord], None]

_attached: LogHandler | None = None
_aside = False
_ours: tuple[_Call, _Call] | None = None
"""The function we last put at `Logger.callHandlers`, and the one it stands before."""
_top: _Call | None = None
"""What stood there when a record was last known to come by."""


def attach(provider: LoggerProvider, level: int = logging.NOTSET) -> LogHandler | None:
    """Take records from `level` up into the provider, until detach(). Again: the same handler.

    None where a handler of OpenTelemetry's own stands on the root logger already: each record
    would be sent twice. One that comes later makes ensure() step aside.
    """
    global _attached, _aside
    if _has_upstream():
        _tell_of_upstream()
        return None
    if _attached is None or _attached.provider is not provider:
        _attached = LogHandler(provider)
    _attached.setLevel(level)
    _aside = False
    _listen()
    return _attached


def detach(handler: LogHandler) -> None:
    """Take no more records; what is attached by now in the handler's place stays."""
    global _attached
    if handler is not _attached:
        return
    _attached = None
    if _ours is not None and logging.Logger.callHandlers is _ours[0]:
        _set_call(_ours[1])
    # Else somebody stands before us: our function stays and passes the records on.


def ensure(handler: LogHandler) -> None:
    """See to it that an attached handler hears the records; cheap, to be called every second.

    Others replace `Logger.callHandlers` too, and may put back what they found there.
    """
    global _aside
    if handler is not _attached:
        return
    upstream = _has_upstream()
    if upstream and not _aside:
        _tell_of_upstream()
    _aside = upstream
    with signals.guard("listening to logging"):
        _listen()


def _listen() -> None:
    global _ours, _top
    if logging.Logger.callHandlers is _top:
        return
    if not _is_heard():
        below = logging.Logger.callHandlers
        _ours = (_before(below), below)
        _set_call(_ours[0])
    _top = logging.Logger.callHandlers


def _before(below: _Call) -> _Call:
    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802
        if self is _PROBE:
            _here.heard = True
            return
        handler = _attached
        if (
            handler is not None
            and not _aside
            and record.levelno >= handler.level
            and _is_wanted(self)
        ):
            handler.handle(record)
        below(self, record)

    return callHandlers


def _set_call(call: _Call) -> None:
    logging.Logger.callHandlers = call  # type: ignore[assignment]


def _is_wanted(logger: logging.Logger) -> bool:
    """Whether the logger's records reach the root logger, or a server's that ends there."""
    while logger.propagate and logger.parent is not None:
        logger = logger.parent
    return logger is logging.root or logger.name in SERVERS


# Of no hierarchy, and below every level: others who listen there have no use for it.
_PROBE = logging.Logger(f"{signals.INTERNAL_LOGGER}.probe")  # noqa: LOG001
_PROBE.addHandler(logging.NullHandler())


def _is_heard() -> bool:
    """Whether a record comes by here, through whatever stands before us."""
    _here.heard = False
    _PROBE.callHandlers(logging.LogRecord(_PROBE.name, logging.NOTSET, "", 0, "", (), None))
    return _here.heard


def _has_upstream() -> bool:
    return any(
        kind.__name__ == "LoggingHandler" and kind.__module__.startswith("opentelemetry.")
        for handler in logging.root.handlers
        for kind in type(handler).__mro__
    )


def _tell_of_upstream() -> None:
    signals.tell(
        "log-upstream",
        "pbmon: OpenTelemetry's own LoggingHandler is on the root logger; pbmon takes no log "
        "records beside it. Set OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION=false, or logs=false.",
    )
