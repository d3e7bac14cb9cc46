"""A small OTLP/HTTP receiver on loopback that hands on what it gets to the user's own collector."""

from __future__ import annotations

import gzip
import http.client
import os
import queue
import sys
import threading
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from opentelemetry.util.re import parse_env_headers

from examples.pocketbook.telemetry import Telemetry

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_ENDPOINT = "http://localhost:4318"
SIGNALS = ("traces", "metrics", "logs")
TIMEOUT_S = 5.0
MAX_BODY = 64 * 2**20
_CONTENT = "application/x-protobuf"


class Forwarder:
    """Sends the same bytes to the OTLP endpoint the user has configured, if one listens there."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or DEFAULT_ENDPOINT
        self.endpoint = base if "://" in base else f"http://{base}"
        self._urls = {
            signal: environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
            or f"{self.endpoint.rstrip('/')}/v1/{signal}"
            for signal in SIGNALS
        }
        given = environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
        self._headers = parse_env_headers(given, liberal=True) if given else {}
        self._queue: queue.SimpleQueue[tuple[str, bytes, dict[str, str]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self.listening = False
        self.sent = 0
        self.failed = 0

    def start(self) -> None:
        """Find out whether a collector listens; hand on only if so."""
        # An empty request is a valid one, of which nothing is kept.
        self.listening = self._post("traces", b"", {}) and self._post("metrics", b"", {})
        if self.listening:
            self._thread.start()

    def describe(self) -> str:
        """One line for a person: where the telemetry goes beside this process."""
        # Of user:password@host only the host is shown.
        scheme, _, rest = self.endpoint.partition("://")
        address = f"{scheme}://{rest.rpartition('@')[2].partition('/')[0]}"
        if not self.listening:
            return (
                f"No OTLP/HTTP collector answers at {address}; "
                "the demo shows what it receives itself."
            )
        if self.failed:
            return f"The collector at {address} refused {self.failed} of the exports handed on."
        return f"The collector at {address} gets everything, too."

    def put(self, signal: str, body: bytes, headers: dict[str, str]) -> None:
        if self.listening:
            self._queue.put((signal, body, headers))

    def close(self) -> None:
        """Wait until everything handed in was sent, or refused."""
        if self.listening:
            self._queue.put(None)
            self._thread.join(4 * TIMEOUT_S)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._post(*item):
                self.sent += 1
            else:
                self.failed += 1

    def _post(self, signal: str, body: bytes, headers: dict[str, str]) -> bool:
        url = self._urls[signal]
        try:
            local = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
            proxies = urllib.request.ProxyHandler({} if local else None)
            request = urllib.request.Request(
                url, body, {"Content-Type": _CONTENT, **self._headers, **headers}, method="POST"
            )
            with urllib.request.build_opener(proxies).open(request, timeout=TIMEOUT_S):
                return True
        except (OSError, ValueError, http.client.HTTPException):
            return False  # refused, timed out, an error status; a malformed URL; no HTTP


class Receiver:
    """`with Receiver() as receiver:` listens on a free port and fills `receiver.telemetry`."""

    def __init__(self, forwarder: Forwarder | None = None) -> None:
        self.telemetry = Telemetry()
        self.forwarder = forwarder
        self.rejected = 0
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="receiver", daemon=True
        )

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, signal: str, body: bytes, headers: dict[str, str]) -> None:
        """Keep an export, then hand it on as it came. Raises ValueError for a malformed one."""
        plain = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        add = {"traces": self.telemetry.add_traces, "metrics": self.telemetry.add_metrics}
        try:
            add.get(signal, _ignore)(plain)
        except DecodeError as error:
            raise ValueError(str(error)) from None
        if self.forwarder is not None:
            self.forwarder.put(signal, body, headers)


def _ignore(_body: bytes) -> None:
    """Logs are handed on only."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that goes away in the middle, as an app that ends does, is no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    receiver: ClassVar[Receiver]
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            self._answer(411 if length < 0 else 413)
            return
        body = self.rfile.read(length)
        version, _, signal = self.path.removeprefix("/").partition("/")
        if version != "v1" or signal not in SIGNALS:
            self._answer(404)
            return
        names = ("Content-Type", "Content-Encoding")
        headers = {name: value for name in names if (value := self.headers.get(name))}
        try:
            self.receiver.take(signal, body, headers)
        except (ValueError, OSError, EOFError):  # the latter two are gzip's
            self.receiver.rejected += 1
            self._answer(400)
            return
        self._answer(200)

    def _answer(self, status: int) -> None:
        # An empty body is an empty Export…ServiceResponse: everything was taken.
        self.send_response(status)
        self.send_header("Content-Type", _CONTENT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: the progress bar has the terminal."""
