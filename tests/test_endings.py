"""SIGTERM and SIGINT in fresh processes: exit statuses, and what was flushed."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.fresh import environment

TERM, INT = signal.SIGTERM, signal.SIGINT
TIMEOUT_S = 60

HEAD = """
import asyncio, atexit, os, signal, sys, threading, time
from pbmon import endings

def flush(full):
    os.write(1, b"full\\n" if full else b"quick\\n")

def ready():
    os.write(1, b"ready\\n")

def say(text):
    os.write(1, text.encode() + b"\\n")

def wait():
    ready()
    while True:
        time.sleep(60)

"""


class Program:
    """A process whose standard output is read line by line."""

    def __init__(self, code, **variables):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEAD + textwrap.dedent(code)],
            env=environment(**variables),
            cwd=Path(sys.prefix),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, text):
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(self.process.communicate()[1])

    def send(self, signum):
        self.process.send_signal(signum)

    def end(self):
        """(exit status, the lines printed since, standard error)"""
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, out.split(), err


@pytest.fixture
def start():
    programs = []

    def starting(code, *signals, **variables):
        """Started and, once it is ready, sent these signals."""
        program = Program(code, **variables)
        programs.append(program)
        program.wait_for("ready")
        for signum in signals:
            program.send(signum)
        return program

    yield starting
    for program in programs:
        with program.process as process:
            if process.poll() is None:
                process.kill()


# --- the default action -----------------------------------------------------------------------


@pytest.mark.parametrize("signum", [TERM, INT])
def test_the_default_action_follows_the_flush(start, signum):
    program = start("signal.signal(signal.SIGINT, signal.SIG_DFL); endings.install(flush); wait()")
    program.send(signum)
    assert program.end() == (-signum, ["full"], "")


def test_an_ignored_signal_stays_ignored(start):
    program = start(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        endings.install(flush)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))
        wait()
        """,
        TERM,
        signal.SIGUSR1,
    )
    assert program.end() == (7, [], "")


def test_a_flush_that_raises_does_not_change_the_end(start):
    program = start(
        "def broken(full): raise ValueError('ours')\nendings.install(broken)\nwait()", TERM
    )
    status, out, err = program.end()
    assert (status, out) == (-TERM, [])
    assert "flush at a signal failed with ValueError" in err
    assert "Traceback" not in err.splitlines()[0]


def test_a_flush_that_hangs_is_waited_for_until_the_deadline(start):
    program = start("endings.FLUSH_S = 0.5\nendings.install(lambda full: time.sleep(60)); wait()")
    begin_s = time.monotonic()
    program.send(TERM)
    assert program.end() == (-TERM, [], "")
    assert 0.5 <= time.monotonic() - begin_s < 30  # of 60


@pytest.mark.parametrize(
    ("previous", "status"), [("signal.SIG_DFL", -TERM), ("lambda *_: sys.exit(7)", 7)]
)
def test_the_same_order_given_again_does_not_end_the_wait(start, previous, status):
    """hypercorn's parent terminates its workers, and multiprocessing once more."""
    program = start(
        f"""
        endings.REPEAT_S = 60
        heard, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        def flush(full):
            for _ in range(3):
                os.read(heard, 1)
                say("heard")
            say("flushed")
        signal.signal(signal.SIGTERM, {previous})
        endings.install(flush)
        wait()
        """,
        TERM,
    )
    for _ in range(2):
        program.wait_for("heard")
        program.send(TERM)
    assert program.end() == (status, ["heard", "flushed"], "")


@pytest.mark.parametrize("second", [TERM, INT])
def test_a_second_signal_ends_at_once(start, second):
    program = start(
        """
        endings.FLUSH_S = 60
        endings.REPEAT_S = 0
        def hanging(full):
            say("flushing")
            time.sleep(60)
        endings.install(hanging)
        wait()
        """,
        TERM,
    )
    program.wait_for("flushing")
    begin_s = time.monotonic()
    program.send(second)
    assert program.end()[:2] == (-TERM, [])
    assert time.monotonic() - begin_s < 10


@pytest.mark.parametrize("lock", ["threading._active_limbo_lock", "threading.Lock()"])
def test_locks_that_the_main_thread_holds_delay_the_end_and_no_more(start, lock):
    """The signal comes while the main thread is inside a `with`; the flush wants the lock too,
    the first one by way of a thread's start."""
    program = start(
        f"""
        endings.FLUSH_S = 0.3
        lock = {lock}
        def flush(full):
            threading.Thread(target=say, args=("started",)).start()
            with lock:
                say("flushed")
        endings.install(flush)
        with lock:
            ready()
            while True:
                time.sleep(60)
        """,
        TERM,
    )
    expected = [] if "limbo" in lock else ["started"]
    assert program.end() == (-TERM, expected, "")


def test_other_threads_do_not_hold_the_end_up(start):
    program = start(
        """
        endings.install(flush)
        for _ in range(3):
            threading.Thread(target=time.sleep, args=(60,)).start()
        wait()
        """,
        TERM,
    )
    assert program.end() == (-TERM, ["full"], "")


def test_a_signal_while_atexit_flushes_ends_at_once(start):
    program = start(
        """
        endings.install(flush)
        def slow():
            ready()
            time.sleep(60)
        atexit.register(slow)
        """
    )
    begin_s = time.monotonic()
    program.send(TERM)
    status, _out, err = program.end()  # Python 3.12 starts no thread here, 3.11 does
    assert (status, err) == (-TERM, "")
    assert time.monotonic() - begin_s < 10


# --- handlers in Python -------------------------------------------------------------------------


def test_a_handler_that_returns_goes_on_and_nothing_is_flushed(start):
    program = start(
        """
        ended = []
        def handler(signum, frame):
            ended.append((signum, frame.f_code.co_name))
        signal.signal(signal.SIGTERM, handler)
        endings.install(flush)
        atexit.register(say, "atexit")
        ready()
        while not ended:
            time.sleep(0.01)
        assert ended in ([(signal.SIGTERM, "<module>")], [(signal.SIGTERM, "ready")]), ended
        sys.exit(3)
        """,
        TERM,
    )
    assert program.end() == (3, ["atexit"], "")


@pytest.mark.parametrize(
    ("raised", "status"),
    [("SystemExit(4)", 4), ("SystemExit()", 0), ("KeyboardInterrupt()", -INT), ("OSError()", 1)],
)
def test_a_handler_that_raises_is_followed_by_a_flush(start, raised, status):
    program = start(
        f"""
        def handler(signum, frame):
            say("handler")
            raise {raised}
        signal.signal(signal.SIGTERM, handler)
        endings.install(flush)
        wait()
        """,
        TERM,
    )
    ended, out, _err = program.end()
    assert (ended, out) == (status, ["handler", "full"])


def test_a_handler_that_raises_again_ends_the_flush(start):
    program = start(
        """
        endings.FLUSH_S = 60
        endings.REPEAT_S = 0
        def handler(signum, frame):
            say("handler")
            sys.exit(5)
        def hanging(full):
            say("flushing")
            time.sleep(60)
        signal.signal(signal.SIGTERM, handler)
        endings.install(hanging)
        wait()
        """,
        TERM,
    )
    program.wait_for("flushing")
    program.send(TERM)
    assert program.end()[:2] == (5, ["handler"])


# --- KeyboardInterrupt --------------------------------------------------------------------------


def test_pythons_own_sigint_is_untouched_and_atexit_flushes(start):
    program = start(
        """
        endings.install(flush)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        atexit.register(flush, True)
        wait()
        """,
        INT,
    )
    status, out, err = program.end()
    assert (status, out) == (-INT, ["full"])
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_asyncio_cancels_the_main_task_as_without_us(start):
    """It takes SIGINT over only where it finds Python's own handler."""
    program = start(
        """
        endings.install(flush)
        async def main():
            asyncio.get_running_loop().call_soon(ready)  # when it sleeps
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                say("cancelled")
                raise
        asyncio.run(main())
        """,
        INT,
    )
    status, out, _err = program.end()
    assert (status, out) == (-INT, ["cancelled"])


# --- event loops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_in_a_running_loop_only_the_quick_hand_over(start, loop):
    pytest.importorskip(loop)
    program = start(
        f"""
        import {loop}
        async def main():
            endings.install(flush)
            ready()
            await asyncio.sleep(60)
        {loop}.run(main())
        """,
        TERM,
    )
    assert program.end() == (-TERM, ["quick"], "")


def test_the_quick_hand_over_has_a_shorter_deadline(start):
    program = start(
        """
        endings.FLUSH_S = 60
        endings.install(lambda full: time.sleep(60))
        async def main():
            ready()
            await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    begin_s = time.monotonic()
    program.send(TERM)
    assert program.end() == (-TERM, [], "")
    assert time.monotonic() - begin_s < 10


def test_after_the_loop_the_flush_is_a_full_one(start):
    program = start(
        "asyncio.run(asyncio.sleep(0)); endings.install(flush); wait()",
        TERM,
    )
    assert program.end() == (-TERM, ["full"], "")


# --- who comes later ----------------------------------------------------------------------------


def test_a_handler_set_later_stands_alone(start):
    program = start(
        """
        endings.install(flush)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(6))
        wait()
        """,
        TERM,
    )
    assert program.end() == (6, [], "")


def test_a_handler_set_later_that_calls_what_it_found_decides_itself(start):
    """Without us it would have found the default action, which can't be called."""
    program = start(
        """
        endings.install(flush)
        found = signal.getsignal(signal.SIGTERM)
        ended = []
        def handler(signum, frame):
            if callable(found):
                found(signum, frame)
            ended.append(signum)
        signal.signal(signal.SIGTERM, handler)
        ready()
        while not ended:
            time.sleep(0.01)
        sys.exit(8)
        """,
        TERM,
    )
    assert program.end() == (8, ["full"], "")


def test_a_handler_set_later_that_puts_back_what_it_found(start):
    """As uvicorn and coverage do: raise the signal again once their own work is done."""
    program = start(
        """
        endings.install(flush)
        def handler(signum, frame):
            say("handler")
            signal.signal(signum, found)
            signal.raise_signal(signum)
        found = signal.signal(signal.SIGTERM, handler)
        wait()
        """,
        TERM,
    )
    assert program.end() == (-TERM, ["handler", "full"], "")


def test_installed_twice_flushes_once_by_the_newer(start):
    program = start(
        "endings.install(lambda full: say('older')); endings.install(flush); wait()", TERM
    )
    assert program.end() == (-TERM, ["full"], "")


def test_a_thread_sets_no_handler(start):
    program = start(
        """
        thread = threading.Thread(target=endings.install, args=(flush,))
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        endings.remove()
        wait()
        """,
        TERM,
    )
    assert program.end() == (-TERM, [], "")


# --- remove() -----------------------------------------------------------------------------------


def test_removed_by_identity(start):
    program = start(
        """
        def handler(signum, frame): pass
        signal.signal(signal.SIGINT, handler)
        endings.install(flush)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is not handler
        endings.remove()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is handler
        endings.remove()
        wait()
        """,
        TERM,
    )
    assert program.end() == (-TERM, [], "")


def test_removed_under_a_later_handler_which_stays(start):
    program = start(
        """
        def first(signum, frame): say("first")
        signal.signal(signal.SIGTERM, first)
        endings.install(flush)
        found = signal.getsignal(signal.SIGTERM)
        def later(signum, frame):
            found(signum, frame)
            sys.exit(9)
        signal.signal(signal.SIGTERM, later)
        endings.remove()
        assert signal.getsignal(signal.SIGTERM) is later
        wait()
        """,
        TERM,
    )
    assert program.end() == (9, ["first"], "")


# --- a server -------------------------------------------------------------------------------------

SERVER = """
    import uvicorn
    async def app(scope, receive, send): raise RuntimeError
    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            ready()
    INSTALL
    Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off")).run()
"""


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("signum", [TERM, INT])
def test_uvicorn_ends_as_without_us(start, signum, installed):
    """It raises the signal again through the handler it found, in its running loop."""
    code = SERVER.replace("INSTALL", "endings.install(flush)" if installed else "")
    program = start(code, signum)
    status, out, _err = program.end()
    if signum == TERM:
        assert (status, out) == (-TERM, ["quick"] if installed else [])
    else:
        assert (status, out) == (-INT, [])
