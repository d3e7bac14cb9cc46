"""Loopback servers that take events as each vendor documents it, and remember what they took.

They read requests with their own eyes: nothing of pbmon is used here.
"""

from __future__ import annotations

import base64
import gzip
import http.server
import json
import re
import socket
import sys
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.delivery.samples import KEY
from tests.stack.process import HOST

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


HANG = "hang"
"""Answer nothing until the server is closed."""
DRIP = "drip"
"""Begin an answer of 200 and go on byte by byte, each in time."""
CLOSE = "close"
"""Close the connection without an answer."""
CUT = "cut"
"""Close it in the middle of an answer of 200."""
LOSE = "lose"
"""Take the events, and close it without an answer."""


def as_json(status, value):
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@dataclass
class Request:
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """Without its compression."""

    def basic(self):
        """User and password of basic authentication."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        assert scheme == "Basic"
        return tuple(base64.b64decode(value).decode().split(":"))


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # the client went away
            super().handle_error(request, client_address)


class Vendor:
    """`faults` come first, one for each request; then `take` answers.

    accepted: what was taken, by the field that tells two events from one; arrivals: how often.
    """

    def __init__(self, *faults, tls=None):
        self.faults = deque(faults)
        self.accepted: dict[str, dict] = {}
        self.arrivals: Counter[str] = Counter()
        self.requests: list[Request] = []
        self.sizes: list[int] = []
        """Events of each request that was taken or refused by `take`."""
        self.over = threading.Event()
        self.server = _Server((HOST, 0), self._handler())
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def take(self, request: Request) -> Answer:
        raise NotImplementedError

    def keep(self, key, events):
        for event in events:
            self.accepted[event[key]] = event
            self.arrivals[event[key]] += 1

    def _handler(vendor):  # noqa: N805
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes

            def do_POST(self):
                request = vendor._read(self)
                vendor.requests.append(request)
                fault = vendor.faults.popleft() if vendor.faults else None
                if isinstance(fault, Answer):
                    self.answer(fault)
                elif fault is None:
                    self.answer(vendor.take(request))
                else:
                    if fault == LOSE:
                        vendor.take(request)
                    self.end(fault)

            def answer(self, answer):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def end(self, fault):
                self.close_connection = True
                if fault == HANG:
                    vendor.over.wait()
                if fault in (CUT, DRIP):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b'{"succ')
                if fault == DRIP:
                    for _ in range(60):
                        vendor.over.wait(0.05)
                        self.wfile.write(b" ")
                self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *args):
                pass

        return Handler

    def _read(self, handler):
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        parts = urlsplit(handler.path)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        return Request(parts.path, parse_qs(parts.query), headers, body)


def is_poisoned(properties):
    return properties.get("poison") is True


class WebhookVendor(Vendor):
    """Some receiver: it refuses what is over `max_bytes`, and a batch with a poisoned event as a
    whole, with `refusal`."""

    max_bytes = 10**9
    refusal = 422
    receipt = b""

    def take(self, request):
        if len(request.body) > self.max_bytes:
            return Answer(413)
        events = json.loads(request.body)
        self.sizes.append(len(events))
        if any(is_poisoned(e["data"]["properties"] if "data" in e else e["properties"])
               for e in events):  # fmt: skip
            return Answer(self.refusal, b"nobody says which")
        self.keep("id", events)
        return Answer(200, self.receipt)


class SegmentVendor(Vendor):
    """400 without a word for a size above its limits and for JSON it can't read; else 200, also
    where it takes nothing: above 2,500 events, or without a person."""

    max_bytes = 500_000

    def take(self, request):
        assert request.path == "/v1/batch"
        assert request.basic() == (KEY, "")
        batch = json.loads(request.body)["batch"]
        self.sizes.append(len(batch))
        sizes = [len(json.dumps(e, separators=(",", ":"), ensure_ascii=False).encode())
                 for e in batch]  # fmt: skip
        if len(request.body) > self.max_bytes or max(sizes) > 32_000:
            return as_json(400, {"success": False, "message": "too large"})
        if any(is_poisoned(e["properties"]) for e in batch):
            return as_json(400, {"success": False, "message": "malformed"})
        if len(batch) <= 2500:
            named = [e for e in batch if e.get("userId") or e.get("anonymousId")]
            self.keep("messageId", named)
        return as_json(200, {"success": True})


class MixpanelVendor(Vendor):
    """400 with the records that failed, of which the others were taken."""

    max_bytes = 2_000_000
    credentials = (KEY, "")

    def take(self, request):
        assert request.path == "/import"
        assert request.query["strict"] == ["1"]
        if request.basic() != self.credentials:
            return as_json(401, {"code": 401, "error": "Invalid credentials"})
        batch = json.loads(request.body)
        self.sizes.append(len(batch))
        if len(request.body) > self.max_bytes or len(batch) > 2000:
            return as_json(413, {"code": 413, "error": "too large"})
        failed = [
            {
                "index": index,
                "insert_id": e["properties"].get("$insert_id"),
                "field": "properties",
                "message": f"invalid: {json.dumps(e)}",
            }
            for index, e in enumerate(batch)
            if not self.is_valid(e)
        ]
        taken = [e for e in batch if self.is_valid(e)]
        self.keep("id", [{**e, "id": e["properties"]["$insert_id"]} for e in taken])
        answer = {"num_records_imported": len(taken)}
        if failed:
            error = {"code": 400, "status": "Bad Request", "failed_records": failed}
            return as_json(400, {**answer, **error})
        return as_json(200, {**answer, "code": 200, "status": "OK"})

    def is_valid(self, event):
        of = event["properties"]
        return (
            not is_poisoned(of)
            and re.fullmatch(r"[A-Za-z0-9-]{1,36}", of["$insert_id"]) is not None
            and type(of["time"]) is int
            and isinstance(of["distinct_id"], str)
        )


class AmplitudeVendor(Vendor):
    """400 with the positions of what is wrong by field, of which nothing was taken."""

    max_bytes = 20_000_000
    silenced: tuple[str, ...] = ()
    """Devices whose events it never takes."""
    throttled: tuple[str, ...] = ()
    """Users whose events it does not take now."""

    def take(self, request):
        assert request.path == "/batch"
        body = json.loads(request.body)
        if body["api_key"] != KEY:
            return as_json(400, {"code": 400, "error": f"Invalid API key: {body['api_key']}"})
        batch = body["events"]
        self.sizes.append(len(batch))
        if len(request.body) > self.max_bytes or len(batch) > 2000:
            return as_json(413, {"code": 413, "error": "Payload too large"})
        invalid = [i for i, e in enumerate(batch) if is_poisoned(e["event_properties"])]
        missing = [i for i, e in enumerate(batch) if not self.has_id(e)]
        silenced = [i for i, e in enumerate(batch) if e.get("device_id") in self.silenced]
        throttled = [i for i, e in enumerate(batch) if e.get("user_id") in self.throttled]
        answer = {"code": 400, "error": f"Request with {batch[0]}"}
        if invalid:
            answer["events_with_invalid_fields"] = {"event_properties": invalid}
        if missing:
            answer["events_with_missing_fields"] = {"user_id": missing}
        if silenced:
            answer["silenced_events"] = silenced
        if len(answer) > 2:
            return as_json(400, {**answer, "throttled_events": throttled})
        if throttled:
            users = dict.fromkeys(self.throttled, 4000)
            return as_json(429, {"code": 429, "throttled_users": users,
                                 "throttled_events": throttled})  # fmt: skip
        self.keep("insert_id", batch)
        return as_json(200, {"code": 200, "events_ingested": len(batch),
                             "payload_size_bytes": len(request.body)})  # fmt: skip

    def has_id(self, event):
        return any(len(event.get(key, "")) >= 5 for key in ("user_id", "device_id"))
