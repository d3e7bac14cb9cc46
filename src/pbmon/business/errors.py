"""Errors: what nobody handled, and track_error(). Each moves a counter and, within limits, is an
entry of its own; what goes beyond the limits is summed and written down within a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import Meter

from pbmon import catalog, errors, identity, privacy, runtime, signals
from pbmon.business import reading, sentry
from pbmon.business.intake import Taker
from pbmon.business.refusals import refuse
from pbmon.business.tallies import Sum, Tallies
from pbmon.errors import ErrorSummary, Fingerprint
from pbmon.parsing import MAX_RELEASE
from pbmon.runtime import ACCEPTED, Refused, Verdict
from pbmon.settings import Settings
from pbmon.spool import entries

_MAX_LIMIT = 1000
_FAILED = Refused("failed")
_WRITE_WAIT_S = 1.0


class ErrorMonitor:
    """The runtime.ErrorSink. release: that of the application. apply() changes the settings while
    it runs."""

    def __init__(
        self, settings: Settings, meter: Meter, intake: Taker, release: Callable[[], str | None]
    ) -> None:
        self._counts = signals.Counts(catalog.ERRORS, meter)
        self._intake = intake
        self._find_release = release
        self._begin()
        signals.enlist(self)
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        self._is_kept = settings.error_monitor
        release = self._find_release()
        self._release = release[:MAX_RELEASE] if release is not None else None

    def _begin(self) -> None:
        self._tallies = Tallies()
        self._writing = threading.Lock()

    def forget(self) -> None:
        """In a forked child."""
        self._begin()

    # --- the ErrorSink ---

    def seen(self, error: BaseException, *, route: str | None = None, trace_id: int = 0) -> None:
        try:
            if errors.is_failure(error):
                self._take(error, route, trace_id)
        except Exception as ours:
            signals.failed("error monitor", ours)

    def track(self, error: BaseException, user_id: str | None) -> Verdict:
        try:
            taken = self._take(error, None, 0, user_id=user_id, handled=True)
        except RecursionError:  # of the application, which is still as deep
            return _FAILED
        except Exception as ours:
            with suppress(RecursionError):
                signals.failed("error monitor", ours)
            return _FAILED
        if taken is None:
            return ACCEPTED
        fingerprint, route, reason = taken
        sentry.capture(error, fingerprint, route, self._release)
        return Refused(reason) if reason else ACCEPTED

    def write_sums(self) -> None:
        with signals.guard("writing errors down"):
            # Who comes while another thread writes waits for it: the process may end afterwards.
            if not self._writing.acquire(timeout=_WRITE_WAIT_S):
                return
            try:
                for each in self._tallies.take():
                    self._write_sum(each)
            finally:
                self._writing.release()

    # --- one exception ---

    def _take(
        self,
        error: BaseException,
        route: str | None,
        trace_id: int,
        *,
        user_id: str | None = None,
        handled: bool = False,
    ) -> tuple[Fingerprint, str | None, str] | None:
        """Count it: fingerprint, route, and why it was not kept; None if it was counted before."""
        trace_id = trace_id or trace.get_current_span().get_span_context().trace_id
        if not _mark(error, trace_id):
            return None
        try:
            fingerprint = errors.fingerprint(error)
            if fingerprint is None:  # a thread of ours ended by it
                signals.tell("own", "pbmon: %s ended a part of pbmon itself", errors.type_of(error))
                return None
            route = route if route is not None else identity.route()
            reason = ""
            if self._is_kept:
                reason = self._keep(error, fingerprint, route, trace_id, user_id, handled=handled)
        except BaseException:
            _unmark(error)  # where it passes next it may be counted
            raise
        self._count(fingerprint.error_type, route)
        return fingerprint, route, reason

    def _count(self, error_type: str, route: str | None) -> None:
        key: signals.Key = ((catalog.ERROR_TYPE.name, error_type),)
        if route is not None:
            key = (*key, (catalog.ROUTE.name, route))
        self._counts.cell(key).up()

    def _keep(
        self,
        error: BaseException,
        fingerprint: Fingerprint,
        route: str | None,
        trace_id: int,
        user_id: str | None,
        *,
        handled: bool,
    ) -> str:
        at = time.time_ns() // 1000
        hex_id = f"{trace_id:032x}" if trace_id else None
        person = identity.current()
        session_id = None
        if person is not None:
            user_id, session_id = user_id or person.user_id, person.session_id
            if person.consent_of(user_id) is False:
                user_id = session_id = None
        chosen = self._tallies.choose(fingerprint, at, user_id or session_id, route, hex_id)
        if chosen.ended is not None:
            self._write_sum(chosen.ended)
        if not chosen.is_own:
            return ""
        frames = None
        if chosen.is_first:
            frames = privacy.frames(errors.traceback_of(error), errors.FRAMES)
        entry = entries.Failure(
            at, *fingerprint, 1, handled, route, self._release, frames,
            user_id, session_id, hex_id,
        )  # fmt: skip
        reason = self._put(entry)
        if reason and not handled:  # nobody hears of it: it is tried again with the sums
            self._tallies.put_back(Sum(fingerprint, 1, at, route, hex_id))
        return reason

    def _write_sum(self, sum_: Sum) -> None:
        fingerprint, count, last_at, route, trace_id = sum_
        entry = entries.Failure(
            last_at, *fingerprint, count, False, route, self._release, None, None, None,
            trace_id,
        )  # fmt: skip
        if self._put(entry):
            self._tallies.put_back(sum_)

    def _put(self, entry: entries.Failure) -> str:
        """Past outbox(): an error is none the less where the transaction is rolled back."""
        payload = entries.encode(entry)
        if runtime.outbox.get() is None:
            return self._intake.put(payload)
        token = runtime.outbox.set(None)
        try:
            return self._intake.put(payload)
        finally:
            runtime.outbox.reset(token)


_MARK = "_pbmon_counted"
_get: Any = BaseException.__getattribute__
_set: Any = BaseException.__setattr__


def _mark(error: BaseException, trace_id: int) -> bool:
    """Whether it is to be counted: it was not yet; or it was for another request, which met the
    same object, as one that waits for the same result."""
    try:
        known: int | None = _get(error, _MARK)
    except Exception:  # there is none
        known = None
    if known is not None and (known == trace_id or not trace_id):
        return False
    # On the exception itself, so that nothing here keeps it: whatever its class says of attributes,
    # and it has no slots. Where it can't be, it counts at each place that it passes.
    with suppress(Exception):
        _set(error, _MARK, trace_id)
    return known != 0


def _unmark(error: BaseException) -> None:
    with suppress(Exception):
        BaseException.__delattr__(error, _MARK)


def track_error(error: BaseException, user_id: str | int | None = None) -> Verdict:
    """Count an exception that you handle, as pbmon does by itself with those that nobody handles.

        try:
            charge(card)
        except CardError as error:
            pbmon.track_error(error)

    error: the exception. The same object counts once, also where it is raised again.
    user_id: whom it met; if left out, the user of the request or of pbmon.context().

    Its message, arguments and local variables are not kept. Errors are told apart by their type and
    the innermost function of the application. Where the application has initialised sentry_sdk, it
    goes there too, with tags and without what carries people's data.

    Returns Accepted: it is in the spool, or in a sum that is written to it within a second. Or a
    falsy Refused: bad_user_id; full, io_error, no_state_directory, busy, shut_down; failed;
    not_configured before configure(). Under strict a wrong value is raised as ValueError. Raises
    TypeError for what is no exception.
    Goes to the store (setting `error_monitor`), and to the metric pbmon.errors.
    """
    if not isinstance(error, BaseException):
        raise TypeError(f"error must be an exception, not {type(error).__name__}")
    known = None
    if user_id is not None:
        known = identity.checked("user_id", user_id)
        if known is None:
            return refuse("track_error", "bad_user_id", "user_id must have 1 to 255 characters")
    return runtime.active.errors.track(error, known)


def error_summary(
    limit: int = 10, *, since: datetime | timedelta | None = None, release: str | None = None
) -> list[ErrorSummary]:
    """The most frequent errors, of all processes, the most frequent first.

    limit: how many, 1 to 1,000. since: an aware time, or how long ago; exact to ten seconds within
        the last day, before it to the hour, and with `release` always. release: this one alone.
        Without both it is all that is in the store (setting `errors_retention_days`).

    Returns an ErrorSummary for each.
    Raises ValueError, and StoreError where the store can't be read, or it takes longer than 10 s.
    It waits for the store: in a coroutine call it in a thread.
    """
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be int, not {type(limit).__name__}")
    if not 1 <= limit <= _MAX_LIMIT:
        raise ValueError(f"limit must be 1 to {_MAX_LIMIT}")
    if release is not None and not isinstance(release, str):
        raise TypeError(f"release must be str, not {type(release).__name__}")
    if isinstance(since, timedelta):
        try:
            since = datetime.now(timezone.utc) - since
        except OverflowError:
            raise ValueError("since is longer ago than there are dates") from None
    elif since is not None and not isinstance(since, datetime):
        raise TypeError(f"since must be datetime or timedelta, not {type(since).__name__}")
    if since is not None and since.utcoffset() is None:
        raise ValueError("since needs a time zone, such as UTC")
    start = reading.micros(since) if since is not None else None
    return reading.store().errors(limit, start, release)
