"""HTTP to the servers of the stack, by the standard library and never through a proxy."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 1.0
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class WebError(Exception):
    """The server answered with an error status; the message carries its answer."""

    def __init__(self, status: int, answer: str) -> None:
        super().__init__(f"HTTP {status}: {answer}")
        self.status = status


def get_json(url: str, parameters: dict[str, str] | None = None) -> Any:
    """GET `url` and parse the answer. Raises WebError, or OSError if nobody answers."""
    return json.loads(_exchange(f"{url}?{urlencode(parameters)}" if parameters else url))


def post_json(url: str, body: object) -> Any:
    """POST `body` as JSON and parse the answer, None if it is empty."""
    answer = _exchange(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.loads(answer) if answer else None


def status(url: str) -> int | None:
    """The status of a GET, None as long as nobody answers."""
    try:
        _exchange(url, timeout_s=PROBE_TIMEOUT_S)
    except WebError as error:
        return error.status
    except OSError:
        return None
    return 200


def _exchange(
    url: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with _opener.open(request, timeout=timeout_s) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        with error:
            raise WebError(error.code, error.read().decode(errors="replace")) from None
