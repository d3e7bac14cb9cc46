"""Work that must be over by a deadline, whatever it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pbmon import signals


def within(timeout_s: float, tasks: list[Callable[[], Any]]) -> bool:
    """Run the tasks side by side and wait for them until the deadline, never longer.

    Daemon threads: a foreign exporter may sleep through a shutdown while it retries.
    """
    done: list[bool] = []

    def run(task: Callable[[], Any]) -> None:
        with signals.guard("flush"):
            done.append(task() is not False)

    deadline = time.monotonic() + timeout_s
    threads: list[threading.Thread] = []
    for task in tasks:
        thread = threading.Thread(target=run, args=(task,), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # Python 3.12 starts none once the interpreter is exiting
            run(task)
        else:
            threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return len(done) == len(tasks) and all(done)
