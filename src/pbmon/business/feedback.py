"""Feedback: feedback(), the way of an answer to a survey, and the figures that the answers make."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import Meter

from pbmon import catalog, identity, runtime, segments, signals
from pbmon.business import reading
from pbmon.business.intake import Taker
from pbmon.business.refusals import RefusalError, refuse
from pbmon.runtime import ACCEPTED, NOT_CONFIGURED, Refused, Verdict
from pbmon.scrubbing import scrub
from pbmon.settings import Settings
from pbmon.spool import entries
from pbmon.surveys import Survey

MAX_COMMENT = 2000
"""Characters of a comment that are kept, once it is scrubbed."""

NO_CONSENT = Refused("no_consent")

_MAX_READ = 10 * MAX_COMMENT
_MAX_ID = 255
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}", re.IGNORECASE)


class Responses:
    """The runtime.FeedbackSink. apply() changes the surveys while it runs."""

    def __init__(self, settings: Settings, meter: Meter, intake: Taker) -> None:
        self._counts = signals.Counts(catalog.FEEDBACK_RESPONSES, meter)
        self._intake = intake
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        self._surveys = settings.surveys
        self._segments = settings.segments
        for name, survey in self._surveys.items():  # at 0, so that the first one is an increase
            for score in survey.scores or (None,):
                self._cell(name, score)

    def answer(
        self,
        survey: str,
        score: int | None,
        comment: str | None,
        user_id: str | None,
        feedback_id: str | None,
        trace_id: str | None,
    ) -> Verdict:
        if survey not in self._surveys:
            known = ", ".join(sorted(self._surveys)[:20])
            raise RefusalError("bad_survey", f"survey is not one of {known}")
        kept = _clean(comment) if comment else None
        _check_answer(self._surveys[survey], score, kept)
        _check_ids(feedback_id, trace_id)
        person = identity.current()
        session_id = given = consent = None
        if person is not None:
            consent = person.consent_of(user_id)
            if consent is False:
                self._cell(survey, score).up()
                return NO_CONSENT
            user_id = user_id or person.user_id
            session_id, given = person.session_id, person.segments
        made = entries.Feedback(
            time.time_ns() // 1000,
            survey,
            score,
            kept,
            user_id,
            session_id,
            trace_id.lower() if trace_id is not None else _current_trace(),
            consent,
            feedback_id,
            segments.keep(self._segments, given) or None if given else None,
        )
        reason = self._intake.put(entries.encode(made))
        if reason:
            return Refused(reason)
        self._cell(survey, score).up()
        return ACCEPTED

    def _cell(self, survey: str, score: int | None) -> signals.Cell:
        name = (catalog.SURVEY.name, survey)
        return self._counts.cell(
            ((catalog.SCORE.name, score), name) if score is not None else (name,)
        )


def _clean(comment: str) -> str | None:
    return scrub(comment[:_MAX_READ]).strip()[:MAX_COMMENT] or None


def _check_answer(survey: Survey, score: int | None, comment: str | None) -> None:
    if survey.scale is None:
        if score is not None:
            raise RefusalError("bad_score", "the survey is a text and has no score")
        if comment is None:
            raise RefusalError("no_comment", "an answer to a survey without scores is a comment")
    elif score is None or not survey.scale[0] <= score <= survey.scale[1]:
        lowest, highest = survey.scale
        raise RefusalError("bad_score", f"score must be {lowest} to {highest}")


def _check_ids(feedback_id: str | None, trace_id: str | None) -> None:
    if feedback_id is not None and not 0 < len(feedback_id) <= _MAX_ID:
        raise RefusalError("bad_feedback_id", "feedback_id must have 1 to 255 characters")
    if trace_id is not None and not is_trace_id(trace_id):
        raise RefusalError("bad_trace_id", "trace_id must be 32 hexadecimal digits, not all 0")


def is_trace_id(text: str) -> bool:
    """As W3C Trace Context defines it, in capitals too."""
    return _TRACE_ID.fullmatch(text) is not None


def _current_trace() -> str | None:
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}" if span.trace_id else None


def feedback(
    score: int | None = None,
    *,
    survey: str = "nps",
    comment: str | None = None,
    user_id: str | int | None = None,
    feedback_id: str | None = None,
    trace_id: str | None = None,
) -> Verdict:
    """Record what somebody answered to a survey.

    score: for nps 0 to 10, for csat 1 to 5, or as [surveys.NAME] says; none for a survey of texts.
    survey: nps, csat, text, or one of the setting `surveys`.
    comment: what they wrote. E-mail addresses, IBANs, cards, IP addresses, phone numbers and
        credentials in it are replaced before it is written down anywhere; 2,000 characters stay.
    user_id: who; if left out, the user of the request or of pbmon.context().
    feedback_id: the application's own id, 1 to 255 characters; a second answer of the same user
        with the same id is not stored.
    trace_id: 32 hexadecimal digits of the trace it is about; if left out, the current one.

    Returns Accepted: it is in the spool, survives this process, and is stored as an event is: only
    if its person has agreed to analytics, or is nobody that is known. Or a falsy Refused:
    bad_survey, bad_score, no_comment, bad_user_id, bad_feedback_id, bad_trace_id; no_consent;
    full, io_error, no_state_directory, busy, shut_down; not_configured before configure(). Under
    strict a wrong value is raised as ValueError.
    Goes to the store, and to the metric pbmon.feedback.responses.
    """
    sink = runtime.active.feedback
    if sink is None:
        return NOT_CONFIGURED
    if score is not None and (isinstance(score, bool) or not isinstance(score, int)):
        raise TypeError(f"score must be int, not {type(score).__name__}")
    texts = (("comment", comment), ("feedback_id", feedback_id), ("trace_id", trace_id))
    for name, value in (("survey", survey), *((n, v) for n, v in texts if v is not None)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be str, not {type(value).__name__}")
    known = None
    if user_id is not None:
        known = identity.checked("user_id", user_id)
        if known is None:
            return refuse("feedback", "bad_user_id", "user_id must have 1 to 255 characters")
    try:
        return sink.answer(survey, score, comment, known, feedback_id, trace_id)
    except RefusalError as error:
        return refuse("feedback", error.reason, str(error))


def feedback_summary(
    start: datetime, end: datetime, *, survey: str = "nps", segment: str | None = None
) -> Any:
    """What people answered to a survey, from the store.

    start, end: aware datetimes; start is within, end is not. segment: name of a segment, for the
    figures of each of its values too.

    Returns a FeedbackSummary: survey; responses, their number; figure: for nps the NPS (percentage
    of 9 and 10 less that of 0 to 6, -100 to 100), for csat the percentage of the two best scores,
    for text None; mean of the scores; distribution, score → answers; comments, the newest 20,
    each with its time, score and text; segments, value (None: without) → responses, figure, mean.
    What is said of fewer than 10 people is None, and so is as much beside it as it takes that
    nobody can compute it from the rest. Who was never known counts once for each session, or else
    for each answer.

    Raises ValueError for an unknown survey or segment, a naive datetime, or an end not after the
    start; StoreError where the store can't be asked, with the remedy.
    """
    for name, value in (("start", start), ("end", end)):
        if not isinstance(value, datetime):
            raise TypeError(f"{name} must be datetime, not {type(value).__name__}")
        if value.utcoffset() is None:
            raise ValueError(f"{name} needs a time zone, such as UTC")
    if start >= end:
        raise ValueError("end must be after start")
    settings = runtime.active.settings
    if survey not in settings.surveys:
        raise ValueError(f"survey is not one of {', '.join(sorted(settings.surveys))}")
    if segment is not None and segment not in settings.segments:
        known = ", ".join(settings.segments) or "none; see the setting `segments`"
        raise ValueError(f"segment is not one of those there are: {known}")
    chosen = settings.surveys[survey]
    return reading.store().feedback(
        reading.micros(start), reading.micros(end), survey, chosen, segment
    )
