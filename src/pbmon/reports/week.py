"""The week that a report is about, and what a section's builder is given and gives."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pbmon import growth
from pbmon.reports.metrics import Metrics
from pbmon.reports.page import Headline, Section
from pbmon.reports.prometheus import PrometheusError
from pbmon.runtime import StoreError
from pbmon.settings import Settings

if TYPE_CHECKING:
    from pbmon.store.reader import Reader

_DAYS = 7
_FIRST_YEAR = 2000
_NAME = re.compile(r"(\d{4})-?W(\d\d)", re.ASCII)


class Span(NamedTuple):
    """A time from start (within) to end (not), and the one from before to start that it is compared
    with; µs since the epoch. name, name_before: of both, as headings."""

    before: int
    start: int
    end: int
    name: str
    name_before: str


@dataclass(frozen=True, slots=True)
class Week:
    """An ISO week by the days of a zone. begin: its Monday."""

    begin: dt.date
    zone: str

    @property
    def name(self) -> str:
        """As ISO 8601 writes it: `2026-W47`."""
        year, number, _ = self.begin.isocalendar()
        return f"{year}-W{number:02}"

    @property
    def days(self) -> Sequence[dt.date]:
        return [self.begin + dt.timedelta(days=n) for n in range(_DAYS)]

    @property
    def labels(self) -> Sequence[str]:
        """Of the days, for a chart: `Mon 16`."""
        return [f"{day:%a} {day.day}" for day in self.days]

    @property
    def before(self) -> Week:
        return Week(self.begin - dt.timedelta(days=_DAYS), self.zone)

    @property
    def start(self) -> int:
        """µs since the epoch; within."""
        return self.bounds(self.begin)[0]

    @property
    def end(self) -> int:
        """µs since the epoch; not within."""
        return self.bounds(self.days[-1])[1]

    @property
    def span(self) -> Span:
        return Span(self.before.start, self.start, self.end, "this week", "week before")

    def bounds(self, day: dt.date) -> tuple[int, int]:
        """Of a day that has 23 to 25 hours: its beginning, and that of the next one (µs)."""
        where = growth.zone(self.zone)
        return growth.start_of(day, where), growth.start_of(day + dt.timedelta(days=1), where)


def newest(zone: str, now: dt.datetime) -> Week:
    """The last week that is over. now: aware."""
    today = now.astimezone(growth.zone(zone)).date()
    return Week(growth.period_of(today, "week"), zone).before


def parse(name: str) -> dt.date:
    """The Monday of a week such as 2026-W47. Raises ValueError."""
    found = _NAME.fullmatch(name)
    if found is None or int(found[1]) < _FIRST_YEAR:
        raise ValueError(f"{name!r} is no ISO week such as 2026-W47")
    return dt.date.fromisocalendar(int(found[1]), int(found[2]), 1)


class Question(NamedTuple):
    """What a section's builder is asked. reader, metrics: whose StoreErrors and PrometheusErrors
    the builder leaves alone."""

    week: Week
    reader: Reader
    settings: Settings
    metrics: Metrics


class Part(NamedTuple):
    """What a builder adds to the page."""

    section: Section
    headlines: Sequence[Headline] = ()


Builder = Callable[[Question], Part]


def part(title: str, made: Callable[[], Part]) -> Part:
    """What it makes; where what is asked can't answer, a section that says so."""
    try:
        return made()
    except StoreError as error:
        return Part(Section(title, (f"This is missing: the store {error}.",)))
    except PrometheusError as error:
        return Part(Section(title, (f"This is missing: {error}.",)))
