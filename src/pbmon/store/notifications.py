"""What sinks of alerts are to get: handed out one by one, each attempt noted before it is made."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, bindparam, exists, select

from pbmon.alerting.notices import FIRING, RESOLVED, Notice
from pbmon.alerting.rules import SECOND
from pbmon.store import schema
from pbmon.store.access import asking
from pbmon.store.alerts import UNFINISHED, Clock
from pbmon.store.engine import reading
from pbmon.store.schema import DAY
from pbmon.store.tables import alert_notifications, alerts

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

KEPT_FOR = DAY
"""How long a notification is tried, µs."""

_RECENT = 20


class Claim(NamedTuple):
    """A notification to send now. attempt: which one this is. notice: with no service in it, nor a
    link: those are the sender's."""

    notice: Notice
    attempt: int


class Alert(NamedTuple):
    """As `pbmon alerts status` has it. Times in µs."""

    alert_id: str
    error_type: str
    place: str
    rule: str
    opened_at: int
    resolved_at: int | None
    errors: int
    people: int


class Unsent(NamedTuple):
    """A notification that waits, or died. made_at, due_at, died_at: µs."""

    alert_id: str
    kind: str
    sink: str
    made_at: int
    due_at: int
    died_at: int | None
    attempts: int
    fault: str | None


class Status(NamedTuple):
    open: list[Alert]
    recent: list[Alert]
    """The last that are over, the newest first."""
    waiting: list[Unsent]
    dead: list[Unsent]


class Notifications:
    """lease_s: within it nobody sends what another has claimed. clock: the store's. Each method
    raises StoreError."""

    def __init__(self, engine: Engine, lease_s: float, clock: Clock = schema.clock) -> None:
        self._engine = engine
        self._lease = int(lease_s * SECOND)
        self._clock = clock

    def claim(self, sink: str) -> Claim | None:
        """The next notification of a sink, with this attempt at it noted; None where none is due.

        What was tried least often comes first, then the oldest; of one alert, each when what comes
        before it was sent.
        """

        def attempt() -> Claim | None:
            with reading(self._engine).connect() as connection:
                now = self._clock(connection)
                row = connection.execute(_NEXT, {"asked": sink, "now": now}).first()
            if row is None:
                return None
            with self._engine.begin() as connection:
                claimed = connection.execute(
                    alert_notifications.update()
                    .where(_is(row), UNFINISHED, alert_notifications.c.attempts == row.attempts)
                    .values(attempts=row.attempts + 1, due_at=now + self._lease)
                ).rowcount
            if not claimed:  # by another leader
                return None
            return Claim(_notice(row), row.attempts + 1)

        return asking(attempt)

    def note_sent(self, sink: str, notice: Notice) -> None:
        def do() -> None:
            with self._engine.begin() as connection:
                connection.execute(
                    alert_notifications.update()
                    .where(_of(sink, notice), alert_notifications.c.sent_at.is_(None))
                    .values(sent_at=self._clock(connection), fault=None)
                )

        asking(do)

    def note_failed(self, sink: str, claim: Claim, fault: str, again_s: float) -> None:
        """again_s: in how many seconds it is to be tried again."""

        def do() -> None:
            with self._engine.begin() as connection:
                again_at = self._clock(connection) + int(again_s * SECOND)
                connection.execute(
                    alert_notifications.update()
                    .where(
                        _of(sink, claim.notice),
                        UNFINISHED,
                        alert_notifications.c.attempts == claim.attempt,
                    )
                    .values(due_at=again_at, fault=fault[:200])
                )

        asking(do)

    def bury(self) -> int:
        """Give up what could not be sent for a day, and what can't be told for it; how many."""

        def do() -> int:
            with self._engine.begin() as connection:
                now = self._clock(connection)
                old = (
                    alert_notifications.update()
                    .where(UNFINISHED, alert_notifications.c.made_at < now - KEPT_FOR)
                    .values(died_at=now)
                )
                untold = (
                    alert_notifications.update()
                    .where(UNFINISHED, alert_notifications.c.kind != FIRING, exists(_DEAD_BEGIN))
                    .values(died_at=now, fault="its alert could not be told")
                )
                return connection.execute(old).rowcount + connection.execute(untold).rowcount

        return asking(do)

    def status(self) -> Status:
        def ask() -> Status:
            with reading(self._engine).connect() as connection:
                is_open = alerts.c.resolved_at.is_(None)
                return Status(
                    _alerts(connection, alerts.select().where(is_open)),
                    _alerts(connection, alerts.select().where(~is_open), _RECENT),
                    _unsent(connection, UNFINISHED),
                    _unsent(connection, alert_notifications.c.died_at.is_not(None)),
                )

        return asking(ask)

    def last_fault(self) -> str:
        """Of what was not sent: `team: connection refused`; an empty text where there is none."""

        def ask() -> str:
            query = (
                select(alert_notifications.c.sink, alert_notifications.c.fault)
                .where(
                    alert_notifications.c.sent_at.is_(None),
                    alert_notifications.c.fault.is_not(None),
                )
                .order_by(alert_notifications.c.made_at.desc())
                .limit(1)
            )
            with reading(self._engine).connect() as connection:
                row = connection.execute(query).first()
            return "" if row is None else f"{row.sink}: {row.fault}"

        return asking(ask)

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)


_before = alert_notifications.alias("before")
_WAITS_FOR_ANOTHER = exists(
    select(_before.c.alert_id).where(
        _before.c.alert_id == alert_notifications.c.alert_id,
        _before.c.sink == alert_notifications.c.sink,
        _before.c.sent_at.is_(None),
        _before.c.kind == FIRING,
        alert_notifications.c.kind != FIRING,
    )
)
_DEAD_BEGIN = select(_before.c.alert_id).where(
    _before.c.alert_id == alert_notifications.c.alert_id,
    _before.c.sink == alert_notifications.c.sink,
    _before.c.kind == FIRING,
    _before.c.died_at.is_not(None),
)
_NEXT = (
    select(
        alert_notifications.c.alert_id, alert_notifications.c.kind, alert_notifications.c.sink,
        alert_notifications.c.attempts, alerts,
    )
    .join(alerts, alerts.c.alert_id == alert_notifications.c.alert_id)
    .where(
        alert_notifications.c.sink == bindparam("asked"),
        alert_notifications.c.due_at <= bindparam("now"),
        UNFINISHED,
        ~_WAITS_FOR_ANOTHER,
    )
    .order_by(
        alert_notifications.c.attempts, alert_notifications.c.made_at, alert_notifications.c.kind
    )
    .limit(1)
)  # fmt: skip


def _is(row: Any) -> Any:
    return and_(
        alert_notifications.c.alert_id == row.alert_id,
        alert_notifications.c.kind == row.kind,
        alert_notifications.c.sink == row.sink,
    )


def _of(sink: str, notice: Notice) -> Any:
    return and_(
        alert_notifications.c.alert_id == uuid.UUID(notice.alert_id).bytes,
        alert_notifications.c.kind == notice.kind,
        alert_notifications.c.sink == sink,
    )


def _notice(row: Any) -> Notice:
    about = row.about
    is_over = row.kind == RESOLVED
    return Notice(
        alert_id=_text(row.alert_id),
        kind=row.kind,
        service="",
        environment=None,
        rule=row.rule,
        fingerprint=bytes(row.fingerprint).hex(),
        error_type=about["error_type"],
        place=about["place"],
        route=about["route"],
        release=about["release"],
        is_new=about["is_new"],
        first_at=about["first_at"],
        opened_at=row.opened_at,
        resolved_at=row.resolved_at if is_over else None,
        # What a message says must be the same whenever it is sent: by its key it is known.
        errors=row.errors if is_over else about["errors"],
        people=row.people if is_over else about["people"],
        trace_id=about["trace_id"],
    )


def _alerts(connection: Connection, query: Any, most: int | None = None) -> list[Alert]:
    found = connection.execute(query.order_by(alerts.c.opened_at.desc()).limit(most))
    return [
        Alert(
            _text(row.alert_id), row.about["error_type"], row.about["place"], row.rule,
            row.opened_at, row.resolved_at, row.errors, row.people,
        )
        for row in found
    ]  # fmt: skip


def _unsent(connection: Connection, which: Any) -> list[Unsent]:
    query = alert_notifications.select().where(which).order_by(alert_notifications.c.made_at)
    return [
        Unsent(
            _text(row.alert_id), row.kind, row.sink, row.made_at, row.due_at, row.died_at,
            row.attempts, row.fault,
        )
        for row in connection.execute(query)
    ]  # fmt: skip


def _text(alert_id: bytes) -> str:
    return str(uuid.UUID(bytes=bytes(alert_id)))
