"""Answers to surveys: how they are kept, and the figures that they make."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, and_, func, select

from pbmon import surveys
from pbmon.privacy import K, hidden
from pbmon.spool.entries import Feedback
from pbmon.store.tables import feedback, sessions
from pbmon.surveys import Comment, FeedbackSummary, Figures, Survey

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pbmon.store.writer import Batch

COMMENTS = 20


class FeedbackBook:
    """The store.writer.Book of answers: each once, of people who agree and of nobody."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._answers: list[tuple[str, bytes, Feedback]] = []
        """Source, key and content."""

    def add(self, source: str, key: bytes, entry: Feedback, *, again: bool) -> None:
        self._answers.append((source, key, entry))

    def people(self) -> Iterable[tuple[str, bool | None]]:
        return [
            (entry.user_id, entry.consent)
            for *_, entry in self._answers
            if entry.user_id is not None
        ]

    def store(self, connection: Connection) -> None:
        rows: dict[bytes, tuple[str, dict[str, Any]]] = {}
        for source, key, entry in self._answers:
            row = self._row(source, key, entry)
            if row is None:
                continue
            if row["id"] in rows:
                self._batch.drop(source, "duplicate")
            else:
                rows[row["id"]] = (source, row)
        if not rows:
            return
        add = self._batch.writer.insert(feedback).on_conflict_do_nothing()
        stored = connection.execute(
            add.returning(feedback.c.id), [row for _, (_, row) in sorted(rows.items())]
        )
        fresh = {bytes(key) for key in stored.scalars()}
        for key, (source, _) in rows.items():
            if key in fresh:
                self._batch.keep(source)
            else:
                self._batch.drop(source, "duplicate")

    def _row(self, source: str, key: bytes, entry: Feedback) -> dict[str, Any] | None:
        """As it may be stored; none if it is dropped."""
        batch, writer = self._batch, self._batch.writer
        subject = None
        whose = b""
        if entry.user_id is not None:
            person = batch.people.person(entry.user_id)
            if person.is_deleted:
                batch.drop(source, "deleted")
                return None
            if not batch.people.may_keep(person, entry.consent, entry.occurred_at):
                batch.drop(source, "consent")
                return None
            subject, whose = person.subject, writer.lookup(entry.user_id)
        if entry.feedback_id is not None:  # of this person: nobody takes another's id from them
            given = b"feedback|" + whose + entry.feedback_id.encode("utf-8", "replace")
            key = hashlib.blake2b(given, digest_size=16).digest()
        keeps_session = subject is not None or entry.consent or writer.basis != "opt-in"
        session = entry.session_id if keeps_session else None
        return {
            "id": key,
            "survey": entry.survey,
            "score": entry.score,
            "comment": entry.comment,
            "occurred_at": entry.occurred_at,
            "subject": subject,
            "session": writer.session(session) if session is not None else None,
            "trace_id": bytes.fromhex(entry.trace_id) if entry.trace_id is not None else None,
            "segments": dict(entry.segments) if entry.segments is not None else None,
        }


# Whose an answer is: the user's, whom the session turned out to be, the session's, or its own.
_WITH_SESSIONS = feedback.outerjoin(sessions, feedback.c.session == sessions.c.session)
_PERSON = func.coalesce(feedback.c.subject, sessions.c.subject, feedback.c.session, feedback.c.id)
_PEOPLE = func.count(_PERSON.distinct())

Ask = Callable[[Select[Any]], Sequence[Any]]
"""From a statement to its rows. Raises StoreError."""


def summarize(
    ask: Ask, start: int, end: int, name: str, survey: Survey, segment: str | None
) -> FeedbackSummary:
    """Figures of a survey by its name. start, end: µs since the epoch, UTC; start is within, end is
    not."""
    within = and_(
        feedback.c.survey == name, feedback.c.occurred_at >= start, feedback.c.occurred_at < end
    )
    none = FeedbackSummary(name, None, None, None, dict.fromkeys(survey.scores), [], {})
    ((responses, people),) = ask(_grouped([], within))
    if people < K:
        return none
    by_score = {row[0]: row[1:] for row in ask(_grouped([feedback.c.score], within))}
    scores = [*survey.scores]  # an answer out of a scale that was another once is in no cell
    answers = {score: by_score.get(score, (0, 0))[0] for score in scores}
    unseen = hidden([by_score.get(score, (0, 0))[1] for score in scores], survey.told())
    comments = [Comment(*row) for row in ask(_newest(within))]
    if unseen is None:
        return none._replace(responses=responses, comments=comments)
    return FeedbackSummary(
        name,
        responses,
        survey.figure(answers),
        surveys.mean(answers),
        {score: None if at in unseen else answers[score] for at, score in enumerate(scores)},
        comments,
        _by_segment(ask, within, survey, segment) if segment is not None else {},
    )


def _by_segment(
    ask: Ask, within: ColumnElement[bool], survey: Survey, segment: str
) -> dict[str | None, Figures]:
    value = feedback.c.segments[segment].as_string()
    answers: dict[str | None, Counter[int]] = {}
    for name, score, count, _ in ask(_grouped([value, feedback.c.score], within)):
        of_value = answers.setdefault(name, Counter())
        if score in survey.scores:
            of_value[score] += count
    told = [(row[0], row[1], row[2]) for row in ask(_grouped([value], within))]
    unseen = hidden([people for *_, people in told], [[1] * len(told)])
    made: dict[str | None, Figures] = {}
    for at, (name, responses, _) in enumerate(told):
        scores = answers.get(name, Counter())
        made[name] = (
            Figures(None, None, None)
            if unseen is None or at in unseen
            else Figures(responses, survey.figure(scores), surveys.mean(scores))
        )
    return made


def _grouped(by: Sequence[ColumnElement[Any]], within: ColumnElement[bool]) -> Select[Any]:
    """Of each group its answers and people."""
    query = select(*by, func.count(), _PEOPLE).select_from(_WITH_SESSIONS).where(within)
    return query.group_by(*by).order_by(*by)


def _newest(within: ColumnElement[bool]) -> Select[Any]:
    return (
        select(feedback.c.occurred_at, feedback.c.score, feedback.c.comment)
        .where(within, feedback.c.comment.is_not(None))
        .order_by(feedback.c.occurred_at.desc(), feedback.c.id)
        .limit(COMMENTS)
    )
