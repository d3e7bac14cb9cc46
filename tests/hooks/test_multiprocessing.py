"""The end of processes that multiprocessing starts, each in the ways there are to start one."""

from __future__ import annotations

import signal
import sys
import textwrap
from multiprocessing import util

import pytest

from pbmon.hooks.multiprocessing import MultiprocessingHook
from tests.fresh import run

PROGRAM = textwrap.dedent("""
    import atexit, concurrent.futures, multiprocessing, os, sys, time
    from pbmon import runtime
    from pbmon.hooks.multiprocessing import MultiprocessingHook

    def note(*values):
        with open(os.environ["OUT"], "a") as out:
            out.write(" ".join(map(str, values)) + "\\n")

    def name():
        return "main" if multiprocessing.parent_process() is None else "child"

    class Errors:
        def seen(self, error):
            note(name(), "error", type(error).__name__)

    runtime.active.errors = Errors()
    runtime.active.flush = lambda timeout_s: note(name(), "flush", timeout_s > 0)
    MultiprocessingHook().instrument(skip_dep_check=True)
    atexit.register(lambda: note(name(), "atexit"))

    def work(what):
        note("child", "works")
        if what == "exit":
            sys.exit(3)
        if what == "raise":
            sys.stderr = open(os.devnull, "w")
            raise ValueError
        if what == "hang":
            time.sleep(60)

    def start_in_except(process):
        # A forked process has the exception that its parent handles as well.
        try:
            raise LookupError
        except LookupError:
            process.start()

    if __name__ == "__main__":
        how, what = sys.argv[1:]
        context = multiprocessing.get_context(None if how == "default" else how)
        start = multiprocessing.Process if how == "default" else context.Process
        if what == "pool":
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                pool.submit(work, "return").result()
            sys.exit(0)
        process = start(target=work, args=(what,))
        start_in_except(process)
        if what == "hang":
            while not (os.path.exists(os.environ["OUT"]) and os.path.getsize(os.environ["OUT"])):
                time.sleep(0.01)
            process.terminate()
        process.join()
        sys.exit(process.exitcode % 256)
""")

WAYS = ["fork", "forkserver", "spawn"]


def ended(tmp_path, how, what):
    """Exit status of the child and, by process, what was written down."""
    program, out = tmp_path / "program.py", tmp_path / "out"
    program.write_text(PROGRAM)
    done = run(sys.executable, str(program), how, what, OUT=str(out))
    assert done.stderr == ""
    lines = out.read_text().splitlines()
    # The process that forks on behalf of others has imported the program as well.
    seen = {n: [l.split()[1] for l in lines if l.startswith(n)] for n in ("main", "child")}
    return done.returncode, seen


@pytest.mark.parametrize(
    ("what", "status"), [("return", 0), ("exit", 3), ("raise", 1), ("pool", 0)]
)
@pytest.mark.parametrize("how", WAYS)
def test_each_process_flushes_or_runs_its_atexit(tmp_path, how, what, status):
    code, seen = ended(tmp_path, how, what)
    assert code == status
    works, *errors, end = seen["child"]
    assert works == "works"
    assert errors == (["error"] if what == "raise" else [])
    assert "error" not in seen["main"]
    # Python 3.13 lets a forkserver's process run its atexit too.
    assert end in {"fork": ["flush"], "spawn": ["atexit"]}.get(how, ["flush", "atexit"])
    assert "flush" not in seen["main"]
    assert "atexit" in seen["main"]


def test_a_process_of_no_particular_context(tmp_path):
    code, seen = ended(tmp_path, "default", "exit")
    assert code == 3
    assert len(seen["child"]) == 2


def test_a_terminated_process_is_not_held_up(tmp_path):
    """Its SIGTERM is that of any process; see pbmon.endings."""
    code, seen = ended(tmp_path, "fork", "hang")
    assert (code, seen["child"]) == (-signal.SIGTERM % 256, ["works"])


def test_taken_out_by_identity():
    before = util._exit_function
    MultiprocessingHook().instrument(skip_dep_check=True)
    assert util._exit_function is not before
    MultiprocessingHook().uninstrument()
    assert util._exit_function is before
