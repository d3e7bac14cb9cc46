"""Exchange rates from a server, a table for each day, kept in the state directory.

It is asked for `{"base": "EUR", "date": "2026-10-30", "rates": {"USD": 1.1172, …}}`, as Frankfurter
and others answer. `date` is when these rates were published, on a weekend some day before.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pbmon import outbound, signals
from pbmon.money import Rate
from pbmon.outbound import Answer, Client
from pbmon.rates.tables import NO_TABLE, Table, table_of

PLACE = "{date}"
"""Stands in the URL for the day, which is written as 2026-10-30."""

# Within one refresh(), then between them.
_RETRIES_S = (0.5, 2.0)
_PAUSES_S = (60.0, 3600.0)
_LONGEST_S = 20.0
# A day's table may change until the day is over. One that there was none of may come late.
_UNFINISHED_S = 3600
_MISSING_S = 24 * 3600
_MOST_DAYS = 400
_NOTHING = (400, 404, 422)
_UNUSABLE = "rates_url must be https, or http to this machine, with {date} in its path or query"


@dataclass(frozen=True, slots=True)
class _Page:
    """What the service said of a day, and when (Unix time); None if there is nothing."""

    asked_at: int
    table: Table | None

    def is_final(self, day: date, now_s: float) -> bool:
        if self.table is None:
            return now_s - self.asked_at < _MISSING_S
        return _utc(self.asked_at) > day or now_s - self.asked_at < _UNFINISHED_S


@dataclass(frozen=True, slots=True)
class _Fault:
    """soon: whether it may be over in a second or two."""

    words: str
    retry_after_s: float | None = None
    soon: bool = False


class Service:
    """A money.Rates. Raises ValueError for a URL that can't be used, which is not repeated: it may
    hold a key."""

    def __init__(
        self, url: str, directory: Path, max_age_days: int, *, timeout_s: float = outbound.TIMEOUT_S
    ) -> None:
        """directory: of the cache; it is made when there is something to keep."""
        try:
            self._client = Client("rates_url", url, timeout_s)
        except ValueError:
            raise ValueError(_UNUSABLE) from None
        parts = urlsplit(url)
        if PLACE not in parts.path + parts.query:
            raise ValueError(_UNUSABLE)
        self.source = (parts.hostname or "")[:32]
        self._url = url
        self._file = directory / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
        self._max_age_days = max_age_days
        self._pages: dict[date, _Page] = {}
        self._is_read = False
        self._published: dict[date, Table] = {}
        self._pause_s = 0.0
        self._paused_until_s = 0.0

    def rate(self, currency: str, base: str, day: date) -> Rate | None:
        newest = day.toordinal()
        for ordinal in range(newest, max(newest - self._max_age_days, 1) - 1, -1):
            table = self._published.get(date.fromordinal(ordinal))
            if table is not None:
                value = table.value(currency, base)
                return None if value is None else Rate(value, table.day, self.source)
        return None

    def refresh(self, wanted: Iterable[tuple[str, date]]) -> None:
        """For twenty seconds at most; the newest days first, the others another time."""
        if not self._is_read:
            self._is_read = True
            self._pages = self._read()
            self._index()
        now_s = time.time()
        today = _utc(now_s)
        days = {min(day, today) for _, day in wanted}
        missing = sorted(day for day in days if not self._knows(day, now_s))[-_MOST_DAYS:]
        if missing and time.monotonic() >= self._paused_until_s:
            self._fetch(missing)
            self._index()
            self._write()

    def _fetch(self, missing: list[date]) -> None:
        """The last of them first."""
        until_s = time.monotonic() + _LONGEST_S
        while missing and time.monotonic() < until_s:
            found = self._ask(missing[-1])
            if isinstance(found, _Fault):
                self._pause(found, len(missing))
                break
            self._pages[missing.pop()] = found
            self._pause_s = 0.0
        self._client.close()

    def _knows(self, day: date, now_s: float) -> bool:
        page = self._pages.get(day)
        return page is not None and page.is_final(day, now_s)

    def _index(self) -> None:
        """Keep what was asked for last."""
        pages = sorted(self._pages.items(), key=lambda page: page[1].asked_at)
        self._pages = dict(pages[-_MOST_DAYS:])
        tables = (page.table for page in self._pages.values())
        self._published = {table.day: table for table in tables if table is not None}

    # --- the server ---

    def _ask(self, day: date) -> _Page | _Fault:
        for wait_s in (*_RETRIES_S, None):
            found = self._ask_once(day)
            if not isinstance(found, _Fault) or not found.soon or wait_s is None:
                break
            time.sleep(wait_s)
        return found

    def _ask_once(self, day: date) -> _Page | _Fault:
        asked_at = int(time.time())
        try:
            answer = self._client.ask("GET", self._url.replace(PLACE, day.isoformat()))
        except Exception as error:
            words = outbound.cause(error)
            return _Fault(words, soon=words != "timed out")
        if answer.status in _NOTHING:
            signals.tell(
                "rates_url.nothing", "pbmon: rates_url: %s has no rates of %s (%s).",
                self.source, day.isoformat(), answer.phrase,
            )  # fmt: skip
            return _Page(asked_at, None)
        if answer.status != 200:
            retry_after_s = answer.retry_after_s
            soon = answer.status >= 500 and not retry_after_s
            return _Fault(answer.phrase + _remedy(answer.status), retry_after_s, soon)
        try:
            table = table_of(_decimals(answer))
        except ValueError as error:
            return _Fault(str(error))
        if table.day > day:
            return _Fault(f"an answer of {table.day.isoformat()}, which is later")
        return _Page(asked_at, table)

    def _pause(self, fault: _Fault, days: int) -> None:
        first_s, longest_s = _PAUSES_S
        self._pause_s = min(max(self._pause_s * 2, first_s), longest_s)
        wait_s = max(self._pause_s, fault.retry_after_s or 0.0)
        self._paused_until_s = time.monotonic() + wait_s
        signals.tell(
            "rates_url",
            "pbmon: rates_url: %s: %s. The rates of %d days are missing; it is asked again in %d s "
            "at the earliest.",
            self.source, fault.words, days, wait_s,
        )  # fmt: skip

    # --- the cache ---

    def _read(self) -> dict[date, _Page]:
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            return {date.fromisoformat(day): _page_of(page) for day, page in kept.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            signals.tell(
                "rates_url.read", "pbmon: %s can't be read (%s); its rates are asked for again.",
                self._file, type(error).__name__,
            )  # fmt: skip
            return {}

    def _write(self) -> None:
        kept = {day.isoformat(): _kept(page) for day, page in self._pages.items()}
        beside = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(mode=0o700, exist_ok=True)
            beside.write_text(json.dumps(kept, separators=(",", ":")), encoding="utf-8")
            beside.replace(self._file)
        except OSError as error:
            signals.tell(
                "rates_url.write", "pbmon: %s can't be written (%s); its rates are asked for again "
                "after a restart.", self._file, error.strerror,
            )  # fmt: skip


def _utc(moment_s: float) -> date:
    return datetime.fromtimestamp(moment_s, timezone.utc).date()


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "; check the key in the URL"
    return ", a redirect, which is not followed; check the URL" if 300 <= status < 400 else ""


def _decimals(answer: Answer) -> Any:
    try:
        return json.loads(answer.body, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        raise ValueError(NO_TABLE) from None


def _page_of(kept: Mapping[str, Any]) -> _Page:
    return _Page(int(kept["asked_at"]), table_of(kept) if "rates" in kept else None)


def _kept(page: _Page) -> dict[str, Any]:
    table = page.table
    if table is None:
        return {"asked_at": page.asked_at}
    rates = {code: str(rate) for code, rate in table.rates.items()}
    return {
        "asked_at": page.asked_at, "date": table.day.isoformat(), "base": table.base,
        "rates": rates,
    }  # fmt: skip
