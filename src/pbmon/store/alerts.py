"""Alerts: opened and resolved by the windows of `error_slots`, in one transaction with what each
sink is to get of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, bindparam, case, func, select, text

from pbmon import catalog
from pbmon.alerting.choices import AlertChoices
from pbmon.alerting.notices import FIRING, REPEAT, RESOLVED
from pbmon.alerting.rules import (
    LATE,
    SECOND,
    Counted,
    Known,
    Rule,
    Step,
    decide,
    judged_from,
    newest_beyond,
)
from pbmon.runtime import Figure
from pbmon.store import schema
from pbmon.store.access import asking
from pbmon.store.engine import reading
from pbmon.store.errors import chunks
from pbmon.store.schema import DAY
from pbmon.store.tables import (
    alert_notifications,
    alerts,
    error_people,
    error_slots,
    errors,
    insert_of,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

Clock = Callable[["Connection"], int]

_LOCK = 0x70626D6F6E41  # "pbmonA": of pg_advisory_xact_lock
_OPENED_AT_ONCE = 100
"""By one look: in SQLite nobody else writes meanwhile."""


class Change(NamedTuple):
    """What became of an alert. alert_id: UUID as text."""

    step: Step
    alert_id: str
    error_type: str
    place: str


class _Case(NamedTuple):
    """A fingerprint to decide about. alert_id: of the alert that is open."""

    fingerprint: bytes
    rule: Rule
    known: Known | None
    alert_id: bytes | None
    errors: int
    """In the window that ends now."""
    all_errors: int
    """In that and in earlier windows that are looked at."""


class _Decision(NamedTuple):
    case: _Case
    step: Step
    counted: Counted
    most: int
    """Errors in one of the windows that were looked at."""


class Judge:
    """Opens and resolves alerts. clock: the store's. Each method raises StoreError."""

    def __init__(self, engine: Engine, choices: AlertChoices, clock: Clock = schema.clock) -> None:
        self._engine = engine
        self._choices = choices
        self._clock = clock
        self._insert = insert_of(engine)

    def judge(self, *, late: bool) -> list[Change]:
        """One look at all fingerprints; what changed. late: also at windows that are over, whose
        errors may have come to the store late."""

        def attempt() -> list[Change]:
            with reading(self._engine).connect() as connection:
                if not self._decisions(connection, self._clock(connection), late=late):
                    return []
            with self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                # Anew: another may have decided it since.
                now = self._clock(connection)
                return self._carry_out(connection, now, self._decisions(connection, now, late=late))

        return asking(attempt)

    # --- what is the case ---

    def _decisions(self, connection: Connection, now: int, *, late: bool) -> list[_Decision]:
        cases = self._cases(connection, now, late=late)
        people = _people(
            connection,
            [each for each in cases if each.rule.people is not None],
            now,
        )
        overdue = self._overdue(connection, cases, now) if late else {}
        made = []
        for each in cases:
            late_at, most = overdue.get(each.fingerprint, (None, 0))
            counted = Counted(each.errors, people.get(each.fingerprint, 0), late_at)
            step = decide(each.rule, now, counted, each.known)
            if step not in (Step.NOTHING, Step.WAIT) or self._is_repeat_due(each, now):
                made.append(_Decision(each, step, counted, max(most, each.errors)))
        opened = [each for each in made if each.step is Step.OPEN]
        opened.sort(key=lambda each: each.most, reverse=True)
        left = {each.case.fingerprint for each in opened[_OPENED_AT_ONCE:]}  # to the next look
        return [each for each in made if each.case.fingerprint not in left]

    def _cases(self, connection: Connection, now: int, *, late: bool) -> list[_Case]:
        """Fingerprints with an alert that is open, or with errors enough for one."""
        is_open = {
            bytes(row.fingerprint): row
            for row in connection.execute(
                select(
                    alerts.c.fingerprint, alerts.c.alert_id, alerts.c.last_at, alerts.c.about
                ).where(alerts.c.resolved_at.is_(None))
            )
        }
        counted = {
            bytes(row.fingerprint): (row.error_type, int(row.now), int(row.all))
            for row in self._counts(connection, now, late=late)
        }
        closed = self._closed(connection, now)
        made = []
        for fingerprint in {**is_open, **counted}:
            row = is_open.get(fingerprint)
            error_type, errors_now, all_errors = counted.get(
                fingerprint, (row.about["error_type"] if row is not None else "", 0, 0)
            )
            rule = self._choices.rule_of(error_type)
            known = Known(row.last_at, None) if row is not None else closed.get(fingerprint)
            if row is None and (rule.floor is None or all_errors <= rule.floor):
                continue
            alert_id = bytes(row.alert_id) if row is not None else None
            made.append(_Case(fingerprint, rule, known, alert_id, errors_now, all_errors))
        return made

    def _counts(self, connection: Connection, now: int, *, late: bool) -> Sequence[Any]:
        floor = self._choices.floor
        if floor is None:
            return ()
        first = self._choices.rule.first_slot(now)
        counts = (
            select(
                error_slots.c.fingerprint,
                func.sum(case((error_slots.c.slot >= first, error_slots.c.errors), else_=0))
                .label("now"),
                func.sum(error_slots.c.errors).label("all"),
            )
            .where(error_slots.c.slot.between(first - (LATE if late else 0), now))
            .group_by(error_slots.c.fingerprint)
            .having(func.sum(error_slots.c.errors) > floor)
            .subquery()
        )  # fmt: skip
        query = select(counts, errors.c.error_type).join(
            errors, errors.c.fingerprint == counts.c.fingerprint
        )
        return connection.execute(query).all()

    def _closed(self, connection: Connection, now: int) -> dict[bytes, Known]:
        """Of the fingerprints whose last alert may keep a new one from opening."""
        since = now - LATE - int(self._choices.rule.cooldown_s * SECOND)
        query = (
            select(
                alerts.c.fingerprint,
                func.max(alerts.c.last_at).label("last_at"),
                func.max(alerts.c.resolved_at).label("resolved_at"),
            )
            .where(alerts.c.resolved_at > since)
            .group_by(alerts.c.fingerprint)
        )
        return {
            bytes(row.fingerprint): Known(row.last_at, row.resolved_at)
            for row in connection.execute(query)
        }

    def _overdue(
        self, connection: Connection, cases: Sequence[_Case], now: int
    ) -> dict[bytes, tuple[int, int]]:
        """Of the fingerprints that may have been beyond their rule in an earlier window alone:
        as newest_beyond()."""
        asked = {
            each.fingerprint: each
            for each in cases
            if each.rule.errors is not None
            and each.errors <= each.rule.errors < each.all_errors
            and judged_from(each.rule, now, each.known) <= now
        }
        first = self._choices.rule.first_slot(now) - LATE
        slots: dict[bytes, dict[int, int]] = {}
        for chunk in chunks(list(asked)):
            query = error_slots.select().where(
                error_slots.c.slot.between(first, now), error_slots.c.fingerprint.in_(chunk)
            )
            for row in connection.execute(query):
                slots.setdefault(bytes(row.fingerprint), {})[row.slot] = row.errors
        found = {}
        for fingerprint, each in asked.items():
            beyond = newest_beyond(
                each.rule,
                slots.get(fingerprint, {}),
                judged_from(each.rule, now, each.known),
                now,
            )
            if beyond is not None:
                found[fingerprint] = beyond
        return found

    def _is_repeat_due(self, each: _Case, now: int) -> bool:
        return each.alert_id is not None and each.rule.repeat_s is not None

    # --- what is done about it ---

    def _carry_out(
        self, connection: Connection, now: int, decisions: Sequence[_Decision]
    ) -> list[Change]:
        people = _people(connection, [each.case for each in decisions], now)
        changes: list[Change] = []
        kept = []
        for each in decisions:
            met = people.get(each.case.fingerprint, 0)
            if each.step is Step.OPEN:
                changes += self._open(connection, now, each, met)
            elif each.step is Step.RESOLVE:
                changes += self._resolve(connection, now, each)
            else:
                if each.step is Step.KEEP:
                    kept.append(
                        {
                            "key": each.case.alert_id,
                            "at": self._last_at(each, met, now),
                            "errors": each.most,
                            "people": met,
                        }
                    )
                self._repeat(connection, now, each)
        if kept:
            connection.execute(_KEEP, kept)
        return changes

    def _last_at(self, each: _Decision, people: int, now: int) -> int:
        """When it was last beyond its rule."""
        is_now = each.case.rule.is_beyond(each.case.errors, people)
        return now if is_now or each.counted.late_at is None else each.counted.late_at

    def _open(
        self, connection: Connection, now: int, each: _Decision, people: int
    ) -> Iterator[Change]:
        about = _about(connection, each.case.fingerprint, each.most, people)
        alert_id = uuid.uuid4().bytes
        row = {
            "alert_id": alert_id,
            "rule": str(each.case.rule)[:200],
            "fingerprint": each.case.fingerprint,
            "about": about,
            "opened_at": now,
            "last_at": self._last_at(each, people, now),
            "errors": each.most,
            "people": people,
        }
        made = connection.execute(
            self._insert(alerts).on_conflict_do_nothing().returning(alerts.c.alert_id), row
        ).first()
        if made is not None:
            self._notify(connection, alert_id, FIRING, now, list(self._choices.sinks))
            yield _change(each.step, alert_id, about)

    def _resolve(self, connection: Connection, now: int, each: _Decision) -> Iterator[Change]:
        alert_id = each.case.alert_id
        assert alert_id is not None
        done = connection.execute(
            alerts.update()
            .where(alerts.c.alert_id == alert_id, alerts.c.resolved_at.is_(None))
            .values(resolved_at=now)
            .returning(alerts.c.about)
        ).first()
        if done is None:
            return
        of_it = alert_notifications.c.alert_id == alert_id
        connection.execute(
            alert_notifications.delete().where(
                of_it, UNFINISHED, alert_notifications.c.kind.startswith(REPEAT)
            )
        )
        self._notify(connection, alert_id, RESOLVED, now, self._told(connection, alert_id))
        yield _change(each.step, alert_id, done.about)

    def _repeat(self, connection: Connection, now: int, each: _Decision) -> None:
        """Tell an alert that is open again, if it is time: the newest reminder is the only one."""
        alert_id, repeat_s = each.case.alert_id, each.case.rule.repeat_s
        if alert_id is None or repeat_s is None:
            return
        opened_at = connection.execute(
            select(alerts.c.opened_at).where(alerts.c.alert_id == alert_id)
        ).scalar_one()
        number = (now - opened_at) // int(repeat_s * SECOND)
        kind = f"{REPEAT}{number}"
        there = select(alert_notifications.c.kind).where(
            alert_notifications.c.alert_id == alert_id, alert_notifications.c.kind == kind
        )
        if number < 1 or connection.execute(there).first() is not None:
            return
        connection.execute(
            alert_notifications.delete().where(
                alert_notifications.c.alert_id == alert_id,
                UNFINISHED,
                alert_notifications.c.kind.startswith(REPEAT),
            )
        )
        self._notify(connection, alert_id, kind, now, self._told(connection, alert_id))

    def _told(self, connection: Connection, alert_id: bytes) -> list[str]:
        """The sinks that got its beginning, or are to get it."""
        query = select(alert_notifications.c.sink).where(
            alert_notifications.c.alert_id == alert_id, alert_notifications.c.kind == FIRING
        )
        return [name for name in connection.execute(query).scalars() if name in self._choices.sinks]

    def _notify(
        self, connection: Connection, alert_id: bytes, kind: str, now: int, sinks: Sequence[str]
    ) -> None:
        rows = [
            {
                "alert_id": alert_id, "kind": kind, "sink": name, "made_at": now, "due_at": now,
                "attempts": 0,
            }
            for name in sinks
        ]  # fmt: skip
        if rows:
            connection.execute(self._insert(alert_notifications).on_conflict_do_nothing(), rows)

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)


UNFINISHED = and_(alert_notifications.c.sent_at.is_(None), alert_notifications.c.died_at.is_(None))


def _most(name: str) -> Any:
    column = alerts.c[name]
    value: Any = bindparam(name)
    return case((column < value, value), else_=column)


_KEEP = (
    alerts.update()
    .where(alerts.c.alert_id == bindparam("key"))
    .values(last_at=bindparam("at"), errors=_most("errors"), people=_most("people"))
)


def _people(connection: Connection, cases: Sequence[_Case], now: int) -> dict[bytes, int]:
    """Fingerprint → whom it met in the window that ends now."""
    found: dict[bytes, int] = {}
    if not cases:
        return found
    first = cases[0].rule.first_slot(now)
    for chunk in chunks([each.fingerprint for each in cases]):
        query = (
            select(error_people.c.fingerprint, func.count())
            .where(error_people.c.fingerprint.in_(chunk), error_people.c.last_at >= first)
            .group_by(error_people.c.fingerprint)
        )
        found.update({bytes(key): count for key, count in connection.execute(query)})
    return found


def _about(
    connection: Connection, fingerprint: bytes, errors_now: int, people: int
) -> dict[str, Any]:
    """What is known of the error now; what is told of its beginning stays so."""
    row = connection.execute(errors.select().where(errors.c.fingerprint == fingerprint)).one()
    return {
        "error_type": row.error_type,
        "place": row.place,
        "route": row.route,
        "release": row.last_release,
        "is_new": row.last_release is not None and row.first_release == row.last_release,
        "first_at": row.first_at,
        "trace_id": bytes(row.trace_id).hex() if row.trace_id is not None else None,
        "errors": errors_now,
        "people": people,
    }


def _change(step: Step, alert_id: bytes, about: Mapping[str, Any]) -> Change:
    return Change(step, str(uuid.UUID(bytes=alert_id)), about["error_type"], about["place"])


def figures(connection: Connection) -> Iterator[Figure]:
    """Alerts that are open, and what sinks have not got."""
    is_open = select(func.count()).select_from(alerts).where(alerts.c.resolved_at.is_(None))
    yield Figure(catalog.ALERTS_OPEN, connection.execute(is_open).scalar_one(), {})
    of = alert_notifications.c
    died = func.count(case((of.died_at > schema.clock(connection) - DAY, 1)))
    waiting = func.count(case((UNFINISHED, 1)))
    query = select(of.sink, waiting.label("waiting"), died.label("dead")).group_by(of.sink)
    for row in connection.execute(query.order_by(of.sink)):
        for state in catalog.NOTIFICATION_STATE.values:
            attributes = {catalog.ALERT_SINK.name: row.sink, catalog.NOTIFICATION_STATE.name: state}
            yield Figure(catalog.ALERTS_NOTIFICATIONS, getattr(row, state), attributes)


def forget(connection: Connection, before: int) -> None:
    """Delete alerts that were over before this time (µs since the epoch), with what was told."""
    old = select(alerts.c.alert_id).where(alerts.c.resolved_at < before)
    connection.execute(alert_notifications.delete().where(alert_notifications.c.alert_id.in_(old)))
    connection.execute(alerts.delete().where(alerts.c.resolved_at < before))
