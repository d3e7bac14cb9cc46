"""Requests of a run, written down one by one as they end."""

from __future__ import annotations

import os
from typing import Protocol

from opentelemetry.trace import Span

from pbmon import signals
from pbmon.gate import runs


class Recording(Protocol):
    """testing.capture() puts one of its own in place."""

    def add(self, request: runs.Request, span: Span) -> None:
        """In the request's own thread, before the span has ended."""


class RunFile:
    """Adds lines to a file that other processes may add to as well: each is one write at its end,
    and there although the process is killed. Raises OSError where the file can't be opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        # Never one that an application's own child would go on with.
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def add(self, request: runs.Request, span: Span) -> None:
        try:
            os.write(self._fd, runs.encode(request).encode("utf-8", "replace"))
        except OSError as error:
            signals.tell(
                "requests_file",
                "pbmon: requests can't be recorded in %s (%s); the run in it is not whole",
                self.path,
                error.strerror,
            )

    def close(self) -> None:
        os.close(self._fd)
