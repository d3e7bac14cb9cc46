"""Each way a telemetry path can be broken, and what was lost by it.

experiment(stack, scale) -> Result. Ground truth is what the load generator saw answered, what the
application wrote to a file and what the sink acknowledged; nothing is asked of the stack itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tests.faults import sink
from tests.faults.lab import App, Lab
from tests.faults.load import Generator, flood
from tests.faults.sink import Mode

MEMORY_BYTES = 5 * 2**20
EXIT_S = 1.0
EXIT_HANGING_S = 5.0
# How long the bare server takes by itself: gunicorn's master looks after its workers once a second.
BARE_EXIT_S = {"gunicorn": 1.0, "gunicorn --preload": 1.0}
SLOWER = 0.05
KILLED_RECORDS_S = 0.25
KILLED_COUNTS_S = 1.0
CLOCK_S = 0.001
BOOKS = "pbmon.spool.records"
SIGNALS = ("traces", "logs", "metrics")
# What the spool refused it never accepted.
SIGNS = {"accepted": 1, "delivered": -1, "dropped": -1, "refused": 0}


@dataclass(frozen=True)
class Scale:
    """full: the figures of docs/reliability.md; reduced: seconds, for the tests."""

    name: str

    def pick(self, full: float, reduced: float) -> float:
        return full if self.name == "full" else reduced

    @property
    def rate(self) -> float:
        """Requests per second. The reduced forms are short: what fills a queue comes faster."""
        return self.pick(100.0, 400.0)

    @property
    def patience_s(self) -> float:
        """How long nothing may come before the rest counts as lost."""
        return self.pick(9.0, 4.0)


FULL = Scale("full")
REDUCED = Scale("reduced")


@dataclass
class Result:
    """done: requests answered. Losses in per cent; missed: the bars that were not met.

    said: what the stack itself complained of, for whoever looks for the cause.
    """

    name: str
    stack: str
    done: int
    spans: float = 0.0
    logs: float = 0.0
    counters: float = 0.0
    figures: dict[str, str] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def require(self, met: bool, bar: str) -> None:
        if not met:
            self.missed.append(bar)


Experiment = Callable[[str, Scale], Result]
EXPERIMENTS: dict[str, Experiment] = {}


def _measure(name: str, lab: Lab, app: App | None = None, *, is_exact: bool = True) -> Result:
    """The losses so far, and what no experiment may show. app, is_exact: see keep_books()."""
    counted, answered = lab.truth(), len(lab.sent.answered)
    done = len(lab.sent.answered | set(counted) - lab.sent.sent)
    accepted = lab.accepted
    result = Result(name, lab.stack, done)
    keep_books(result, lab, app, is_exact=is_exact)  # first: a flush may still bring something
    result.spans = _per_cent(lab.missing_spans(), answered + done)
    result.logs = _per_cent(lab.missing_logs(), done)
    result.counters = _per_cent(lab.missing_counts(), len(counted) + answered + lab.others)
    result.require(done > 0, "nothing was answered")
    twice = lab.counted_twice()
    if twice:
        result.figures["counted twice"] = f"{twice:.0f}"
    result.require(not twice, "no counter twice")
    result.require(not accepted.decreases, f"no counter backwards ({accepted.decreases})")
    result.require(not accepted.negative_durations, "no negative duration")
    result.require(not lab.sink.undecodable, "every export can be decoded")
    result.said = lab.complaints()
    duplicates = accepted.duplicate_spans + accepted.duplicate_logs
    if duplicates:
        result.figures["duplicates"] = str(duplicates)
    return result


def _require_nothing_lost(result: Result) -> None:
    for what in ("spans", "logs", "counters"):
        lost = getattr(result, what)
        result.require(lost == 0.0, f"0 {what} lost ({lost:.2f} %)")


def _per_cent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else 0.0


def keep_books(
    result: Result,
    lab: Lab,
    app: App | None = None,
    *,
    is_exact: bool = True,
    wait_s: float = 2.0,
) -> None:
    """accepted = delivered + waiting + dropped of each signal, in pbmon's own figures as they
    arrived. Nothing is under way any more, so nothing may be said to wait.

    app: asked to export its metrics until they balance.
    is_exact: that they do is a bar.
    """
    if lab.stack == "pbmon":
        for _ in range(3):
            if app is not None:
                app.get("/flush")
            if _balanced(lab, SIGNALS, wait_s):
                break
        left = ", ".join(f"{s} off by {n:.0f}" for s, n in _unsettled(lab).items() if n)
        books = (left or "balanced") if lab.total(BOOKS) else "none"
        result.figures["books"] = books
        result.require(books == "balanced" or not is_exact, f"books: {books}")
    for (outcome, reason), value in lab.by_attribute(
        BOOKS, "pbmon.outcome", "pbmon.reason"
    ).items():
        if outcome in ("dropped", "refused") and value:
            result.figures[f"{outcome} as {reason}"] = f"{value:.0f}"


def _balanced(lab: Lab, signals: tuple[str, ...], wait_s: float) -> bool:
    """Whether they come to balance within the time."""
    try:
        lab.wait(lambda: not any(map(_unsettled(lab).get, signals)), "balanced books", wait_s)
    except AssertionError:
        return False
    return True


def _unsettled(lab: Lab) -> dict[str, float]:
    """accepted - delivered - dropped, by signal."""
    left = dict.fromkeys(SIGNALS, 0.0)
    for (signal_, outcome), value in lab.by_attribute(
        BOOKS, "pbmon.signal", "pbmon.outcome"
    ).items():
        if signal_ in left:  # errors go to the store as well, which has books of its own
            left[str(signal_)] += value * SIGNS[str(outcome)]
    return left


def _outage(name: str, mode: Callable[[], Mode], full_s: float, stack: str, scale: Scale) -> Result:
    with Lab(stack) as lab:
        lab.rate = scale.rate
        app = lab.start()
        calm = lab.load(app, scale.pick(5.0, 0.5))
        before = app.memory()
        lab.sink.become(mode())
        storm = lab.load(app, scale.pick(full_s, 2.5))
        during = app.memory()
        lab.sink.become(sink.ok())
        took_s = lab.settle(app, scale.patience_s)
        after = app.memory()
        calm_again = lab.load(app, scale.pick(4.0, 0.1))
        lab.settle(app, scale.patience_s)
        result = _measure(name, lab, app)
    grown = max(during, after) - before
    result.figures["memory"] = f"{grown / 2**20:+.1f} MB"
    result.figures["p50"] = (
        f"{calm.p50_s * 1000:.2f} → {storm.p50_s * 1000:.2f} → {calm_again.p50_s * 1000:.2f} ms"
    )
    result.figures["recovered in"] = f"{took_s:.1f} s"
    _require_nothing_lost(result)
    if scale == FULL:  # the reduced forms load faster than they warm up
        result.require(grown <= MEMORY_BYTES, f"memory +5 MB ({result.figures['memory']})")
        is_slower = clearly_slower(storm.p50_s, calm.p50_s, calm_again.p50_s)
        result.require(not is_slower, f"p50 within 5 % ({result.figures['p50']})")
    return result


def clearly_slower(during_s: float, before_s: float, after_s: float) -> bool:
    """Whether p50 was more than 5 % longer than in the slower of the calm times around, and by
    more than those differ from each other: so much the machine does by itself."""
    noise_s = max(SLOWER * max(before_s, after_s), abs(before_s - after_s))
    return during_s > max(before_s, after_s) + noise_s


for _name, _mode, _full_s in (
    ("sink refused", sink.refused, 60.0),
    ("sink hangs", sink.hanging, 30.0),
    ("sink answers after 2 s", partial(sink.slow, 2.0), 8.0),
    ("500", partial(sink.status, 500), 8.0),
    ("401", partial(sink.status, 401), 8.0),
    ("503, Retry-After", partial(sink.status, 503, retry_after_s=1), 8.0),
    ("301", sink.redirect, 8.0),
    ("garbage 200", sink.garbage, 8.0),
    ("partial success", sink.partial, 8.0),
):
    EXPERIMENTS[_name] = partial(_outage, _name, _mode, _full_s)

QUIET = frozenset((*EXPERIMENTS, "cardinality"))
"""Those that are asked how long an answer takes, or for memory: nothing may run beside them."""


def _terminated(
    name: str, server: str, is_hanging: bool, count: int, stack: str, scale: Scale
) -> Result:
    with Lab(stack, server) as lab:
        # Short of what stock OpenTelemetry sends by itself: the end of the process decides.
        lab.rate = 100.0
        app = lab.start(FAULTS_COUNT=str(count))
        lab.load(app, scale.pick(4.0, 1.0))
        if is_hanging:
            lab.sink.become(sink.hanging())
        under_way = lab.loading(app, 60.0)
        _await(lab, under_way, 0.5)
        exit_s = app.terminate()
        lab.ended(under_way.stop())
        if is_hanging:
            lab.sink.become(sink.ok())
            app = lab.start()
            lab.settle(None, scale.patience_s)  # the dead one's metrics come by themselves
            _end_with_books(lab, app)
        # Of several processes the one that ends last may adopt what the others left, deliver some
        # of it, and end before it has told.
        result = _measure(name, lab, is_exact=not is_hanging or server == "uvicorn")
    result.figures["exit"] = f"{exit_s:.2f} s"
    _require_nothing_lost(result)
    limit_s = (EXIT_HANGING_S if is_hanging else EXIT_S) + BARE_EXIT_S.get(server, 0.0)
    limit_s += scale.pick(0.0, 10.0)  # the tests run beside others; what counts there is the loss
    result.require(exit_s <= limit_s, f"exit within {limit_s:g} s ({exit_s:.2f} s)")
    return result


for _server, _count in (
    ("uvicorn", 0),
    ("uvicorn, 2 workers", 0),
    ("gunicorn", 0),
    ("gunicorn --preload", 100),
    ("granian", 0),
    ("hypercorn", 0),
):
    for _is_hanging in (False, True):
        _name = f"SIGTERM, {_server}" + (", sink hangs" if _is_hanging else "")
        EXPERIMENTS[_name] = partial(_terminated, _name, _server, _is_hanging, _count)


def _end_with_books(lab: Lab, app: App) -> None:
    """No server has a way to ask all of its workers for their metrics, but at their end.

    Before it, whoever adopted a dead one's spool has told of all that became of it.
    """
    _balanced(lab, ("traces", "logs"), 5.0)
    app.terminate()


def _killed(name: str, is_outage: bool, stack: str, scale: Scale) -> Result:
    with Lab(stack) as lab:
        lab.rate = scale.pick(100.0, 200.0)
        app = lab.start()
        lab.load(app, scale.pick(8.0, 1.0))
        if is_outage:
            lab.sink.become(sink.refused())
        under_way = lab.loading(app, 60.0)
        _await(lab, under_way, scale.pick(20.0 if is_outage else 4.0, 1.0))
        app.kill()
        killed = lab.ended(under_way.stop())
        lab.sink.become(sink.ok())
        app = lab.start()
        lab.load(app, 0.5)
        lab.settle(app, scale.patience_s, *_spare(scale, killed.rate))
        result = _measure(name, lab, app)
        _require_little_lost(result, lab, killed.rate, scale)
    return result


def _worker_killed(name: str, stack: str, scale: Scale) -> Result:
    """One of two workers dies, as the kernel ends one for its memory; the server starts another."""
    with Lab(stack, "gunicorn") as lab:
        lab.rate = scale.pick(100.0, 200.0)
        app = lab.start()
        under_way = lab.loading(app, 60.0)
        _await(lab, under_way, scale.pick(8.0, 2.0))
        os.kill(app.children(2)[0], signal.SIGKILL)
        _await(lab, under_way, scale.pick(12.0, 3.0))
        killed = lab.ended(under_way.stop())
        lab.settle(app, scale.patience_s, *_spare(scale, killed.rate))
        _end_with_books(lab, app)
        result = _measure(name, lab)
        _require_little_lost(result, lab, killed.rate, scale)
    return result


def _damaged(name: str, stack: str, scale: Scale) -> Result:
    """An outage, a kill, and files that a broken disk cut short and changed before the restart."""
    with Lab(stack) as lab:
        app = lab.start()
        lab.sink.become(sink.refused())
        lab.load(app, scale.pick(8.0, 1.0))
        if stack == "pbmon":
            app.get("/flush")  # all of it is in the spool, and stays there
        app.kill()
        if stack == "pbmon":
            _damage(lab)
        lab.sink.become(sink.ok())
        app = lab.start()
        lab.load(app, 0.5)
        if stack == "pbmon":
            lab.wait(lambda: all(_dropped(lab, s) for s in SIGNALS[:2]), "what was dropped", 30.0)
        else:
            lab.settle(app, scale.patience_s)
        result = _measure(name, lab, app)
        for signal_, missing in (("traces", lab.missing_spans()), ("logs", lab.missing_logs())):
            dropped = _dropped(lab, signal_)
            result.figures[f"{signal_} lost"] = f"{missing}, dropped as corrupt {dropped:.0f}"
            result.require(missing == dropped, f"every lost item in the books ({signal_})")
    result.require(result.counters == 0.0, f"0 counters lost ({result.counters:.2f} %)")
    return result


def _damage(lab: Lab) -> None:
    """Half of the spans' records cut off, one bit in the middle of the log records turned."""
    traces = max(lab.home.glob("state/spool/*/*/traces-*.seg"))
    os.truncate(traces, len(traces.read_bytes().rstrip(b"\0")) // 2)
    logs = max(lab.home.glob("state/spool/*/*/logs-*.seg"))
    data = bytearray(logs.read_bytes())
    data[len(data.rstrip(b"\0")) // 2] ^= 1
    logs.write_bytes(data)


def _dropped(lab: Lab, signal_: str) -> float:
    return lab.total(BOOKS, pbmon_signal=signal_, pbmon_outcome="dropped", pbmon_reason="corrupt")


def _spare(scale: Scale, rate: float) -> tuple[float, float]:
    """What may be lost isn't waited for, but where the figure is wanted: records of each kind, and
    counts, of which each request has two."""
    return scale.pick(0.0, KILLED_RECORDS_S * rate), scale.pick(0.0, 2 * KILLED_COUNTS_S * rate)


def _await(lab: Lab, under_way: Generator, seconds: float) -> None:
    """Until as many were answered as belong to the time."""
    enough = lab.rate * seconds
    lab.wait(lambda: len(under_way.load.answered) >= enough, "load under way", 60.0)


def _require_little_lost(result: Result, lab: Lab, rate: float, scale: Scale) -> None:
    """rate: requests per second at the moment of the kill.

    Beside other tests a thread may stand still for as long as the bar is; what would be lost
    without a spool, the whole life of the process, is two seconds in the reduced form.
    """
    records_limit_s = scale.pick(KILLED_RECORDS_S, 1.0)
    counts_limit_s = scale.pick(KILLED_COUNTS_S, 1.5)
    records_s = max(lab.missing_spans() / 2, lab.missing_logs()) / rate
    counts_s = lab.missing_counts() / 2 / rate
    result.figures["lost"] = f"{records_s:.2f} s of records, {counts_s:.2f} s of counts"
    result.require(records_s <= records_limit_s, f"≤ {records_limit_s} s of spans and logs")
    result.require(counts_s <= counts_limit_s, f"≤ {counts_limit_s} s of counters")


EXPERIMENTS["SIGKILL"] = partial(_killed, "SIGKILL", False)
EXPERIMENTS["outage, SIGKILL"] = partial(_killed, "outage, SIGKILL", True)
EXPERIMENTS["SIGKILL, files damaged"] = partial(_damaged, "SIGKILL, files damaged")
EXPERIMENTS["SIGKILL of a worker"] = partial(_worker_killed, "SIGKILL of a worker")


def _burst(name: str, stack: str, scale: Scale) -> Result:
    with Lab(stack) as lab:
        lab.rate = 50.0
        app = lab.start()
        lab.sink.become(sink.slow(0.5))
        lab.load(app, scale.pick(5.0, 0.5))
        burst = lab.load(app, scale.pick(10.0, 3.0), 10 * lab.rate)
        lab.load(app, scale.pick(5.0, 0.5))
        lab.settle(app, scale.patience_s)
        result = _measure(name, lab, app)
    result.figures["burst"] = f"{burst.rate:.0f} requests/s"
    _require_nothing_lost(result)
    return result


def _fork(name: str, stack: str, scale: Scale) -> Result:
    with Lab(stack) as lab:
        process = lab.spawn(["python", "-m", "tests.faults.forking"])
        process.wait(60.0)
        lab.settle(None, scale.pick(2.0, 1.0))
        result = _measure(name, lab)
        result.figures["total"] = (
            f"{lab.total('test.work'):.0f} for {len(lab.truth())}, "
            f"{len(lab.accepted.instances())} instances"
        )
    _require_nothing_lost(result)
    return result


POISONS = (
    "names",
    "surrogate",
    "huge",
    "giant",
    "bytes",
    "nan",
    "add%20text",
    "add%20huge",
    "add%20nan",
)


def _poisoned(
    name: str, kinds: tuple[str, ...], mode: Callable[[], Mode], stack: str, scale: Scale
) -> Result:
    """Every hundredth request carries a poison; none of the others may suffer."""
    with Lab(stack) as lab:
        lab.rate = scale.pick(100.0, 300.0)
        app = lab.start()
        lab.sink.become(mode())
        under_way = lab.loading(app, scale.pick(30.0, 3.0))
        poisoned = 0
        while not under_way.is_done:
            if len(under_way.load.answered) >= 100 * poisoned:
                app.get(f"/poison/{kinds[poisoned % len(kinds)]}")
                poisoned += 1
            time.sleep(0.002)
        lab.ended(under_way.wait())
        lab.others += poisoned
        lab.settle(app, scale.patience_s)
        result = _measure(name, lab, app)
    result.figures["poisoned"] = str(poisoned)
    result.require(poisoned >= len(kinds), "every kind of poison was tried")
    _require_nothing_lost(result)
    return result


def _clock(name: str, stack: str, scale: Scale) -> Result:
    """The wall clock goes an hour on and an hour back, each in the middle of a request."""
    true_s: dict[int, float] = {}
    with Lab(stack, has_clock=True) as lab:
        app = lab.start()
        for number in range(round(scale.pick(200, 40))):
            lab.sent.sent.add(number)
            true_s[number] = float(app.get(f"/hold/{number}?step_s={(-1) ** number * 3600}"))
            lab.sent.answered.add(number)
        lab.settle(app, scale.patience_s)
        result = _measure(name, lab, app)
        durations_s = lab.accepted.durations_s
        errors_s = sorted(
            abs(durations_s.get((number, "child"), 0.0) - true) for number, true in true_s.items()
        )
        errors_s += [
            durations_s.get((number, "server"), 0.0) - true for number, true in true_s.items()
        ]
    errors_s.sort(key=abs)
    usual_s, worst_s = errors_s[len(errors_s) // 2], errors_s[-1]
    result.figures["durations off by"] = f"{usual_s * 1000:.2f} ms, worst {worst_s * 1000:.2f} ms"
    # A server span encloses what was measured, and a busy machine may stop any thread for a
    # while; a clock that was believed is off by an hour.
    usual_limit_s, worst_limit_s = scale.pick(CLOCK_S, 0.05), scale.pick(0.25, 10.0)
    result.require(abs(usual_s) <= usual_limit_s, f"durations within {usual_limit_s * 1000:g} ms")
    result.require(abs(worst_s) <= worst_limit_s, "no duration off by more than a machine's pause")
    _require_nothing_lost(result)
    return result


def _cardinality(name: str, stack: str, scale: Scale) -> Result:
    """Clients name hosts, paths and methods as they like; every failure is of its own type."""
    from tests.faults.app import ROUTES

    many = round(scale.pick(20_000, 2_500))

    def strangers(first: int, count: int) -> Iterator[bytes]:
        for n in range(first, first + count):
            head = f"M{n} /nothing/{n} HTTP/1.1\r\nHost: h{n}.example\r\nConnection: close\r\n\r\n"
            yield head.encode()

    def failures(first: int, count: int) -> Iterator[bytes]:
        for n in range(first, first + count):
            yield f"GET /fail/{n} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()

    with Lab(stack, "uvicorn, h11") as lab:
        app = lab.start()
        lab.load(app, 1.0)
        warm = round(scale.pick(2_000, 100))
        flood(app.port, strangers(0, warm))
        flood(app.port, failures(0, warm))
        app.get("/flush")
        before = app.memory()
        answered = flood(app.port, strangers(warm, many)) + flood(
            app.port, failures(warm, round(scale.pick(20_000, 1_000)))
        )
        lab.load(app, 1.0)
        app.get("/flush")
        grown = app.memory() - before
        lab.settle(app, scale.patience_s)
        result = _measure(name, lab, app)
        with lab.sink.lock:
            series, most = max((len(each), name) for name, each in lab.accepted.series.items())
            names = len(lab.accepted.span_names)
    result.done += answered
    result.figures["series"] = f"{series} of {most}"
    result.figures["span names"] = str(names)
    result.figures["memory"] = f"{grown / 2**20:+.1f} MB"
    result.require(series <= 2000, f"2,000 series an instrument ({result.figures['series']})")
    result.require(names <= ROUTES + 1, f"{ROUTES + 1} span names ({names})")
    if scale == FULL:
        result.require(grown <= MEMORY_BYTES, f"memory +5 MB ({result.figures['memory']})")
    return result


EXPERIMENTS |= {
    "burst, slow sink": partial(_burst, "burst, slow sink"),
    "fork after counting": partial(_fork, "fork after counting"),
    "poisoned records": partial(_poisoned, "poisoned records", POISONS, sink.ok),
    "sink rejects a record": partial(
        _poisoned, "sink rejects a record", ("marked",), sink.rejecting_poison
    ),
    "clock steps": partial(_clock, "clock steps"),
    "cardinality": partial(_cardinality, "cardinality"),
}


def run(name: str, stack: str, scale: Scale) -> Result:
    """One experiment by its name; that it broke down is a result as well."""
    try:
        return EXPERIMENTS[name](stack, scale)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return Result(name, stack, 0, 100.0, 100.0, 100.0, missed=[f"broke down: {reason}"])


def leave_on_request() -> None:
    """In a pool: end by way of every `with`, so that an interrupted run leaves no server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
