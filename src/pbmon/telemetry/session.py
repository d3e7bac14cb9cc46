"""One WebSocket, from the handshake to its close; its span lasts as long as it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.context import attach
from opentelemetry.trace import Span

from pbmon import catalog, privacy, signals
from pbmon.runtime import Scope, active
from pbmon.telemetry.exchange import is_gone, leave, record_error

if TYPE_CHECKING:
    from pbmon.telemetry.requests import Requests


class Session:
    """A runtime.WebSocketRecord."""

    __slots__ = (
        "_cell", "_code", "_error", "_id", "_sink", "_span", "_start_s", "_token", "_wall_ns",
        "route",
    )  # fmt: skip

    def __init__(self, sink: Requests, scope: Scope) -> None:
        self._sink = sink
        self.route: str | None = None
        self._cell: signals.Cell | None = None
        self._code: int | None = None
        self._error: BaseException | None = None
        self._wall_ns = sink.clock.wall_ns()
        self._start_s = sink.clock.monotonic_s()
        # The handshake is a GET (RFC 6455, 4.1).
        self._span, context = sink.start_span(scope, "GET", self._wall_ns)
        self._id = f"{self._span.get_span_context().span_id:016x}"
        self._token = attach(context) if context is not None else None

    def accepted(self) -> None:
        sink = self._sink
        self._cell = sink.websockets.cell(
            ((catalog.ROUTE.name, self.route),) if self.route is not None else ()
        )
        self._cell.up()
        sink.open_websockets += 1
        sink.notices.write(
            catalog.WEBSOCKET_CONNECTED,
            span=self._span,
            connection_id=self._id,
            total_connections=sink.open_websockets,
            endpoint=self.route,
        )

    def disconnected(self, code: int) -> None:
        self._code = code

    def failed(self, error: BaseException) -> None:
        self._error = error

    def closed(self) -> None:
        try:
            self._finish()
            if self._error is not None:
                trace_id = self._span.get_span_context().trace_id
                active.errors.seen(self._error, route=self.route, trace_id=trace_id)
        finally:
            leave(self._token, self._error)
            self._error = None

    def _finish(self) -> None:
        sink = self._sink
        if self._cell is not None:
            self._cell.down()
            sink.open_websockets -= 1
            sink.notices.write(
                catalog.WEBSOCKET_DISCONNECTED,
                span=self._span,
                connection_id=self._id,
                total_connections=sink.open_websockets,
                endpoint=self.route,
                code=self._code,
            )
        span = self._span
        if span.is_recording():
            attributes = sink.segment_attributes() | sink.person_attributes()
            attributes[catalog.WEBSOCKET_ID.name] = self._id
            if self._cell is not None:
                attributes[catalog.STATUS.name] = 101
            if self.route is not None:
                attributes[catalog.ROUTE.name] = self.route
                span.update_name(f"GET {self.route}")
            if self._code is not None:
                attributes[catalog.WEBSOCKET_CLOSE_CODE.name] = self._code
            self._set_error(span, attributes)
            span.set_attributes(attributes)
        if self._token is not None:
            elapsed_s = sink.clock.monotonic_s() - self._start_s
            span.end(self._wall_ns + round(elapsed_s * 1e9))

    def _set_error(self, span: Span, attributes: dict[str, Any]) -> None:
        if self._error is None or is_gone(self._error):
            return
        attributes[catalog.ERROR_TYPE.name] = privacy.error_type(self._error)
        record_error(span, self._error)
