"""HTTP headers on server spans, by allow-list only (upstream's variables)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from opentelemetry.semconv.attributes import http_attributes

from pbmon.privacy import MASK
from pbmon.settings import Settings

# Credentials are never put on a span, whatever the allow-list says.
_ALWAYS_MASKED = ("authorization", "proxy-authorization", "cookie", "set-cookie")
_MAX_VALUE = 256

RawHeaders = Iterable[tuple[bytes, bytes]]
_Patterns = list[re.Pattern[str]]


class HeaderCapture:
    """Turns allowed headers into `http.request.header.<name>` and `http.response.header.<name>`."""

    def __init__(self, settings: Settings) -> None:
        self._request = _compiled(settings.request_headers)
        self._response = _compiled(settings.response_headers)
        self._masked = _compiled((*_ALWAYS_MASKED, *settings.masked_headers))

    def request(self, headers: RawHeaders) -> dict[str, Any]:
        return self._capture(self._request, http_attributes.HTTP_REQUEST_HEADER_TEMPLATE, headers)

    def response(self, headers: RawHeaders) -> dict[str, Any]:
        return self._capture(self._response, http_attributes.HTTP_RESPONSE_HEADER_TEMPLATE, headers)

    def _capture(self, wanted: _Patterns, prefix: str, headers: RawHeaders) -> dict[str, Any]:
        if not wanted:
            return {}
        found: dict[str, Any] = {}
        for raw_name, raw_value in headers:
            name = raw_name.decode("latin-1").lower()
            if _any_matches(wanted, name):
                masked = _any_matches(self._masked, name)
                value = MASK if masked else raw_value.decode("latin-1")[:_MAX_VALUE]
                found.setdefault(f"{prefix}.{name}", []).append(value)
        return found


def _compiled(patterns: Iterable[str]) -> _Patterns:
    """Each by itself: joined, their flags and group numbers would get in each other's way."""
    return [re.compile(pattern, re.IGNORECASE) for pattern in patterns]


def _any_matches(patterns: _Patterns, name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns)
